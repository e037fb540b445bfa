// FakeRepositoryView: a RepositoryView made of a list of findings, for tests of what is decided
// from it.
#pragma once

#include <algorithm>
#include <map>

#include "storage/journal_source.h"
#include "storage/repository_view.h"

namespace walvault::storage {

class FakeRepositoryView final : public RepositoryView {
public:
    Id16 id{};
    std::vector<ClusterRecord> cluster_records;
    std::vector<HistoryRecord> history_records;
    std::vector<pb::BackupInfo> backup_infos;
    std::vector<GapRecord> gap_records;
    std::vector<HoldRecord> hold_records;
    std::vector<MarkRecord> mark_records;
    std::map<Id16, std::vector<ClockStep>> steps;
    int scan_count = 0;
    std::map<Id16, std::vector<WalFinding>> findings;  // in WAL order
    std::map<TimelineId, std::string> timeline_histories;
    std::map<Id16, std::vector<Stretch>> lineages;  // else: the history alone
    std::optional<Id16> current;                    // else: the last history
    std::vector<pb::PackInfo> pack_infos;
    std::map<Id16, Lsn> expired;
    std::vector<std::pair<Lsn, Lsn>> holes;  // in all histories
    bool clock_is_archived = false;          // what first_transaction_after() would look at
    std::map<Id32, ByteBuffer> chunks;
    std::map<Id32, Id16> chunk_packs;
    std::optional<Error> manifest_error;
    pb::ManifestHead head;
    std::vector<pb::ManifestFile> files;

    const Id16& repository_id() const override { return id; }
    Result<std::vector<ClusterRecord>> clusters() override { return cluster_records; }
    Result<std::vector<HistoryRecord>> histories(const std::string& cluster) override {
        return of_cluster(history_records, cluster);
    }
    Result<std::optional<Id16>> current_history(const std::string& cluster) override {
        auto found = of_cluster(history_records, cluster);
        if (current || found.empty()) return current;
        return std::optional<Id16>(found.back().id);
    }
    Result<std::vector<Stretch>> lineage(const Id16& history) override {
        if (auto found = lineages.find(history); found != lineages.end()) return found->second;
        const HistoryRecord* record = record_of(history);
        return std::vector<Stretch>{{history, record ? record->start_lsn : Lsn{}, kOpenEndLsn}};
    }
    Result<std::vector<pb::BackupInfo>> backups(const std::string&) override {
        return backup_infos;
    }
    Result<std::vector<GapRecord>> gaps(const std::string& cluster) override {
        return of_cluster(gap_records, cluster);
    }
    Result<std::vector<HoldRecord>> holds(const std::string&) override { return hold_records; }
    Result<std::vector<MarkRecord>> marks(const std::string&, WallTime since, WallTime until,
                                          const std::vector<pb::MarkEntry::Kind>& kinds) override {
        std::vector<MarkRecord> found;
        for (const auto& mark : mark_records) {
            const WallTime at{Micros(mark.mark.at_us())};
            if (since != WallTime{} && at < since) continue;
            if (until != WallTime{} && at > until) continue;
            if (kinds.empty() ||
                std::find(kinds.begin(), kinds.end(), mark.mark.kind()) != kinds.end())
                found.push_back(mark);
        }
        return found;
    }
    Result<std::vector<MarkRecord>> lineage_marks(
        const Id16& history, WallTime since, WallTime until,
        const std::vector<pb::MarkEntry::Kind>& kinds) override {
        WV_TRY(auto stretches, lineage(history));
        WV_TRY(auto all, marks({}, since, until, kinds));
        std::erase_if(all, [&](const MarkRecord& mark) {
            for (const Stretch& stretch : stretches)
                if (mark.history_id == stretch.history && mark.mark.start_lsn() < stretch.to.value)
                    return false;
            return true;
        });
        return all;
    }
    Result<std::vector<ClockStep>> clock_steps(const Id16& history) override {
        return steps[history];
    }
    Result<std::string> timeline_history(const Id16&, TimelineId timeline) override {
        if (auto found = timeline_histories.find(timeline); found != timeline_histories.end())
            return found->second;
        return fail(Errc::not_found, "no such timeline");
    }
    Result<Totals> totals(const std::string&) override { return Totals{}; }
    Result<std::vector<pb::PackInfo>> packs(const std::string&) override { return pack_infos; }
    Result<Lsn> expired_until(const Id16& history_id) override {
        auto found = expired.find(history_id);
        return found == expired.end() ? Lsn{} : found->second;
    }
    Result<std::vector<CondemnedThere>> condemned(const std::string&, const std::string&) override {
        return std::vector<CondemnedThere>{};
    }
    Result<std::vector<std::string>> tiers() override { return std::vector<std::string>{}; }
    Result<std::vector<pb::BackupStarted>> unfinished_backups() override {
        return std::vector<pb::BackupStarted>{};
    }
    Result<bool> keeps(const pb::PackInfo&, const std::string&) override { return true; }
    Result<ChunkPlace> place_of_chunk(const Id32& content_id) override {
        auto found = chunk_packs.find(content_id);
        if (found != chunk_packs.end()) return ChunkPlace{.file_id = found->second};
        return fail(Errc::not_found, "no such chunk");
    }

    Result<> require_coverage(const Id16& history, Lsn from, Lsn to) override {
        const HistoryRecord* record = record_of(history);
        if (record == nullptr || from < record->start_lsn || to > record->end_lsn)
            return fail(Errc::gap,
                        "WAL from " + to_string(from) + " to " + to_string(to) + " is not stored");
        for (const auto& [hole_from, hole_to] : holes)
            if (hole_from < to && from < hole_to)
                return fail(Errc::gap, "WAL from " + to_string(hole_from) + " to " +
                                           to_string(hole_to) + " is not stored");
        for (const auto& gap : gap_records)
            if (gap.history_id == history && gap.from_lsn < to && from < gap.to_lsn)
                return fail(Errc::gap, "WAL from " + to_string(gap.from_lsn) + " to " +
                                           to_string(gap.to_lsn) + " is not stored");
        return {};
    }
    // WAL whose every byte tells its position.
    Result<> read_wal(const Id16& history, Lsn from, Lsn to,
                      const std::function<Result<>(ByteSpan)>& sink) override {
        WV_CHECK(require_coverage(history, from, to));
        while (from < to) {
            ByteBuffer piece(std::min<std::uint64_t>(to - from, 300'000));
            for (std::size_t i = 0; i < piece.size(); ++i)
                piece[i] = wal_byte(from + i);
            WV_CHECK(sink(piece));
            from = from + piece.size();
        }
        return {};
    }
    static std::byte wal_byte(Lsn at) { return static_cast<std::byte>(1 + at.value % 251); }

    Result<std::optional<WalFinding>> first_transaction_after(const Id16& history,
                                                              WallTime at) override {
        if (clock_is_archived) return fail(Errc::archived, "the WAL is in an archive");
        return first(history, [&](const WalFinding& f) { return is_transaction(f) && f.at > at; });
    }
    Result<std::optional<WalFinding>> first_transaction_from(const Id16& history,
                                                             Lsn lsn) override {
        return first(history,
                     [&](const WalFinding& f) { return is_transaction(f) && f.start_lsn >= lsn; });
    }
    Result<std::optional<WalFinding>> last_commit_before(const Id16& history, Lsn lsn) override {
        std::optional<WalFinding> last;
        for (const auto& f : findings[history])
            if (f.kind == WalFinding::Kind::commit && f.start_lsn < lsn) last = f;
        return last;
    }
    Result<bool> has_commit_behind(const Id16& history, Lsn lsn) override {
        for (const auto& f : findings[history])
            if (f.kind == WalFinding::Kind::commit && f.end_lsn > lsn) return true;
        return false;
    }
    Result<std::vector<WalFinding>> find_xid(const Id16& history, Xid xid) override {
        std::vector<WalFinding> found;
        for (const auto& f : findings[history])
            if (is_transaction(f) && f.xid == xid) found.push_back(f);
        return found;
    }
    Result<> scan(const Id16& history, Lsn from, Lsn to,
                  const std::function<bool(const WalFinding&)>& sink) override {
        ++scan_count;
        for (const auto& f : findings[history])
            if (f.start_lsn >= from && f.start_lsn < to && !sink(f)) return {};
        return {};
    }
    Result<std::uint64_t> count_commits(const Id16& history, Lsn from, Lsn to) override {
        std::uint64_t count = 0;
        for (const auto& f : findings[history])
            if (is_transaction(f) && f.start_lsn >= from && f.start_lsn < to) ++count;
        return count;
    }
    Result<> read_manifest(const pb::BackupInfo&,
                           const std::function<Result<>(const pb::ManifestHead&)>& on_head,
                           const std::function<Result<>(pb::ManifestFile&)>& on_file) override {
        if (manifest_error) return fail(*manifest_error);
        WV_CHECK(on_head(head));
        for (auto& file : files)
            WV_CHECK(on_file(file));
        return {};
    }
    Result<> read_chunk(const Id32& content_id, ByteBuffer& plain) override {
        auto found = chunks.find(content_id);
        if (found == chunks.end()) return fail(Errc::not_found, "no such chunk");
        plain = found->second;
        return {};
    }
    Result<std::uint64_t> verify_pack(const pb::PackInfo&, bool) override { return 0; }
    Result<std::vector<JournalRecord>> journals(const std::string&) override {
        return std::vector<JournalRecord>{};
    }
    Result<std::unique_ptr<JournalSource>> journal_source(const Id16&) override {
        return std::unique_ptr<JournalSource>();
    }

private:
    static bool is_transaction(const WalFinding& f) {
        return f.kind == WalFinding::Kind::commit || f.kind == WalFinding::Kind::abort;
    }
    template <class Records>
    static Records of_cluster(const Records& all, const std::string& cluster) {
        Records found;
        for (const auto& record : all)
            if (record.cluster == cluster) found.push_back(record);
        return found;
    }
    const HistoryRecord* record_of(const Id16& history) const {
        for (const auto& record : history_records)
            if (record.id == history) return &record;
        return nullptr;
    }
    template <class Predicate>
    std::optional<WalFinding> first(const Id16& history, Predicate predicate) {
        for (const auto& f : findings[history])
            if (predicate(f)) return f;
        return {};
    }
};

}  // namespace walvault::storage
