#include "agent/attachment.h"

#include <algorithm>

namespace walvault::agent {
namespace {

using storage::HistoryRecord;

constexpr Lsn kNoEnd = storage::kOpenEndLsn;

class Chooser {
public:
    Chooser(const ServerSide& server, const std::vector<HistoryRecord>& histories,
            const std::optional<Id16>& current, const std::vector<Difference>& differences)
        : server_(server), histories_(histories), current_(current), differences_(differences) {}

    Attachment choose() const {
        if (histories_.empty()) return begin(pb::HistoryOpened::FIRST, "the first attachment");
        const HistoryRecord* candidate = best_candidate();
        if (!candidate) return settle_differences();
        if (const Difference* nearer = proven_behind(*candidate))
            return fork(*record_of(nearer->history), nearer->at_lsn, differs_from(nearer->at_lsn));
        return attach_to(*candidate);
    }

private:
    std::optional<Lsn> end_on_path(TimelineId timeline) const {
        return agent::end_on_path(server_, timeline);
    }
    TimelineId successor_of(TimelineId timeline) const {
        return agent::successor_of(server_, timeline);
    }
    const Difference* difference_of(const Id16& history) const {
        for (auto each = differences_.rbegin(); each != differences_.rend(); ++each)
            if (each->history == history) return &*each;
        return nullptr;
    }
    const HistoryRecord* record_of(const Id16& history) const {
        for (const HistoryRecord& record : histories_)
            if (record.id == history) return &record;
        return nullptr;
    }

    // The one nearest to the server's timeline; of several the one followed last, else the newest.
    const HistoryRecord* best_candidate() const {
        const HistoryRecord* best = nullptr;
        for (const HistoryRecord& record : histories_) {
            const auto limit = end_on_path(record.timeline);
            if (!limit || *limit < record.start_lsn || difference_of(record.id)) continue;
            if (was_left_empty(record)) continue;
            if (!best || record.timeline > best->timeline ||
                (record.timeline == best->timeline && !is_current(*best)))
                best = &record;
        }
        return best;
    }
    // Of one that holds nothing, no byte can be the server's again; one with a parent tells where
    // it came from.
    bool was_left_empty(const HistoryRecord& record) const {
        return record.end_lsn == record.start_lsn && !record.parent && !is_current(record);
    }
    // Where `timeline` begins on the server's path.
    Lsn start_on_path(TimelineId timeline) const {
        for (const TimelineSwitch& ended : server_.ancestors)
            if (successor_of(ended.timeline) == timeline) return ended.end_lsn;
        return {};
    }
    // What was found equal on a later timeline than the candidate's is nearer than that one's end:
    // to begin there again would ask the server for WAL that it may have recycled.
    const Difference* proven_behind(const HistoryRecord& candidate) const {
        const Difference* longest = nullptr;
        for (const HistoryRecord& record : histories_) {
            const Difference* each = difference_of(record.id);
            if (!each || record.timeline <= candidate.timeline || !end_on_path(record.timeline) ||
                each->at_lsn <= start_on_path(record.timeline) ||
                each->at_lsn - each->from_lsn < kProofBytes)
                continue;
            if (!longest || each->at_lsn > longest->at_lsn) longest = each;
        }
        return longest;
    }
    bool is_current(const HistoryRecord& record) const {
        return current_ && record.id == *current_;
    }

    Attachment attach_to(const HistoryRecord& record) const {
        const Lsn limit = *end_on_path(record.timeline);
        if (limit != kNoEnd && record.end_lsn >= limit) return promotion(record, limit);
        const bool behind = record.end_lsn > server_.flushed_lsn && limit == kNoEnd;
        if (behind && server_.in_recovery)
            return Wait{"the server, a standby, has WAL up to " + to_string(server_.flushed_lsn) +
                        ", behind the " + to_string(record.end_lsn) + " that is stored"};
        if (behind && server_.flushed_lsn <= record.start_lsn)
            return begin(pb::HistoryOpened::UNRELATED,
                         "the server's WAL ends before what is stored begins");
        return Follow{.history = record.id,
                      .timeline = record.timeline,
                      .from_lsn = compare_start(record),
                      .behind = behind,
                      .resumed = !is_current(record)};
    }

    Lsn segment_of(Lsn lsn) const { return lsn.round_down(server_.segment_bytes); }

    // The segment that the history ends in; the one before it where too little of it is stored to
    // prove anything, since a wrong history may agree in a page header.
    Lsn compare_start(const HistoryRecord& record) const {
        const Lsn end = std::min(record.end_lsn, server_.flushed_lsn);
        return std::max(segment_with_proof(record, end), record.start_lsn);
    }
    Lsn segment_with_proof(const HistoryRecord& record, Lsn lsn) const {
        const Lsn segment = segment_of(lsn);
        const bool enough = lsn - segment >= kProofBytes || !server_.keeps_older_segments;
        if (enough || segment < record.start_lsn + server_.segment_bytes) return segment;
        return Lsn{segment.value - server_.segment_bytes};
    }

    Branch promotion(const HistoryRecord& record, Lsn switched_at) const {
        const TimelineId next = successor_of(record.timeline);
        return Branch{.parent = record.id,
                      .timeline = next,
                      .start_lsn = segment_of(switched_at),
                      .fork_lsn = switched_at,
                      .cause = pb::HistoryOpened::PROMOTION,
                      .reason = "timeline " + std::to_string(record.timeline) + " ended at " +
                                to_string(switched_at) + ", timeline " + std::to_string(next) +
                                " continues it"};
    }

    static std::string differs_from(Lsn at) {
        return "the server's WAL differs from what is stored from " + to_string(at) + " on";
    }
    Branch fork(const HistoryRecord& record, Lsn at, const std::string& reason) const {
        return Branch{.parent = record.id,
                      .timeline = record.timeline,
                      .start_lsn = std::max(segment_with_proof(record, at), record.start_lsn),
                      .fork_lsn = at,
                      .cause = pb::HistoryOpened::FORK,
                      .reason = reason};
    }

    Begin begin(pb::HistoryOpened::Cause cause, std::string reason) const {
        return Begin{.timeline = server_.timeline,
                     .start_lsn = first_streamable(server_),
                     .cause = cause,
                     .reason = std::move(reason)};
    }

    // Every history on the server's path was found different: the one that agrees longest is the
    // ancestor, if that can be proved.
    Attachment settle_differences() const {
        const Difference* longest = nullptr;
        for (const HistoryRecord& record : histories_) {
            if (!end_on_path(record.timeline)) continue;
            const Difference* each = difference_of(record.id);
            if (each && (!longest || each->at_lsn > longest->at_lsn)) longest = each;
        }
        if (!longest)
            return begin(pb::HistoryOpened::UNRELATED, "the server's timeline " +
                                                           std::to_string(server_.timeline) +
                                                           " has no stored ancestor");
        const HistoryRecord& record = *record_of(longest->history);
        if (longest->at_lsn - longest->from_lsn >= kProofBytes)
            return fork(record, longest->at_lsn, differs_from(longest->at_lsn));
        const Lsn first = segment_of(record.end_lsn);
        const bool can_look_back = server_.keeps_older_segments &&
                                   longest->from_lsn >= record.start_lsn + server_.segment_bytes &&
                                   first - std::min(first, longest->from_lsn) <
                                       kLookBackSegmentsMax * server_.segment_bytes;
        if (can_look_back)
            return Follow{.history = record.id,
                          .timeline = record.timeline,
                          .from_lsn = Lsn{longest->from_lsn.value - server_.segment_bytes},
                          .resumed = !is_current(record)};
        return begin(pb::HistoryOpened::UNRELATED,
                     "the server's WAL is not the continuation of anything that is stored");
    }

    const ServerSide& server_;
    const std::vector<HistoryRecord>& histories_;
    const std::optional<Id16>& current_;
    const std::vector<Difference>& differences_;
};

}  // namespace

Lsn first_streamable(const ServerSide& server) {
    Lsn first = server.reserved_lsn;
    if (!server.ancestors.empty()) first = std::max(first, server.ancestors.back().end_lsn);
    return first.round_down(server.segment_bytes);
}

std::optional<Lsn> end_on_path(const ServerSide& server, TimelineId timeline) {
    if (timeline == server.timeline) return kNoEnd;
    for (const TimelineSwitch& ended : server.ancestors)
        if (ended.timeline == timeline) return ended.end_lsn;
    return std::nullopt;
}

TimelineId successor_of(const ServerSide& server, TimelineId timeline) {
    for (std::size_t i = 0; i < server.ancestors.size(); ++i)
        if (server.ancestors[i].timeline == timeline && i + 1 < server.ancestors.size())
            return server.ancestors[i + 1].timeline;
    return server.timeline;
}

Attachment choose_attachment(const ServerSide& server, const std::vector<HistoryRecord>& histories,
                             const std::optional<Id16>& current,
                             const std::vector<Difference>& differences) {
    return Chooser(server, histories, current, differences).choose();
}

}  // namespace walvault::agent
