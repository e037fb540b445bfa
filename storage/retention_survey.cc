#include "storage/retention_survey.h"

#include <algorithm>
#include <map>
#include <set>

#include "storage/index_journal.h"
#include "storage/pack_writer.h"
#include "storage/repository_files.h"

namespace walvault::storage {
namespace {

constexpr std::size_t kIdBytes = std::tuple_size_v<Id32>;

// Chunks are shared by all clusters of a repository.
Result<std::vector<pb::BackupInfo>> staying_bases(RepositoryView& view,
                                                  const RetentionSurvey& survey) {
    std::vector<pb::BackupInfo> staying;
    for (std::size_t i = 0; i < survey.backups.size(); ++i)
        if (survey.plan.backups[i].keep) staying.push_back(survey.backups[i]);
    WV_TRY(auto clusters, view.clusters());
    for (const ClusterRecord& cluster : clusters) {
        if (cluster.name == survey.cluster) continue;
        WV_TRY(auto others, view.backups(cluster.name));
        staying.insert(staying.end(), others.begin(), others.end());
    }
    return staying;
}

// What bases that stay are made of in one pack.
struct LiveChunks {
    std::vector<bool> frames;  // by number
    std::uint64_t bytes = 0;
};
using LivePacks = std::map<Id16, LiveChunks>;

Result<> add_live(LivePacks& live, const ChunkPlace& place) {
    if (place.frame_number >= kPackFramesMax)
        return fail(Errc::corrupt, "the index names a frame " + std::to_string(place.frame_number) +
                                       " of a pack, more than one can have");
    LiveChunks& chunks = live[place.file_id];
    if (chunks.frames.size() <= place.frame_number) chunks.frames.resize(place.frame_number + 1);
    if (chunks.frames[place.frame_number]) return {};
    chunks.frames[place.frame_number] = true;
    chunks.bytes += place.stored_bytes;
    return {};
}

// The packs that hold a chunk of a base that stays.
Result<LivePacks> live_packs(RepositoryView& view, const std::vector<pb::BackupInfo>& staying) {
    LivePacks live;
    for (const pb::BackupInfo& base : staying) {
        auto on_file = [&](pb::ManifestFile& file) -> Result<> {
            for (std::size_t at = 0; at + kIdBytes <= file.content_ids().size(); at += kIdBytes) {
                WV_TRY(const ChunkPlace place,
                       view.place_of_chunk(id_from<32>(file.content_ids().substr(at, kIdBytes))));
                WV_CHECK(add_live(live, place));
            }
            return {};
        };
        auto read = view.read_manifest(
            base, [](const pb::ManifestHead&) { return Result<>{}; }, on_file);
        if (!read) return fail_while("base " + base.backup_id(), read.error());
    }
    return live;
}

std::string name_of(const RetentionSurvey& survey, const std::vector<pb::BackupInfo>& staying) {
    std::string name;
    for (const pb::BackupInfo& base : staying)
        name += base.cluster() + "/" + base.backup_id() + " ";
    name += "|";
    for (const pb::PackInfo& pack : survey.base_packs)
        name += " " + to_hex(as_bytes(pack.file_id()));
    return name;
}

class BaseJudge {
public:
    BaseJudge(const RetentionSurvey& survey, const LivePacks& live) : live_(live) {
        for (std::size_t i = 0; i < survey.backups.size(); ++i) {
            if (survey.plan.backups[i].keep) kept_.insert(survey.backups[i].backup_id());
            newest_ = std::max(newest_, survey.backups[i].backup_id());
        }
    }

    RetentionVerdict judge(const pb::PackInfo& pack) const {
        const std::string& of = pack.backup_id();
        if (pack.kind() == pb::PACK_KIND_MANIFEST)
            return kept_.contains(of) ? RetentionVerdict{true, "the manifest of base " + of}
                                      : RetentionVerdict{false, "its base does not stay"};
        if (live_.contains(id_from<16>(pack.file_id())))
            return {true, kept_.contains(of) ? "base " + of + " is made of it"
                                             : "bases that stay share chunks of it"};
        // Ids begin with the time.
        if (of > newest_) return {true, "the next base backup may share its chunks"};
        return {false, "no base that stays is made of it"};
    }
    const std::string& newest() const { return newest_; }

private:
    const LivePacks& live_;
    std::set<std::string> kept_;
    std::string newest_;
};

// Among the packs that stay.
Result<> plan_rewriting(RepositoryView& view, RetentionSurvey& survey, const LivePacks& live,
                        RewriteFacts facts, const RewriteRules& rules) {
    std::vector<std::size_t> numbers;
    for (std::size_t i = 0; i < survey.base_packs.size(); ++i) {
        const pb::PackInfo& pack = survey.base_packs[i];
        const auto chunks = live.find(id_from<16>(pack.file_id()));
        if (!survey.base_verdicts[i].keep || pack.kind() != pb::PACK_KIND_BASE ||
            chunks == live.end())
            continue;
        WV_TRY(const bool here, view.keeps(pack, ""));
        facts.candidates.push_back({.pack = pack,
                                    .live = chunks->second.frames,
                                    .live_bytes = chunks->second.bytes,
                                    .is_in_directory = here});
        numbers.push_back(i);
    }
    const auto verdicts = plan_rewrites(rules, facts);
    for (std::size_t i = 0; i < verdicts.size(); ++i) {
        if (!verdicts[i].reason.empty())
            survey.base_verdicts[numbers[i]].reason += "; " + verdicts[i].reason;
        if (verdicts[i].rewrite || verdicts[i].waits) survey.judged.clear();
        if (!verdicts[i].rewrite) continue;
        survey.rewrites_win_bytes += verdicts[i].won_bytes;
        survey.rewrites.push_back(std::move(facts.candidates[i]));
    }
    return {};
}

Result<> judge_bases(RepositoryView& view, RetentionSurvey& survey,
                     const std::string& judged_before, WallTime now,
                     const RewriteRules& rewriting) {
    survey.base_verdicts.assign(survey.base_packs.size(), {true, survey.bases_unjudged});
    if (!survey.bases_unjudged.empty()) return {};
    WV_TRY(auto staying, staying_bases(view, survey));
    survey.judged = name_of(survey, staying);
    if (survey.judged == judged_before) {
        survey.base_verdicts.assign(survey.base_packs.size(), {true, "as when it was last judged"});
        return {};
    }
    auto live = live_packs(view, staying);
    if (!live && live.error().code != Errc::corrupt && live.error().code != Errc::not_found)
        return fail(live.error());
    if (!live) {
        survey.judged.clear();
        survey.bases_unjudged = live.error().message;
        survey.base_verdicts.assign(survey.base_packs.size(), {true, survey.bases_unjudged});
        return {};
    }
    const BaseJudge judge(survey, *live);
    for (std::size_t i = 0; i < survey.base_packs.size(); ++i)
        survey.base_verdicts[i] = judge.judge(survey.base_packs[i]);
    if (!rewriting.is_on) return {};
    WV_TRY(const auto tiers, view.tiers());
    return plan_rewriting(view, survey, *live,
                          {.now = now,
                           .place_count = 1 + tiers.size(),
                           .newest_base = judge.newest(),
                           .candidates = {}},
                          rewriting);
}

}  // namespace

std::vector<pb::Condemned> RetentionSurvey::condemned(std::size_t packs_max) const {
    std::vector<pb::Condemned> entries(1);
    for (std::size_t i = 0; i < backups.size(); ++i) {
        if (plan.backups[i].keep) continue;
        pb::CondemnedBackup* backup = entries.front().add_backups();
        backup->set_backup_id(backups[i].backup_id());
        backup->set_reason(plan.backups[i].reason);
    }
    auto add = [&](const pb::PackInfo& info, const RetentionVerdict& verdict) {
        if (verdict.keep) return;
        if (static_cast<std::size_t>(entries.back().packs_size()) >= packs_max)
            entries.emplace_back();
        pb::CondemnedPack* pack = entries.back().add_packs();
        *pack->mutable_pack() = info;
        pack->set_reason(verdict.reason);
    };
    for (std::size_t i = 0; i < wal_packs.size(); ++i)
        add(wal_packs[i], plan.wal_packs[i]);
    for (std::size_t i = 0; i < base_packs.size(); ++i)
        add(base_packs[i], base_verdicts[i]);
    if (entries.front().backups_size() == 0 && entries.front().packs_size() == 0) entries.clear();
    for (pb::Condemned& entry : entries) {
        entry.set_cluster(cluster);
        entry.set_place(place);
    }
    return entries;
}

Result<RetentionSurvey> survey_retention(RepositoryView& view, const std::string& cluster,
                                         const RetentionRules& rules, WallTime now,
                                         const std::string& judged_before, const std::string& place,
                                         const RewriteRules& rewriting) {
    RetentionSurvey survey;
    survey.cluster = cluster;
    survey.place = place;
    RetentionFacts facts;
    facts.now = now;
    WV_TRY(auto clusters, view.clusters());
    for (const ClusterRecord& record : clusters)
        if (record.name == cluster) facts.segment_bytes = record.segment_bytes;
    if (facts.segment_bytes == 0)
        return fail(Errc::not_found, "the repository holds nothing of server " + cluster);
    WV_TRY(facts.histories, view.histories(cluster));
    WV_TRY(facts.current, view.current_history(cluster));
    WV_TRY(facts.backups, view.backups(cluster));
    WV_TRY(facts.holds, view.holds(cluster));
    WV_TRY(auto packs, view.packs(cluster));
    for (pb::PackInfo& pack : packs) {
        if (is_of_journal(pack.kind())) continue;
        if (pack.kind() != pb::PACK_KIND_WAL)
            survey.base_packs.push_back(std::move(pack));
        else if (!pack.path().ends_with(".tail"))
            facts.wal_packs.push_back(std::move(pack));
    }
    facts.first_after = [&](const Id16& history, WallTime at) -> Result<Lsn> {
        WV_TRY(auto found, view.first_transaction_after(history, at));
        if (found) return found->start_lsn;
        for (const HistoryRecord& record : facts.histories)
            if (record.id == history) return record.end_lsn;
        return Lsn{};
    };
    WV_TRY(survey.plan, plan_retention(rules, facts));
    survey.current = facts.current;
    survey.history_count = facts.histories.size();
    for (const HoldRecord& hold : facts.holds)
        survey.holds.push_back(hold.id);
    survey.backups = std::move(facts.backups);
    survey.wal_packs = std::move(facts.wal_packs);
    WV_TRY(auto unfinished, view.unfinished_backups());
    if (!survey.plan.window_from) survey.bases_unjudged = "no window is set, or nothing has a time";
    if (!unfinished.empty()) survey.bases_unjudged = "a base backup is running, and may share it";
    WV_CHECK(judge_bases(view, survey, judged_before, now, rewriting));
    return survey;
}

}  // namespace walvault::storage
