// JournalRouter: what a slot decodes, as batches of the journals that it belongs to; pure.
//
// A database has a main journal, number 0, and one for each class with tables of its own. A
// transaction that touches tables of several is split; each part is whole in its journal, and the
// main journal's end says up to where the others are whole (docs/journal.md).
#pragma once

#include <deque>
#include <functional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "proto/journal_format.h"
#include "proto/pgoutput.h"

namespace walvault::agent {

enum class ColumnRule { keep, mask, drop };

// A table's name, and that of the table that it is a partition of.
struct TableNames {
    std::string schema, table;
    std::string root_schema, root_table;  // empty: it is no partition
    // The catalogue does not have the table any more: what it was a partition of is not known.
    bool is_gone = false;
};

// What the catalogue says of a table and pgoutput does not.
struct TableFacts {
    std::string root_schema, root_table;  // as TableNames
    bool is_gone = false;
    std::set<std::string> generated;    // names of columns that are generated and stored
    std::set<std::string> primary_key;  // names of columns
    std::map<std::uint32_t, std::string> type_names;  // by oid, as format_type() writes them
};

// Batches on their way to the journals, by number. They are stored in the order of falling numbers:
// the main journal's last, when all others are synced.
struct JournalCut {
    std::vector<std::vector<JournalBatch>> batches;
    // Every transaction that ends at or before this is in these batches or earlier ones; zero: the
    // cut lies inside a transaction.
    Lsn end_lsn;
    std::size_t plain_bytes() const;
};

class JournalRouter {
public:
    struct Options {
        std::size_t journal_count = 1;
        std::function<std::size_t(const TableNames&)> journal_of;  // its number
        std::function<ColumnRule(const TableNames&, std::string_view column)> rule_of;
        // What stands in place of a masked value: the same for the same value of a column.
        std::function<std::string(std::string_view column, std::string_view value)> mask;
    };
    // `ends`: up to where each journal has everything; what it has is not taken again.
    JournalRouter(Options options, std::vector<Lsn> ends);

    // Of the changes of this table from here on.
    // Errors: corrupt for one that is larger than a batch can hold.
    Result<> take_relation(const pgoutput::Relation& relation, const TableFacts& facts);
    // Begin, Commit, Origin, changes, Truncate and Message of whole transactions, as protocol 1
    // sends them. `tuples`: what follows the relation's oid in a change. Messages that are not
    // transactional are left out: they would come again. Errors: corrupt for a change of a relation
    // that was not told of, or one that does not fit to it, for others than these messages, and for
    // positions that do not follow one another.
    Result<> take(const pgoutput::AnyMessage& message, ByteSpan tuples);

    // A row of a table that was told of, as a tuple of its journal; good until the next call.
    // Errors: corrupt, as take().
    Result<ByteSpan> encode_row(pgoutput::Oid oid, pgoutput::Tuple row);
    // Of a table that was told of (asserted).
    const RelationRef& relation(pgoutput::Oid oid) const;
    std::size_t journal_of(pgoutput::Oid oid) const;

    bool is_inside_transaction() const { return begin_.has_value(); }
    // End of the last transaction taken; zero: none was.
    Lsn end_lsn() const { return end_lsn_; }
    std::uint64_t transaction_count() const { return transaction_count_; }
    std::uint64_t change_count() const { return change_count_; }
    // Something is full, so that take_full() is due.
    bool has_full() const { return has_full_; }
    // Full batches of the main journal, and all there is of the others.
    JournalCut take_full();
    // All there is. Not inside a transaction (asserted).
    JournalCut take_all();
    bool is_empty() const;

private:
    struct Route {
        std::size_t journal = 0;
        RelationRef relation;
        std::vector<ColumnRule> rules;   // by column of the message
        std::vector<std::string> paths;  // "schema.table.column" of masked columns
        bool is_changed = false;         // some column is masked or dropped
    };
    struct Journal {
        BatchWriter writer;
        std::vector<JournalBatch> full;
        Lsn end_lsn;
        bool in_transaction = false;  // begun in the writer
        bool skips = false;           // the transaction is stored already
    };

    BatchWriter* writer_for(std::size_t journal);
    void collect(std::size_t journal);
    Result<const Route*> route_of(pgoutput::Oid oid) const;
    Result<> change(JournalRecordKind kind, pgoutput::Oid oid, ByteSpan tuples);
    Result<> truncate(const pgoutput::Truncate& truncate);
    Result<> commit(const pgoutput::Commit& commit);
    Result<> rewrite(const Route& route, JournalRecordKind kind, ByteSpan tuples);
    Result<> rewrite_tuple(const Route& route, ByteSpan& tuples);
    JournalCut take(bool all);

    Options options_;
    std::vector<Journal> journals_;
    std::unordered_map<pgoutput::Oid, Route> routes_;
    std::optional<JournalBegin> begin_;
    std::optional<std::pair<Lsn, std::string>> origin_;
    ByteBuffer rewritten_;
    Lsn end_lsn_;
    std::uint64_t transaction_count_ = 0;
    std::uint64_t change_count_ = 0;
    bool has_full_ = false;
};

}  // namespace walvault::agent
