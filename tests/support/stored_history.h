// StoredHistory: WAL made by a seed, stored as the agent stores it, but step by step on one thread.
#pragma once

#include <doctest/doctest.h>

#include <random>

#include "storage/offload_plan.h"
#include "storage/repository.h"
#include "storage/repository_files.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/wal_builder.h"

namespace walvault::storage {

// What a transaction of the made WAL is known by.
struct MadeCommit {
    Lsn start_lsn;
    Xid xid = 0;
    WallTime at;
};

struct MadeWal {
    WalBuilder builder{Lsn{WalBuilder::kSegmentBytes}};
    std::vector<MadeCommit> commits;

    // Commits between records of 40 to 20,000 bytes, stamps rising by at least 1 ms.
    void grow(std::uint64_t seed, std::size_t bytes) {
        std::mt19937_64 random(seed);
        std::uint64_t goal = builder.end().value + bytes;
        while (builder.end().value < goal) {
            ByteBuffer body(40 + random() % (random() % 20 == 0 ? 20'000 : 400));
            for (std::byte& byte : body)
                byte = static_cast<std::byte>(random() % 7);
            builder.add(
                {.rmgr = 12, .info = 0, .xid = next_xid, .body = WalBuilder::main_data(body)});
            if (random() % 3 != 0) continue;
            clock_us += 1000 + static_cast<std::int64_t>(random() % 1'000'000);
            Lsn at = builder.add(WalBuilder::commit(next_xid, clock_us));
            commits.push_back({at, next_xid++, from_postgres_micros(clock_us)});
        }
    }
    ByteSpan from(Lsn lsn) { return ByteSpan(builder.bytes()).subspan(lsn - builder.start()); }

    Xid next_xid = 1000;
    std::int64_t clock_us = 800'000'000'000'000;
};

// Writes like WalPipeline: frames cut at `frame_bytes`, tails at `tail_bytes`, a sync after each
// frame. `flushed` is what may have been acknowledged when a call fails.
class HistoryWriter {
public:
    HistoryWriter(Repository& repository, MadeWal& wal) : repository_(repository), wal_(wal) {}

    Result<> begin() {
        ClusterRecord wanted{"main", WalBuilder::kSystem, WalBuilder::kSegmentBytes, 150020};
        WV_TRY(cluster_, repository_.ensure_cluster(wanted));
        WV_TRY(auto history, repository_.current_history("main"));
        if (!history) {
            pb::HistoryOpened opened;
            opened.set_cluster("main");
            opened.set_timeline(1);
            opened.set_start_lsn(wal_.builder.start().value);
            opened.set_reason("test");
            WV_TRY(Id16 id, repository_.open_history(opened));
            (void)id;
            WV_TRY(history, repository_.current_history("main"));
        }
        history_ = *history;
        flushed = history_.end_lsn;
        WV_TRY(Lsn from, repository_.wal().decode_start(history_.id, flushed));
        WalDecoderOptions options{.server_major = 15,
                                  .system_identifier = WalBuilder::kSystem,
                                  .segment_bytes = WalBuilder::kSegmentBytes,
                                  .timeline = 1};
        WV_TRY(std::int64_t largest, repository_.wal().largest_at_us(history_.id));
        WV_TRY(auto tracker,
               WalTracker::open(options, std::max(from, history_.start_lsn), largest));
        WV_CHECK(repository_.wal().read(history_.id, std::max(from, history_.start_lsn), flushed,
                                        [&](ByteSpan bytes) { return tracker.prime(bytes); }));
        tracker_.emplace(std::move(tracker));
        return {};
    }

    Result<> store(std::size_t frame_bytes, std::size_t tail_bytes, Lsn until = kOpenEndLsn) {
        until = std::min(until, wal_.builder.end());
        while (flushed < until) {
            if (tail_ && flushed - plan_->header().start_lsn >= tail_bytes) WV_CHECK(close());
            if (!tail_) WV_CHECK(open());
            ByteSpan piece = wal_.from(flushed).first(until - flushed);
            WV_CHECK(store_frame(piece.first(std::min(piece.size(), frame_bytes))));
        }
        return {};
    }

    // A proof, in a frame of its own, that nothing is missing up to `until`.
    Result<> store_quiet(WallTime until) {
        if (!tail_) WV_CHECK(open());
        ByteBuffer plain;
        append_le<std::int64_t>(plain, until.time_since_epoch().count());
        FramePlace place{.kind = FrameKind::quiet,
                         .frame_number = frame_number_++,
                         .start = flushed.value,
                         .end = flushed.value};
        WV_CHECK(tail_->append(plan_->cipher.seal(place, plain, 1)));
        summary_.set_covered_until_us(until.time_since_epoch().count());
        return tail_->sync();
    }

    // Leaves the open tail as it is and goes on in a new one.
    Result<> store_behind(std::size_t frame_bytes) {
        left_.push_back(std::move(tail_));
        return store(frame_bytes, ~std::size_t{0});
    }

    Result<> close() {
        if (!tail_) return {};
        Repository::TailContent content{.footer = std::move(footer_),
                                        .frame_count = frame_number_,
                                        .end_lsn = flushed,
                                        .summary = summary_};
        return repository_.close_tail(std::move(tail_), std::move(content));
    }
    // Those that store_behind() left; recover_tails() closes them.
    void drop_left() {
        for (auto& tail : left_)
            repository_.drop_tail(std::move(tail));
        left_.clear();
    }
    void drop() {
        drop_left();
        if (tail_) repository_.drop_tail(std::move(tail_));
    }
    const HistoryRecord& history() const { return history_; }
    // What is durable now, as the agent tells its tiers.
    OffloadSnapshot snapshot() const {
        OffloadSnapshot snapshot{.ledger_sequence = repository_.ledger_sequence(), .tails = {}};
        for (const auto& tail : left_)
            snapshot.tails[tail->plan().path] = tail->end_offset();
        if (tail_) snapshot.tails[plan_->path] = tail_->end_offset();
        return snapshot;
    }

    Lsn flushed;
    bool writes_ahead = false;  // as for commits that wait

private:
    Result<> open() {
        WV_TRY(plan_, repository_.plan_tail(history_, cluster_, flushed));
        WV_TRY(tail_, repository_.open_tail(plan_));
        footer_ = {};
        summary_ = {};
        frame_number_ = 0;
        return {};
    }
    Result<> store_frame(ByteSpan plain) {
        WV_CHECK(tracker_->feed(plain));
        FrameNotes notes = tracker_->take_frame();
        FramePlace place{.frame_number = frame_number_,
                         .start = flushed.value,
                         .end = flushed.value + plain.size(),
                         .synced_frames = frame_number_};
        ByteBuffer sealed = plan_->cipher.seal(place, plain, 1);
        pb::FrameEntry entry;
        entry.set_frame_number(frame_number_);
        entry.set_offset(tail_->end_offset());
        entry.set_stored_bytes(static_cast<std::uint32_t>(sealed.size()));
        entry.set_plain_bytes(static_cast<std::uint32_t>(plain.size()));
        entry.set_start_lsn(flushed.value);
        entry.set_record_start_lsn(notes.record_start_lsn.value);
        entry.set_tag(tag_of(sealed));
        merge_summary(summary_, notes.summary);
        *entry.mutable_summary() = std::move(notes.summary);
        if (writes_ahead) {
            const ByteSpan frame(sealed);
            WV_CHECK(tail_->write_ahead(sealed.size()));
            WV_CHECK(tail_->append_past_cache({&frame, 1}));
        } else {
            WV_CHECK(tail_->append(sealed));
        }
        WV_CHECK(tail_->sync());
        *footer_.add_frames() = std::move(entry);
        for (pb::MarkEntry& mark : notes.marks)
            *footer_.add_marks() = std::move(mark);
        ++frame_number_;
        flushed = flushed + plain.size();
        return {};
    }

    Repository& repository_;
    MadeWal& wal_;
    ClusterRecord cluster_;
    HistoryRecord history_;
    std::optional<WalTracker> tracker_;
    std::shared_ptr<const TailPlan> plan_;
    std::unique_ptr<TailWriter> tail_;
    std::vector<std::unique_ptr<TailWriter>> left_;
    pb::PackFooter footer_;
    pb::WalSummary summary_;
    std::uint32_t frame_number_ = 0;
};

// Fails the test with the error's words.
template <class T>
T must(Result<T> result) {
    if (!result) FAIL(std::string(result.error().message));
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace walvault::storage
