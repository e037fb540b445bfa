// JournalReader: transactions, changes of a key, and snapshots, out of the packs and open tails of
// one journal.
//
// Reads through a RepositoryView, and so from a tier and beside a running agent too. Memory: a few
// frames of about 1 MiB, and the largest row, however large a transaction is. Blocking; one thread
// at a time.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "proto/journal_format.h"
#include "storage/repository_view.h"

namespace walvault::storage {

class JournalSource;

struct JournalTransaction {
    Lsn commit_lsn;  // of the commit record
    Lsn end_lsn;     // its position
    WallTime at;
    Xid xid = 0;
};

// Views are valid during the call that hands it out.
struct JournalChange {
    // inserted, updated, deleted, truncated, origin or message
    JournalRecordKind kind{};
    // inserted, updated, deleted: the table as it was then, and what pgoutput sent
    const pb::JournalRelation* relation = nullptr;
    char old_kind = 0;  // 'K' or 'O' where the old tuple was sent
    ByteSpan old_tuple;
    ByteSpan new_tuple;
    // truncated: those of its tables that are wanted
    std::vector<const pb::JournalRelation*> truncated;
    bool cascade = false;
    bool restart_identity = false;
    // origin (lsn, name), message (lsn, transactional, name: its prefix, content)
    Lsn lsn;
    bool transactional = false;
    std::string_view name;
    ByteSpan content;
};

enum class JournalOrder { forward, backward };

// Which transactions, and what of them.
struct JournalQuery {
    // End LSNs: from < end ≤ to. What is behind whole_until_lsn does not count.
    Lsn from;
    Lsn to = kOpenEndLsn;
    // Backward: the last transaction first, and in each its changes from the last to the first.
    JournalOrder order = JournalOrder::forward;
    std::set<std::uint32_t> tables = {};     // oids; empty: all
    std::set<JournalRecordKind> kinds = {};  // of JournalChange; empty: all but origins
    std::optional<Xid> xid = {};
    WallTime since{};  // commit times at or behind; zero: no limit
    WallTime until{};  // at or before; zero: no limit
};

// What is called for each transaction with a change that is wanted: on_begin, its changes, on_end.
// Each returns false to stop reading; not called then any more.
struct JournalSink {
    std::function<Result<bool>(const JournalTransaction&)> on_begin;
    std::function<Result<bool>(const JournalTransaction&, const JournalChange&)> on_change;
    std::function<Result<bool>(const JournalTransaction&)> on_end;
};

// Changes of one transaction in one table.
struct TableChanges {
    std::uint64_t inserted = 0;
    std::uint64_t updated = 0;
    std::uint64_t deleted = 0;
    std::uint64_t truncated = 0;
    std::uint64_t rows() const { return inserted + updated + deleted; }
    TableChanges& operator+=(const TableChanges& more) {
        inserted += more.inserted;
        updated += more.updated;
        deleted += more.deleted;
        truncated += more.truncated;
        return *this;
    }
};
struct JournalSummary {
    JournalTransaction transaction;
    std::map<std::uint32_t, TableChanges> tables;  // by oid; only those that are wanted
    std::uint64_t rows() const;                    // of the kinds that are wanted
};

// The key of a row: the text of each of key_columns(), in their order.
struct JournalKey {
    std::uint32_t table_oid = 0;
    std::vector<std::string> columns;
};

struct JournalTableRecord {
    std::uint32_t oid = 0;
    std::string schema;  // as it was last called
    std::string name;
    TableChanges changes;
};

class JournalReader {
public:
    // `view` outlives it. Errors: not_found (no such journal), corrupt, io.
    static Result<JournalReader> open(RepositoryView& view, const JournalRecord& journal);
    JournalReader(JournalReader&&) noexcept;
    ~JournalReader();

    const JournalRecord& journal() const;
    // Tables that were seen in it, with all their changes, by oid. From footers.
    Result<std::vector<JournalTableRecord>> tables();
    // What is not in it, in the order of LSNs.
    Result<std::vector<pb::JournalGap>> gaps();
    // From where on not all changes of a table are in it, until its next snapshot.
    Result<std::vector<pb::JournalTableLeft>> table_left(std::uint32_t table_oid);
    // Errors: gap where the range reaches over one (what lies before it was handed out; backward:
    // behind); corrupt, naming the pack and the frame; io; what the sink returned.
    Result<> read(const JournalQuery& query, const JournalSink& sink);
    // Whole transactions and counts, of those that changed `rows_min` rows or more as the query
    // wants them. Reads only the batches that can have one. `sink` returns false to stop.
    Result<> summarize(const JournalQuery& query, std::uint64_t rows_min,
                       const std::function<Result<bool>(const JournalSummary&)>& sink);
    // Changes of the rows that have, or had before an update, this key, and the truncations of its
    // table. By key blocks: one block of each pack, and the batches it names. `query.tables` is not
    // looked at.
    Result<> read_key(const JournalKey& key, const JournalQuery& query, const JournalSink& sink);

    // The newest snapshot of the table at or before `lsn`, or nothing.
    Result<std::optional<pb::StoredSnapshot>> snapshot_at(std::uint32_t table_oid, Lsn lsn);
    // All of them, oldest first.
    Result<std::vector<pb::StoredSnapshot>> snapshots(std::uint32_t table_oid);
    // The table as it was when it was read; nothing where the snapshot has no rows' pack. Errors:
    // corrupt, io.
    Result<std::optional<pb::JournalRelation>> relation_of(const pb::StoredSnapshot& snapshot);
    // Its rows, in the order in which they were read. `sink` is first called for the relation
    // alone, with an empty span; it returns false to stop. Errors: corrupt, io, what the sink
    // returned.
    Result<> read_rows(
        const pb::StoredSnapshot& snapshot,
        const std::function<Result<bool>(const pb::JournalRelation&, ByteSpan)>& sink);

    // Those of its rows that have this key: by key blocks.
    Result<> read_rows_of_key(
        const pb::StoredSnapshot& snapshot, const JournalKey& key,
        const std::function<Result<bool>(const pb::JournalRelation&, ByteSpan)>& sink);

private:
    struct State;
    explicit JournalReader(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace walvault::storage
