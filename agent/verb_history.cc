#include <algorithm>
#include <deque>
#include <iterator>
#include <utility>

#include "agent/journal_answer.h"
#include "agent/journal_set.h"
#include "agent/render.h"
#include "agent/row_versions.h"
#include "proto/journal_keys.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;
using storage::JournalChange;
using storage::JournalTransaction;

struct Wanted {
    JournalRange range = {};
    NamedValues values = {};
    std::uint64_t limit = 0;
};

// The newest versions in one journal; memory does not grow with the history.
struct Newest {
    const Wanted& wanted;
    std::deque<RowVersion> versions = {};
    bool more = false;

    void add(RowVersion version) {
        if (wanted.range.is_before(version.transaction)) return;
        versions.push_back(std::move(version));
        if (versions.size() <= wanted.limit) return;
        versions.pop_front();
        more = true;
    }
};

struct Found {
    std::vector<RowVersion> versions;  // oldest first
    AnswerTail tail;
};

// What the row was before its first change in a stretch, where a snapshot tells.
Result<> begin_with_snapshot(OpenedJournal& journal, const storage::JournalKey& key,
                             const JournalStretch& stretch, Lsn first, RowVersions& versions) {
    WV_TRY(auto snapshot, journal.reader->snapshot_at(key.table_oid, Lsn{first.value - 1}));
    if (!snapshot || Lsn{snapshot->taken().lsn()} < stretch.from) return {};
    return journal.reader->read_rows_of_key(
        *snapshot, key, [&](const pb::JournalRelation& relation, ByteSpan tuple) -> Result<bool> {
            WV_TRY(Row row, read_row(tuple));
            versions.begin_with(relation, std::move(row));
            return false;
        });
}

storage::JournalQuery query_of(const JournalStretch& stretch, const Wanted& wanted) {
    storage::JournalQuery query{.from = stretch.from, .to = stretch.to};
    query.until = wanted.range.until;
    return query;
}

// Where the first snapshot tells rows by another key, nothing of then is found by this one.
Result<std::optional<OtherKey>> first_other_key(OpenedJournal& journal, std::uint32_t oid,
                                                const NamedKey& key) {
    std::optional<OtherKey> other;
    WV_TRY(const auto snapshots, journal.reader->snapshots(oid));
    if (snapshots.empty()) return other;
    WV_TRY(const auto relation, journal.reader->relation_of(snapshots.front()));
    if (relation && key_names(*relation) != key.names)
        other = OtherKey{*relation, Lsn{snapshots.front().taken().lsn()}};
    return other;
}

Result<> find_by_key(OpenedJournal& journal, std::uint32_t oid, const NamedKey& named,
                     Newest& newest, Found& found) {
    const Wanted& wanted = newest.wanted;
    const storage::JournalKey key{oid, named.values};
    WV_TRY(std::optional<OtherKey> other, first_other_key(journal, oid, named));
    RowVersions versions(named);
    const Lsn to = std::min(wanted.range.to, journal.record.whole_until_lsn);
    // What was before a stretch in which not all is known says nothing of what comes behind it.
    std::vector<Lsn> doubts;
    WV_TRY(const auto left, journal.reader->table_left(oid));
    for (const pb::JournalTableLeft& each : left) {
        doubts.push_back(Lsn{each.from_lsn()});
        WV_TRY(const Lsn until, known_again_at(*journal.reader, each));
        doubts.push_back(until);
    }
    // From the first on: what is not told in one change is looked up in those before it.
    for (const auto& stretch : cut_at(stretches_between(journal.gaps, Lsn{}, to), doubts)) {
        versions.forget();
        bool is_first = true;
        storage::JournalSink sink;
        sink.on_change = [&](const JournalTransaction& transaction,
                             const JournalChange& change) -> Result<bool> {
            // An insert tells by itself that there was no row.
            if (std::exchange(is_first, false) && change.kind != JournalRecordKind::inserted)
                WV_CHECK(begin_with_snapshot(journal, key, stretch, transaction.end_lsn, versions));
            WV_TRY(auto version, versions.add(transaction, change));
            if (version) newest.add(std::move(*version));
            return true;
        };
        WV_CHECK(journal.reader->read_key(key, query_of(stretch, wanted), sink));
    }
    if (versions.other_key()) other = versions.other_key();
    if (other)
        found.tail.notes.push_back("up to LSN " + to_string(other->until) + " " +
                                   key_was_text(other->relation) +
                                   ": versions of the row by that key are not among these");
    return {};
}

bool has_values(const pb::JournalRelation& relation, const Row& row, const NamedValues& values) {
    for (const auto& [name, value] : values) {
        bool fits = false;
        for (std::size_t i = 0; i < row.size() && !fits; ++i)
            fits =
                relation.columns(static_cast<int>(i)).name() == name && row[i] == text_value(value);
        if (!fits) return false;
    }
    return !row.empty();
}

// Without a key every change of the table is looked at.
Result<> find_by_values(OpenedJournal& journal, std::uint32_t oid, Newest& newest) {
    const Wanted& wanted = newest.wanted;
    storage::JournalQuery query = wanted.range.query();
    query.tables = {oid};
    query.kinds = {JournalRecordKind::inserted, JournalRecordKind::updated,
                   JournalRecordKind::deleted, JournalRecordKind::truncated};
    storage::JournalSink sink;
    sink.on_change = [&](const JournalTransaction& transaction,
                         const JournalChange& change) -> Result<bool> {
        RowVersion version{.transaction = transaction, .kind = change.kind};
        if (change.kind == JournalRecordKind::truncated) {
            if (!change.truncated.empty()) version.relation = *change.truncated.front();
        } else {
            version.relation = *change.relation;
            WV_TRY(version.change, read_change(change));
            if (!has_values(version.relation, version.change.before, wanted.values) &&
                !has_values(version.relation, version.change.now, wanted.values))
                return true;
        }
        newest.add(std::move(version));
        return true;
    };
    return read_between_gaps(journal, query, sink);
}

Result<> find_in(TablePlace& place, std::uint32_t oid, Newest& newest, Found& found) {
    const Wanted& wanted = newest.wanted;
    WV_TRY(const pb::JournalRelation relation, latest_relation(*place.journal, oid));
    const std::vector<std::uint32_t> key = key_columns(relation);
    std::size_t of_key = 0;
    for (const auto& [name, value] : wanted.values) {
        WV_TRY(const std::uint32_t column, find_column(relation, name));
        of_key += std::find(key.begin(), key.end(), column) != key.end() ? 1 : 0;
    }
    if (!key.empty() && of_key == wanted.values.size()) {
        WV_TRY(auto values, key_values(relation, wanted.values));
        return find_by_key(*place.journal, oid, {key_names(relation), std::move(values)}, newest,
                           found);
    }
    found.tail.notes.push_back(
        key.empty() ? "the table has no key that the journal knows: every change of it was "
                      "looked at for these values, which is slower"
                    : "these are not the columns of the key: every change of the table was "
                      "looked at, which is slower, and changes that tell only the key are "
                      "not found");
    return find_by_values(*place.journal, oid, newest);
}

const char* kind_shown(const RowVersion& version) {
    if (version.came) return "update, from another key";
    if (version.went) return "update, to another key";
    switch (version.kind) {
        case JournalRecordKind::inserted:
            return "insert";
        case JournalRecordKind::deleted:
            return "delete";
        case JournalRecordKind::truncated:
            return "truncate";
        default:
            return "update";
    }
}

std::string change_of(const RowVersion& version) {
    if (version.kind == JournalRecordKind::truncated && version.change.before.empty()) return "";
    return change_text(version.relation, version.change);
}

std::string history_text(const OpenedView& opened, const JournalSet& set, const Found& found,
                         const RestoreHints& hints) {
    std::string text;
    if (found.versions.empty()) {
        text = "No change of such a row is in the journal then. " + reach_text(set, opened.zone);
    } else {
        Table lines({"TIME (" + opened.zone + ")", "XID", "KIND", "CHANGE"},
                    {Table::Align::left, Table::Align::right});
        for (const RowVersion& version : found.versions)
            lines.add_row({format_local(version.transaction.at, opened.zone, 6),
                           std::to_string(version.transaction.xid), kind_shown(version),
                           change_of(version)});
        text = lines.text();
    }
    text += found.tail.text(opened.zone);
    Lsn told;
    for (const RowVersion& version : found.versions) {
        if (version.transaction.end_lsn == told) continue;
        told = version.transaction.end_lsn;
        text += hints.line(version.transaction);
    }
    return text;
}

Json version_json(const RowVersion& version, const RestoreHints& hints) {
    ChangeRecord record{.transaction = version.transaction,
                        .kind = version.kind,
                        .relation = version.relation,
                        .change = version.change};
    if (version.kind == JournalRecordKind::truncated)
        record.truncated = {table_text(version.relation.schema(), version.relation.table())};
    Json json = change_json(record);
    Json changed = Json::array();
    for (std::size_t i = 0; i < version.change.now.size() && i < version.change.before.size(); ++i)
        if (version.change.now[i] != version.change.before[i])
            changed.push_back(version.relation.columns(static_cast<int>(i)).name());
    json["changed"] = changed;
    json["restore"] = nullptr;
    if (auto command = hints.before(version.transaction)) json["restore"] = *command;
    return json;
}

Result<Found> find(OpenedView& opened, JournalSet& set, std::vector<TablePlace>& places,
                   const RowHistoryArguments& arguments) {
    Wanted wanted{.limit = arguments.limit};
    WV_TRY(wanted.values, parse_named_values(arguments.key));
    WV_TRY(wanted.range, parse_range(opened, arguments.since, arguments.until, WallTime{}));
    Found found;
    WV_TRY(found.tail, tail_of(opened, set, places, wanted.range));
    for (TablePlace& place : places)
        for (const auto& table : place.tables) {
            Newest newest{wanted};
            WV_CHECK(find_in(place, table.oid, newest, found));
            found.tail.more = found.tail.more || newest.more;
            std::move(newest.versions.begin(), newest.versions.end(),
                      std::back_inserter(found.versions));
        }
    keep_newest(found.versions, wanted.limit, found.tail.more);
    return found;
}

Result<> show(const Globals& globals, const RowHistoryArguments& arguments) {
    WV_TRY(OpenedView opened, open_view(globals));
    WV_TRY(JournalSet set, open_journals(opened, arguments.database));
    WV_TRY(auto places, find_table(set, arguments.table));
    WV_TRY(const Found found, find(opened, set, places, arguments));
    WV_TRY(const RestoreHints hints, RestoreHints::make(globals, opened));
    if (globals.output == Output::text) return put_text(history_text(opened, set, found, hints));
    AnswerList list(
        globals,
        {"versions",
         "version",
         {"at", "xid", "commit_lsn", "end_lsn", "table", "kind", "key", "old", "new", "changed"}},
        {{"server", opened.cluster.name},
         {"database", set.database},
         {"table", places.front().text()}});
    for (const RowVersion& version : found.versions)
        list.add(version_json(version, hints));
    found.tail.tell_beside_csv(globals, opened.zone);
    return list.finish(found.tail.json());
}

}  // namespace

int verb_history(const Globals& globals, const RowHistoryArguments& arguments) {
    if (auto done = show(globals, arguments); !done) return report(globals, done.error());
    return kExitDone;
}

}  // namespace walvault::agent
