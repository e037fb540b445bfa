#include <algorithm>
#include <map>
#include <optional>

#include "agent/journal_answer.h"
#include "agent/journal_set.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;
using storage::JournalChange;
using storage::JournalTransaction;

// The commits of this number in the range, of all journals of the database.
Result<JournalTransaction> find_transaction(JournalSet& set, storage::JournalQuery query,
                                            const std::string& zone) {
    std::map<Lsn, JournalTransaction> found;
    for (OpenedJournal& journal : set.journals) {
        storage::JournalSink sink;
        sink.on_begin = [&](const JournalTransaction& transaction) {
            found[transaction.end_lsn] = transaction;
            return Result<bool>(true);
        };
        WV_CHECK(read_between_gaps(journal, query, sink));
    }
    const std::string what = "transaction " + std::to_string(*query.xid);
    if (found.empty())
        return fail(Errc::outside_window,
                    what + " is not in the journal of database " + printable(set.database) +
                        ": it changed no row of a table that is journaled, was rolled back, or is "
                        "not there yet; the journal has everything up to LSN " +
                        to_string(set.whole_until()),
                    "by WAL alone: walvault resolve xid:" + std::to_string(*query.xid));
    if (found.size() == 1) return found.begin()->second;
    std::string times;
    for (const auto& [end, transaction] : found)
        times += (times.empty() ? "" : ", ") + format_local(transaction.at, zone, 6);
    return fail(
        Errc::ambiguous,
        "there are several transactions of the number " + std::to_string(*query.xid) + ": " + times,
        "say which with --since and --until");
}

// Where a journal of the database does not reach the transaction, its part of it is not known.
AnswerTail tail_of(const JournalSet& set, const JournalTransaction& transaction) {
    AnswerTail tail;
    for (const OpenedJournal& journal : set.journals) {
        const storage::JournalRecord& record = journal.record;
        const std::string which =
            record.data_class.empty() ? "the journal" : "the journal of class " + record.data_class;
        if (transaction.end_lsn <= record.start_lsn)
            tail.notes.push_back(which + " begins behind it, at LSN " +
                                 to_string(record.start_lsn));
        if (transaction.end_lsn > record.whole_until_lsn)
            tail.notes.push_back(which + " has everything up to LSN " +
                                 to_string(record.whole_until_lsn) + " only, which is before it");
        for (const auto& gap :
             gaps_within(journal.gaps, Lsn{transaction.end_lsn.value - 1}, transaction.end_lsn))
            tail.gaps.push_back(gap);
    }
    return tail;
}

// Of tables of which only inserts are told.
void note_insert_only(const ChangeRecord& record, AnswerTail& tail) {
    if (record.kind != JournalRecordKind::inserted || !is_insert_only(record.relation)) return;
    const std::string note = insert_only_text(record.relation);
    if (std::find(tail.notes.begin(), tail.notes.end(), note) == tail.notes.end())
        tail.notes.push_back(note);
}

// "walvault undo xid:N" with what leads to the same journal.
std::string undo_command(const Globals& globals, const ShowArguments& arguments, Xid xid) {
    std::string command = "walvault undo xid:" + std::to_string(xid);
    if (!arguments.database.empty()) command += " --database " + shell_word(arguments.database);
    if (!arguments.since.empty()) command += " --since " + shell_word(arguments.since);
    if (!arguments.until.empty()) command += " --until " + shell_word(arguments.until);
    return command + source_options(globals);
}

std::string change_line(const ChangeRecord& record) {
    std::string line = "  " + record_kind_text(record);
    line.resize(12, ' ');
    if (record.kind == JournalRecordKind::inserted || record.kind == JournalRecordKind::updated ||
        record.kind == JournalRecordKind::deleted)
        line += printable(table_text(record.relation.schema(), record.relation.table())) + "  ";
    const std::string row = record_row_text(record);
    if (!row.empty()) line += row + "  ";
    return line + record_change_text(record) + "\n";
}

Result<> each_change(JournalSet& set, const storage::JournalQuery& query,
                     const std::function<Result<bool>(const ChangeRecord&)>& sink) {
    for (OpenedJournal& journal : set.journals) {
        storage::JournalSink inner;
        inner.on_change = [&](const JournalTransaction& transaction,
                              const JournalChange& change) -> Result<bool> {
            WV_TRY(const ChangeRecord record, change_record(transaction, change));
            return sink(record);
        };
        WV_CHECK(read_between_gaps(journal, query, inner));
    }
    return {};
}

// One line a change: nothing is kept, however large the transaction is.
Result<> show_text(const OpenedView& opened, JournalSet& set, const storage::JournalQuery& query,
                   const JournalTransaction& transaction, const std::string& commands) {
    AnswerTail tail = tail_of(set, transaction);
    WV_CHECK(put_text("transaction " + std::to_string(transaction.xid) + "  committed " +
                      format_both(transaction.at, opened.zone, 6) + "   LSN " +
                      to_string(transaction.commit_lsn) + "   database " + printable(set.database) +
                      "\n"));
    std::map<JournalRecordKind, std::uint64_t> counts;
    const auto print = [&](const ChangeRecord& record) -> Result<bool> {
        ++counts[record.kind];
        note_insert_only(record, tail);
        WV_CHECK(put_text(change_line(record)));
        return true;
    };
    WV_CHECK(each_change(set, query, print));
    std::string sum;
    auto add = [&](JournalRecordKind kind, const char* what) {
        if (counts[kind] > 0)
            sum += (sum.empty() ? "" : ", ") + format_count(counts[kind]) + " " + what;
    };
    add(JournalRecordKind::inserted, "inserted");
    add(JournalRecordKind::updated, "updated");
    add(JournalRecordKind::deleted, "deleted");
    add(JournalRecordKind::truncated, "truncated");
    return put_text((sum.empty() ? "no row changed" : sum) + "\n" + tail.text(opened.zone) +
                    commands);
}

Result<> show(const Globals& globals, const ShowArguments& arguments) {
    WV_TRY(const Xid xid, parse_xid(arguments.transaction));
    WV_TRY(OpenedView opened, open_view(globals));
    WV_TRY(JournalSet set, open_journals(opened, arguments.database));
    WV_TRY(const JournalRange range,
           parse_range(opened, arguments.since, arguments.until, WallTime{}));
    storage::JournalQuery query = range.query();
    query.xid = xid;
    WV_TRY(const JournalTransaction transaction, find_transaction(set, query, opened.zone));
    query.from = Lsn{transaction.end_lsn.value - 1};
    query.to = transaction.end_lsn;
    WV_TRY(const RestoreHints hints, RestoreHints::make(globals, opened));
    if (globals.output == Output::text)
        return show_text(opened, set, query, transaction,
                         hints.line(transaction) + "To take it back by SQL:   " +
                             undo_command(globals, arguments, xid) + "\n");
    Json head{{"server", opened.cluster.name}, {"database", set.database}};
    head.update(transaction_json(transaction));
    head["restore"] = nullptr;
    if (auto command = hints.before(transaction)) head["restore"] = *command;
    AnswerList list(globals,
                    {"changes",
                     "change",
                     {"at", "xid", "commit_lsn", "end_lsn", "table", "kind", "key", "old", "new"}},
                    head);
    AnswerTail tail = tail_of(set, transaction);
    WV_CHECK(each_change(set, query, [&](const ChangeRecord& record) {
        note_insert_only(record, tail);
        return Result<bool>(list.add(change_json(record)));
    }));
    tail.tell_beside_csv(globals, opened.zone);
    return list.finish(tail.json());
}

}  // namespace

int verb_show(const Globals& globals, const ShowArguments& arguments) {
    if (auto done = show(globals, arguments); !done) return report(globals, done.error());
    return kExitDone;
}

}  // namespace walvault::agent
