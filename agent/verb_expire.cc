// walvault expire: what retention lets go, shown or done; by the agent where one runs.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "agent/control.h"
#include "agent/expire.h"
#include "agent/render.h"
#include "agent/version.h"

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
};

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
                        survey.base_verdicts[i]});
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

std::string waiting_text(const ExpireReport& report) {
    if (report.waiting_packs == 0) return "";
    std::string text = "Condemned and not deleted yet: " + format_count(report.waiting_packs) +
                       " packs, " + format_size(report.waiting_bytes);
    if (!report.waits_for.empty()) text += "; waiting for " + printable(report.waits_for);
    return text + ".\n";
}

int show(const Globals& globals, const Config& config) {
    auto opened = open_view(globals);
    if (!opened) return report(globals, opened.error());
    auto survey = storage::survey_retention(*opened->view, opened->cluster.name,
                                            config.repo.retention, system_clock().now());
    if (!survey) return report(globals, survey.error());
    auto condemned = opened->view->condemned(opened->cluster.name);
    if (!condemned) return report(globals, condemned.error());
    ExpireReport told = report_of(*survey, system_clock().now());
    told.waiting_packs = condemned->size();
    for (const pb::CondemnedPack& pack : *condemned)
        told.waiting_bytes += pack.pack().stored_bytes();
    if (globals.output != Output::text) {
        print_answer(globals, json_of(*survey, told));
        return kExitDone;
    }
    using Align = Table::Align;
    Table table({"WHAT", "SIZE", "", "WHY"}, {Align::left, Align::right, Align::left, Align::left});
    for (const Row& row : rows_of(*survey))
        table.add_row({row.what, format_size(row.bytes), row.verdict.keep ? "stays" : "goes",
                       printable(row.verdict.reason)});
    std::fputs(table.text().c_str(), stdout);
    if (told.window_from)
        std::printf("The window begins at %s.\n",
                    format_local(*told.window_from, opened->zone, 0).c_str());
    std::printf("Would condemn %s bases and %s packs; deleting them %s later frees %s.\n%s",
                format_count(told.condemned_bases).c_str(),
                format_count(told.condemned_packs).c_str(),
                format_duration(config.repo.expire_grace).c_str(),
                format_size(told.condemned_bytes).c_str(), waiting_text(told).c_str());
    return kExitDone;
}

// Where no agent runs.
Result<ExpireReport> expire_alone(const Config& config, const std::string& cluster) {
    WV_TRY(storage::MasterKey master, read_master_key(config));
    storage::RepositoryOptions options;
    options.host = "expire";
    options.version = kVersion;
    options.wal_level = config.repo.wal_level;
    auto repository = storage::Repository::open(posix_file_system(), config.repo.root, master,
                                                system_clock(), options);
    if (!repository) return fail(as_repository_error(std::move(repository).error()));
    WV_TRY(RetentionSurvey survey, survey_repository(config, cluster));
    ExpireReport told = report_of(survey, system_clock().now());
    WV_CHECK((*repository)->condemn(survey));
    for (bool more = true; more;) {
        WV_TRY(storage::Deletions done,
               (*repository)->delete_condemned(config.repo.expire_grace, kDeletedAtOnce));
        add_deletions(told, done);
        more = done.more;
    }
    WV_CHECK((*repository)->sync());
    return told;
}

Result<nlohmann::json> ask(const std::string& socket, const std::string& method) {
    WV_TRY(std::string text, call_agent(socket, method, "/v1/expire"));
    auto parsed = nlohmann::json::parse(text, nullptr, false);
    if (!parsed.is_object()) return fail(Errc::corrupt, "the agent's answer cannot be read");
    return parsed;
}

Result<ExpireReport> expire_by_agent(const std::string& socket) {
    WV_TRY(nlohmann::json started, ask(socket, "POST"));
    for (;;) {
        WV_TRY(nlohmann::json now, ask(socket, "GET"));
        if (!now.value("running", false)) {
            if (now.contains("last_error")) return fail(error_of(now["last_error"]));
            return expire_report_of(now["last"]);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
}

}  // namespace

int verb_expire(const Globals& globals, const ExpireArguments&) {
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    auto server = config->server(globals.server);
    if (!server) return report(globals, server.error(), kExitUsage);
    if (auto wanted = require_window(config->repo); !wanted) return report(globals, wanted.error());
    if (globals.dry_run) return show(globals, *config);
    auto done = agent_listens(config->web.socket) ? expire_by_agent(config->web.socket)
                                                  : expire_alone(*config, (*server)->name);
    if (!done) return report(globals, done.error());
    if (globals.output != Output::text) {
        print_answer(globals, json_of(*done));
        return kExitDone;
    }
    std::printf(
        "Condemned %s bases and %s packs, %s. Deleted %s packs, %s.\n%s",
        format_count(done->condemned_bases).c_str(), format_count(done->condemned_packs).c_str(),
        format_size(done->condemned_bytes).c_str(), format_count(done->deleted_packs).c_str(),
        format_size(done->freed_bytes).c_str(), waiting_text(*done).c_str());
    if (!done->bases_unjudged.empty())
        std::printf("Packs of base backups all stay for now: %s.\n",
                    printable(done->bases_unjudged).c_str());
    return kExitDone;
}

}  // namespace walvault::agent
