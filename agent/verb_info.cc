#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "agent/hold.h"
#include "agent/open_view.h"
#include "agent/render.h"
#include "agent/stop_point.h"
#include "agent/verbs.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;

WallTime time_of(std::int64_t micros) { return WallTime(Micros(micros)); }

// Everything the verb shows, read once.
struct Facts {
    std::vector<Window> windows;
    std::vector<storage::HistoryRecord> histories;
    std::optional<Id16> current;
    std::map<Id16, std::uint64_t> orphans;  // by the branch: commits of its parent behind the fork
    std::vector<pb::BackupInfo> backups;
    std::vector<storage::GapRecord> gaps;
    std::vector<storage::MarkRecord> points;
    std::vector<storage::HoldRecord> holds;
    std::vector<storage::JournalRecord> journals;
    storage::RepositoryView::Totals totals;
};

Result<Facts> read_facts(OpenedView& opened) {
    storage::RepositoryView& view = *opened.view;
    const std::string& name = opened.cluster.name;
    Facts facts;
    WV_TRY(facts.windows, restore_windows(view, name));
    WV_TRY(facts.histories, view.histories(name));
    WV_TRY(facts.current, view.current_history(name));
    for (const auto& history : facts.histories) {
        if (!history.parent) continue;
        for (const auto& parent : facts.histories)
            if (parent.id == *history.parent && history.fork_lsn < parent.end_lsn) {
                WV_TRY(facts.orphans[history.id],
                       view.count_commits(parent.id, history.fork_lsn, parent.end_lsn));
            }
    }
    WV_TRY(facts.backups, view.backups(name));
    WV_TRY(facts.gaps, view.gaps(name));
    WV_TRY(facts.points, view.marks(name, WallTime{}, WallTime{}, {pb::MarkEntry::RESTORE_POINT}));
    WV_TRY(facts.holds, view.holds(name));
    WV_TRY(facts.journals, view.journals(name));
    WV_TRY(facts.totals, view.totals(name));
    return facts;
}

std::string ratio_text(std::uint64_t plain, std::uint64_t stored) {
    if (stored == 0) return "";
    char text[32];
    std::snprintf(text, sizeof text, " (%.1f times smaller)",
                  static_cast<double>(plain) / static_cast<double>(stored));
    return text;
}

std::string version_text(unsigned number) {
    return std::to_string(number / 10000) + "." + std::to_string(number % 10000);
}

// One line for each database; its main journal says up to where its classes' are whole.
std::string journals_text(const Facts& facts) {
    std::string text;
    for (const storage::JournalRecord& main : facts.journals) {
        if (!main.data_class.empty()) continue;
        text += "  journal     " + printable(main.database) + ": LSN " + to_string(main.start_lsn) +
                " to " + to_string(main.whole_until_lsn);
        std::string classes;
        for (const storage::JournalRecord& each : facts.journals)
            if (each.database == main.database && !each.data_class.empty())
                classes += (classes.empty() ? "" : ", ") + printable(each.data_class);
        if (!classes.empty()) text += "; classes: " + classes;
        text += "\n";
    }
    if (text.empty()) return text;
    return text + "  journals    " + format_size(facts.totals.journal_stored_bytes) + "\n";
}

std::string summary_text(const OpenedView& opened, const Facts& facts) {
    std::string text = opened.cluster.name + "  PostgreSQL " +
                       version_text(opened.cluster.server_version_num) + ", system id " +
                       std::to_string(opened.cluster.system_identifier) + "\n";
    if (facts.windows.empty())
        text += "  restorable  nothing: there is no complete base backup yet\n";
    for (const Window& window : facts.windows)
        text += "  restorable  " + format_local(window.from, opened.zone, 6) + " to " +
                format_local(window.until, opened.zone, 6) + "  (" +
                format_duration(window.until - window.from) + ", timeline " +
                std::to_string(window.history.timeline) + ", WAL to " + to_string(window.end_lsn) +
                (window.hold_id.empty() ? "" : ", held by " + window.hold_id) + ")\n";
    for (const storage::HoldRecord& hold : facts.holds)
        text += "  hold        " + hold.id + " keeps " + covered_text(hold, opened.zone) +
                (hold.until ? " until " + format_local(*hold.until, opened.zone, 0) : "") + ": " +
                printable(hold.reason) + "\n";
    if (const auto promised = opened.config.repo.retention.window; promised.count() > 0)
        text += "  window      the last " + format_duration(promised) +
                " stay restorable; what is older expires\n";
    text += "  gaps        " +
            (facts.gaps.empty() ? std::string("none") : format_count(facts.gaps.size())) + "\n";
    const auto& totals = facts.totals;
    text += "  WAL         " + format_size(totals.wal_plain_bytes) + " in " +
            format_size(totals.wal_stored_bytes) +
            ratio_text(totals.wal_plain_bytes, totals.wal_stored_bytes) + "\n";
    text += "  bases       " + format_count(facts.backups.size()) + ": " +
            format_size(totals.base_plain_bytes) + " in " + format_size(totals.base_stored_bytes) +
            ratio_text(totals.base_plain_bytes, totals.base_stored_bytes) + ", each chunk once\n";
    text += journals_text(facts);
    text += "  repository  " + opened.store->url() + ", " + format_count(totals.pack_count) +
            " packs\n";
    return text;
}

std::string backups_text(const OpenedView& opened, const Facts& facts) {
    using Align = Table::Align;
    Table table({"BASE", "STARTED", "TOOK", "SIZE", "NEW", "STORED", "CONSISTENT AT", "TIMELINE"},
                {Align::left, Align::left, Align::right, Align::right, Align::right, Align::right,
                 Align::left, Align::right});
    for (const auto& base : facts.backups) {
        const WallTime started = time_of(base.started_at_us());
        table.add_row({base.backup_id(), format_local(started, opened.zone, 0),
                       format_duration(time_of(base.stopped_at_us()) - started),
                       format_size(base.plain_bytes()), format_size(base.new_chunk_bytes()),
                       format_size(base.stored_bytes()), to_string(Lsn{base.stop_lsn()}),
                       std::to_string(base.timeline())});
    }
    return table.text();
}

// "1  4f2a…  0/1000000 to 0/9000000  now followed" with its branches below it.
void append_history(const OpenedView& opened, const Facts& facts,
                    const storage::HistoryRecord& history, const std::string& indent,
                    const std::string& branch, std::string& text) {
    using Cause = pb::HistoryOpened;
    text += indent + branch + to_hex(history.id).substr(0, 8) + "  timeline " +
            std::to_string(history.timeline) + "  " + to_string(history.start_lsn) + " to " +
            to_string(history.end_lsn);
    if (history.last_commit_at != WallTime{})
        text += "  last commit " + format_local(history.last_commit_at, opened.zone, 6);
    if (facts.current && *facts.current == history.id) text += "  (followed now)";
    text += "\n";
    const std::string below = indent + (branch.empty() ? "" : branch == "+- " ? "|  " : "   ");
    if (history.cause != Cause::FIRST && history.cause != Cause::CAUSE_UNSPECIFIED)
        text += below + "  " + printable(history.reason) + "\n";
    std::vector<const storage::HistoryRecord*> children;
    for (const auto& each : facts.histories)
        if (each.parent && *each.parent == history.id) children.push_back(&each);
    for (std::size_t i = 0; i < children.size(); ++i) {
        const auto orphans = facts.orphans.find(children[i]->id);
        const bool last = i + 1 == children.size();
        append_history(opened, facts, *children[i], below, last ? "`- " : "+- ", text);
        if (orphans == facts.orphans.end() || orphans->second == 0) continue;
        text += below + (last ? "   " : "|  ") + "  left behind in " +
                to_hex(history.id).substr(0, 8) + ": " + format_count(orphans->second) +
                " commits from " + to_string(children[i]->fork_lsn) + " on (--history " +
                to_hex(history.id).substr(0, 8) + ")\n";
    }
}

std::string timelines_text(const OpenedView& opened, const Facts& facts) {
    std::string text;
    for (const auto& history : facts.histories)
        if (!history.parent) append_history(opened, facts, history, "", "", text);
    return text;
}

std::string gaps_text(const OpenedView& opened, const Facts& facts) {
    if (facts.gaps.empty()) return "No gaps.\n";
    Table table({"FROM", "TO", "FROM LSN", "TO LSN", "CAUSE"});
    for (const auto& gap : facts.gaps)
        table.add_row({format_local(gap.from_at, opened.zone, 3),
                       format_local(gap.to_at, opened.zone, 3), to_string(gap.from_lsn),
                       to_string(gap.to_lsn), printable(gap.cause)});
    return table.text();
}

std::string points_text(const OpenedView& opened, const Facts& facts) {
    if (facts.points.empty()) return "No restore points; walvault point NAME makes one.\n";
    Table table({"RESTORE POINT", "TIME", "LSN"});
    for (const auto& point : facts.points)
        table.add_row({printable(point.mark.name()),
                       format_local(time_of(point.mark.at_us()), opened.zone, 6),
                       to_string(Lsn{point.mark.start_lsn()})});
    return table.text();
}

Json backups_json(const Facts& facts) {
    Json list = Json::array();
    for (const auto& base : facts.backups)
        list.push_back({{"backup_id", base.backup_id()},
                        {"label", base.label()},
                        {"timeline", base.timeline()},
                        {"start_lsn", to_string(Lsn{base.start_lsn()})},
                        {"stop_lsn", to_string(Lsn{base.stop_lsn()})},
                        {"started_at", format_utc(time_of(base.started_at_us()), 6)},
                        {"stopped_at", format_utc(time_of(base.stopped_at_us()), 6)},
                        {"file_count", base.file_count()},
                        {"bytes", base.plain_bytes()},
                        {"new_bytes", base.new_chunk_bytes()},
                        {"stored_bytes", base.stored_bytes()}});
    return list;
}

Json windows_json(const Facts& facts) {
    Json list = Json::array();
    for (const auto& window : facts.windows) {
        list.push_back({{"history_id", to_hex(window.history.id)},
                        {"timeline", window.history.timeline},
                        {"from", format_utc(window.from, 6)},
                        {"until", format_utc(window.until, 6)},
                        {"start_lsn", to_string(window.history.start_lsn)},
                        {"end_lsn", to_string(window.end_lsn)}});
        if (!window.hold_id.empty()) list.back()["hold_id"] = window.hold_id;
    }
    return list;
}

Json holds_json(const Facts& facts) {
    Json list = Json::array();
    for (const storage::HoldRecord& hold : facts.holds)
        list.push_back(json_of(hold, system_clock().now()));
    return list;
}

Json histories_json(const Facts& facts) {
    Json list = Json::array();
    for (const auto& history : facts.histories) {
        Json json{{"history_id", to_hex(history.id)},
                  {"timeline", history.timeline},
                  {"start_lsn", to_string(history.start_lsn)},
                  {"end_lsn", to_string(history.end_lsn)},
                  {"cause", pb::HistoryOpened::Cause_Name(history.cause)},
                  {"reason", history.reason},
                  {"followed", facts.current && *facts.current == history.id}};
        if (history.parent) {
            json["parent_id"] = to_hex(*history.parent);
            json["fork_lsn"] = to_string(history.fork_lsn);
            auto orphans = facts.orphans.find(history.id);
            json["left_behind_commits"] = orphans == facts.orphans.end() ? 0 : orphans->second;
        }
        if (history.damage) json["damage"] = history.damage->message;
        list.push_back(std::move(json));
    }
    return list;
}

Json gaps_json(const Facts& facts) {
    Json list = Json::array();
    for (const auto& gap : facts.gaps)
        list.push_back({{"history_id", to_hex(gap.history_id)},
                        {"timeline", gap.timeline},
                        {"from_lsn", to_string(gap.from_lsn)},
                        {"to_lsn", to_string(gap.to_lsn)},
                        {"from", format_utc(gap.from_at, 6)},
                        {"to", format_utc(gap.to_at, 6)},
                        {"cause", gap.cause}});
    return list;
}

Json journals_json(const Facts& facts) {
    Json list = Json::array();
    for (const storage::JournalRecord& each : facts.journals) {
        Json json{{"database", each.database},
                  {"class", each.data_class},
                  {"journal_id", to_hex(each.id)},
                  {"start_lsn", to_string(each.start_lsn)},
                  {"end_lsn", to_string(each.whole_until_lsn)}};
        if (each.damage) json["damage"] = each.damage->message;
        list.push_back(std::move(json));
    }
    return list;
}

Json info_json(const OpenedView& opened, const Facts& facts) {
    Json points = Json::array();
    for (const auto& point : facts.points)
        points.push_back({{"name", point.mark.name()},
                          {"at", format_utc(time_of(point.mark.at_us()), 6)},
                          {"lsn", to_string(Lsn{point.mark.start_lsn()})}});
    const auto& totals = facts.totals;
    Json body{{"server", opened.cluster.name},
              {"system_identifier", std::to_string(opened.cluster.system_identifier)},
              {"server_version_num", opened.cluster.server_version_num},
              {"segment_bytes", opened.cluster.segment_bytes},
              {"repository", opened.store->url()},
              {"windows", windows_json(facts)},
              {"histories", histories_json(facts)},
              {"gaps", gaps_json(facts)},
              {"backups", backups_json(facts)},
              {"points", points},
              {"holds", holds_json(facts)},
              {"journals", journals_json(facts)},
              {"totals",
               {{"wal_bytes", totals.wal_plain_bytes},
                {"wal_stored_bytes", totals.wal_stored_bytes},
                {"base_bytes", totals.base_plain_bytes},
                {"base_stored_bytes", totals.base_stored_bytes},
                {"journal_stored_bytes", totals.journal_stored_bytes},
                {"chunk_count", totals.chunk_count},
                {"pack_count", totals.pack_count}}}};
    if (const auto promised = opened.config.repo.retention.window; promised.count() > 0)
        body["window_s"] = promised.count();
    return body;
}

std::string info_text(const OpenedView& opened, const Facts& facts,
                      const InfoArguments& arguments) {
    const bool all =
        !arguments.backups && !arguments.timelines && !arguments.gaps && !arguments.points;
    std::string text;
    auto section = [&](const std::string& part) { text += (text.empty() ? "" : "\n") + part; };
    if (all) section(summary_text(opened, facts));
    if (arguments.backups || (all && !facts.backups.empty())) section(backups_text(opened, facts));
    if (arguments.timelines) section(timelines_text(opened, facts));
    if (arguments.gaps || (all && !facts.gaps.empty())) section(gaps_text(opened, facts));
    if (arguments.points || (all && !facts.points.empty())) section(points_text(opened, facts));
    return text;
}

Result<> show(const Globals& globals, const InfoArguments& arguments) {
    WV_TRY(OpenedView opened, open_view(globals));
    WV_TRY(Facts facts, read_facts(opened));
    if (globals.output != Output::text) {
        print_answer(globals, info_json(opened, facts));
        return {};
    }
    const std::string text = info_text(opened, facts, arguments);
    std::fwrite(text.data(), 1, text.size(), stdout);
    return {};
}

}  // namespace

int verb_info(const Globals& globals, const InfoArguments& arguments) {
    if (auto done = show(globals, arguments); !done) return report(globals, done.error());
    return kExitDone;
}

}  // namespace walvault::agent
