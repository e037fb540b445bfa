#include "agent/journal_staging.h"

#include "agent/render.h"
#include "proto/frame_format.h"

namespace walvault::agent {
namespace {

constexpr std::size_t kBlockBytes = 1 << 20;
constexpr std::size_t kRecordHeaderBytes = 8;

// What begins a block of streamed changes: from then on messages have their xid in front.
ByteBuffer stream_start(Xid xid) {
    ByteBuffer message{static_cast<std::byte>('S')};
    append_be<std::uint32_t>(message, xid);
    message.push_back(std::byte{1});
    return message;
}

// The server tells of a table once in a transaction, whichever part of it is rolled back later.
bool always_counts(ByteSpan message) {
    const char type = static_cast<char>(message[0]);
    return type == 'R' || type == 'Y';
}

// How many of `bytes` are whole records.
std::size_t whole_records(ByteSpan bytes) {
    std::size_t whole = 0;
    while (bytes.size() - whole >= kRecordHeaderBytes) {
        const std::size_t size = load_le<std::uint32_t>(bytes.data() + whole + 4);
        if (bytes.size() - whole - kRecordHeaderBytes < size) break;
        whole += kRecordHeaderBytes + size;
    }
    return whole;
}

}  // namespace

std::uint64_t JournalStaging::stored_bytes() const {
    std::uint64_t sum = 0;
    for (const auto& [xid, transaction] : transactions_)
        if (transaction.file) sum += transaction.file->stored_bytes();
    return sum;
}

// A record larger than a frame is cut into several blocks of bytes: records do not begin with
// blocks.
Task<Result<>> JournalStaging::write_block(Transaction& transaction) {
    if (stored_bytes() >= bytes_max_)
        co_return fail(Errc::no_space, "transactions in progress take more than journal.staging, " +
                                           format_size(bytes_max_));
    if (!transaction.file) {
        auto create = [this] { return storage::StagingFile::create(files_, directory_); };
        WV_CO_TRY(transaction.file, co_await run_on(disk_, std::move(create)));
    }
    ByteBuffer block = std::exchange(transaction.open, {});
    auto append = [file = transaction.file.get(), block = std::move(block)]() -> Result<> {
        for (ByteSpan rest = block; !rest.empty();) {
            const ByteSpan piece = rest.first(std::min(rest.size(), kBlockBytes));
            WV_CHECK(file->append(piece));
            rest = rest.subspan(piece.size());
        }
        return {};
    };
    co_return co_await run_on(disk_, std::move(append));
}

Task<Result<>> JournalStaging::add(Xid xid, Xid subxid, ByteSpan message) {
    Transaction& transaction = transactions_[xid];
    append_le<std::uint32_t>(transaction.open, subxid);
    append_le<std::uint32_t>(transaction.open, static_cast<std::uint32_t>(message.size()));
    append(transaction.open, message);
    if (transaction.open.size() < kBlockBytes) co_return Result<>{};
    co_return co_await write_block(transaction);
}

void JournalStaging::abort(Xid xid, Xid subxid) {
    auto found = transactions_.find(xid);
    if (found == transactions_.end()) return;
    if (xid == subxid)
        transactions_.erase(found);
    else
        found->second.aborted.insert(subxid);
}

// Takes whole records off `bytes`, and leaves the beginning of one whose end is in the next block.
Task<Result<>> JournalStaging::replay(pgoutput::Decoder& decoder, const std::set<Xid>& aborted,
                                      ByteSpan bytes, const Sink& sink) {
    while (!bytes.empty()) {
        ByteReader reader(bytes);
        const Xid subxid = reader.le<std::uint32_t>();
        const std::size_t size = reader.le<std::uint32_t>();
        const ByteSpan message = bytes.subspan(kRecordHeaderBytes, size);
        bytes = bytes.subspan(kRecordHeaderBytes + size);
        if (aborted.contains(subxid) && !always_counts(message)) continue;
        WV_CO_TRY(const pgoutput::AnyMessage decoded, decoder.decode(message));
        WV_CO_CHECK(co_await sink(decoded, message));
    }
    co_return Result<>{};
}

Task<Result<>> JournalStaging::take(Xid xid, const Sink& sink) {
    auto node = transactions_.extract(xid);
    if (node.empty()) co_return Result<>{};
    Transaction transaction = std::move(node.mapped());
    pgoutput::Decoder decoder;
    const ByteBuffer start = stream_start(xid);
    WV_CO_CHECK(decoder.decode(start));
    ByteBuffer bytes;
    const std::size_t count = transaction.file ? transaction.file->block_count() : 0;
    for (std::size_t number = 0; number < count; ++number) {
        auto read = [file = transaction.file.get(), number]() -> Result<ByteBuffer> {
            ByteBuffer block;
            WV_CHECK(file->read(number, block));
            return block;
        };
        WV_CO_TRY(const ByteBuffer block, co_await run_on(disk_, std::move(read)));
        append(bytes, block);
        const std::size_t whole = whole_records(bytes);
        WV_CO_CHECK(
            co_await replay(decoder, transaction.aborted, ByteSpan(bytes).first(whole), sink));
        bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(whole));
    }
    append(bytes, transaction.open);
    co_return co_await replay(decoder, transaction.aborted, bytes, sink);
}

}  // namespace walvault::agent
