// The layout of ledger files: header and records, and one walk over them that reader and writer
// share.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "storage/ledger.h"

namespace walvault::storage {

inline constexpr std::size_t kLedgerHeaderBytes = 68;
inline constexpr std::size_t kLedgerSignatureBytes = 64;
// Payload length, CRC-32C of payload and signature, CRC-32C of these two: a length is believed
// before the record is whole, so that a damaged one is never taken for a torn end.
inline constexpr std::size_t kLedgerRecordHeaderBytes = 12;
inline constexpr std::size_t kLedgerRecordOverheadBytes =
    kLedgerRecordHeaderBytes + kLedgerSignatureBytes;
inline constexpr std::uint32_t kLedgerPayloadBytesMax = 1 << 20;
// A record that would make a file longer begins the next one.
inline constexpr std::uint64_t kLedgerFileBytesMax = 4 << 20;

// "ledger/00000000000000000001.log"
std::string ledger_file_name(std::uint64_t first_sequence);

ByteBuffer encode_ledger_header(const Id16& repository_id, std::uint64_t first_sequence,
                                const Id32& previous_hash);
// Signs and frames a serialized entry.
ByteBuffer encode_ledger_record(const Id16& repository_id, const LedgerKeys& keys,
                                ByteSpan payload);
// The hash of a record, which the next entry carries.
Id32 ledger_record_hash(ByteSpan record);

struct LedgerFileInfo {
    std::string name;
    std::uint64_t first_sequence = 0;
    std::uint64_t size_bytes = 0;
};
// In order of sequence; other names in the directory are passed over.
Result<std::vector<LedgerFileInfo>> list_ledger_files(ObjectStore& store);

// Walks files in order and keeps the chain.
class LedgerWalk {
public:
    using OnEntry = std::function<Result<>(const pb::LedgerEntry&, const LedgerHead&)>;
    LedgerWalk(const Id16& repository_id, const LedgerKeys& keys)
        : repository_id_(repository_id), keys_(keys) {}

    // Signatures of entries at or below this sequence are not verified: a later hash that is known
    // proves them, or the signature of the head.
    void set_trusted_sequence(std::uint64_t sequence) { trusted_sequence_ = sequence; }

    // Checks a whole file and calls `on_entry` with each entry and the head after it. Returns where
    // the whole records end: bytes.size(), or less where `may_be_torn` and the rest was never
    // written whole. The first file walked may begin anywhere in the chain. Errors: corrupt, naming
    // file and offset.
    Result<std::uint64_t> walk(const LedgerFileInfo& file, ByteSpan bytes, bool may_be_torn,
                               const OnEntry& on_entry);

    const LedgerHead& head() const { return head_; }
    // The record of head(), as it lies in its file.
    ByteSpan last_record() const { return last_record_; }
    // Where the record of head() begins in the file that was walked last.
    std::uint64_t last_record_offset() const { return last_record_offset_; }
    // Whether the entry at head() is signed: it proves, by the hashes, all that were walked before
    // it. Errors: corrupt.
    Result<> require_signed_head() const;

private:
    Result<> check_header(const LedgerFileInfo& file, ByteSpan header);
    Result<pb::LedgerEntry> check_record(ByteSpan record) const;
    bool is_signed(ByteSpan record) const;
    bool lacks_its_end(ByteSpan rest) const;

    Id16 repository_id_;
    const LedgerKeys& keys_;
    LedgerHead head_;
    std::uint64_t last_record_offset_ = 0;
    ByteBuffer last_record_;
    std::uint64_t trusted_sequence_ = 0;
    bool started_ = false;
};

// A file's bytes. Errors: corrupt if it is longer than a ledger file can be.
Result<ByteBuffer> read_ledger_file(ObjectStore& store, const LedgerFileInfo& file);

}  // namespace walvault::storage
