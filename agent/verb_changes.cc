#include <algorithm>

#include "agent/journal_answer.h"
#include "agent/journal_kinds.h"
#include "agent/journal_set.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;

struct Found {
    std::vector<ChangeRecord> changes;  // oldest first
    bool more = false;                  // earlier ones are not shown
    std::vector<pb::JournalGap> gaps;
};

// The newest ones of each journal that has the table, read from the end.
Result<Found> find(OpenedView& opened, const std::vector<TablePlace>& places,
                   const ChangesArguments& arguments) {
    WV_TRY(const JournalRange range, parse_range(opened, arguments.since, arguments.until,
                                                 system_clock().now() - std::chrono::hours(24)));
    Found found;
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
                found.more = true;
                return false;
            }
            WV_TRY(ChangeRecord record, change_record(transaction, change));
            found.changes.push_back(std::move(record));
            return true;
        };
        WV_CHECK(read_between_gaps(*place.journal, query, sink));
        for (const auto& gap : gaps_within(place.journal->gaps, query.from, query.to))
            if (range.since == WallTime{} || WallTime(Micros(gap.to_at_us())) >= range.since)
                found.gaps.push_back(gap);
    }
    std::reverse(found.changes.begin(), found.changes.end());
    std::stable_sort(found.changes.begin(), found.changes.end(),
                     [](const ChangeRecord& a, const ChangeRecord& b) {
                         return a.transaction.end_lsn < b.transaction.end_lsn;
                     });
    if (found.changes.size() > arguments.limit) {
        found.more = true;
        found.changes.erase(found.changes.begin(),
                            found.changes.end() - static_cast<std::ptrdiff_t>(arguments.limit));
    }
    return found;
}

std::string changes_text(const OpenedView& opened, const std::string& table, const Found& found,
                         const RestoreHints& hints) {
    std::string text;
    if (found.changes.empty()) {
        text = "Nothing of that kind happened to " + printable(table) + " then.\n";
    } else {
        Table lines({"TIME (" + opened.zone + ")", "XID", "KIND", "ROW", "CHANGE"},
                    {Table::Align::left, Table::Align::right});
        for (const ChangeRecord& record : found.changes)
            lines.add_row({format_local(record.transaction.at, opened.zone, 6),
                           std::to_string(record.transaction.xid),
                           std::string(kind_name(record.kind)), record_row_text(record),
                           record_change_text(record)});
        text = lines.text();
    }
    if (found.more) text += "There are earlier ones; raise -L or narrow the time.\n";
    for (const auto& gap : found.gaps)
        text += "note: " + gap_text(gap, opened.zone) + "\n";
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
    WV_TRY(const Found found, find(opened, places, arguments));
    WV_TRY(const RestoreHints hints, RestoreHints::make(globals, opened));
    const std::string table = places.front().text();
    if (globals.output == Output::text) return put_text(changes_text(opened, table, found, hints));
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
    Json gaps = Json::array();
    for (const auto& gap : found.gaps)
        gaps.push_back(gap_json(gap));
    return list.finish({{"more", found.more}, {"gaps", gaps}});
}

}  // namespace

int verb_changes(const Globals& globals, const ChangesArguments& arguments) {
    if (auto done = show(globals, arguments); !done) return report(globals, done.error());
    return kExitDone;
}

}  // namespace walvault::agent
