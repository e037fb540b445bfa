#include <algorithm>
#include <array>
#include <cstdio>
#include <deque>
#include <nlohmann/json.hpp>
#include <set>

#include "agent/journal_marks.h"
#include "agent/journal_moment.h"
#include "agent/open_view.h"
#include "agent/render.h"
#include "agent/stop_point_text.h"
#include "agent/verbs.h"
#include "storage/wal_summary.h"

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

constexpr const char* kDdl = "ddl";  // a mark that the journal alone has

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
    std::optional<JournalMark> journal = {};  // what the row journal knows of it
    bool is_change() const {
        return xid != 0 && (kind == "drop" || kind == "truncate" || kind == "bulk" || kind == kDdl);
    }
    bool can_be_undone() const { return in_window && is_change(); }
};

struct Wanted {
    WallTime since{};
    WallTime until{};  // zero: no limit
    std::vector<pb::MarkEntry::Kind> marks;
    bool commits = false;
    bool aborts = false;
    bool ddl = false;
    bool asks_for_ddl = false;  // by its name
    std::uint64_t min_rows = 0;
    std::uint64_t limit = 0;
    bool has(pb::MarkEntry::Kind kind) const {
        return std::find(marks.begin(), marks.end(), kind) != marks.end();
    }
    // Kinds that a row journal may know of.
    bool is_of_rows() const {
        return commits || ddl || has(pb::MarkEntry::DROP) || has(pb::MarkEntry::TRUNCATE) ||
               has(pb::MarkEntry::BULK);
    }
};

struct Answer {
    std::vector<Event> events;  // in the order of WAL
    std::uint64_t dropped = 0;  // earlier ones that are not shown
    // Where a row journal was asked:
    bool is_joined = false;
    bool more = false;  // there are earlier ones, which were not counted
    bool names_databases = false;
    std::vector<std::string> notes;
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
    if (!arguments.database.empty())
        return fail(Errc::invalid_argument, "--database goes with --table: WAL is of all databases",
                    "leave it out, or name a table of a row journal");
    for (const std::string& kind : arguments.kinds) {
        auto found = std::find_if(kKinds.begin(), kKinds.end(),
                                  [&](const KindName& each) { return kind == each.name; });
        if (found != kKinds.end())
            wanted.marks.push_back(found->kind);
        else if (kind == "commit")
            wanted.commits = true;
        else if (kind == "abort")
            wanted.aborts = true;
        else if (kind == kDdl)
            wanted.ddl = wanted.asks_for_ddl = true;
        else
            return fail(Errc::invalid_argument, "'" + printable(kind) + "' is not a kind of event",
                        "there are drop, truncate, ddl, point, bulk, commit, abort, checkpoint, "
                        "timeline, parameter, clock, prepared");
    }
    if (wanted.asks_for_ddl && wanted.min_rows > 0)
        return fail(Errc::invalid_argument,
                    "--kind ddl does not go with --min-rows: DDL has no rows",
                    "leave --min-rows out, or ask for bulk");
    if (!arguments.kinds.empty()) return wanted;
    wanted.ddl = true;
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

// Of a transaction that WAL has no mark of; nothing where it is of no kind that is wanted.
std::optional<Event> event_of(const JournalMark& mark, const Wanted& wanted,
                              std::uint64_t bulk_rows_min) {
    const storage::TableChanges sum = mark.sum();
    Event event;
    if (wanted.has(pb::MarkEntry::TRUNCATE) && sum.truncated > 0) {
        event.kind = "truncate";
        event.shown = "TRUNCATE";
    } else if (wanted.has(pb::MarkEntry::BULK) && sum.rows() >= bulk_rows_min) {
        event.kind = "bulk";
        event.shown = "bulk change";
    } else if (wanted.ddl && mark.ddl_count > 0) {
        event.kind = kDdl;
        event.shown = "DDL";
    } else {
        return std::nullopt;
    }
    event.start_lsn = mark.transaction.commit_lsn;
    event.end_lsn = mark.transaction.end_lsn;
    event.xid = mark.transaction.xid;
    event.at = mark.transaction.at;
    event.inserted_rows = sum.inserted;
    event.updated_rows = sum.updated;
    event.deleted_rows = sum.deleted;
    event.journal = mark;
    return event;
}

// Whether a base is there from which a restore can stop just before it.
bool is_in_window(const std::vector<Window>& windows, const Id16& history, Lsn lsn) {
    return std::ranges::any_of(windows, [&](const Window& window) {
        return window.history.id == history && lsn >= Lsn{window.bases.front().stop_lsn()} &&
               lsn < window.end_lsn;
    });
}

bool is_in_window(const std::vector<Window>& windows, Lsn lsn) {
    return std::any_of(windows.begin(), windows.end(), [&](const Window& window) {
        return !window.bases.empty() && lsn >= Lsn{window.bases.front().stop_lsn()} &&
               lsn < window.end_lsn;
    });
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

bool is_before(const Event& a, const Event& b) { return a.start_lsn < b.start_lsn; }

storage::JournalTransaction transaction_of(const Event& event) {
    WalFinding commit;
    commit.end_lsn = event.end_lsn;
    return {event.start_lsn, journal_end_of(commit), event.at, event.xid};
}

// What the row journals know goes to the marks of WAL, by number and LSN of the commit; what they
// alone have are marks of their own.
void join_journals(OpenedView& opened, const Wanted& wanted, const std::vector<Window>& windows,
                   Answer& answer) {
    JournalMarks marks(opened);
    answer.notes = marks.notes();
    answer.is_joined = !marks.is_empty() || !answer.notes.empty();
    marks.look_at_range(wanted.since, wanted.until, system_clock().now());
    answer.names_databases = marks.has_several_databases();
    answer.notes = marks.notes();
    if (marks.is_empty()) return;
    JournalMarks::Wanted asked;
    asked.since = wanted.since;
    asked.until = wanted.until;
    asked.rows_min = wanted.min_rows > 0 ? wanted.min_rows : storage::kBulkRowsMin;
    asked.limit = wanted.limit;
    asked.bulk = wanted.has(pb::MarkEntry::BULK);
    asked.truncated = wanted.has(pb::MarkEntry::TRUNCATE) && wanted.min_rows == 0;
    asked.ddl = wanted.ddl && wanted.min_rows == 0;
    asked.all_messages = wanted.asks_for_ddl;
    auto commits = marks.find(asked, answer.more);
    for (const Event& event : answer.events)
        if (event.is_change() || event.kind == "commit") commits.push_back(transaction_of(event));
    const auto known = marks.describe(std::move(commits));
    std::set<Lsn> marked;
    for (Event& event : answer.events) {
        const auto found = known.find(event.start_lsn);
        if (found == known.end() || found->second.transaction.xid != event.xid) continue;
        event.journal = found->second;
        if (event.is_change()) marked.insert(event.start_lsn);
    }
    for (const auto& [lsn, mark] : known) {
        if (marked.count(lsn) > 0) continue;
        auto event = event_of(mark, wanted, asked.rows_min);
        if (!event || event->rows() < wanted.min_rows) continue;
        event->in_window = is_in_window(windows, lsn);
        answer.events.push_back(std::move(*event));
    }
    std::stable_sort(answer.events.begin(), answer.events.end(), is_before);
    const std::size_t count = answer.events.size();
    const std::size_t cut = count - std::min<std::size_t>(count, wanted.limit);
    answer.events.erase(answer.events.begin(),
                        answer.events.begin() + static_cast<std::ptrdiff_t>(cut));
    answer.dropped += cut;
    answer.notes = marks.notes();
}

void note_ddl(const Wanted& wanted, const OpenedView& opened, Answer& answer) {
    if (!wanted.asks_for_ddl) return;
    const bool has_ddl = std::any_of(
        answer.events.begin(), answer.events.end(),
        [](const Event& event) { return event.journal && event.journal->ddl_count > 0; });
    if (!answer.is_joined)
        answer.notes.push_back("nothing of " + opened.cluster.name +
                               " is journaled, and WAL does not tell DDL");
    else if (!has_ddl)
        answer.notes.push_back(
            "DDL is told only of databases in which deploy/postgres-ddl-trigger.sql was run");
}

std::string undo_command(const Event& event, const std::string& source) {
    return "walvault restore --before xid:" + std::to_string(event.xid) + " --pgdata DIR" + source;
}

// Whether the journal tells all rows that WAL does, and more: WAL counts what was seen of them.
bool is_explained(const Event& event) {
    const storage::TableChanges sum = event.journal->sum();
    return sum.inserted >= event.inserted_rows && sum.updated >= event.updated_rows &&
           sum.deleted >= event.deleted_rows;
}

std::string wal_text(const Event& event, const RelationNames& names, bool with_rows = true) {
    std::string text = event.shown;
    if (!event.name.empty()) text += " " + printable(event.name);
    auto add = [&](std::uint64_t rows, const char* done) {
        if (with_rows && rows > 0)
            text += ", " + format_count(rows) + (rows == 1 ? " row " : " rows ") + done;
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

// Tables that are not journaled may have been dropped and truncated beside those that are: what WAL
// says of files always stays.
std::string what_text(const Event& event, const RelationNames& names, bool names_database) {
    std::string known = event.journal ? mark_text(*event.journal) : "";
    if (known.empty()) return wal_text(event, names);
    if (names_database) known += " in " + printable(event.journal->database);
    const bool has_files = event.kind == "drop" || event.kind == "truncate";
    if (has_files && !event.files.empty())
        return known + ";  WAL: " + wal_text(event, names, !is_explained(event));
    if (!has_files && !is_explained(event)) return wal_text(event, names) + ";  of it: " + known;
    return (event.kind == "commit" ? "commit: " : "") + known;
}

std::string log_text(const OpenedView& opened, const Answer& answer, const RelationNames& names,
                     const std::string& source) {
    Table table({"TIME (" + opened.zone + ")", "LSN", "XID", "WHAT"},
                {Table::Align::left, Table::Align::left, Table::Align::right, Table::Align::left});
    Lsn told_at;
    for (const Event& event : answer.events) {
        // Of several marks of one commit the first tells what the journal knows of it.
        const bool is_told =
            event.journal && std::exchange(told_at, event.start_lsn) == event.start_lsn;
        table.add_row(
            {event.at == WallTime{} ? "" : format_local(event.at, opened.zone, 6),
             to_string(event.start_lsn), event.xid == 0 ? "" : std::to_string(event.xid),
             is_told ? wal_text(event, names) : what_text(event, names, answer.names_databases)});
    }
    std::string text = answer.events.empty()
                           ? std::string("Nothing of that kind is in the WAL ") +
                                 (answer.is_joined ? "or the journal " : "") + "of that time.\n"
                           : table.text();
    if (answer.dropped > 0)
        text += format_count(answer.dropped) +
                " earlier ones are not shown; raise -L or narrow the time.\n";
    else if (answer.more)
        text += "There are earlier ones; raise -L or narrow the time.\n";
    for (const std::string& note : answer.notes)
        text += "note: " + printable(note) + "\n";
    std::set<Xid> told;
    for (const Event& event : answer.events)
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
    if (event.journal) json["journal"] = mark_json(*event.journal);
    if (event.can_be_undone()) json["restore"] = undo_command(event, source);
    return json;
}

// What the answer says beside its events.
Json tail_json(const Answer& answer) {
    Json json{{"not_shown", answer.dropped}};
    if (answer.is_joined) json["more"] = answer.more || answer.dropped > 0;
    if (answer.is_joined || !answer.notes.empty()) json["notes"] = answer.notes;
    return json;
}

void print_log_json(const Globals& globals, const OpenedView& opened, const Answer& answer,
                    const RelationNames& names) {
    if (globals.output == Output::jsonl) {
        for (const Event& event : answer.events) {
            Json line{{"type", "event"}};
            line.update(event_json(event, names, source_options(globals)));
            print_answer(globals, line);
        }
        Json line{{"type", "result"}, {"count", answer.events.size()}};
        line.update(tail_json(answer));
        print_answer(globals, line);
        return;
    }
    Json list = Json::array();
    for (const Event& event : answer.events)
        list.push_back(event_json(event, names, source_options(globals)));
    Json json{{"server", opened.cluster.name}, {"events", list}};
    json.update(tail_json(answer));
    print_answer(globals, json);
}

Result<Answer> find(OpenedView& opened, const Wanted& wanted) {
    Collector collector(wanted);
    std::vector<Window> windows;
    if (!wanted.marks.empty() || wanted.ddl) {
        WV_TRY(windows, restore_windows(*opened.view, opened.cluster.name));
    }
    if (!wanted.marks.empty()) {
        WV_TRY(auto marks,
               opened.view->marks(opened.cluster.name, wanted.since, wanted.until, wanted.marks));
        for (const auto& mark : marks) {
            Event event = event_of(mark.mark);
            event.in_window = is_in_window(windows, mark.history_id, event.start_lsn);
            collector.add(std::move(event));
        }
    }
    if (wanted.commits || wanted.aborts) WV_CHECK(collect_transactions(opened, wanted, collector));
    Answer answer;
    answer.events = collector.take();
    answer.dropped = collector.dropped();
    std::stable_sort(answer.events.begin(), answer.events.end(), is_before);
    if (wanted.is_of_rows()) join_journals(opened, wanted, windows, answer);
    note_ddl(wanted, opened, answer);
    return answer;
}

Result<> show(const Globals& globals, const LogArguments& arguments) {
    WV_TRY(OpenedView opened, open_view(globals));
    const TimeContext times{system_clock().now(), opened.zone};
    WV_TRY(Wanted wanted, parse_arguments(arguments, times));
    WV_TRY(const Answer answer, find(opened, wanted));
    std::vector<std::string> files;
    for (const Event& event : answer.events)
        files.insert(files.end(), event.files.begin(), event.files.end());
    std::sort(files.begin(), files.end());
    files.erase(std::unique(files.begin(), files.end()), files.end());
    const RelationNames names =
        opened.is_tier ? RelationNames{} : ask_relation_names(opened.server.conninfo, files);
    if (globals.output != Output::text) {
        print_log_json(globals, opened, answer, names);
        return {};
    }
    const std::string text = log_text(opened, answer, names, source_options(globals));
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
