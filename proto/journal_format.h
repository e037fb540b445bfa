// The row journal's batches: what the plain bytes of a frame of a journal are. docs/journal.md has
// the format.
//
// Pure: bytes in, bytes or views out. Tuples pass through as pgoutput writes them. A batch is read
// without any other, but for a transaction that it begins or ends inside of, and a record that is
// cut into parts.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "proto/lsn.h"
#include "proto/repository.pb.h"

namespace walvault {

// A batch is cut when its plain bytes reach this, or behind the small transaction that it is in
// then: who looks for one row reads a whole batch.
inline constexpr std::size_t kJournalBatchBytes = 256 << 10;
// One that goes on with a transaction is cut at this, so that a file has room for a large one.
inline constexpr std::size_t kJournalPieceBytes = 1 << 20;
// A record with more is cut into parts of so much.
inline constexpr std::size_t kJournalPartBytes = 1 << 20;
inline constexpr std::size_t kJournalBeginBytes = 22;

// A relation version and its serialized bytes; made once for each Relation message and shared by
// its changes.
class RelationVersion {
public:
    static std::shared_ptr<const RelationVersion> make(pb::JournalRelation relation);
    const pb::JournalRelation& relation() const { return relation_; }
    const std::string& bytes() const { return bytes_; }

private:
    RelationVersion(pb::JournalRelation relation, std::string bytes)
        : relation_(std::move(relation)), bytes_(std::move(bytes)) {}
    pb::JournalRelation relation_;
    std::string bytes_;
};
using RelationRef = std::shared_ptr<const RelationVersion>;

// What pgoutput's Begin says of a transaction.
struct JournalBegin {
    Lsn commit_lsn;  // of the commit record
    WallTime at{};
    Xid xid = 0;
};

enum class JournalRecordKind : std::uint8_t {
    begin = 'B',
    origin = 'O',
    inserted = 'I',
    updated = 'U',
    deleted = 'D',
    truncated = 'T',
    message = 'M',
    commit = 'C',
    row = 'R',   // of a snapshot
    part = 'L',  // of an insert, update, delete, row or message that is too large for one batch
};

struct JournalBatch {
    ByteBuffer plain;      // at most kFramePlainBytesMax
    Lsn end_lsn;           // end LSN of the last commit in it; zero: there is none
    bool is_open = false;  // it ends inside of a transaction
};

// Writes records into batches of about kJournalBatchBytes, or pieces of kJournalPieceBytes, and
// cuts them by itself: whoever calls takes what is full after each call. Calls out of order (a
// change outside of a transaction, a row inside) assert.
class BatchWriter {
public:
    void begin(const JournalBegin& transaction);
    // pgoutput's Origin: behind begin().
    void origin(Lsn origin_lsn, std::string_view name);
    // `kind`: inserted, updated or deleted; `tuples`: what follows the relation's oid in pgoutput's
    // message.
    void change(JournalRecordKind kind, const RelationRef& relation, ByteSpan tuples);
    void truncate(bool cascade, bool restart_identity, const std::vector<RelationRef>& relations);
    // One that is not transactional may also stand between transactions.
    void message(bool transactional, Lsn lsn, std::string_view prefix, ByteSpan content);
    void commit(Lsn commit_lsn, Lsn end_lsn, WallTime at);
    // Gives up a transaction that was begun, where the connection ended inside it. Pieces of it in
    // batches that were cut do not count for a reader; what is left is dropped.
    void abandon();

    // A row of a snapshot: one tuple.
    void row(const RelationRef& relation, ByteSpan tuple);
    // The relation stands in the batch even if no record names it: of a snapshot of an empty table.
    void mention(const RelationRef& relation);

    // Of the batch that is being filled.
    std::size_t plain_bytes() const { return relation_bytes_ + records_.size(); }
    bool is_inside_transaction() const { return inside_.has_value(); }
    // A full batch, oldest first; nothing when there is none.
    std::optional<JournalBatch> take_full();
    // What there is, full or not, after all full ones were taken; nothing when there is nothing.
    // Inside a transaction, the next batch goes on with it.
    std::optional<JournalBatch> take();

private:
    std::uint32_t place_of(const RelationRef& relation);
    void append_tuples(JournalRecordKind kind, const RelationRef& relation, ByteSpan tuples);
    void append_parts(JournalRecordKind kind, const RelationRef* relation, ByteSpan body);
    bool is_full() const;
    void cut_if_full();
    void forget_relations();
    JournalBatch cut();

    std::deque<JournalBatch> full_;
    std::vector<RelationRef> relations_;
    std::unordered_map<const RelationVersion*, std::uint32_t> by_pointer_;
    std::map<std::string_view, std::uint32_t> by_content_;  // views into relations_
    std::size_t relation_bytes_ = 4;
    ByteBuffer records_;
    Lsn end_lsn_;
    std::optional<JournalBegin> inside_;
    std::size_t begin_offset_ = 0;  // of the B of inside_ in records_
    bool goes_on_ = false;          // a piece of inside_ is in a batch that was cut before
};

// A record as it stands in the batch; views are valid as long as the batch's bytes are.
struct JournalRecordView {
    JournalRecordKind kind{};
    std::size_t offset = 0;  // in the batch, of its first byte
    // begin (commit_lsn, at, xid, goes_on), commit (commit_lsn, end_lsn, at)
    Lsn commit_lsn;
    Lsn end_lsn;
    WallTime at{};
    Xid xid = 0;
    bool goes_on = false;
    // origin (lsn, name), message (transactional, lsn, name: its prefix, content)
    Lsn lsn;
    std::string_view name;
    bool transactional = false;
    ByteSpan content;
    // inserted, updated, deleted, row: place in BatchReader::relations(), and tuples for
    // TupleReader
    std::uint32_t relation = 0;
    char old_kind = 0;  // 'K' or 'O' where the old tuple was sent, else 0
    ByteSpan old_tuple;
    ByteSpan new_tuple;  // of an insert, an update, and a row
    // truncated
    bool cascade = false;
    bool restart_identity = false;
    std::vector<std::uint32_t> relations;
    // part: of which kind (and `relation`), its bytes in `content`
    JournalRecordKind part_of{};
    std::uint64_t total_bytes = 0;
    std::uint64_t part_offset = 0;
    bool is_last_part() const { return part_offset + content.size() == total_bytes; }
};

// Reads a batch record by record, in order. Everything in it is checked: lengths, places of
// relations, tuples against their relation, and that each record may stand where it does.
class BatchReader {
public:
    // `batch` outlives the reader. Errors: corrupt.
    static Result<BatchReader> open(ByteSpan batch);
    const std::vector<pb::JournalRelation>& relations() const { return relations_; }
    // False at the end. Errors: corrupt, with the offset; the reader is then at its end.
    Result<bool> next(JournalRecordView& record);
    // As they stand in the batch, serialized.
    const std::vector<std::string_view>& relation_bytes() const { return relation_bytes_; }
    // Of the record that next() reads next.
    std::size_t offset() const { return at_; }
    // Goes on at a record, whose offset next() has told, as one that stands inside of a transaction
    // or not.
    void seek(std::size_t offset, bool inside_transaction);
    bool is_inside_transaction() const { return inside_; }

    // The record of which `part` was the last part and `body` is all; views into both. Errors:
    // corrupt.
    Result<JournalRecordView> read_joined(const JournalRecordView& part, ByteSpan body) const;

private:
    explicit BatchReader(ByteSpan batch) : batch_(batch) {}
    Result<> read_record(ByteReader& reader, JournalRecordView& record) const;
    Result<> read_message(ByteReader& reader, JournalRecordView& record) const;
    Result<> read_part(ByteReader& reader, JournalRecordView& record) const;
    Result<> read_tuples(ByteSpan body, JournalRecordView& record) const;
    Result<> require_place(const JournalRecordView& record) const;

    ByteSpan batch_;
    std::vector<pb::JournalRelation> relations_;
    std::vector<std::string_view> relation_bytes_;
    std::size_t at_ = 0;
    bool inside_ = false;
};

// Joins the parts of a record, which follow one another in one batch or several.
class PartJoiner {
public:
    // True when `part` was the last one: body() is whole then, until the next call. Errors: corrupt
    // for parts that do not follow.
    Result<bool> add(const JournalRecordView& part);
    ByteSpan body() const { return body_; }
    // Parts are missing.
    bool is_waiting() const { return !is_whole_ && !body_.empty(); }
    void clear() { *this = PartJoiner(); }

private:
    ByteBuffer body_;
    std::uint64_t total_bytes_ = 0;
    JournalRecordKind part_of_{};
    bool is_whole_ = false;
};

struct TupleValue {
    enum class Kind : std::uint8_t { null, unchanged, text, masked } kind = Kind::null;
    std::string_view text;  // of a masked value its hash
};
// The columns of a tuple, in order. A tuple that BatchReader gave has no malformed byte.
class TupleReader {
public:
    explicit TupleReader(ByteSpan tuple);
    std::uint16_t column_count() const { return column_count_; }
    // False behind the last column. Errors: corrupt.
    Result<bool> next(TupleValue& value);
    // The length of the tuple that `bytes` begin with; `column_count` is what it must have. Errors:
    // corrupt.
    static Result<std::size_t> measure(ByteSpan bytes, std::size_t column_count);
    // All columns. Errors: corrupt.
    static Result<std::vector<TupleValue>> read(ByteSpan tuple);

private:
    ByteReader reader_;
    std::uint16_t column_count_ = 0;
    std::uint16_t at_ = 0;
};

// What a batch holds: the entry of its frame, but for its place. Tables are numbered by `tables`.
class JournalTables {
public:
    std::uint32_t number_of(const pb::JournalRelation& relation);
    std::uint32_t number_of(const pb::JournalTable& table);
    // By their latest names.
    const std::vector<pb::JournalTable>& tables() const { return tables_; }

private:
    std::uint32_t number_of(std::uint32_t oid, const std::string& schema, const std::string& name);
    std::vector<pb::JournalTable> tables_;
    std::unordered_map<std::uint32_t, std::uint32_t> by_oid_;
};
struct BatchFacts {
    pb::JournalFrame frame;  // end_lsn is zero where no commit is in it
    pb::WalSummary summary;
};
// Errors: corrupt.
Result<BatchFacts> describe_batch(ByteSpan batch, JournalTables& tables);

// Makes one batch of several that follow one another, for as long as the sum stays below
// kJournalBatchBytes. Relation versions stand in it once.
class BatchMerger {
public:
    // False where it would get too large: then it was not taken. The first one always is.
    // `without_last`: the transaction that it ends inside of was given up, and is left out. Errors:
    // corrupt.
    Result<bool> add(ByteSpan batch, bool without_last = false);
    bool is_empty() const { return relations_.empty() && records_.empty(); }
    // Begins anew.
    JournalBatch take();

private:
    std::uint32_t place_of(const std::string& relation);
    void move_places(const JournalRecordView& record, const std::vector<std::uint32_t>& places,
                     std::size_t at);
    std::vector<std::string> relations_;
    std::map<std::string, std::uint32_t> places_;
    std::size_t relation_bytes_ = 4;
    ByteBuffer records_;
    Lsn end_lsn_;
    bool ends_inside_ = false;
};

}  // namespace walvault
