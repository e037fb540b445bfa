#include "agent/undo_plan.h"

#include <algorithm>
#include <cstdlib>
#include <map>

#include "agent/ddl_mark.h"
#include "agent/journal_answer.h"
#include "agent/render.h"
#include "agent/row_versions.h"
#include "agent/undo_sql.h"
#include "proto/journal_keys.h"

namespace walvault::agent {
namespace {

using storage::JournalChange;
using storage::JournalQuery;
using storage::JournalTransaction;

const std::set<JournalRecordKind> kRowKinds{JournalRecordKind::inserted, JournalRecordKind::updated,
                                            JournalRecordKind::deleted,
                                            JournalRecordKind::truncated};

std::string scratch_parent() {
    const char* configured = std::getenv("TMPDIR");
    return configured != nullptr && configured[0] == '/' ? configured : "/tmp";
}

// The last statement comes first.
std::string statement_place(std::uint64_t number) {
    std::string place = "s";
    const std::uint64_t turned = ~number;
    for (int bits = 56; bits >= 0; bits -= 8)
        place += static_cast<char>((turned >> bits) & 0xFF);
    return place;
}

}  // namespace

// The steps for one journal: which rows are meant, what they were before, and then each change from
// the first one on.
class UndoMaker {
public:
    UndoMaker(OpenedView& opened, const UndoWanted& wanted, UndoPlan& plan)
        : opened_(opened), wanted_(wanted), plan_(plan) {}

    Result<> run(OpenedJournal& journal, std::set<std::uint32_t> tables) {
        states_.clear();
        needs_before_.clear();
        wanted_keys_.clear();
        first_.reset();
        wanted_tables_ = std::move(tables);
        WV_CHECK(select(journal));
        if (!first_) return {};
        if (wanted_.xid) WV_CHECK(note_ddl(journal, only_));
        for (const auto& [oid, state] : states_) {
            state->keep_only_wanted();
            if (needs_before_.count(oid) > 0) WV_CHECK(find_before(journal, oid, *state));
        }
        return take_back(journal);
    }

private:
    bool is_selected(const JournalTransaction& transaction) const {
        if (wanted_.xid) return transaction.end_lsn == only_;
        const JournalRange& range = wanted_.range;
        return !range.is_before(transaction) && transaction.end_lsn > range.from &&
               transaction.end_lsn <= range.to &&
               (range.until == WallTime{} || transaction.at <= range.until);
    }

    TableState& state_of(std::uint32_t oid) {
        auto& state = states_[oid];
        if (!state) state = std::make_unique<TableState>(*plan_.scratch_, oid);
        return *state;
    }

    // Statements of the transaction that no script takes back.
    Result<> note_ddl(OpenedJournal& journal, Lsn end_lsn) {
        JournalQuery query{.from = Lsn{end_lsn.value - 1}, .to = end_lsn};
        query.kinds = {JournalRecordKind::message};
        query.xid = wanted_.xid;
        std::vector<DdlMark> statements;
        storage::JournalSink sink;
        sink.on_change = [&](const JournalTransaction&, const JournalChange& change) {
            if (change.name == kDdlPrefix)
                statements.push_back(read_ddl_mark(as_text(change.content)));
            return Result<bool>(statements.size() < kDdlNoted);
        };
        WV_CHECK(journal.reader->read(query, sink));
        if (!statements.empty())
            note_once("the transaction has DDL, which is not taken back: " + ddl_text(statements));
        return {};
    }

    // Notes the keys of all rows that are meant.
    Result<> select(OpenedJournal& journal) {
        JournalQuery query = wanted_.range.query();
        query.xid = wanted_.xid;
        query.tables = wanted_tables_;
        query.kinds = kRowKinds;
        storage::JournalSink sink;
        sink.on_begin = [&](const JournalTransaction& transaction) {
            return note_transaction(transaction);
        };
        sink.on_change = [&](const JournalTransaction&,
                             const JournalChange& change) -> Result<bool> {
            if (change.kind == JournalRecordKind::truncated) {
                for (const auto* relation : change.truncated)
                    state_of(relation->oid());
                return true;
            }
            const pb::JournalRelation& relation = *change.relation;
            TableState& state = state_of(relation.oid());
            WV_TRY(const RowChange read, read_change(change));
            WV_CHECK(state.want(relation, read.before));
            WV_CHECK(state.want(relation, read.now));
            wanted_keys_[relation.oid()].insert(key_names(relation));
            if (change.kind != JournalRecordKind::inserted && !has_whole_old_rows(relation))
                note_key(relation, read.before);
            return true;
        };
        return read_between_gaps(journal, query, sink);
    }

    Result<bool> note_transaction(const JournalTransaction& transaction) {
        if (wanted_.xid && only_ && only_ != transaction.end_lsn)
            return fail(Errc::ambiguous,
                        "there are several transactions of the number " +
                            std::to_string(*wanted_.xid) + ": at " +
                            format_local(plan_.first.at, opened_.zone, 6) + " and " +
                            format_local(transaction.at, opened_.zone, 6),
                        "say which with --since and --until");
        only_ = transaction.end_lsn;
        if (seen_.insert(transaction.end_lsn).second) ++plan_.transaction_count;
        if (seen_.size() > kSeenMax) seen_.erase(seen_.begin());
        if (!plan_.first.end_lsn || transaction.end_lsn < plan_.first.end_lsn)
            plan_.first = transaction;
        if (transaction.end_lsn > plan_.last.end_lsn) plan_.last = transaction;
        if (!first_) first_ = transaction.end_lsn;
        return true;
    }

    // The row before has to be looked up: by its key, while these are few.
    void note_key(const pb::JournalRelation& relation, const Row& row) {
        auto& keys = needs_before_[relation.oid()];
        if (keys.size() > kFewKeys) return;
        NamedKey key{key_names(relation), {}};
        for (std::uint32_t column : key_columns(relation))
            key.values.push_back(column < row.size() ? row[column].text : "");
        keys.insert(std::move(key));
    }

    // The rows that are meant, as they were before the first transaction.
    Result<> find_before(OpenedJournal& journal, std::uint32_t oid, TableState& state) {
        const Lsn until{first_->value - 1};
        Lsn from = journal.record.start_lsn;
        for (const auto& gap : journal.gaps)
            if (Lsn{gap.to_lsn()} <= until) from = std::max(from, Lsn{gap.to_lsn()});
        WV_TRY(const auto left, journal.reader->table_left(oid));
        for (const pb::JournalTableLeft& each : left) {
            WV_TRY(const Lsn whole, known_again_at(*journal.reader, each));
            if (Lsn{each.from_lsn()} <= until) from = std::max(from, std::min(whole, until));
        }
        WV_TRY(const auto snapshot, journal.reader->snapshot_at(oid, until));
        const bool is_usable = snapshot && Lsn{snapshot->taken().lsn()} >= from;
        if (is_usable) from = Lsn{snapshot->taken().lsn()};
        const Before before{from, until, is_usable ? &*snapshot : nullptr};
        if (needs_before_.at(oid).size() > kFewKeys) return find_all(journal, oid, before, state);
        for (const auto& key : needs_before_.at(oid))
            WV_CHECK(find_one(journal, oid, key, before, state));
        return {};
    }

    struct Before {
        Lsn from;
        Lsn until;
        const pb::StoredSnapshot* snapshot = nullptr;  // at `from`
    };

    Result<> find_one(OpenedJournal& journal, std::uint32_t oid, const NamedKey& named,
                      const Before& before, TableState& state) {
        const storage::JournalKey key{oid, named.values};
        RowVersions versions(named);
        if (before.snapshot != nullptr)
            WV_CHECK(journal.reader->read_rows_of_key(
                *before.snapshot, key,
                [&](const pb::JournalRelation& relation, ByteSpan tuple) -> Result<bool> {
                    WV_TRY(Row row, read_row(tuple));
                    versions.begin_with(relation, std::move(row));
                    return false;
                }));
        storage::JournalSink sink;
        sink.on_change = [&](const JournalTransaction& transaction,
                             const JournalChange& change) -> Result<bool> {
            WV_CHECK(versions.add(transaction, change).map([](const auto&) {}));
            return true;
        };
        if (before.from < before.until)
            WV_CHECK(
                journal.reader->read_key(key, {.from = before.from, .to = before.until}, sink));
        if (versions.other_key()) note_other_key(*versions.other_key());
        if (versions.row() == nullptr) return {};
        return state.load_row(versions.relation(), *versions.row());
    }

    // Reads all of the table: for many keys that is faster.
    Result<> find_all(OpenedJournal& journal, std::uint32_t oid, const Before& before,
                      TableState& state) {
        std::optional<OtherKey> other;
        const auto look_at_key = [&](const pb::JournalRelation& relation, Lsn lsn) {
            if (wanted_keys_.at(oid).count(key_names(relation)) == 0)
                other = OtherKey{relation, lsn};
        };
        const auto load = [&](const pb::JournalRelation& relation, ByteSpan tuple) -> Result<bool> {
            if (tuple.empty()) look_at_key(relation, before.from);
            WV_CHECK(state.load(relation, tuple));
            return true;
        };
        if (before.snapshot != nullptr) WV_CHECK(journal.reader->read_rows(*before.snapshot, load));
        if (other) note_other_key(*other);
        if (before.from >= before.until) return {};
        JournalQuery query{.from = before.from, .to = before.until};
        query.tables = {oid};
        query.kinds = kRowKinds;
        storage::JournalSink sink;
        sink.on_change = [&](const JournalTransaction& transaction,
                             const JournalChange& change) -> Result<bool> {
            if (change.relation != nullptr) look_at_key(*change.relation, transaction.end_lsn);
            WV_CHECK(state.apply(change));
            return true;
        };
        other.reset();
        WV_CHECK(journal.reader->read(query, sink));
        if (other) note_other_key(*other);
        return {};
    }

    Result<> note_left(OpenedJournal& journal, std::uint32_t oid, const JournalQuery& query) {
        const auto table = std::find_if(journal.tables.begin(), journal.tables.end(),
                                        [&](const auto& each) { return each.oid == oid; });
        if (table == journal.tables.end()) return {};
        WV_TRY(const auto left, journal.reader->table_left(oid));
        for (const pb::JournalTableLeft& each : left) {
            WV_TRY(const Lsn until, known_again_at(*journal.reader, each));
            if (Lsn{each.from_lsn()} < query.to && until > query.from)
                plan_.notes.push_back(
                    left_text(table_text(table->schema, table->name), each, until));
        }
        return {};
    }

    Result<> take_back(OpenedJournal& journal) {
        JournalQuery query{.from = Lsn{first_->value - 1}};
        query.to = journal.record.whole_until_lsn;
        for (const auto& [oid, state] : states_)
            query.tables.insert(oid);
        query.kinds = kRowKinds;
        plan_.looked_until = std::max(plan_.looked_until, query.to);
        for (const auto& gap : gaps_within(journal.gaps, query.from, query.to))
            plan_.notes.push_back(gap_text(gap, opened_.zone) +
                                  ": what met these rows in it is not known");
        for (const auto& [oid, state] : states_)
            WV_CHECK(note_left(journal, oid, query));
        storage::JournalSink sink;
        sink.on_change = [&](const JournalTransaction& transaction,
                             const JournalChange& change) -> Result<bool> {
            const bool selected = is_selected(transaction);
            if (change.kind == JournalRecordKind::truncated)
                WV_CHECK(truncated(transaction, change, selected));
            else
                WV_CHECK(changed(transaction, change, selected));
            return true;
        };
        return read_between_gaps(journal, query, sink);
    }

    Result<> truncated(const JournalTransaction& transaction, const JournalChange& change,
                       bool selected) {
        for (const auto* relation : change.truncated) {
            auto found = states_.find(relation->oid());
            if (found == states_.end()) continue;
            JournalChange one = change;
            one.truncated = {relation};
            WV_CHECK(found->second->apply(one));
            const std::string table = table_text(relation->schema(), relation->table());
            if (selected) {
                ++plan_.change_count;
                plan_.tables.insert(table);
                refuse({transaction.xid, change.kind, table, "",
                        "a TRUNCATE does not tell the rows; get them with walvault extract " +
                            printable(table) + " --before xid:" + std::to_string(transaction.xid)});
            } else {
                conflict({transaction, change.kind, table, ""});
            }
        }
        return {};
    }

    Result<> changed(const JournalTransaction& transaction, const JournalChange& change,
                     bool selected) {
        const pb::JournalRelation& relation = *change.relation;
        TableState& state = *states_.at(relation.oid());
        WV_TRY(const RowChange read, state.apply_resolved(change));
        const Row& row = read.now.empty() ? read.before : read.now;
        const std::string table = table_text(relation.schema(), relation.table());
        if (!selected) {
            note_later_key(relation, transaction);
            WV_TRY(bool meets, state.is_wanted(relation, read.before));
            if (!meets) {
                WV_TRY(meets, state.is_wanted(relation, read.now));
            }
            if (meets) conflict({transaction, change.kind, table, key_text(relation, row)});
            return {};
        }
        ++plan_.change_count;
        plan_.tables.insert(table);
        if (is_insert_only(relation)) note_insert_only(table);
        UndoStatement undo = undo_statement(change.kind, relation, read, transaction.xid);
        if (undo.leaves_masked) plan_.masked_tables.insert(table);
        if (!undo.refusal.empty()) {
            refuse({transaction.xid, change.kind, table, key_text(relation, row), undo.refusal});
            return {};
        }
        if (undo.sql.empty()) return {};
        WV_CHECK(plan_.scratch_->put(statement_place(plan_.statement_count), undo.sql));
        ++plan_.statement_count;
        return {};
    }

    // What is known of a row by another key is not used.
    void note_other_key(const OtherKey& other) {
        note_once("up to LSN " + to_string(other.until) + " " + key_was_text(other.relation) +
                  ": what rows were then is not taken from there");
    }
    void note_later_key(const pb::JournalRelation& relation,
                        const JournalTransaction& transaction) {
        auto found = wanted_keys_.find(relation.oid());
        const auto names = key_names(relation);
        if (found == wanted_keys_.end() || !found->second.insert(names).second) return;
        note_once("at LSN " + to_string(transaction.end_lsn) + " " + key_was_text(relation) +
                  ": which of these rows its changes from there on meet is not told");
    }
    void note_once(std::string note) {
        auto& notes = plan_.notes;
        if (std::find(notes.begin(), notes.end(), note) == notes.end())
            notes.push_back(std::move(note));
    }
    void note_insert_only(const std::string& table) {
        if (!insert_only_.insert(table).second) return;
        plan_.notes.push_back("only inserts of " + table +
                              " are in the journal: its updates and deletes are not taken back");
    }
    void conflict(UndoConflict each) {
        ++plan_.conflict_count;
        if (plan_.conflicts.size() < kUndoListedMax) plan_.conflicts.push_back(std::move(each));
    }
    void refuse(NotUndone each) {
        ++plan_.not_undone_count;
        if (plan_.not_undone.size() < kUndoListedMax) plan_.not_undone.push_back(std::move(each));
    }

    static constexpr std::size_t kDdlNoted = 4;
    // Journals hand out the same transaction one after another: a few are enough to tell.
    static constexpr std::size_t kSeenMax = 100'000;
    static constexpr std::size_t kFewKeys = 500;
    OpenedView& opened_;
    const UndoWanted& wanted_;
    UndoPlan& plan_;
    std::set<std::uint32_t> wanted_tables_;
    std::map<std::uint32_t, std::unique_ptr<TableState>> states_;
    std::map<std::uint32_t, std::set<NamedKey>> needs_before_;  // by oid
    std::optional<Lsn> first_;  // end LSN of the first one in this journal
    std::set<Lsn> seen_;
    std::set<std::string> insert_only_;  // tables
    // By oid, the names of the keys that rows were wanted by, or that were told of.
    std::map<std::uint32_t, std::set<std::vector<std::string>>> wanted_keys_;
    Lsn only_;  // of the transaction of `xid`
};

Result<UndoPlan> UndoPlan::make(OpenedView& opened, JournalSet& set, const UndoWanted& wanted) {
    UndoPlan plan;
    WV_TRY(plan.scratch_, storage::ScratchRows::open(scratch_parent()));
    std::vector<TablePlace> places;
    if (!wanted.table.empty()) {
        WV_TRY(places, find_table(set, wanted.table));
    }
    UndoMaker maker(opened, wanted, plan);
    if (wanted.table.empty()) {
        for (OpenedJournal& journal : set.journals)
            WV_CHECK(maker.run(journal, {}));
    } else {
        for (TablePlace& place : places)
            WV_CHECK(maker.run(*place.journal, place.oids()));
    }
    if (plan.transaction_count > 0) return plan;
    const std::string what =
        wanted.xid ? "transaction " + std::to_string(*wanted.xid) : "a change of then";
    return fail(Errc::outside_window,
                what + " is not in the journal of database " + printable(set.database) +
                    ", which has everything up to LSN " + to_string(set.whole_until()),
                "which transactions there are: walvault log --table TABLE");
}

Result<> UndoPlan::each_statement(
    const std::function<Result<bool>(const std::string&)>& sink) const {
    return scratch_->each(
        "s", [&](std::string_view, std::string_view sql) { return sink(std::string(sql)); });
}

}  // namespace walvault::agent
