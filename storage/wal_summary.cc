#include "storage/wal_summary.h"

#include <algorithm>

namespace walvault::storage {
namespace {

std::int64_t micros_of(WallTime at) { return at.time_since_epoch().count(); }

pb::MarkEntry mark_of(const WalFinding& finding, pb::MarkEntry::Kind kind) {
    pb::MarkEntry mark;
    mark.set_kind(kind);
    mark.set_start_lsn(finding.start_lsn.value);
    mark.set_end_lsn(finding.end_lsn.value);
    mark.set_xid(finding.xid);
    mark.set_at_us(micros_of(finding.at));
    mark.set_name(finding.name);
    mark.set_inserted_rows(finding.inserted_rows);
    mark.set_updated_rows(finding.updated_rows);
    mark.set_deleted_rows(finding.deleted_rows);
    mark.set_wal_level_minimal(finding.wal_level_minimal);
    return mark;
}

std::optional<pb::MarkEntry::Kind> plain_kind(WalFinding::Kind kind) {
    switch (kind) {
        case WalFinding::Kind::restore_point:
            return pb::MarkEntry::RESTORE_POINT;
        case WalFinding::Kind::checkpoint:
            return pb::MarkEntry::CHECKPOINT;
        case WalFinding::Kind::end_of_recovery:
            return pb::MarkEntry::TIMELINE_SWITCH;
        case WalFinding::Kind::parameter_change:
            return pb::MarkEntry::PARAMETER_CHANGE;
        case WalFinding::Kind::prepare:
            return pb::MarkEntry::PREPARED;
        default:
            return std::nullopt;
    }
}

}  // namespace

bool is_transaction(const WalFinding& finding) {
    return finding.kind == WalFinding::Kind::commit || finding.kind == WalFinding::Kind::abort;
}

void add_to_summary(pb::WalSummary& summary, const WalFinding& finding) {
    if (!is_transaction(finding)) return;
    bool first = summary.commit_count() + summary.abort_count() == 0;
    std::int64_t at = micros_of(finding.at);
    if (finding.kind == WalFinding::Kind::commit)
        summary.set_commit_count(summary.commit_count() + 1);
    else
        summary.set_abort_count(summary.abort_count() + 1);
    summary.set_first_at_us(first ? at : std::min(summary.first_at_us(), at));
    summary.set_last_at_us(first ? at : std::max(summary.last_at_us(), at));
    summary.set_min_xid(first ? finding.xid : std::min(summary.min_xid(), finding.xid));
    summary.set_max_xid(first ? finding.xid : std::max(summary.max_xid(), finding.xid));
}

void merge_covered(pb::WalSummary& into, const pb::WalSummary& other) {
    into.set_covered_until_us(std::max(into.covered_until_us(), other.covered_until_us()));
}

void merge_summary(pb::WalSummary& into, const pb::WalSummary& other) {
    merge_covered(into, other);
    if (other.commit_count() + other.abort_count() == 0) return;
    std::int64_t covered = into.covered_until_us();
    if (into.commit_count() + into.abort_count() == 0) {
        into = other;
        into.set_covered_until_us(covered);
        return;
    }
    into.set_commit_count(into.commit_count() + other.commit_count());
    into.set_abort_count(into.abort_count() + other.abort_count());
    into.set_first_at_us(std::min(into.first_at_us(), other.first_at_us()));
    into.set_last_at_us(std::max(into.last_at_us(), other.last_at_us()));
    into.set_min_xid(std::min(into.min_xid(), other.min_xid()));
    into.set_max_xid(std::max(into.max_xid(), other.max_xid()));
}

pb::WalSummary summary_of(const pb::PackFooter& footer) {
    pb::WalSummary summary;
    summary.set_covered_until_us(footer.covered_until_us());
    for (const pb::FrameEntry& frame : footer.frames())
        merge_summary(summary, frame.summary());
    return summary;
}

void MarkBuilder::add(const WalFinding& finding, std::vector<pb::MarkEntry>& marks) {
    if (auto kind = plain_kind(finding.kind)) marks.push_back(mark_of(finding, *kind));
    if (!is_transaction(finding)) return;
    std::int64_t at = micros_of(finding.at);
    // Only the first transaction of a step: the clock may need days to catch up.
    if (at + kClockStepMicros < since_step_at_us_) {
        pb::MarkEntry step = mark_of(finding, pb::MarkEntry::CLOCK_STEP);
        step.set_step_from_us(largest_at_us_);
        marks.push_back(std::move(step));
        since_step_at_us_ = at;
    }
    since_step_at_us_ = std::max(since_step_at_us_, at);
    largest_at_us_ = std::max(largest_at_us_, at);
    if (finding.kind != WalFinding::Kind::commit) return;
    if (!finding.dropped.empty()) {
        // A rewrite removes the old file and makes a new one; a DROP only removes.
        pb::MarkEntry mark = mark_of(
            finding, finding.created.empty() ? pb::MarkEntry::DROP : pb::MarkEntry::TRUNCATE);
        constexpr std::size_t kFilesMax = 256;
        for (const RelationFile& file : finding.dropped) {
            if (static_cast<std::size_t>(mark.files_size()) == kFilesMax) break;
            mark.add_files(to_string(file));
        }
        marks.push_back(std::move(mark));
    }
    if (finding.inserted_rows + finding.updated_rows + finding.deleted_rows >= kBulkRowsMin) {
        pb::MarkEntry mark = mark_of(finding, pb::MarkEntry::BULK);
        mark.add_files(to_string(finding.most_changed));
        marks.push_back(std::move(mark));
    }
}

}  // namespace walvault::storage
