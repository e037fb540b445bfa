#include "agent/journal_answer.h"
#include "agent/journal_kinds.h"
#include "agent/journal_set.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;

struct Found {
    std::vector<ChangeRecord> changes;  // oldest first
    AnswerTail tail;
};

// The newest ones of each journal that has the table, read from the end.
Result<Found> find(OpenedView& opened, JournalSet& set, const std::vector<TablePlace>& places,
                   const ChangesArguments& arguments) {
    WV_TRY(const JournalRange range, parse_range(opened, arguments.since, arguments.until,
                                                 system_clock().now() - std::chrono::hours(24)));
    Found found;
    WV_TRY(found.tail, tail_of(opened, set, places, range));
    for (const TablePlace& place : places) {
        storage::JournalQuery query = range.query();
        query.order = storage::JournalOrder::backward;
        query.tables = place.oids();
        WV_TRY(query.kinds, row_kinds(arguments.kinds));
        std::uint64_t count = 0;
        storage::JournalSink sink;
        sink.on_change = [&](const storage::JournalTransaction& transaction,
                             const storage::JournalChange& change) -> Result<bool> {
            if (++count > arguments.limit) {
                found.tail.more = true;
                return false;
            }
            WV_TRY(ChangeRecord record, change_record(transaction, change));
            found.changes.push_back(std::move(record));
            return true;
        };
        WV_CHECK(read_between_gaps(*place.journal, query, sink));
    }
    std::reverse(found.changes.begin(), found.changes.end());
    keep_newest(found.changes, arguments.limit, found.tail.more);
    return found;
}

std::string changes_text(const OpenedView& opened, const JournalSet& set, const std::string& table,
                         const Found& found, const RestoreHints& hints) {
    std::string text;
    if (found.changes.empty()) {
        text = "Nothing of that kind is in the journal for " + printable(table) + " then. " +
               reach_text(set, opened.zone);
    } else {
        Table lines({"TIME (" + opened.zone + ")", "XID", "KIND", "ROW", "CHANGE"},
                    {Table::Align::left, Table::Align::right});
        for (const ChangeRecord& record : found.changes)
            lines.add_row({format_local(record.transaction.at, opened.zone, 6),
                           std::to_string(record.transaction.xid), record_kind_text(record),
                           record_row_text(record), record_change_text(record)});
        text = lines.text();
    }
    text += found.tail.text(opened.zone);
    Lsn told;
    for (const ChangeRecord& record : found.changes) {
        if (record.transaction.end_lsn == told) continue;
        told = record.transaction.end_lsn;
        text += hints.line(record.transaction);
    }
    return text;
}

Result<> show(const Globals& globals, const ChangesArguments& arguments) {
    WV_TRY(OpenedView opened, open_view(globals));
    WV_TRY(JournalSet set, open_journals(opened, arguments.database));
    WV_TRY(const auto places, find_table(set, arguments.table));
    WV_TRY(const Found found, find(opened, set, places, arguments));
    WV_TRY(const RestoreHints hints, RestoreHints::make(globals, opened));
    const std::string table = places.front().text();
    if (globals.output == Output::text)
        return put_text(changes_text(opened, set, table, found, hints));
    AnswerList list(
        globals,
        {"changes",
         "change",
         {"at", "xid", "commit_lsn", "end_lsn", "table", "kind", "key", "old", "new"}},
        {{"server", opened.cluster.name}, {"database", set.database}, {"table", table}});
    for (const ChangeRecord& record : found.changes) {
        Json json = change_json(record);
        json["restore"] = nullptr;
        if (auto command = hints.before(record.transaction)) json["restore"] = *command;
        list.add(json);
    }
    found.tail.tell_beside_csv(globals, opened.zone);
    return list.finish(found.tail.json());
}

}  // namespace

int verb_changes(const Globals& globals, const ChangesArguments& arguments) {
    if (auto done = show(globals, arguments); !done) return report(globals, done.error());
    return kExitDone;
}

}  // namespace walvault::agent
