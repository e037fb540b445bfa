#include "agent/table_at.h"

#include <algorithm>
#include <cstdlib>

#include "agent/journal_text.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

struct Candidate {
    OpenedJournal* journal = nullptr;
    std::uint32_t oid = 0;
    pb::StoredSnapshot snapshot;
};

std::string scratch_parent() {
    const char* configured = std::getenv("TMPDIR");
    return configured != nullptr && configured[0] == '/' ? configured : "/tmp";
}

std::string when(std::int64_t at_us, const std::string& zone) {
    return at_us == 0 ? "" : ", " + format_local(WallTime(Micros(at_us)), zone);
}

// The first snapshot behind `lsn` of any of the tables: from there on it works.
Result<std::string> works_from(const std::vector<TablePlace>& places, Lsn lsn,
                               const std::string& zone) {
    std::optional<pb::SnapshotTaken> first;
    for (const TablePlace& place : places)
        for (const auto& table : place.tables) {
            WV_TRY(const auto snapshots, place.journal->reader->snapshots(table.oid));
            for (const auto& each : snapshots)
                if (Lsn{each.taken().lsn()} > lsn && (!first || each.taken().lsn() < first->lsn()))
                    first = each.taken();
        }
    if (!first) return std::string("it works from the next snapshot of the table on");
    return "it works from its snapshot at LSN " + to_string(Lsn{first->lsn()}) +
           when(first->at_us(), zone) + " on: --at lsn:" + to_string(Lsn{first->lsn()});
}

// Of several tables of the name the one whose snapshot is the newest at or before the moment.
Result<std::optional<Candidate>> choose(const std::vector<TablePlace>& places, Lsn lsn) {
    std::optional<Candidate> best;
    for (const TablePlace& place : places)
        for (const auto& table : place.tables) {
            WV_TRY(auto snapshot, place.journal->reader->snapshot_at(table.oid, lsn));
            if (!snapshot) continue;
            if (best && best->snapshot.taken().lsn() >= snapshot->taken().lsn()) continue;
            best = Candidate{place.journal, table.oid, std::move(*snapshot)};
        }
    return best;
}

// Up to where changes count: nothing lies between the last commit that is kept and the moment,
// though a gap may begin there.
Lsn changes_until(const JournalMoment& moment, Lsn snapshot_lsn) {
    if (moment.needed == Lsn{}) return moment.lsn;
    return std::min(moment.lsn, std::max(moment.needed, snapshot_lsn));
}

// One that was dropped is not told of. Where another one of the name has changed since the
// snapshot, the rows that it had are not known.
Result<> require_the_last(const Candidate& chosen, const std::vector<TablePlace>& places,
                          const JournalMoment& moment, const std::string& zone) {
    for (const TablePlace& place : places)
        for (const auto& table : place.tables) {
            if (table.oid == chosen.oid) continue;
            const Lsn from{chosen.snapshot.taken().lsn()};
            storage::JournalQuery query{.from = from, .to = changes_until(moment, from)};
            query.tables = {table.oid};
            bool found = false;
            storage::JournalSink sink;
            sink.on_begin = [&](const storage::JournalTransaction&) -> Result<bool> {
                found = true;
                return false;
            };
            if (query.from < query.to) WV_CHECK(place.journal->reader->read(query, sink));
            if (!found) continue;
            WV_TRY(std::string hint, works_from(places, moment.lsn, zone));
            return fail(Errc::outside_window,
                        "the rows of " + printable(places.front().text()) + " at " +
                            printable(moment.text) +
                            " are not known: it was made anew, and no snapshot of the new one was "
                            "taken before",
                        hint);
        }
    return {};
}

// All that happened to its rows since the snapshot is in the journal.
Result<> require_whole(const Candidate& chosen, const std::vector<TablePlace>& places,
                       const JournalMoment& moment, const std::string& zone) {
    const Lsn from{chosen.snapshot.taken().lsn()};
    WV_TRY(const auto left, chosen.journal->reader->table_left(chosen.oid));
    for (const pb::JournalTableLeft& each : left) {
        const Lsn whole_until = std::max(from, Lsn{each.from_lsn()});
        if (Lsn{each.to_lsn()} < from || whole_until >= changes_until(moment, from)) continue;
        WV_TRY(std::string hint, works_from(places, moment.lsn, zone));
        return fail(Errc::outside_window,
                    "the rows of " + printable(places.front().text()) + " at " +
                        printable(moment.text) + " are not known: " + printable(each.cause()),
                    "up to where they are: --at lsn:" + to_string(whole_until) + "; " + hint);
    }
    return {};
}

Result<> require_no_gap(const Candidate& chosen, const std::vector<TablePlace>& places,
                        const JournalMoment& moment, const std::string& zone) {
    const Lsn from{chosen.snapshot.taken().lsn()};
    const auto gaps = gaps_within(chosen.journal->gaps, from, changes_until(moment, from));
    if (gaps.empty()) return {};
    WV_TRY(std::string hint, works_from(places, moment.lsn, zone));
    const Lsn last_known = std::max(from, Lsn{gaps.front().from_lsn()});
    return fail(Errc::gap,
                "the rows of " + printable(places.front().text()) + " at " +
                    printable(moment.text) + " are not known: " + gap_text(gaps.front(), zone),
                "up to the gap: --at lsn:" + to_string(last_known) + "; " + hint);
}

tl::unexpected<Error> only_inserts(const pb::JournalRelation& relation) {
    const std::string name = printable(table_text(relation.schema(), relation.table()));
    return fail(
        Errc::outside_window,
        "the rows of " + name +
            " at a moment are not known: it has no usable replica identity, and so only "
            "its inserts are in the journal",
        "see them with walvault changes " + name +
            "; a primary key, or ALTER TABLE … REPLICA IDENTITY FULL, mends it from the next "
            "snapshot on");
}

Result<> fill(const Candidate& chosen, Lsn until, TableState& state) {
    storage::JournalReader& reader = *chosen.journal->reader;
    bool misses_changes = false;
    const auto load = [&](const pb::JournalRelation& relation, ByteSpan tuple) -> Result<bool> {
        if (tuple.empty()) misses_changes = is_insert_only(relation);
        if (misses_changes) return only_inserts(relation);
        WV_CHECK(state.load(relation, tuple));
        return true;
    };
    WV_CHECK(reader.read_rows(chosen.snapshot, load));
    storage::JournalQuery query{.from = Lsn{chosen.snapshot.taken().lsn()}, .to = until};
    query.tables = {chosen.oid};
    query.kinds = {JournalRecordKind::inserted, JournalRecordKind::updated,
                   JournalRecordKind::deleted, JournalRecordKind::truncated};
    storage::JournalSink sink;
    sink.on_change = [&](const storage::JournalTransaction&,
                         const storage::JournalChange& change) -> Result<bool> {
        if (change.relation != nullptr && is_insert_only(*change.relation))
            return only_inserts(*change.relation);
        WV_CHECK(state.apply(change));
        return true;
    };
    if (query.from < query.to) WV_CHECK(reader.read(query, sink));
    return {};
}

// Names are those of today: at the moment another table may have had this one.
Result<> require_the_name(const pb::JournalRelation& relation, const std::string& asked,
                          const JournalMoment& moment) {
    WV_TRY(const TableName name, parse_table_name(asked));
    if (name.oid != 0 || (name.name == relation.table() &&
                          (name.schema.empty() || name.schema == relation.schema())))
        return {};
    return fail(Errc::ambiguous,
                "the table that is " + printable(asked) + " now was " +
                    printable(table_text(relation.schema(), relation.table())) + " at " +
                    printable(moment.text) + ", when " + printable(asked) +
                    " may have been another one",
                "this table, whatever it is called: oid:" + std::to_string(relation.oid()));
}

}  // namespace

Result<JournalMoment> resolve_moment(OpenedView& opened, const JournalSet& set,
                                     const std::string& at, const std::string& before) {
    const TimeContext times{system_clock().now(), opened.zone};
    WV_TRY(const Target target, parse_target(at.empty() ? before : at, at.empty(), times));
    const ResolveContext context = resolve_context(opened, times.now, {});
    WV_TRY(const StopPoint stop, resolve_target(*opened.view, target, context));
    JournalReach reach{set.database, set.whole_until()};
    for (const OpenedJournal& journal : set.journals)
        reach.covered_until = std::max(reach.covered_until, journal.record.covered_until);
    return moment_of(target, stop.cut_lsn, stop.last_kept, reach, opened.zone);
}

Result<TableAt> table_at(OpenedView& opened, JournalSet& set, const std::string& table,
                         const JournalMoment& moment) {
    WV_TRY(const auto places, find_table(set, table));
    WV_TRY(const auto chosen, choose(places, moment.lsn));
    if (!chosen) {
        WV_TRY(std::string hint, works_from(places, moment.lsn, opened.zone));
        return fail(Errc::outside_window,
                    "the rows of " + printable(places.front().text()) + " at " +
                        printable(moment.text) +
                        " are not known: no snapshot of it was taken before",
                    hint);
    }
    WV_CHECK(require_no_gap(*chosen, places, moment, opened.zone));
    WV_CHECK(require_whole(*chosen, places, moment, opened.zone));
    WV_CHECK(require_the_last(*chosen, places, moment, opened.zone));
    TableAt built{.oid = chosen->oid, .moment = moment, .snapshot = chosen->snapshot.taken()};
    WV_TRY(built.scratch, storage::ScratchRows::open(scratch_parent()));
    built.state = std::make_unique<TableState>(*built.scratch, chosen->oid);
    const Lsn until = changes_until(moment, Lsn{chosen->snapshot.taken().lsn()});
    WV_CHECK(fill(*chosen, until, *built.state));
    const pb::JournalRelation* relation = built.state->relation();
    if (relation == nullptr)
        return fail(Errc::corrupt, "the snapshot of " + printable(places.front().text()) +
                                       " does not say what its columns are");
    WV_CHECK(require_the_name(*relation, table, moment));
    built.table = table_text(relation->schema(), relation->table());
    return built;
}

Result<> require_known_values(const TableAt& table, const std::vector<std::size_t>& columns) {
    const pb::JournalRelation& relation = *table.state->relation();
    return table.state->each([&](const Row& row) -> Result<bool> {
        for (std::size_t i : columns) {
            if (row[i].is_known()) continue;
            const std::string& name = relation.columns(static_cast<int>(i)).name();
            return fail(Errc::outside_window,
                        "column " + printable(name) + " of " + printable(table.table) +
                            (row[i].kind == RowValue::Kind::masked
                                 ? " is masked in the journal"
                                 : " is not known in every row: it was added, or got its type, "
                                   "after they were written") +
                            ", which neither COPY nor CSV can say",
                        "see the rows with walvault rows -o jsonl");
        }
        return true;
    });
}

}  // namespace walvault::agent
