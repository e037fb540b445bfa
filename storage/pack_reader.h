// PackReader: random access to the frames of a pack, and the sequential scan of a tail that has no
// footer.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "proto/journal_columns.h"
#include "proto/repository.pb.h"
#include "storage/keyring.h"
#include "storage/object_store.h"
#include "storage/sealer.h"
#include "storage/wal_tracker.h"

namespace walvault::storage {

// The header of a stored file and its cipher. Errors: not_found, corrupt, unsupported, wrong_key
// when the keyring lacks its data key.
Result<FileCipher> open_cipher(ObjectStore& store, const std::string& path, const Keyring& keyring);

class PackReader {
public:
    // Reads header and footer. If `expected` has a footer hash, the footer must be that one.
    static Result<std::shared_ptr<const PackReader>> open(ObjectStore& store,
                                                          const pb::PackInfo& expected,
                                                          const Keyring& keyring);
    // A tail: footer made up by scan_tail().
    PackReader(std::string path, FileCipher cipher, pb::PackFooter footer)
        : path_(std::move(path)), cipher_(std::move(cipher)), footer_(std::move(footer)) {}

    const std::string& path() const { return path_; }
    const FileCipher& cipher() const { return cipher_; }
    const pb::PackFooter& footer() const { return footer_; }
    int frame_count() const { return footer_.frames_size(); }

    // The plain bytes of frame `index`. From any thread. Errors: corrupt naming file and frame,
    // not_found, io.
    Result<> read_frame(ObjectStore& store, int index, ByteBuffer& plain) const;
    // Frames [first, last), which stand in the order of the file, by one read of all that lies from
    // the first to the last.
    Result<> read_frames(ObjectStore& store, int first, int last, ByteBuffer& plain) const;
    // Of a journal: the batch in frame `index`; where a row is sought, perhaps without changes and
    // transactions that have nothing of it, as from_columns() says. Errors as read_frame().
    Result<> read_batch(ObjectStore& store, int index, ByteBuffer& batch,
                        const RowSought* sought = nullptr) const;
    // Of a journal: key block `index` of the footer.
    Result<> read_keys(ObjectStore& store, int index, ByteBuffer& plain) const;
    // Frame `index` from its sealed bytes, where these were read already.
    Result<> unseal_frame(int index, ByteSpan sealed, ByteBuffer& plain) const;
    // Place of a WAL or base frame as its entry tells it.
    static FramePlace place_of(const pb::FrameEntry& entry, StreamKind stream);

private:
    std::string path_;
    FileCipher cipher_;
    pb::PackFooter footer_;
};

// What a tail holds: the whole frames from its start. `torn_bytes` after them are neither a frame
// nor only zeros, which are space written ahead.
struct ScannedTail {
    std::shared_ptr<const PackReader> reader;  // footer: frames with summaries, marks
    FileHeader header;
    Lsn end_lsn;
    pb::WalSummary summary;
    std::int64_t largest_at_us = 0;
    std::uint32_t frame_count = 0;    // with quiet frames
    std::uint32_t synced_frames = 0;  // the largest count a later frame vouches for
    std::uint64_t torn_bytes = 0;
    // Set when synced frames are missing or damaged: what is here is whole, but not all there was.
    std::optional<Error> damage;
};

struct TailScanOptions {
    std::int64_t largest_at_us = 0;  // of all transactions before it in the history
    // WAL up to here was synced, as the start of what follows it in the history proves; zero:
    // nothing follows.
    Lsn reached_lsn;
    // Where decoding begins: the tail's start, or a record start before it; then `prime` feeds what
    // lies between, so that a record that the tail continues is decoded whole. Behind a hole, the
    // tail's first page.
    Lsn decode_from;
    std::function<Result<>(WalTracker&)> prime;
};

// Reads a tail from its start to its last whole frame, decoding WAL for summaries and marks.
// A frame that does not check is the end of the tail if nothing vouches for it, and damage if a
// later frame, `synced_frames_witness` or what follows the tail says that it was synced, or if it
// is authentic and its WAL is not. Errors: corrupt for the file header.
Result<ScannedTail> scan_tail(ObjectStore& store, const std::string& path, const Keyring& keyring,
                              std::uint32_t synced_frames_witness, const TailScanOptions& options);

}  // namespace walvault::storage
