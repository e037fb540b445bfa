#include "storage/ledger_file.h"

#include <algorithm>
#include <charconv>

#include "base/crc32c.h"
#include "storage/blake2b.h"
#include "storage/sealer.h"

namespace walvault::storage {
namespace {

constexpr std::string_view kLedgerMagic = "WVLEDG1\n";
constexpr std::string_view kDirectory = "ledger/";
constexpr std::string_view kSuffix = ".log";
constexpr std::size_t kSequenceDigits = 20;
constexpr std::size_t kSectorBytes = 512;
// A signature may end in a zero byte or two by chance, not in this many.
constexpr std::size_t kUnwrittenBytesMin = 16;

ByteBuffer signed_bytes(const Id16& repository_id, ByteSpan payload) {
    ByteBuffer bytes;
    append(bytes, as_bytes("walvault ledger 1"));
    append(bytes, repository_id);
    append(bytes, payload);
    return bytes;
}

std::uint64_t sequence_of_name(std::string_view name) {
    if (name.size() != kDirectory.size() + kSequenceDigits + kSuffix.size() ||
        !name.starts_with(kDirectory) || !name.ends_with(kSuffix))
        return 0;
    std::uint64_t sequence = 0;
    const char* first = name.data() + kDirectory.size();
    auto [end, error] = std::from_chars(first, first + kSequenceDigits, sequence);
    return error == std::errc{} && end == first + kSequenceDigits ? sequence : 0;
}

// True where the bytes from `start`, somewhere before `end`, turn into nothing but zeros at a
// sector's edge: space that the file system gave the file before the power went, but not yet the
// bytes.
bool is_unwritten(ByteSpan bytes, std::size_t start, std::size_t end) {
    std::size_t zeros_start = bytes.size();
    while (zeros_start > start && bytes[zeros_start - 1] == std::byte{0})
        --zeros_start;
    if (zeros_start == start) return true;
    std::size_t sector = (zeros_start + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
    return sector < end && bytes.size() - sector >= kUnwrittenBytesMin;
}

// What stands at an offset of a ledger file.
struct RecordScan {
    enum class State { whole, torn, damaged } state = State::damaged;
    std::size_t size_bytes = 0;
    std::string damage;
};

RecordScan scan_record(ByteSpan bytes, std::size_t offset) {
    using State = RecordScan::State;
    ByteSpan rest = bytes.subspan(offset);
    if (rest.size() < kLedgerRecordHeaderBytes) return {State::torn, 0, {}};
    auto payload_bytes = load_le<std::uint32_t>(rest.data());
    auto record_crc = load_le<std::uint32_t>(rest.data() + 4);
    auto header_crc = load_le<std::uint32_t>(rest.data() + 8);
    if (header_crc != crc32c(rest.first(8))) {
        if (is_unwritten(bytes, offset, offset + kLedgerRecordHeaderBytes))
            return {State::torn, 0, {}};
        return {State::damaged, 0, "has a damaged header"};
    }
    if (payload_bytes == 0 || payload_bytes > kLedgerPayloadBytesMax)
        return {State::damaged, 0, "announces " + std::to_string(payload_bytes) + " bytes"};
    std::size_t size = kLedgerRecordOverheadBytes + payload_bytes;
    if (size > rest.size()) return {State::torn, 0, {}};
    if (crc32c(rest.first(size).subspan(kLedgerRecordHeaderBytes)) == record_crc)
        return {State::whole, size, {}};
    if (is_unwritten(bytes, offset, offset + size)) return {State::torn, 0, {}};
    return {State::damaged, 0, "fails its CRC"};
}

tl::unexpected<Error> corrupt_at(const LedgerFileInfo& file, std::uint64_t sequence,
                                 std::size_t offset, const std::string& what) {
    return fail(Errc::corrupt, file.name + ": entry " + std::to_string(sequence) + " at offset " +
                                   std::to_string(offset) + " " + what);
}

}  // namespace

std::string ledger_file_name(std::uint64_t first_sequence) {
    std::string digits = std::to_string(first_sequence);
    return std::string(kDirectory) + std::string(kSequenceDigits - digits.size(), '0') + digits +
           std::string(kSuffix);
}

ByteBuffer encode_ledger_header(const Id16& repository_id, std::uint64_t first_sequence,
                                const Id32& previous_hash) {
    ByteBuffer header;
    append(header, as_bytes(kLedgerMagic));
    append(header, repository_id);
    append_le(header, first_sequence);
    append(header, previous_hash);
    append_le(header, crc32c(header));
    WV_ASSERT(header.size() == kLedgerHeaderBytes);
    return header;
}

ByteBuffer encode_ledger_record(const Id16& repository_id, const LedgerKeys& keys,
                                ByteSpan payload) {
    WV_ASSERT(!payload.empty() && payload.size() <= kLedgerPayloadBytesMax);
    ByteBuffer to_sign = signed_bytes(repository_id, payload);
    std::array<std::byte, kLedgerSignatureBytes> signature;
    crypto_sign_detached(raw(signature.data()), nullptr, raw(to_sign.data()), to_sign.size(),
                         raw(keys.secret_key.view().data()));
    ByteBuffer record;
    record.reserve(kLedgerRecordOverheadBytes + payload.size());
    append_le(record, static_cast<std::uint32_t>(payload.size()));
    record.resize(kLedgerRecordHeaderBytes);
    append(record, payload);
    append(record, signature);
    store_le(record.data() + 4, crc32c(ByteSpan(record).subspan(kLedgerRecordHeaderBytes)));
    store_le(record.data() + 8, crc32c(ByteSpan(record).first(8)));
    return record;
}

Id32 ledger_record_hash(ByteSpan record) {
    return plain_hash(record.subspan(kLedgerRecordHeaderBytes));
}

Result<std::vector<LedgerFileInfo>> list_ledger_files(ObjectStore& store) {
    WV_TRY(auto objects, store.list(std::string(kDirectory)));
    std::vector<LedgerFileInfo> files;
    for (ObjectInfo& object : objects) {
        std::uint64_t sequence = sequence_of_name(object.name);
        if (sequence != 0) files.push_back({std::move(object.name), sequence, object.size_bytes});
    }
    return files;
}

Result<ByteBuffer> read_ledger_file(ObjectStore& store, const LedgerFileInfo& file) {
    constexpr std::uint64_t kBytesMax = kLedgerFileBytesMax + kLedgerHeaderBytes;
    WV_TRY(ByteBuffer bytes, store.get(file.name, 0, kBytesMax + 1));
    if (bytes.size() > kBytesMax)
        return fail(Errc::corrupt, file.name + " is longer than the " + std::to_string(kBytesMax) +
                                       " bytes a ledger file can have");
    return bytes;
}

Result<> LedgerWalk::check_header(const LedgerFileInfo& file, ByteSpan header) {
    auto corrupt = [&](const std::string& what) {
        return fail(Errc::corrupt, file.name + ": " + what);
    };
    ByteReader reader(header);
    if (as_text(reader.bytes(kLedgerMagic.size())) != kLedgerMagic)
        return corrupt("it does not begin as a ledger file");
    ByteSpan repository_id = reader.bytes(repository_id_.size());
    auto first_sequence = reader.le<std::uint64_t>();
    Id32 previous_hash;
    std::ranges::copy(reader.bytes(previous_hash.size()), previous_hash.begin());
    if (reader.le<std::uint32_t>() != crc32c(header.first(kLedgerHeaderBytes - 4)))
        return corrupt("its header fails its CRC");
    if (!std::ranges::equal(repository_id, repository_id_))
        return corrupt("it belongs to repository " + to_hex(repository_id));
    if (first_sequence != file.first_sequence)
        return corrupt("its header begins at entry " + std::to_string(first_sequence));
    if (!started_ && first_sequence > 1) head_ = LedgerHead{first_sequence - 1, previous_hash};
    started_ = true;
    if (first_sequence != head_.sequence + 1)
        return corrupt("entries " + std::to_string(head_.sequence + 1) + " to " +
                       std::to_string(first_sequence - 1) + " before it are missing");
    if (previous_hash != head_.hash) return corrupt("it does not continue the file before it");
    return {};
}

// Too few zeros at the end to say by themselves that they were never written; but signed again, the
// payload gives the same bytes up to them.
bool LedgerWalk::lacks_its_end(ByteSpan rest) const {
    if (rest.size() < kLedgerRecordOverheadBytes) return false;
    const auto payload_bytes = load_le<std::uint32_t>(rest.data());
    if (rest.size() != kLedgerRecordOverheadBytes + payload_bytes || payload_bytes == 0)
        return false;
    ByteSpan payload = rest.subspan(kLedgerRecordHeaderBytes, payload_bytes);
    const ByteBuffer whole = encode_ledger_record(repository_id_, keys_, payload);
    const std::size_t written =
        static_cast<std::size_t>(std::ranges::mismatch(whole, rest).in1 - whole.begin());
    return written >= kLedgerRecordHeaderBytes + payload_bytes &&
           std::ranges::all_of(rest.subspan(written),
                               [](std::byte byte) { return byte == std::byte{0}; });
}

bool LedgerWalk::is_signed(ByteSpan record) const {
    ByteBuffer to_verify = signed_bytes(
        repository_id_,
        record.subspan(kLedgerRecordHeaderBytes, record.size() - kLedgerRecordOverheadBytes));
    return crypto_sign_verify_detached(raw(record.last(kLedgerSignatureBytes).data()),
                                       raw(to_verify.data()), to_verify.size(),
                                       raw(keys_.public_key.data())) == 0;
}

Result<> LedgerWalk::require_signed_head() const {
    if (last_record_.empty() || is_signed(last_record_)) return {};
    return fail(Errc::corrupt, "the ledger's last entry, " + std::to_string(head_.sequence) +
                                   ", is not signed by this repository's key");
}

Result<pb::LedgerEntry> LedgerWalk::check_record(ByteSpan record) const {
    ByteSpan payload =
        record.subspan(kLedgerRecordHeaderBytes, record.size() - kLedgerRecordOverheadBytes);
    if (head_.sequence + 1 > trusted_sequence_ && !is_signed(record))
        return fail(Errc::corrupt, "is not signed by this repository's key");
    pb::LedgerEntry entry;
    if (!entry.ParseFromArray(payload.data(), static_cast<int>(payload.size())))
        return fail(Errc::corrupt, "cannot be parsed");
    if (entry.sequence() != head_.sequence + 1)
        return fail(Errc::corrupt, "says it is entry " + std::to_string(entry.sequence()));
    if (as_bytes(entry.previous_hash()).size() != head_.hash.size() ||
        !std::ranges::equal(as_bytes(entry.previous_hash()), head_.hash))
        return fail(Errc::corrupt, "does not continue the entry before it");
    return entry;
}

Result<std::uint64_t> LedgerWalk::walk(const LedgerFileInfo& file, ByteSpan bytes, bool may_be_torn,
                                       const OnEntry& on_entry) {
    bool header_torn =
        bytes.size() < kLedgerHeaderBytes ||
        std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
    if (header_torn && may_be_torn) return std::uint64_t{0};
    if (header_torn)
        return fail(Errc::corrupt, file.name + " has " + std::to_string(bytes.size()) +
                                       " bytes and no header of " +
                                       std::to_string(kLedgerHeaderBytes));
    WV_CHECK(check_header(file, bytes.first(kLedgerHeaderBytes)));
    std::size_t offset = kLedgerHeaderBytes;
    while (offset < bytes.size()) {
        std::uint64_t sequence = head_.sequence + 1;
        RecordScan scan = scan_record(bytes, offset);
        const bool torn =
            scan.state == RecordScan::State::torn ||
            (scan.state == RecordScan::State::damaged && lacks_its_end(bytes.subspan(offset)));
        if (torn && may_be_torn) return offset;
        if (scan.state == RecordScan::State::torn)
            return corrupt_at(file, sequence, offset, "is incomplete");
        if (scan.state == RecordScan::State::damaged)
            return corrupt_at(file, sequence, offset, scan.damage);
        ByteSpan record = bytes.subspan(offset, scan.size_bytes);
        auto entry = check_record(record);
        if (!entry) return corrupt_at(file, sequence, offset, entry.error().message);
        head_ = LedgerHead{sequence, ledger_record_hash(record)};
        last_record_offset_ = offset;
        last_record_.assign(record.begin(), record.end());
        WV_CHECK(on_entry(*entry, head_));
        offset += scan.size_bytes;
    }
    return offset;
}

}  // namespace walvault::storage
