// WalTracker: follows WAL frame by frame: what each frame's index entry and the marks need to say.
#pragma once

#include <optional>
#include <vector>

#include "storage/wal_summary.h"

namespace walvault::storage {

// What the records that end in one frame say.
struct FrameNotes {
    Lsn record_start_lsn;  // start of the first record that ends in it; zero: none does
    pb::WalSummary summary;
    std::vector<pb::MarkEntry> marks;
};

class WalTracker {
public:
    // Decoding begins at `decode_from`: a page boundary or a record start. `largest_at_us` is the
    // largest time stamp of all transactions before the first frame. WAL is fed from `feed_from` on
    // where that is given and lies before: what is behind a hole is told from its first page on.
    static Result<WalTracker> open(const WalDecoderOptions& options, Lsn decode_from,
                                   std::int64_t largest_at_us,
                                   std::optional<Lsn> feed_from = std::nullopt);

    // WAL before the first frame, to have its first records whole. Errors: corrupt.
    Result<> prime(ByteSpan wal);
    // WAL of the current frame. Errors: corrupt.
    Result<> feed(ByteSpan wal);
    // Ends the current frame at end_lsn() and begins the next.
    FrameNotes take_frame();

    Lsn end_lsn() const { return Lsn{decoder_.end_lsn().value - skip_bytes_}; }
    Lsn checked_lsn() const { return decoder_.checked_lsn(); }
    std::int64_t largest_at_us() const { return marks_.largest_at_us(); }

private:
    WalTracker(WalDecoder decoder, Lsn decode_from, std::int64_t largest_at_us)
        : decoder_(std::move(decoder)),
          decode_from_(decode_from),
          frame_start_(decode_from),
          record_start_(decode_from),
          marks_(largest_at_us) {}
    void begin_frame();
    // What of `wal` is to be decoded.
    ByteSpan behind_hole(ByteSpan wal);

    WalDecoder decoder_;
    Lsn decode_from_;
    std::uint64_t skip_bytes_ = 0;  // still to be fed before decode_from_
    Lsn frame_start_;
    Lsn record_start_;
    MarkBuilder marks_;
    FrameNotes notes_;
    std::vector<WalFinding> findings_;
};

}  // namespace walvault::storage
