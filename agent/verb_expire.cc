// walvault expire: what retention lets go, shown or done; by the agent where one runs.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "agent/control.h"
#include "agent/expire.h"
#include "agent/open_repository.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;
using storage::RetentionSurvey;
using storage::RetentionVerdict;

// Packs in a row with one verdict, as one line.
struct Row {
    std::string what;
    std::uint64_t bytes = 0;
    RetentionVerdict verdict;
    bool is_rewritten = false;  // stays until its live chunks lie elsewhere
};

bool is_rewritten(const RetentionSurvey& survey, const pb::PackInfo& pack) {
    return std::ranges::any_of(survey.rewrites, [&](const storage::RewriteCandidate& each) {
        return each.pack.path() == pack.path();
    });
}

std::vector<Row> wal_rows(const RetentionSurvey& survey) {
    std::vector<Row> rows;
    std::string history;
    std::uint64_t from = 0;
    std::uint64_t count = 0;
    for (std::size_t i = 0; i < survey.wal_packs.size(); ++i) {
        const pb::PackInfo& pack = survey.wal_packs[i];
        const RetentionVerdict& verdict = survey.plan.wal_packs[i];
        const bool goes_on = !rows.empty() && history == pack.history_id() &&
                             rows.back().verdict.keep == verdict.keep &&
                             rows.back().verdict.reason == verdict.reason;
        if (!goes_on) {
            rows.push_back({.what = "", .bytes = 0, .verdict = verdict});
            history = pack.history_id();
            from = pack.start_lsn();
            count = 0;
        }
        ++count;
        rows.back().bytes += pack.stored_bytes();
        rows.back().what = "WAL " + to_string(Lsn{from}) + " to " + to_string(Lsn{pack.end_lsn()}) +
                           ", " + format_count(count) + (count == 1 ? " pack" : " packs");
    }
    return rows;
}

std::vector<Row> rows_of(const RetentionSurvey& survey) {
    std::vector<Row> rows;
    for (std::size_t i = 0; i < survey.backups.size(); ++i)
        rows.push_back({"base " + survey.backups[i].backup_id(), survey.backups[i].stored_bytes(),
                        survey.plan.backups[i]});
    for (Row& row : wal_rows(survey))
        rows.push_back(std::move(row));
    for (std::size_t i = 0; i < survey.base_packs.size(); ++i)
        rows.push_back({printable(survey.base_packs[i].path()), survey.base_packs[i].stored_bytes(),
                        survey.base_verdicts[i], is_rewritten(survey, survey.base_packs[i])});
    return rows;
}

Json json_of(const RetentionSurvey& survey, const ExpireReport& report) {
    auto verdict_json = [](Json item, const RetentionVerdict& verdict) {
        item["keep"] = verdict.keep;
        item["reason"] = verdict.reason;
        return item;
    };
    Json bases = Json::array();
    for (std::size_t i = 0; i < survey.backups.size(); ++i)
        bases.push_back(verdict_json({{"backup_id", survey.backups[i].backup_id()},
                                      {"stored_bytes", survey.backups[i].stored_bytes()}},
                                     survey.plan.backups[i]));
    Json packs = Json::array();
    auto add = [&](const pb::PackInfo& pack, const RetentionVerdict& verdict) {
        Json item{{"path", pack.path()}, {"stored_bytes", pack.stored_bytes()}};
        if (pack.kind() == pb::PACK_KIND_WAL) {
            item["start_lsn"] = to_string(Lsn{pack.start_lsn()});
            item["end_lsn"] = to_string(Lsn{pack.end_lsn()});
        }
        if (is_rewritten(survey, pack)) item["rewritten"] = true;
        packs.push_back(verdict_json(std::move(item), verdict));
    };
    for (std::size_t i = 0; i < survey.wal_packs.size(); ++i)
        add(survey.wal_packs[i], survey.plan.wal_packs[i]);
    for (std::size_t i = 0; i < survey.base_packs.size(); ++i)
        add(survey.base_packs[i], survey.base_verdicts[i]);
    Json body = json_of(report);
    body["dry_run"] = true;
    body["bases"] = std::move(bases);
    body["packs"] = std::move(packs);
    return body;
}

std::string rewritten_text(const ExpireReport& report) {
    if (report.rewritten_packs == 0) return "";
    return "Would rewrite " + format_count(report.rewritten_packs) +
           (report.rewritten_packs == 1 ? " pack" : " packs") + ", of which " +
           format_size(report.rewritten_dead_bytes) + " are dead.\n";
}

std::string waiting_text(const ExpireReport& report) {
    if (report.waiting_packs == 0) return "";
    std::string text = "Condemned and not deleted yet: " + format_count(report.waiting_packs) +
                       " packs, " + format_size(report.waiting_bytes);
    if (!report.waits_for.empty()) text += "; waiting for " + printable(report.waits_for);
    return text + ".\n";
}

// What the next pass would do at one place.
struct Shown {
    RetentionSurvey survey;
    ExpireReport report;
};

Result<Shown> look(const Config& config, const std::string& cluster, const ExpirePlace& place) {
    WV_TRY(RetentionSurvey survey, survey_repository(config, cluster, place));
    WV_TRY(storage::MasterKey master, read_master_key(config));
    auto store = storage::make_directory_store(posix_file_system(), config.repo.root);
    WV_TRY(auto view,
           storage::RepositoryView::open(*store, master, view_options(config.repo.root)));
    WV_TRY(auto condemned, view->condemned(cluster, place.name));
    ExpireReport report = report_of(survey, system_clock().now());
    report.waiting_packs = condemned.size();
    for (const storage::CondemnedThere& each : condemned)
        report.waiting_bytes += each.pack.stored_bytes();
    return Shown{std::move(survey), std::move(report)};
}

std::string place_title(const ExpireReport& report) {
    return "[repo." + (report.place.empty() ? "primary" : report.place) + "]\n";
}

std::string table_of(const Shown& shown, const ExpirePlace& place, const std::string& zone) {
    using Align = Table::Align;
    Table table({"WHAT", "SIZE", "", "WHY"}, {Align::left, Align::right, Align::left, Align::left});
    for (const Row& row : rows_of(shown.survey))
        table.add_row({row.what, format_size(row.bytes),
                       row.is_rewritten   ? "rewritten"
                       : row.verdict.keep ? "stays"
                                          : "goes",
                       printable(row.verdict.reason)});
    std::string text = table.text();
    if (shown.report.window_from)
        text += "The window begins at " + format_local(*shown.report.window_from, zone, 0) + ".\n";
    return text + "Would condemn " + format_count(shown.report.condemned_bases) + " bases and " +
           format_count(shown.report.condemned_packs) + " packs; deleting them " +
           format_duration(place.grace) + " later frees " +
           format_size(shown.report.condemned_bytes) + ".\n" + rewritten_text(shown.report) +
           waiting_text(shown.report);
}

int show(const Globals& globals, const Config& config, const ServerConfig& server) {
    const auto places = expire_places(config);
    Json all = Json::array();
    std::string text;
    for (const ExpirePlace& place : places) {
        auto shown = look(config, server.name, place);
        if (!shown) return report(globals, as_repository_error(std::move(shown).error()));
        all.push_back(json_of(shown->survey, shown->report));
        if (places.size() > 1 || !place.name.empty())
            text += (text.empty() ? "" : "\n") + place_title(shown->report);
        text += table_of(*shown, place, display_zone(server.time_zone));
    }
    if (globals.output != Output::text)
        print_answer(globals, Json{{"places", std::move(all)}});
    else
        std::fputs(text.c_str(), stdout);
    return kExitDone;
}

Result<ExpireReport> expire_place_alone(storage::Repository& repository, const Config& config,
                                        const std::string& cluster, const ExpirePlace& place) {
    WV_TRY(RetentionSurvey survey, survey_repository(config, cluster, place));
    ExpireReport told = report_of(survey, system_clock().now());
    WV_CHECK(repository.condemn(survey));
    rewrite_packs_alone(repository, survey, told);
    if (told.rewritten_packs > 0) {
        ExpirePlace as_it_is = place;
        as_it_is.rewrites = false;
        WV_TRY(RetentionSurvey again, survey_repository(config, cluster, as_it_is));
        WV_CHECK(repository.condemn(again));
        add_condemned(told, again);
    }
    // What lies at a tier is deleted by the agent, and so is here what a tier keeps: it knows what
    // has got there.
    if (!place.name.empty()) return told;
    auto store = storage::make_directory_store(posix_file_system(), config.repo.root);
    storage::DeletionOrder order{
        .place = place.name, .leases = {}, .grace = place.grace, .most = kDeletedAtOnce};
    WV_TRY(order.leases, storage::valid_leases(*store, system_clock().now()));
    for (bool more = true; more;) {
        WV_TRY(storage::Deletions done, repository.delete_condemned(order));
        add_deletions(told, done);
        more = done.more;
    }
    return told;
}

// Where no agent runs.
Result<std::vector<ExpireReport>> expire_alone(const Config& config, const std::string& cluster) {
    WV_TRY(auto repository, open_repository(config, "expire"));
    std::vector<ExpireReport> told;
    for (const ExpirePlace& place : expire_places(config)) {
        WV_TRY(ExpireReport report, expire_place_alone(*repository, config, cluster, place));
        told.push_back(std::move(report));
    }
    WV_CHECK(repository->sync());
    return told;
}

Result<nlohmann::json> ask(const std::string& socket, const std::string& method) {
    WV_TRY(std::string text, call_agent(socket, method, "/v1/expire"));
    auto parsed = nlohmann::json::parse(text, nullptr, false);
    if (!parsed.is_object()) return fail(Errc::corrupt, "the agent's answer cannot be read");
    return parsed;
}

// The places of one pass, and what failed.
Result<std::vector<ExpireReport>> expire_by_agent(const std::string& socket) {
    WV_TRY(nlohmann::json started, ask(socket, "POST"));
    for (;;) {
        WV_TRY(nlohmann::json now, ask(socket, "GET"));
        if (now.value("running", false)) {
            std::this_thread::sleep_for(std::chrono::milliseconds(200));
            continue;
        }
        std::vector<ExpireReport> told;
        for (const nlohmann::json& place : now.value("places", nlohmann::json::array())) {
            if (place.contains("last_error")) return fail(error_of(place["last_error"]));
            if (!place.contains("last")) continue;
            WV_TRY(ExpireReport report, expire_report_of(place["last"]));
            told.push_back(std::move(report));
        }
        return told;
    }
}

void print_report(const ExpireReport& done, bool with_title) {
    std::printf("%sCondemned %s bases and %s packs, %s. Deleted %s packs, %s.\n%s",
                with_title ? place_title(done).c_str() : "",
                format_count(done.condemned_bases).c_str(),
                format_count(done.condemned_packs).c_str(),
                format_size(done.condemned_bytes).c_str(), format_count(done.deleted_packs).c_str(),
                format_size(done.freed_bytes).c_str(), waiting_text(done).c_str());
    if (done.rewritten_packs > 0)
        std::printf("Rewrote %s packs; %s of them were dead.\n",
                    format_count(done.rewritten_packs).c_str(),
                    format_size(done.rewritten_dead_bytes).c_str());
    if (!done.bases_unjudged.empty())
        std::printf("Packs of base backups all stay for now: %s.\n",
                    printable(done.bases_unjudged).c_str());
}

}  // namespace

int verb_expire(const Globals& globals, const ExpireArguments&) {
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    auto server = config->server(globals.server);
    if (!server) return report(globals, server.error(), kExitUsage);
    if (auto wanted = require_window(*config); !wanted) return report(globals, wanted.error());
    if (globals.dry_run) return show(globals, *config, **server);
    auto done = agent_listens(config->web.socket) ? expire_by_agent(config->web.socket)
                                                  : expire_alone(*config, (*server)->name);
    if (!done) return report(globals, done.error());
    Json all = Json::array();
    for (const ExpireReport& each : *done) {
        all.push_back(json_of(each));
        if (globals.output == Output::text)
            print_report(each, done->size() > 1 || !each.place.empty());
    }
    if (globals.output != Output::text) print_answer(globals, Json{{"places", std::move(all)}});
    return kExitDone;
}

}  // namespace walvault::agent
