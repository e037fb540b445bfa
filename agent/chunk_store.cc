#include "agent/chunk_store.h"

#include "base/blocking.h"

namespace walvault::agent {
namespace {

struct Named {
    Id32 id{};
    Result<bool> known = false;
};

}  // namespace

struct ChunkStore::Pack {
    std::unique_ptr<storage::PackWriter> writer;
    std::uint32_t next_frame_number = 0;
    std::size_t pending = 0;  // chunks that have a number and are not yet written
    std::vector<Id32> ids;
    bool full = false;
};

ChunkStore::ChunkStore(asio::any_io_executor executor, Pools& pools,
                       storage::Repository& repository, AgentMetrics& metrics,
                       const storage::ClusterRecord& cluster, std::string backup_id, int level)
    : pools_(pools),
      repository_(repository),
      metrics_(metrics),
      cluster_(cluster),
      backup_id_(std::move(backup_id)),
      level_(level),
      room_(executor),
      begun_(executor),
      tasks_(executor) {}

ChunkStore::~ChunkStore() = default;

Task<Result<>> ChunkStore::put(ByteBuffer plain, std::function<void(const Id32&)> on_id) {
    while (!error_ && in_flight_bytes_ >= kInFlightBytes)
        co_await room_.wait();
    if (error_) co_return fail(*error_);
    in_flight_bytes_ += plain.size();
    auto shared = std::make_shared<ByteBuffer>(std::move(plain));
    tasks_.spawn(store_chunk(std::move(shared), std::move(on_id)));
    co_return Result<>();
}

Task<> ChunkStore::store_chunk(std::shared_ptr<ByteBuffer> plain,
                               std::function<void(const Id32&)> on_id) {
    auto name = [this, plain] {
        Named named;
        named.id = storage::content_id(repository_.content_key(), *plain);
        named.known = repository_.has_chunk(named.id);
        return named;
    };
    Named named = co_await run_on(pools_.cpu, std::move(name));
    Result<> stored;
    if (!named.known) stored = fail(named.known.error());
    bool hit = stored && (*named.known || in_pack_.contains(named.id));
    if (hit) {
        metrics_.store_chunk_lookups_hit_total.add();
    } else if (stored && !error_) {
        metrics_.store_chunk_lookups_miss_total.add();
        in_pack_.insert(named.id);
        stored = co_await write_new(named.id, plain);
    }
    if (!stored && !error_) error_ = stored.error();
    if (stored) on_id(named.id);
    in_flight_bytes_ -= plain->size();
    room_.notify();
}

Task<Result<std::shared_ptr<ChunkStore::Pack>>> ChunkStore::pack_to_write() {
    while (beginning_)
        co_await begun_.wait();
    if (error_) co_return fail(*error_);
    if (current_) co_return current_;
    beginning_ = true;
    auto begin = [this, number = ++packs_] {
        return repository_.begin_pack(pb::PACK_KIND_BASE, cluster_, backup_id_, number);
    };
    auto begun = co_await run_on(pools_.store, std::move(begin));
    beginning_ = false;
    begun_.notify();
    if (!begun) co_return fail(begun.error());
    current_ = std::make_shared<Pack>();
    current_->writer = std::move(*begun);
    co_return current_;
}

// The number is given before sealing, because it is authenticated; frames stand in the pack in the
// order in which their sealing ended.
Task<Result<>> ChunkStore::write_new(const Id32& id, std::shared_ptr<ByteBuffer> plain) {
    WV_CO_TRY(std::shared_ptr<Pack> pack, co_await pack_to_write());
    FramePlace place;
    place.frame_number = pack->next_frame_number++;
    place.content_id = id;
    ++pack->pending;
    pack->ids.push_back(id);
    // Of the smallest chunks a pack holds too many for one footer long before it is large.
    if (pack->next_frame_number >= storage::kPackFramesMax) end_pack(pack);
    auto seal = [pack, place, plain, level = level_] {
        return pack->writer->cipher().seal(place, *plain, level);
    };
    auto sealed = std::make_shared<ByteBuffer>(co_await run_on(pools_.cpu, std::move(seal)));
    auto write = [pack, sealed, place, plain]() -> Result<std::uint64_t> {
        pb::FrameEntry entry;
        entry.set_frame_number(place.frame_number);
        entry.set_plain_bytes(static_cast<std::uint32_t>(plain->size()));
        entry.set_content_id(std::string(as_text(place.content_id)));
        WV_CHECK(pack->writer->append(*sealed, std::move(entry)));
        return pack->writer->end_offset();
    };
    auto written = co_await run_on(pools_.backup, std::move(write));
    --pack->pending;
    if (!written) co_return fail(written.error());
    new_chunk_bytes_ += plain->size();
    stored_bytes_ += sealed->size();
    metrics_.store_written_bytes_total.add(static_cast<double>(sealed->size()));
    if (*written >= kPackBytes) end_pack(pack);
    if (pack->full && pack->pending == 0) co_return co_await commit(pack);
    co_return Result<>();
}

// The next chunk begins another one.
void ChunkStore::end_pack(const std::shared_ptr<Pack>& pack) {
    pack->full = true;
    if (current_ == pack) current_.reset();
}

Task<Result<>> ChunkStore::commit(std::shared_ptr<Pack> pack) {
    auto finish = [this, pack]() -> Result<> {
        pb::PackInfo info;
        info.set_kind(pb::PACK_KIND_BASE);
        info.set_cluster(cluster_.name);
        info.set_backup_id(backup_id_);
        auto committed = repository_.commit_pack(std::move(pack->writer), std::move(info));
        if (!committed) return fail(committed.error());
        return {};
    };
    auto committed = co_await run_on(pools_.store, std::move(finish));
    for (const Id32& id : pack->ids)
        in_pack_.erase(id);
    co_return committed;
}

Task<Result<>> ChunkStore::finish() {
    co_await tasks_.join();
    if (error_) co_return fail(*error_);
    std::shared_ptr<Pack> last = std::move(current_);
    current_.reset();
    if (!last || last->ids.empty()) co_return Result<>();
    co_return co_await commit(last);
}

Task<> ChunkStore::abandon() {
    if (!error_) error_ = Error{Errc::cancelled, "the backup was given up"};
    room_.notify();
    co_await tasks_.join();
    current_.reset();
}

}  // namespace walvault::agent
