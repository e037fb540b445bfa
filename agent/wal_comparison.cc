#include "agent/wal_comparison.h"

#include <algorithm>

#include "base/blocking.h"
#include "base/shared_prefix.h"

namespace walvault::agent {
namespace {

constexpr std::uint64_t kStepBytes = 1 << 20;

}  // namespace

WalComparison::WalComparison(Pools& pools, storage::Repository& repository,
                             const storage::HistoryRecord& history, Lsn from)
    : pools_(pools),
      repository_(repository),
      history_(history),
      from_(from),
      next_(from),
      to_(history.parent ? std::max(history.end_lsn, history.fork_lsn) : history.end_lsn),
      stored_start_(from) {}

Task<Result<>> WalComparison::load() {
    const bool own = next_ < history_.end_lsn;
    const Lsn end = own ? history_.end_lsn : to_;
    const Id16 id = own ? history_.id : *history_.parent;
    const Lsn from = next_;
    const Lsn to = std::min(from + kStepBytes, end);
    auto read = [this, id, from, to]() -> Result<ByteBuffer> {
        ByteBuffer bytes;
        WV_CHECK(repository_.wal().read(id, from, to, [&](ByteSpan wal) -> Result<> {
            append(bytes, wal);
            return {};
        }));
        return bytes;
    };
    WV_CO_TRY(stored_, co_await run_on(pools_.store, read));
    stored_start_ = from;
    co_return Result<>();
}

Task<Result<std::optional<Lsn>>> WalComparison::take(ByteSpan wal) {
    while (!wal.empty() && !is_complete()) {
        if (next_ >= stored_start_ + stored_.size()) WV_CO_CHECK(co_await load());
        ByteSpan ours = ByteSpan(stored_).subspan(next_ - stored_start_);
        const std::size_t count = std::min(ours.size(), wal.size());
        const std::size_t same = shared_prefix_bytes(ours, wal);
        next_ = next_ + same;
        if (same < count) co_return std::optional<Lsn>(next_);
        wal = wal.subspan(count);
    }
    if (is_complete()) next_ = next_ + wal.size();
    co_return std::optional<Lsn>();
}

}  // namespace walvault::agent
