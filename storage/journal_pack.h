// JournalPackWriter: a pack of a journal, or of a snapshot's rows: merged batches, key blocks,
// tables.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "proto/journal_keys.h"
#include "storage/pack_writer.h"

namespace walvault::storage {

// The hash by which a key is found in one file: the upper 32 bits of SipHash-2-4 under a key of the
// file's own.
class KeyHash {
public:
    explicit KeyHash(const FileCipher& cipher);
    std::uint32_t operator()(ByteSpan encoded_key) const;

private:
    Id16 key_;
};

// Which batches of a footer that end inside of a transaction are followed by its commit; of others,
// what it began does not count. By place in footer.frames.
std::vector<bool> completed_batches(const pb::PackFooter& footer);

// One thread at a time; blocks. After an error it refuses further use. Memory: 32 MiB for keys, and
// the largest row.
class JournalPackWriter {
public:
    static Result<std::unique_ptr<JournalPackWriter>> create(FileSystem& files,
                                                             const std::string& root,
                                                             const std::string& path,
                                                             FileCipher cipher, int level);

    // One batch, sealed as one frame behind those before, as columns where these have fewer bytes;
    // `start_lsn` is the journal's end before
    // it, or the snapshot's LSN. Errors: corrupt; io, no_space.
    Result<> append(ByteSpan batch, Lsn start_lsn);
    const pb::PackFooter& footer() const { return pack_->footer(); }
    std::uint64_t stored_bytes() const { return pack_->end_offset(); }
    std::uint64_t row_count() const { return row_count_; }  // of snapshots
    const pb::WalSummary& summary() const { return summary_; }
    // Frames, or bytes of the footer, are about as many as a pack can have.
    bool is_full() const;

    // As PackWriter::finish(). The kind, the cluster and LSNs are the caller's.
    Result<pb::PackInfo> finish(pb::PackInfo info);

private:
    JournalPackWriter(std::unique_ptr<PackWriter> pack, int level)
        : pack_(std::move(pack)), level_(level), hash_(pack_->cipher()) {}
    Result<> note_keys(ByteSpan batch, std::uint32_t frame_number);
    Result<> write_keys();

    std::unique_ptr<PackWriter> pack_;
    int level_;
    KeyHash hash_;
    JournalTables tables_;
    std::vector<KeyPlace> places_;
    PartJoiner joiner_;
    std::vector<std::uint32_t> part_frames_;  // that have parts of what it waits for
    pb::WalSummary summary_;
    std::uint64_t row_count_ = 0;
    std::size_t footer_bytes_ = 0;
};

}  // namespace walvault::storage
