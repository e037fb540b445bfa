#include <algorithm>
#include <array>
#include <cstdio>
#include <deque>
#include <nlohmann/json.hpp>
#include <set>

#include "agent/open_view.h"
#include "agent/render.h"
#include "agent/stop_point_text.h"
#include "agent/verbs.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;

struct KindName {
    const char* name;
    pb::MarkEntry::Kind kind;
    const char* shown;
};
constexpr std::array<KindName, 9> kKinds{
    {{"drop", pb::MarkEntry::DROP, "DROP"},
     {"truncate", pb::MarkEntry::TRUNCATE, "TRUNCATE or rewrite"},
     {"point", pb::MarkEntry::RESTORE_POINT, "restore point"},
     {"bulk", pb::MarkEntry::BULK, "bulk change"},
     {"checkpoint", pb::MarkEntry::CHECKPOINT, "checkpoint"},
     {"timeline", pb::MarkEntry::TIMELINE_SWITCH, "timeline switch"},
     {"parameter", pb::MarkEntry::PARAMETER_CHANGE, "parameter change"},
     {"clock", pb::MarkEntry::CLOCK_STEP, "clock set back"},
     {"prepared", pb::MarkEntry::PREPARED, "PREPARE TRANSACTION"}}};

// One line of the log: a mark, or a transaction.
struct Event {
    std::string kind;  // as --kind takes it
    std::string shown;
    Lsn start_lsn;
    Lsn end_lsn;
    Xid xid = 0;
    WallTime at{};
    std::string name;
    std::vector<std::string> files;
    std::uint64_t inserted_rows = 0, updated_rows = 0, deleted_rows = 0;
    std::uint64_t rows() const { return inserted_rows + updated_rows + deleted_rows; }
    bool in_window = false;
    bool can_be_undone() const {
        return in_window && xid != 0 && (kind == "drop" || kind == "truncate" || kind == "bulk");
    }
};

struct Wanted {
    WallTime since{};
    WallTime until{};  // zero: no limit
    std::vector<pb::MarkEntry::Kind> marks;
    bool commits = false;
    bool aborts = false;
    std::uint64_t min_rows = 0;
    std::uint64_t limit = 0;
};

Result<Wanted> parse_arguments(const LogArguments& arguments, const TimeContext& times) {
    Wanted wanted;
    wanted.since = times.now - std::chrono::hours(24);
    if (!arguments.since.empty()) {
        WV_TRY(wanted.since, parse_time(arguments.since, times));
    }
    if (!arguments.until.empty()) {
        WV_TRY(wanted.until, parse_time(arguments.until, times));
    }
    wanted.min_rows = arguments.min_rows;
    wanted.limit = std::max<std::uint64_t>(1, arguments.limit);
    for (const std::string& kind : arguments.kinds) {
        auto found = std::find_if(kKinds.begin(), kKinds.end(),
                                  [&](const KindName& each) { return kind == each.name; });
        if (found != kKinds.end())
            wanted.marks.push_back(found->kind);
        else if (kind == "commit")
            wanted.commits = true;
        else if (kind == "abort")
            wanted.aborts = true;
        else
            return fail(Errc::invalid_argument, "'" + printable(kind) + "' is not a kind of event",
                        "there are drop, truncate, point, bulk, commit, abort, checkpoint, "
                        "timeline, parameter, clock, prepared");
    }
    if (arguments.kinds.empty())
        for (const KindName& each : kKinds)
            if (each.kind != pb::MarkEntry::CHECKPOINT) wanted.marks.push_back(each.kind);
    return wanted;
}

Event event_of(const pb::MarkEntry& mark) {
    Event event;
    for (const KindName& each : kKinds)
        if (each.kind == mark.kind()) {
            event.kind = each.name;
            event.shown = each.shown;
        }
    event.start_lsn = Lsn{mark.start_lsn()};
    event.end_lsn = Lsn{mark.end_lsn()};
    event.xid = mark.xid();
    event.at = WallTime(Micros(mark.at_us()));
    event.name = mark.name();
    event.files.assign(mark.files().begin(), mark.files().end());
    event.inserted_rows = mark.inserted_rows();
    event.updated_rows = mark.updated_rows();
    event.deleted_rows = mark.deleted_rows();
    return event;
}

Event event_of(const WalFinding& finding) {
    Event event;
    event.kind = event.shown = finding.kind == WalFinding::Kind::commit ? "commit" : "abort";
    event.start_lsn = finding.start_lsn;
    event.end_lsn = finding.end_lsn;
    event.xid = finding.xid;
    event.at = finding.at;
    event.inserted_rows = finding.inserted_rows;
    event.updated_rows = finding.updated_rows;
    event.deleted_rows = finding.deleted_rows;
    if (finding.most_changed.relation != 0) event.files.push_back(to_string(finding.most_changed));
    for (const auto& file : finding.dropped)
        event.files.push_back(to_string(file));
    return event;
}

// Whether a base is there from which a restore can stop just before it.
bool is_in_window(const std::vector<Window>& windows, const Id16& history, Lsn lsn) {
    for (const Window& window : windows)
        if (window.history.id == history) return lsn >= Lsn{window.bases.front().stop_lsn()};
    return false;
}

// The newest ones are kept: memory does not grow with the time asked for.
class Collector {
public:
    explicit Collector(const Wanted& wanted) : wanted_(wanted) {}
    void add(Event event) {
        if (event.rows() < wanted_.min_rows) return;
        events_.push_back(std::move(event));
        if (events_.size() <= wanted_.limit) return;
        events_.pop_front();
        ++dropped_;
    }
    std::vector<Event> take() {
        std::vector<Event> events(std::make_move_iterator(events_.begin()),
                                  std::make_move_iterator(events_.end()));
        return events;
    }
    std::uint64_t dropped() const { return dropped_; }

private:
    const Wanted& wanted_;
    std::deque<Event> events_;
    std::uint64_t dropped_ = 0;
};

Result<> collect_transactions(OpenedView& opened, const Wanted& wanted, Collector& collector) {
    WV_TRY(auto histories, opened.view->histories(opened.cluster.name));
    for (const auto& history : histories) {
        WV_TRY(auto first,
               opened.view->first_transaction_after(history.id, wanted.since - Micros(1)));
        if (!first) continue;
        WV_CHECK(opened.view->scan(
            history.id, first->start_lsn, history.end_lsn, [&](const WalFinding& found) {
                const bool shown = (found.kind == WalFinding::Kind::commit && wanted.commits) ||
                                   (found.kind == WalFinding::Kind::abort && wanted.aborts);
                const bool in_time = found.at >= wanted.since &&
                                     (wanted.until == WallTime{} || found.at <= wanted.until);
                if (shown && in_time) collector.add(event_of(found));
                return true;
            }));
    }
    return {};
}

std::string undo_command(const Event& event, const std::string& source) {
    return "walvault restore --before xid:" + std::to_string(event.xid) + " --pgdata DIR" + source;
}

std::string what_text(const Event& event, const RelationNames& names) {
    std::string text = event.shown;
    if (!event.name.empty()) text += " " + printable(event.name);
    auto add = [&](std::uint64_t rows, const char* done) {
        if (rows > 0) text += ", " + format_count(rows) + (rows == 1 ? " row " : " rows ") + done;
    };
    add(event.inserted_rows, "inserted");
    add(event.updated_rows, "updated");
    add(event.deleted_rows, "deleted");
    std::string files;
    for (std::size_t i = 0; i < event.files.size() && i < 4; ++i)
        files += (i > 0 ? ", " : "") + relation_text(event.files[i], names);
    if (event.files.size() > 4)
        files += ", and " + std::to_string(event.files.size() - 4) + " more";
    return files.empty() ? text : text + "  " + files;
}

std::string log_text(const OpenedView& opened, const std::vector<Event>& events,
                     std::uint64_t dropped, const RelationNames& names, const std::string& source) {
    if (events.empty()) return "Nothing of that kind happened then.\n";
    Table table({"TIME (" + opened.zone + ")", "LSN", "XID", "WHAT"},
                {Table::Align::left, Table::Align::left, Table::Align::right, Table::Align::left});
    for (const Event& event : events)
        table.add_row({event.at == WallTime{} ? "" : format_local(event.at, opened.zone, 6),
                       to_string(event.start_lsn), event.xid == 0 ? "" : std::to_string(event.xid),
                       what_text(event, names)});
    std::string text = table.text();
    if (dropped > 0)
        text +=
            format_count(dropped) + " earlier ones are not shown; raise -L or narrow the time.\n";
    std::set<Xid> told;
    for (const Event& event : events)
        if (event.can_be_undone() && told.insert(event.xid).second)
            text += "To go back to just before the " + event.shown + " of " +
                    std::to_string(event.xid) + ":   " + undo_command(event, source) + "\n";
    return text;
}

Json event_json(const Event& event, const RelationNames& names, const std::string& source) {
    Json json{{"kind", event.kind}};
    json["at"] = nullptr;
    if (event.at != WallTime{}) json["at"] = format_utc(event.at, 6);
    json["lsn"] = to_string(event.start_lsn);
    json["end_lsn"] = to_string(event.end_lsn);
    json["xid"] = nullptr;
    if (event.xid != 0) json["xid"] = event.xid;
    if (!event.name.empty()) json["name"] = event.name;
    Json relations = Json::array();
    for (const auto& file : event.files) {
        auto found = names.find(file);
        Json relation{{"file", file}, {"name", nullptr}};
        if (found != names.end()) relation["name"] = found->second;
        relations.push_back(relation);
    }
    json["relations"] = relations;
    json["inserted_rows"] = event.inserted_rows;
    json["updated_rows"] = event.updated_rows;
    json["deleted_rows"] = event.deleted_rows;
    if (event.can_be_undone()) json["restore"] = undo_command(event, source);
    return json;
}

void print_log_json(const Globals& globals, const OpenedView& opened,
                    const std::vector<Event>& events, std::uint64_t dropped,
                    const RelationNames& names) {
    if (globals.output == Output::jsonl) {
        for (const Event& event : events) {
            Json line{{"type", "event"}};
            line.update(event_json(event, names, source_options(globals)));
            print_answer(globals, line);
        }
        print_answer(globals,
                     Json{{"type", "result"}, {"count", events.size()}, {"not_shown", dropped}});
        return;
    }
    Json list = Json::array();
    for (const Event& event : events)
        list.push_back(event_json(event, names, source_options(globals)));
    print_answer(globals,
                 Json{{"server", opened.cluster.name}, {"events", list}, {"not_shown", dropped}});
}

Result<> show(const Globals& globals, const LogArguments& arguments) {
    WV_TRY(OpenedView opened, open_view(globals));
    const TimeContext times{system_clock().now(), opened.zone};
    WV_TRY(Wanted wanted, parse_arguments(arguments, times));
    Collector collector(wanted);
    if (!wanted.marks.empty()) {
        WV_TRY(auto windows, restore_windows(*opened.view, opened.cluster.name));
        WV_TRY(auto marks,
               opened.view->marks(opened.cluster.name, wanted.since, wanted.until, wanted.marks));
        for (const auto& mark : marks) {
            Event event = event_of(mark.mark);
            event.in_window = is_in_window(windows, mark.history_id, event.start_lsn);
            collector.add(std::move(event));
        }
    }
    if (wanted.commits || wanted.aborts) WV_CHECK(collect_transactions(opened, wanted, collector));
    std::vector<Event> events = collector.take();
    std::stable_sort(events.begin(), events.end(),
                     [](const Event& a, const Event& b) { return a.start_lsn < b.start_lsn; });
    std::vector<std::string> files;
    for (const Event& event : events)
        files.insert(files.end(), event.files.begin(), event.files.end());
    std::sort(files.begin(), files.end());
    files.erase(std::unique(files.begin(), files.end()), files.end());
    const RelationNames names =
        opened.is_tier ? RelationNames{} : ask_relation_names(opened.server.conninfo, files);
    if (globals.output != Output::text) {
        print_log_json(globals, opened, events, collector.dropped(), names);
        return {};
    }
    const std::string text =
        log_text(opened, events, collector.dropped(), names, source_options(globals));
    std::fwrite(text.data(), 1, text.size(), stdout);
    return {};
}

}  // namespace

int verb_log(const Globals& globals, const LogArguments& arguments) {
    if (!arguments.table.empty()) return log_of_table(globals, arguments);
    if (auto done = show(globals, arguments); !done) return report(globals, done.error());
    return kExitDone;
}

}  // namespace walvault::agent
