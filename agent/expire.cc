#include "agent/expire.h"

#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/render.h"
#include "agent/target.h"
#include "base/log.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;

// Somebody whose lease cannot be read may be reading.
std::string reader_at(storage::ObjectStore& store) {
    auto leases = storage::valid_leases(store, system_clock().now());
    if (!leases) return "somebody whose lease cannot be read";
    return leases->empty() ? "" : leases->front().who;
}

// What the stream may need of the disk is left to it.
std::uint64_t room_for_copies(const Config& config) {
    auto free = posix_file_system().available_bytes(config.repo.root);
    auto size = posix_file_system().size_bytes(config.repo.root);
    if (!free || !size) return 0;
    const auto reserve =
        static_cast<std::uint64_t>(static_cast<double>(*size) * config.repo.reserve_ratio);
    return *free > reserve ? *free - reserve : 0;
}

// Who reads at a tier is not asked for: nothing is taken from him by it.
storage::RewriteRules rewrite_rules(const Config& config, const ExpirePlace& place) {
    storage::RewriteRules rules;
    if (!place.rewrites) return rules;
    rules.is_on = true;
    rules.grace = place.grace;
    rules.room_bytes = room_for_copies(config);
    rules.only_from_directory = place.is_bucket;
    rules.reader = reader_at(*storage::make_directory_store(posix_file_system(), config.repo.root));
    return rules;
}

Result<> copy_live_chunks(storage::Repository& repository,
                          const std::vector<storage::RewriteCandidate>& sources) {
    WV_TRY(auto rewrite, repository.begin_rewrite(sources));
    WV_CHECK(rewrite->copy());
    return repository.enter_rewrite(std::move(rewrite));
}

WallTime time_in(const nlohmann::json& body, const char* key) {
    auto parsed = parse_time(body.value(key, ""), {WallTime{}, "UTC"});
    return parsed ? *parsed : WallTime{};
}

}  // namespace

std::vector<ExpirePlace> expire_places(const Config& config) {
    std::vector<ExpirePlace> places{{"", config.repo.retention, config.repo.expire_grace}};
    for (const TierConfig& tier : config.tiers)
        places.push_back({tier.name, tier.retention, tier.expire_grace, tier.is_bucket});
    std::erase_if(places, [](const ExpirePlace& place) { return place.rules.window.count() == 0; });
    return places;
}

Result<> require_window(const Config& config) {
    if (!expire_places(config).empty()) return {};
    return fail(Errc::refused, "nothing expires: no window is set",
                "say how long every second stays restorable: [repo.primary] window = \"14d\"");
}

Result<storage::RetentionSurvey> survey_repository(const Config& config, const std::string& cluster,
                                                   const ExpirePlace& place,
                                                   const std::string& judged_before) {
    WV_TRY(storage::MasterKey master, read_master_key(config));
    WV_TRY(auto store, open_layered_store(config));
    storage::RepositoryView::Options options = view_options(config.repo.root);
    options.place = place.name;
    WV_TRY(auto view, storage::RepositoryView::open(*store, master, options));
    return storage::survey_retention(*view, cluster, place.rules, system_clock().now(),
                                     judged_before, place.name, rewrite_rules(config, place));
}

ExpireReport report_of(const storage::RetentionSurvey& survey, WallTime at) {
    ExpireReport report;
    report.place = survey.place;
    report.at = at;
    report.window_from = survey.plan.window_from;
    report.restorable_from = survey.plan.restorable_from;
    report.bases_unjudged = survey.bases_unjudged;
    add_condemned(report, survey);
    add_rewritten(report, survey.rewrites);
    return report;
}

void add_condemned(ExpireReport& report, const storage::RetentionSurvey& survey) {
    for (const pb::Condemned& entry : survey.condemned()) {
        report.condemned_bases += static_cast<std::uint64_t>(entry.backups_size());
        report.condemned_packs += static_cast<std::uint64_t>(entry.packs_size());
        for (const pb::CondemnedPack& pack : entry.packs())
            report.condemned_bytes += pack.pack().stored_bytes();
    }
}

void add_rewritten(ExpireReport& report, const std::vector<storage::RewriteCandidate>& sources) {
    report.rewritten_packs += sources.size();
    for (const storage::RewriteCandidate& source : sources)
        report.rewritten_dead_bytes += storage::frame_bytes_of(source.pack) - source.live_bytes;
}

void rewrite_packs_alone(storage::Repository& repository, const storage::RetentionSurvey& survey,
                         ExpireReport& report) {
    report.rewritten_packs = report.rewritten_dead_bytes = 0;
    for (const auto& group : storage::rewrite_groups(survey.rewrites)) {
        auto done = copy_live_chunks(repository, group);
        if (done) add_rewritten(report, group);
        if (!done) warn_not_rewritten(group, done.error());
    }
}

void warn_not_rewritten(const std::vector<storage::RewriteCandidate>& sources, const Error& error) {
    log::warn("retention.not_rewritten", error.message,
              {{"pack", sources.front().pack.path()}, {"hint", error.hint}});
}

void add_deletions(ExpireReport& report, const storage::Deletions& done) {
    report.deleted_packs += done.pack_count;
    report.freed_bytes += done.bytes;
    report.waiting_packs = done.condemned_count;
    report.waiting_bytes = done.condemned_bytes;
    report.waits_for = done.waits_for;
}

Json json_of(const ExpireReport& report) {
    Json body{{"repo", report.place.empty() ? "primary" : report.place},
              {"at", format_utc(report.at, 6)},
              {"condemned_bases", report.condemned_bases},
              {"condemned_packs", report.condemned_packs},
              {"condemned_bytes", report.condemned_bytes},
              {"rewritten_packs", report.rewritten_packs},
              {"rewritten_dead_bytes", report.rewritten_dead_bytes},
              {"deleted_packs", report.deleted_packs},
              {"freed_bytes", report.freed_bytes},
              {"waiting_packs", report.waiting_packs},
              {"waiting_bytes", report.waiting_bytes}};
    if (report.window_from) body["window_from"] = format_utc(*report.window_from, 6);
    if (!report.waits_for.empty()) body["waits_for"] = report.waits_for;
    if (!report.bases_unjudged.empty()) body["bases_unjudged"] = report.bases_unjudged;
    return body;
}

Result<ExpireReport> expire_report_of(const nlohmann::json& body) {
    if (!body.is_object()) return fail(Errc::corrupt, "the agent's answer cannot be read");
    ExpireReport report;
    try {
        report.place = body.value("repo", "");
        if (report.place == "primary") report.place.clear();
        report.at = time_in(body, "at");
        if (body.contains("window_from")) report.window_from = time_in(body, "window_from");
        const auto number = [&](const char* key) { return body.value(key, std::uint64_t{0}); };
        report.condemned_bases = number("condemned_bases");
        report.condemned_packs = number("condemned_packs");
        report.condemned_bytes = number("condemned_bytes");
        report.rewritten_packs = number("rewritten_packs");
        report.rewritten_dead_bytes = number("rewritten_dead_bytes");
        report.deleted_packs = number("deleted_packs");
        report.freed_bytes = number("freed_bytes");
        report.waiting_packs = number("waiting_packs");
        report.waiting_bytes = number("waiting_bytes");
        report.waits_for = body.value("waits_for", "");
        report.bases_unjudged = body.value("bases_unjudged", "");
    } catch (const nlohmann::json::exception& error) {
        return fail(Errc::corrupt,
                    std::string("the agent's answer cannot be read: ") + error.what());
    }
    return report;
}

std::unique_ptr<storage::HeldLease> hold_lease(const OpenedView& opened, const std::string& verb) {
    // Who reads a tier does not know what expires there.
    if (!opened.is_tier && expire_places(opened.config).empty()) return nullptr;
    const std::string& root = opened.config.repo.root;
    const auto placed = [root](const std::string& name) -> Result<> {
        if (root.empty()) return {};
        WV_CHECK(posix_file_system().give_to_owner_of(root + "/lease", root));
        return posix_file_system().give_to_owner_of(root + "/" + name, root);
    };
    char host[256] = {};
    if (::gethostname(host, sizeof host - 1) != 0) host[0] = '?';
    const std::string who = verb + " of " + opened.cluster.name + ", process " +
                            std::to_string(::getpid()) + " on " + host;
    auto lease = storage::HeldLease::take(*opened.store, who, system_clock(), placed);
    if (lease) return std::move(*lease);
    std::fprintf(stderr,
                 "warning: the agent cannot be told that this runs (%s); what expires meanwhile is "
                 "deleted after expire_grace\n",
                 printable(lease.error().message).c_str());
    return nullptr;
}

}  // namespace walvault::agent
