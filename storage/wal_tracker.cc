#include "storage/wal_tracker.h"

#include <algorithm>

namespace walvault::storage {

Result<WalTracker> WalTracker::open(const WalDecoderOptions& options, Lsn decode_from,
                                    std::int64_t largest_at_us, std::optional<Lsn> feed_from) {
    WV_TRY(WalDecoder decoder, WalDecoder::open(options, decode_from));
    WalTracker tracker(std::move(decoder), decode_from, largest_at_us);
    if (feed_from && *feed_from < decode_from) tracker.skip_bytes_ = decode_from - *feed_from;
    return tracker;
}

ByteSpan WalTracker::behind_hole(ByteSpan wal) {
    const std::size_t count = std::min<std::uint64_t>(skip_bytes_, wal.size());
    skip_bytes_ -= count;
    return wal.subspan(count);
}

void WalTracker::begin_frame() {
    frame_start_ = decoder_.end_lsn();
    // Until a first record was seen whole, nothing later than the beginning is known to start one.
    record_start_ = decoder_.last_record_lsn() ? decoder_.record_start_lsn() : decode_from_;
    notes_ = {};
}

Result<> WalTracker::prime(ByteSpan wal) {
    findings_.clear();
    WV_CHECK(decoder_.feed(behind_hole(wal), findings_));
    begin_frame();
    return {};
}

Result<> WalTracker::feed(ByteSpan wal) {
    findings_.clear();
    WV_CHECK(decoder_.feed(behind_hole(wal), findings_));
    for (const WalFinding& finding : findings_) {
        add_to_summary(notes_.summary, finding);
        marks_.add(finding, notes_.marks);
    }
    return {};
}

FrameNotes WalTracker::take_frame() {
    FrameNotes notes = std::move(notes_);
    bool record_ended = decoder_.checked_lsn() > frame_start_;
    notes.record_start_lsn = record_ended ? record_start_ : Lsn{};
    begin_frame();
    return notes;
}

}  // namespace walvault::storage
