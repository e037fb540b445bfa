// log --table: which transactions changed a table, by the row journal.
#include <algorithm>
#include <cstdio>

#include "agent/journal_answer.h"
#include "agent/journal_kinds.h"
#include "agent/journal_set.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;
using storage::JournalSummary;

struct Found {
    std::vector<JournalSummary> transactions;  // oldest first
    AnswerTail tail;
};

storage::TableChanges sum_of(const JournalSummary& summary) {
    storage::TableChanges sum;
    for (const auto& [oid, changes] : summary.tables)
        sum += changes;
    return sum;
}

// The newest ones of one journal, newest first.
Result<> collect(const TablePlace& place, storage::JournalQuery query, std::uint64_t rows_min,
                 std::uint64_t limit, Found& found) {
    query.order = storage::JournalOrder::backward;
    query.tables = place.oids();
    const Lsn to = std::min(query.to, place.journal->record.whole_until_lsn);
    auto stretches = stretches_between(place.journal->gaps, query.from, to);
    std::reverse(stretches.begin(), stretches.end());
    std::uint64_t count = 0;
    for (const auto& stretch : stretches) {
        query.from = stretch.from;
        query.to = stretch.to;
        WV_CHECK(place.journal->reader->summarize(query, rows_min, [&](const auto& summary) {
            if (++count > limit) {
                found.tail.more = true;
                return Result<bool>(false);
            }
            found.transactions.push_back(summary);
            return Result<bool>(true);
        }));
        if (count > limit) break;
    }
    return {};
}

Result<Found> find(OpenedView& opened, JournalSet& set, const std::vector<TablePlace>& places,
                   const LogArguments& arguments) {
    WV_TRY(const JournalRange range, parse_range(opened, arguments.since, arguments.until,
                                                 system_clock().now() - std::chrono::hours(24)));
    storage::JournalQuery query = range.query();
    WV_TRY(query.kinds, row_kinds(arguments.kinds));
    const std::uint64_t limit = std::max<std::uint64_t>(1, arguments.limit);
    Found found;
    WV_TRY(found.tail, tail_of(opened, set, places, range));
    for (const TablePlace& place : places)
        WV_CHECK(collect(place, query, arguments.min_rows, limit, found));
    keep_newest(found.transactions, limit, found.tail.more);
    return found;
}

std::string log_text(const OpenedView& opened, const JournalSet& set, const std::string& table,
                     const Found& found, const RestoreHints& hints) {
    std::string text;
    if (found.transactions.empty()) {
        text = "Nothing of that kind is in the journal for " + printable(table) + " then. " +
               reach_text(set, opened.zone);
    } else {
        constexpr auto kRight = Table::Align::right;
        constexpr auto kLeft = Table::Align::left;
        Table lines(
            {"TIME (" + opened.zone + ")", "LSN", "XID", "INSERTED", "UPDATED", "DELETED", "TABLE"},
            {kLeft, kLeft, kRight, kRight, kRight, kRight, kLeft});
        for (const JournalSummary& each : found.transactions) {
            const storage::TableChanges sum = sum_of(each);
            lines.add_row({format_local(each.transaction.at, opened.zone, 6),
                           to_string(each.transaction.commit_lsn),
                           std::to_string(each.transaction.xid), format_count(sum.inserted),
                           format_count(sum.updated), format_count(sum.deleted),
                           printable(table) + (sum.truncated > 0 ? "  TRUNCATE" : "")});
        }
        text = lines.text();
    }
    text += found.tail.text(opened.zone);
    for (const JournalSummary& each : found.transactions)
        text += hints.line(each.transaction);
    return text;
}

Json summary_json(const JournalSummary& summary, const RestoreHints& hints) {
    const storage::TableChanges sum = sum_of(summary);
    Json json = transaction_json(summary.transaction);
    json["inserted_rows"] = sum.inserted;
    json["updated_rows"] = sum.updated;
    json["deleted_rows"] = sum.deleted;
    json["truncated"] = sum.truncated > 0;
    json["restore"] = nullptr;
    if (auto command = hints.before(summary.transaction)) json["restore"] = *command;
    return json;
}

Result<> show_table(const Globals& globals, const LogArguments& arguments) {
    WV_TRY(OpenedView opened, open_view(globals));
    WV_TRY(JournalSet set, open_journals(opened, arguments.database));
    WV_TRY(const auto places, find_table(set, arguments.table));
    WV_TRY(const Found found, find(opened, set, places, arguments));
    WV_TRY(const RestoreHints hints, RestoreHints::make(globals, opened));
    const std::string table = places.front().text();
    if (globals.output == Output::text) return put_text(log_text(opened, set, table, found, hints));
    AnswerList list(
        globals,
        {"transactions",
         "transaction",
         {"at", "xid", "commit_lsn", "end_lsn", "inserted_rows", "updated_rows", "deleted_rows",
          "truncated", "restore"}},
        {{"server", opened.cluster.name}, {"database", set.database}, {"table", table}});
    for (const JournalSummary& each : found.transactions)
        list.add(summary_json(each, hints));
    found.tail.tell_beside_csv(globals, opened.zone);
    return list.finish(found.tail.json());
}

}  // namespace

int log_of_table(const Globals& globals, const LogArguments& arguments) {
    if (auto done = show_table(globals, arguments); !done) return report(globals, done.error());
    return kExitDone;
}

}  // namespace walvault::agent
