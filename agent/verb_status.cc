// walvault status: how protected the server is now, once or again and again.
#include <poll.h>

#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/control.h"
#include "agent/open_view.h"
#include "agent/render.h"
#include "agent/target.h"

namespace walvault::agent {
namespace {

using SortedJson = nlohmann::json;

WallTime time_of(const SortedJson& status, const char* key) {
    std::string text = status.value(key, "");
    if (text.empty()) return {};
    auto parsed = parse_time(text, {system_clock().now(), "UTC"});
    return parsed ? *parsed : WallTime{};
}

std::string age_text(WallTime at) {
    if (at == WallTime{}) return "never";
    return format_duration(system_clock().now() - at) + " ago";
}

std::string protection_line(const SortedJson& status, const Style& style) {
    WallTime until = time_of(status, "recoverable_until");
    if (status.value("backup_count", 0) == 0)
        return style.bad("not restorable yet: no base backup is complete");
    auto loss = std::max(Micros(0), system_clock().now() - until);
    std::string goal = format_duration(std::chrono::milliseconds(status.value("rpo_target_ms", 0)));
    bool kept = loss <= std::chrono::milliseconds(status.value("rpo_target_ms", 0));
    std::string text = "a crash now would lose " + format_duration(loss) + "   (goal " + goal + ")";
    return kept ? style.good("protected") + "   " + text : style.bad("behind") + "   " + text;
}

std::string stream_line(const SortedJson& status) {
    if (!status.value("connected", false))
        return "not connected: " + printable(status.value("last_error", ""));
    return status.value("flushed_lsn", "") + " flushed, timeline " +
           std::to_string(status.value("timeline", 0)) + "   slot " +
           printable(status.value("slot", "")) + " " + status.value("slot_wal_status", "") +
           ", retains " + format_size(status.value("slot_retained_bytes", std::uint64_t{0}));
}

std::string host_line(const SortedJson& host) {
    std::string text = printable(host.value("host", ""));
    if (host.value("streamed", false)) return text + "   streamed from";
    if (host.value("slot_ready", false))
        text += "   slot ready";
    else
        text += "   slot not ready: " + printable(host.value("problem", ""));
    if (auto retained = host.value("slot_retained_bytes", std::uint64_t{0}); retained > 0)
        text += ", retains " + format_size(retained);
    return text;
}

std::string window_line(const SortedJson& place, const Style& style) {
    const std::string repo = place.value("repo", "");
    std::string text = "the last " +
                       format_duration(std::chrono::seconds(place.value("window_s", 0))) +
                       (repo == "primary" ? "" : " on " + printable(repo));
    const SortedJson error = place.value("last_error", SortedJson::object());
    if (error.contains("message"))
        text += "   " + style.warning("nothing expires: ") + printable(error.value("message", ""));
    return text;
}

std::string tier_line(const SortedJson& tier, const Style& style) {
    std::string text = printable(tier.value("name", ""));
    const WallTime until = time_of(tier, "recoverable_until");
    if (until == WallTime{})
        text += "   nothing can be restored from it yet";
    else
        text += "   the loss of this host would lose " +
                format_duration(std::max(Micros(0), system_clock().now() - until));
    if (auto pending = tier.value("pending_bytes", std::uint64_t{0}); pending > 0)
        text += ", " + format_size(pending) + " to go";
    const SortedJson error = tier.value("error", SortedJson::object());
    if (error.contains("message"))
        text += "   " + style.bad("failing") + ": " + printable(error.value("message", ""));
    return text;
}

std::string journal_line(const SortedJson& journal, const Style& style) {
    std::string text = printable(journal.value("database", ""));
    const SortedJson error = journal.value("error", SortedJson::object());
    if (!journal.value("connected", false))
        return text + "   " + style.bad("not journaled now") + ": " +
               printable(error.value("message", "it begins"));
    std::size_t whole = 0, others = 0;
    for (const SortedJson& table : journal.value("tables", SortedJson::array()))
        ++(table.value("changes", "") == "all" ? whole : others);
    text += "   " + format_count(whole) + (whole == 1 ? " table" : " tables");
    if (others > 0)
        text += ", " + style.warning(format_count(others) + " not whole") + " (walvault check)";
    if (auto waiting = journal.value("waiting_snapshots", std::uint64_t{0}); waiting > 0)
        text += ", " + format_count(waiting) + " to be read";
    return text + ", up to " + journal.value("stored_lsn", "");
}

std::string text_of(const SortedJson& status, const std::string& zone, const Style& style) {
    std::string name = printable(status.value("server", ""));
    auto line = [&](const char* label, const std::string& text) {
        return "       " + std::string(label) +
               std::string(14 - std::min<std::size_t>(13, std::string_view(label).size()), ' ') +
               text + "\n";
    };
    std::string out = style.strong(name) + "\n" + line("state", protection_line(status, style));
    if (status.contains("recoverable_from"))
        out += line("restorable",
                    format_local(time_of(status, "recoverable_from"), zone, 0) + " → " +
                        format_local(time_of(status, "recoverable_until"), zone, 1) +
                        (status.value("gap_count", 0) > 0 ? ", with gaps" : ", no gaps"));
    out += line("stream", stream_line(status));
    for (const SortedJson& host : status.value("hosts", SortedJson::array()))
        out += line("host", host_line(host));
    const SortedJson retention = status.value("retention", SortedJson::object());
    for (const SortedJson& place : retention.value("places", SortedJson::array()))
        out += line("window", window_line(place, style));
    out += line("repository",
                format_size(status.value("wal_stored_bytes", std::uint64_t{0})) + " for " +
                    format_size(status.value("wal_plain_bytes", std::uint64_t{0})) + " of WAL, " +
                    format_size(status.value("base_stored_bytes", std::uint64_t{0})) +
                    " of base backups");
    for (const SortedJson& tier : status.value("tiers", SortedJson::array()))
        out += line("copy", tier_line(tier, style));
    for (const SortedJson& journal : status.value("journals", SortedJson::array()))
        out += line("journal", journal_line(journal, style));
    const SortedJson backup = status.value("backup", SortedJson::object());
    if (backup.value("running", false))
        out += line("base backup",
                    "running, " + format_percent(backup.value("done_bytes", std::uint64_t{0}),
                                                 backup.value("expected_bytes", std::uint64_t{0})));
    if (status.contains("last_backup"))
        out += line("last base",
                    status["last_backup"].value("backup_id", "") + ", " +
                        age_text(time_of(status["last_backup"], "stopped_at")) + ", " +
                        format_size(status["last_backup"].value("bytes", std::uint64_t{0})));
    return out;
}

// Without an agent, what the repository says; and that nobody streams.
Result<SortedJson> offline_status(const Globals& globals) {
    WV_TRY(OpenedView opened, open_view(globals));
    WV_TRY(auto histories, opened.view->histories(opened.cluster.name));
    WV_TRY(auto backups, opened.view->backups(opened.cluster.name));
    WV_TRY(auto gaps, opened.view->gaps(opened.cluster.name));
    WV_TRY(auto totals, opened.view->totals(opened.cluster.name));
    SortedJson status{
        {"server", opened.cluster.name},
        {"connected", false},
        {"last_error", "no agent runs for this repository; start it with `walvault run`"},
        {"rpo_target_ms", opened.server.rpo_target.count()},
        {"backup_count", backups.size()},
        {"gap_count", gaps.size()},
        {"wal_plain_bytes", totals.wal_plain_bytes},
        {"wal_stored_bytes", totals.wal_stored_bytes},
        {"base_stored_bytes", totals.base_stored_bytes}};
    if (!histories.empty()) {
        status["flushed_lsn"] = to_string(histories.back().end_lsn);
        status["timeline"] = histories.back().timeline;
        status["recoverable_until"] = to_utc_text(histories.back().covered_until);
    }
    if (!backups.empty())
        status["recoverable_from"] = to_utc_text(WallTime(Micros(backups.front().stopped_at_us())));
    return status;
}

Result<SortedJson> read_status(const Globals& globals, const Config& config, bool& agent_runs) {
    auto text = call_agent(config.web.socket, "GET", "/v1/status");
    agent_runs = text.has_value();
    if (!text && text.error().code == Errc::unavailable) return offline_status(globals);
    if (!text) return fail(text.error());
    SortedJson status = SortedJson::parse(*text, nullptr, false);
    if (!status.is_object()) return fail(Errc::corrupt, "the agent's answer cannot be read");
    return status;
}

// False when nobody can read it.
bool print(const Globals& globals, const SortedJson& status, const std::string& zone,
           const Style& style) {
    if (globals.output == Output::text)
        std::fputs(text_of(status, zone, style).c_str(), stdout);
    else
        print_answer(globals, status);
    return std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
}

}  // namespace

int verb_status(const Globals& globals, const StatusArguments& arguments) {
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    auto server = config->server(globals.server);
    if (!server) return report(globals, server.error(), kExitUsage);
    std::string zone = display_zone((*server)->time_zone);
    Style style = Style::of(globals, 1);
    for (;;) {
        bool agent_runs = false;
        auto status = read_status(globals, *config, agent_runs);
        if (!status) {
            // Who watches wants to see also that it is mended.
            int code = report(globals, status.error());
            if (!arguments.watch_seconds) return code;
        } else {
            if (arguments.watch_seconds && style.colored()) std::fputs("\x1b[H\x1b[2J", stdout);
            if (!print(globals, *status, zone, style)) return kExitFailed;
        }
        if (!arguments.watch_seconds) return agent_runs ? kExitDone : kExitFailed;
        ::poll(nullptr, 0, std::max(1, *arguments.watch_seconds) * 1000);
    }
}

}  // namespace walvault::agent
