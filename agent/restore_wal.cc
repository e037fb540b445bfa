#include "agent/restore_wal.h"

#include <algorithm>

#include "proto/wal_file_name.h"

namespace walvault::agent {
namespace {

// The file of a timeline: of the lineage, else of whatever history took that number, so that the
// restored server, once promoted, takes another one.
Result<std::optional<std::string>> timeline_file(
    storage::RepositoryView& view, const std::vector<storage::HistoryRecord>& histories,
    const Id16& wanted, TimelineId timeline) {
    std::vector<Id16> places{wanted};
    for (const auto& history : histories)
        places.push_back(history.id);
    for (const Id16& place : places) {
        auto text = view.timeline_history(place, timeline);
        if (text) return std::optional<std::string>(std::move(*text));
        if (text.error().code != Errc::not_found) return fail(text.error());
    }
    return std::optional<std::string>{};
}

Result<> write_histories(storage::RepositoryView& view, const RestorePlan& plan,
                         const RestoreTree& tree) {
    WV_TRY(auto histories, view.histories(plan.cluster.name));
    TimelineId newest = plan.stop.timeline();
    for (const auto& history : histories)
        newest = std::max(newest, history.timeline);
    for (TimelineId timeline = 2; timeline <= newest; ++timeline) {
        WV_TRY(auto text, timeline_file(view, histories, plan.stop.history.id, timeline));
        if (text)
            WV_CHECK(tree.write_file("pg_wal/" + history_file_name(timeline), as_bytes(*text)));
    }
    return {};
}

// Takes WAL in pieces and spreads it over the segments of the plan.
class SegmentWriter {
public:
    SegmentWriter(const RestorePlan& plan, const RestoreTree& tree,
                  const std::function<void(std::uint64_t)>& on_bytes)
        : plan_(plan), tree_(tree), on_bytes_(on_bytes) {}

    Result<> take(ByteSpan bytes) {
        while (!bytes.empty()) {
            if (next_ == plan_.segments.size())
                return fail(Errc::corrupt, "the repository gave more WAL than was asked for");
            const WalSegmentPlan& segment = plan_.segments[next_];
            if (!file_.is_open()) WV_CHECK(begin(segment));
            const std::uint64_t room = segment.to_lsn - segment.start_lsn - filled_;
            const ByteSpan part = bytes.first(std::min<std::uint64_t>(room, bytes.size()));
            WV_CHECK(file_.write_at(filled_, part));
            on_bytes_(part.size());
            filled_ += part.size();
            bytes = bytes.subspan(part.size());
            if (part.size() == room) end();
        }
        return {};
    }

    Result<> finish() const {
        if (next_ == plan_.segments.size()) return {};
        return fail(Errc::corrupt, "the repository gave " + std::to_string(next_) +
                                       " whole WAL segments of " +
                                       std::to_string(plan_.segments.size()));
    }

private:
    Result<> begin(const WalSegmentPlan& segment) {
        WV_TRY(file_, tree_.create_file("pg_wal/" + segment.name, 0600));
        return file_.set_size(plan_.cluster.segment_bytes);
    }
    void end() {
        file_ = RestoredFile();
        filled_ = 0;
        ++next_;
    }

    const RestorePlan& plan_;
    const RestoreTree& tree_;
    const std::function<void(std::uint64_t)>& on_bytes_;
    std::size_t next_ = 0;
    std::uint64_t filled_ = 0;
    RestoredFile file_;
};

}  // namespace

Result<> write_wal(storage::RepositoryView& view, const RestorePlan& plan, const RestoreTree& tree,
                   const std::function<void(std::uint64_t)>& on_bytes) {
    WV_CHECK(tree.make_directory("pg_wal", 0700));
    WV_CHECK(tree.make_directory("pg_wal/archive_status", 0700));
    WV_CHECK(write_histories(view, plan, tree));
    if (!plan.wal_in_place) return {};
    SegmentWriter writer(plan, tree, on_bytes);
    WV_CHECK(view.read_wal(plan.stop.history.id, plan.stop.wal_from_lsn, plan.stop.wal_to_lsn,
                           [&](ByteSpan bytes) { return writer.take(bytes); }));
    return writer.finish();
}

}  // namespace walvault::agent
