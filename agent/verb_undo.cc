#include <cstdio>

#include "agent/journal_answer.h"
#include "agent/render.h"
#include "agent/undo_plan.h"
#include "agent/undo_sql.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;

std::string rows_word(std::uint64_t count, const char* one, const char* several) {
    return format_count(count) + " " + (count == 1 ? one : several);
}

std::string list_text(const std::set<std::string>& names) {
    std::string text;
    for (const std::string& name : names)
        text += (text.empty() ? "" : ", ") + printable(name);
    return text;
}

std::string what_text(const OpenedView& opened, const UndoPlan& plan) {
    if (plan.transaction_count == 1)
        return "transaction " + std::to_string(plan.first.xid) + ", committed " +
               format_both(plan.first.at, opened.zone, 6);
    return rows_word(plan.transaction_count, "transaction", "transactions") + " from " +
           std::to_string(plan.first.xid) + ", committed " +
           format_both(plan.first.at, opened.zone, 6) + ", to " + std::to_string(plan.last.xid) +
           ", committed " + format_both(plan.last.at, opened.zone, 6);
}

std::string conflicts_text(const OpenedView& opened, const UndoPlan& plan) {
    std::string text;
    if (plan.conflict_count > 0)
        text += "--\n-- CONFLICTS: " +
                rows_word(plan.conflict_count, "later change meets", "later changes meet") +
                " these rows; where one left a row other than expected, the script stops and "
                "changes nothing.\n";
    for (const UndoConflict& each : plan.conflicts)
        text += "--   " + std::string(kind_name(each.kind)) + " of " + printable(each.table) +
                (each.key.empty() ? "" : " " + each.key) + " by xid " +
                std::to_string(each.transaction.xid) + " at " +
                format_local(each.transaction.at, opened.zone, 6) + "\n";
    if (plan.conflict_count > plan.conflicts.size()) text += "--   and more\n";
    if (plan.not_undone_count > 0)
        text +=
            "--\n-- NOT UNDONE: " + rows_word(plan.not_undone_count, "change", "changes") + "\n";
    for (const NotUndone& each : plan.not_undone)
        text += "--   " + std::string(kind_name(each.kind)) + " of " + printable(each.table) +
                (each.key.empty() ? "" : " " + each.key) + " by xid " + std::to_string(each.xid) +
                ": " + printable(each.reason) + "\n";
    if (plan.not_undone_count > plan.not_undone.size()) text += "--   and more\n";
    return text;
}

std::string begin_sql(const UndoArguments& arguments) {
    return "BEGIN;\n" + undo_settings() +
           (arguments.without_triggers ? "SET LOCAL session_replication_role = 'replica';\n" : "");
}

// Empty, or what keeps the script from leaving things half undone.
std::string stop_sql(const UndoPlan& plan, const UndoArguments& arguments) {
    const bool stops = plan.not_undone_count > 0 && !arguments.partial;
    return stops ? undo_stop(plan.not_undone_count) : "";
}

// The script is for a file: who makes it is told beside it.
void warn_of_rest(const UndoPlan& plan, const UndoArguments& arguments) {
    if (plan.not_undone_count == 0) return;
    std::fprintf(
        stderr, "warning: %s cannot be taken back; the script %s\n",
        rows_word(plan.not_undone_count, "change", "changes").c_str(),
        arguments.partial
            ? "takes back the others"
            : "raises an error and changes nothing (--partial: the others are taken back)");
}

std::string head_text(const OpenedView& opened, const UndoPlan& plan,
                      const UndoArguments& arguments) {
    std::string text = "-- Takes back " + what_text(opened, plan) + ":\n-- " +
                       rows_word(plan.change_count, "change", "changes") + " of " +
                       list_text(plan.tables) + ", the last one first.\n" +
                       "-- Read it, then: psql -X -v ON_ERROR_STOP=1 -f FILE\n"
                       "-- Each statement must find the one row as the change left it; else it "
                       "raises an error, and nothing is changed.\n";
    text +=
        "-- Only what the journal has is taken back: not updates and deletes of tables that are "
        "journaled for inserts only,\n-- and nothing of tables that are not published "
        "(walvault check names both).\n";
    if (!arguments.without_triggers)
        text +=
            "-- Triggers and foreign keys act as ever, and what they did then is taken back here "
            "as well; a superuser can turn\n-- them off with undo --without-triggers.\n";
    if (!plan.masked_tables.empty())
        text += "-- Masked columns of " + list_text(plan.masked_tables) +
                " are not in the journal: they stay as they are; a row that is put back gets their "
                "default.\n";
    for (const std::string& note : plan.notes)
        text += "-- note: " + printable(note) + "\n";
    return text + conflicts_text(opened, plan) + "--\n" + begin_sql(arguments);
}

Result<> print_text(const OpenedView& opened, const UndoPlan& plan,
                    const UndoArguments& arguments) {
    WV_CHECK(put_text(head_text(opened, plan, arguments)));
    const auto print = [](const std::string& sql) -> Result<bool> {
        WV_CHECK(put_text(sql));
        return true;
    };
    WV_CHECK(plan.each_statement(print));
    return put_text(stop_sql(plan, arguments) + "COMMIT;\n");
}

Json conflicts_json(const UndoPlan& plan) {
    Json list = Json::array();
    for (const UndoConflict& each : plan.conflicts) {
        Json json = transaction_json(each.transaction);
        json["kind"] = kind_name(each.kind);
        json["table"] = each.table;
        json["row"] = each.key;
        list.push_back(json);
    }
    return list;
}

Json not_undone_json(const UndoPlan& plan) {
    Json list = Json::array();
    for (const NotUndone& each : plan.not_undone)
        list.push_back({{"xid", each.xid},
                        {"kind", kind_name(each.kind)},
                        {"table", each.table},
                        {"row", each.key},
                        {"reason", each.reason}});
    return list;
}

Result<> print_json(const Globals& globals, const OpenedView& opened, const JournalSet& set,
                    const UndoPlan& plan, const UndoArguments& arguments) {
    Json head{{"server", opened.cluster.name},
              {"database", set.database},
              {"transactions", plan.transaction_count},
              {"first", transaction_json(plan.first)},
              {"last", transaction_json(plan.last)},
              {"tables", plan.tables},
              {"changes", plan.change_count},
              {"conflicts", conflicts_json(plan)},
              {"conflict_count", plan.conflict_count},
              {"not_undone", not_undone_json(plan)},
              {"not_undone_count", plan.not_undone_count},
              {"masked_tables", plan.masked_tables},
              {"notes", plan.notes}};
    AnswerList list(globals, {"statements", "statement", {}}, head);
    list.add({{"sql", begin_sql(arguments)}});
    WV_CHECK(plan.each_statement([&](const std::string& sql) {
        return Result<bool>(list.add({{"sql", sql}}));
    }));
    if (const std::string stop = stop_sql(plan, arguments); !stop.empty())
        list.add({{"sql", stop}});
    list.add({{"sql", "COMMIT;\n"}});
    return list.finish(Json::object());
}

Result<> show(const Globals& globals, const UndoArguments& arguments) {
    UndoWanted wanted{.table = arguments.table};
    if (!arguments.transaction.empty()) {
        WV_TRY(wanted.xid, parse_xid(arguments.transaction));
    }
    WV_TRY(OpenedView opened, open_view(globals));
    WV_TRY(JournalSet set, open_journals(opened, arguments.database));
    WV_TRY(wanted.range, parse_range(opened, arguments.since, arguments.until, WallTime{}));
    WV_TRY(const UndoPlan plan, UndoPlan::make(opened, set, wanted));
    warn_of_rest(plan, arguments);
    if (globals.output == Output::text) return print_text(opened, plan, arguments);
    return print_json(globals, opened, set, plan, arguments);
}

}  // namespace

int verb_undo(const Globals& globals, const UndoArguments& arguments) {
    if (auto done = show(globals, arguments); !done) return report(globals, done.error());
    return kExitDone;
}

}  // namespace walvault::agent
