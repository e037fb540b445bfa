// TableState: the rows of one table at one position: those of a snapshot, and then each change.
//
// Kept in ScratchRows, so that memory is bounded however large the table is. Rows are told apart by
// their key; rows of a table without one by all their columns, and counted.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "agent/journal_values.h"
#include "storage/scratch_rows.h"

namespace walvault::agent {

class TableState {
public:
    // `rows` may hold other tables' states too, and outlives it.
    TableState(storage::ScratchRows& rows, std::uint32_t table_oid);

    // From here on only rows whose keys were wanted are kept. `relation` says what the key is.
    Result<> want(const pb::JournalRelation& relation, const Row& row);
    void keep_only_wanted() { only_wanted_ = true; }
    // Whether the row's key was wanted, by columns of these names.
    Result<bool> is_wanted(const pb::JournalRelation& relation, const Row& row) const;

    // A row of the snapshot. Errors: corrupt for a row whose key is not known; io, no_space.
    Result<> load(const pb::JournalRelation& relation, ByteSpan tuple);
    Result<> load_row(const pb::JournalRelation& relation, const Row& row);
    // inserted, updated, deleted or truncated. Errors: unsupported for a table whose key was made
    // of a column that rows before do not tell; corrupt, io, no_space.
    Result<> apply(const storage::JournalChange& change);
    // The same with the row before as whole as the state knows it, and nothing unchanged in the new
    // one. Not for truncations.
    Result<RowChange> apply_resolved(const storage::JournalChange& change);

    // The table as the last row or change told it; nullptr: none did.
    const pb::JournalRelation* relation() const;
    // In the order of the key, in the columns of relation(). `sink` returns false to stop.
    Result<> each(const std::function<Result<bool>(const Row&)>& sink) const;

private:
    struct Stored {
        Row row;
        std::uint32_t version = 0;
        std::uint64_t count = 0;
    };
    Result<> enter(const pb::JournalRelation& relation);
    Result<> rekey(const pb::JournalRelation& relation);
    std::string place(const std::string& key) const;
    std::string wanted_place(const pb::JournalRelation& relation, const std::string& key) const;
    Result<std::optional<Stored>> find(const std::string& key) const;
    Result<> put(const std::string& key, const Row& row, std::uint64_t count);
    Result<> add(const pb::JournalRelation& relation, const Row& row);
    Result<> take(const pb::JournalRelation& relation, const Row& row);
    static std::string pack(const Stored& stored);
    static Result<Stored> unpack(std::string_view bytes);

    storage::ScratchRows& rows_;
    std::string prefix_;
    std::uint32_t generation_ = 0;  // of the rows' keys
    bool only_wanted_ = false;
    std::map<std::string, std::uint32_t> version_numbers_;  // by the relation's bytes
    std::map<std::uint32_t, pb::JournalRelation> versions_;
    std::uint32_t version_ = 0;  // the last one; 0: none yet
    std::string entered_bytes_;
};

}  // namespace walvault::agent
