#include <algorithm>

#include "proto/frame_format.h"
#include "proto/journal_format.h"

namespace walvault {
namespace {

// What a whole record may have beside its relation versions, so that a batch stays well below a
// frame's limit.
constexpr std::size_t kWholeRecordBytesMax = 2 << 20;

void append_text(ByteBuffer& out, std::string_view text) {
    append_le(out, static_cast<std::uint32_t>(text.size()));
    append(out, as_bytes(text));
}
void append_kind(ByteBuffer& out, JournalRecordKind kind) {
    out.push_back(static_cast<std::byte>(kind));
}
void append_begin(ByteBuffer& out, const JournalBegin& begin, bool goes_on) {
    append_kind(out, JournalRecordKind::begin);
    append_le(out, begin.commit_lsn.value);
    append_le(out, static_cast<std::int64_t>(begin.at.time_since_epoch().count()));
    append_le(out, begin.xid);
    out.push_back(static_cast<std::byte>(goes_on ? 1 : 0));
}

ByteBuffer join(const std::vector<std::string_view>& relations, std::size_t relation_bytes,
                ByteSpan records) {
    ByteBuffer plain;
    plain.reserve(relation_bytes + records.size());
    append_le(plain, static_cast<std::uint32_t>(relations.size()));
    for (std::string_view relation : relations)
        append_text(plain, relation);
    append(plain, records);
    WV_ASSERT(plain.size() <= kFramePlainBytesMax);
    return plain;
}

}  // namespace

RelationRef RelationVersion::make(pb::JournalRelation relation) {
    std::string bytes = relation.SerializeAsString();
    return RelationRef(new RelationVersion(std::move(relation), std::move(bytes)));
}

void BatchWriter::begin(const JournalBegin& transaction) {
    WV_ASSERT(!inside_);
    inside_ = transaction;
    goes_on_ = false;
    begin_offset_ = records_.size();
    append_begin(records_, transaction, false);
}

void BatchWriter::origin(Lsn origin_lsn, std::string_view name) {
    WV_ASSERT(inside_.has_value());
    append_kind(records_, JournalRecordKind::origin);
    append_le(records_, origin_lsn.value);
    append_text(records_, name);
}

void BatchWriter::change(JournalRecordKind kind, const RelationRef& relation, ByteSpan tuples) {
    WV_ASSERT(inside_.has_value());
    WV_ASSERT(kind == JournalRecordKind::inserted || kind == JournalRecordKind::updated ||
              kind == JournalRecordKind::deleted);
    append_tuples(kind, relation, tuples);
}

void BatchWriter::row(const RelationRef& relation, ByteSpan tuple) {
    WV_ASSERT(!inside_);
    append_tuples(JournalRecordKind::row, relation, tuple);
}

void BatchWriter::mention(const RelationRef& relation) { place_of(relation); }

void BatchWriter::append_tuples(JournalRecordKind kind, const RelationRef& relation,
                                ByteSpan tuples) {
    if (tuples.size() > kWholeRecordBytesMax) return append_parts(kind, &relation, tuples);
    const std::uint32_t place = place_of(relation);
    append_kind(records_, kind);
    append_le(records_, place);
    append_le(records_, static_cast<std::uint32_t>(tuples.size()));
    append(records_, tuples);
    cut_if_full();
}

// In batches of their own as far as they fill them.
void BatchWriter::append_parts(JournalRecordKind kind, const RelationRef* relation, ByteSpan body) {
    for (std::size_t at = 0; at < body.size();) {
        const std::size_t bytes = std::min(kJournalPartBytes, body.size() - at);
        const std::uint32_t place = relation != nullptr ? place_of(*relation) : 0;
        append_kind(records_, JournalRecordKind::part);
        append_kind(records_, kind);
        append_le(records_, place);
        append_le(records_, static_cast<std::uint64_t>(body.size()));
        append_le(records_, static_cast<std::uint64_t>(at));
        append_le(records_, static_cast<std::uint32_t>(bytes));
        append(records_, body.subspan(at, bytes));
        at += bytes;
        cut_if_full();
    }
}

// Of thousands of partitions, in as many records as it takes.
void BatchWriter::truncate(bool cascade, bool restart_identity,
                           const std::vector<RelationRef>& relations) {
    WV_ASSERT(inside_.has_value());
    for (std::size_t first = 0, last = 0; first < relations.size(); first = last) {
        std::vector<std::uint32_t> places;
        while (last < relations.size() && (last == first || !is_full()))
            places.push_back(place_of(relations[last++]));
        append_kind(records_, JournalRecordKind::truncated);
        records_.push_back(static_cast<std::byte>((cascade ? 1 : 0) | (restart_identity ? 2 : 0)));
        append_le(records_, static_cast<std::uint32_t>(places.size()));
        for (std::uint32_t place : places)
            append_le(records_, place);
        cut_if_full();
    }
}

void BatchWriter::message(bool transactional, Lsn lsn, std::string_view prefix, ByteSpan content) {
    WV_ASSERT(inside_.has_value() || !transactional);
    ByteBuffer body;
    body.push_back(static_cast<std::byte>(transactional ? 1 : 0));
    append_le(body, lsn.value);
    append_text(body, prefix);
    append_le(body, static_cast<std::uint32_t>(content.size()));
    append(body, content);
    if (body.size() > kWholeRecordBytesMax)
        return append_parts(JournalRecordKind::message, nullptr, body);
    append_kind(records_, JournalRecordKind::message);
    append(records_, body);
    cut_if_full();
}

void BatchWriter::commit(Lsn commit_lsn, Lsn end_lsn, WallTime at) {
    WV_ASSERT(inside_.has_value());
    append_kind(records_, JournalRecordKind::commit);
    append_le(records_, commit_lsn.value);
    append_le(records_, end_lsn.value);
    append_le(records_, static_cast<std::int64_t>(at.time_since_epoch().count()));
    inside_.reset();
    goes_on_ = false;
    end_lsn_ = end_lsn;
    cut_if_full();
}

// Relation versions that only it used may stay: a batch may hold ones that no record names.
void BatchWriter::abandon() {
    if (!inside_) return;
    records_.resize(begin_offset_);
    inside_.reset();
    goes_on_ = false;
    if (records_.empty()) forget_relations();
}

void BatchWriter::forget_relations() {
    by_content_.clear();
    by_pointer_.clear();
    relations_.clear();
    relation_bytes_ = 4;
}

std::uint32_t BatchWriter::place_of(const RelationRef& relation) {
    if (auto found = by_pointer_.find(relation.get()); found != by_pointer_.end())
        return found->second;
    const auto next = static_cast<std::uint32_t>(relations_.size());
    auto [known, is_new] = by_content_.try_emplace(relation->bytes(), next);
    // Held, so that no other version takes its address while this batch is filled.
    if (is_new) {
        relations_.push_back(relation);
        relation_bytes_ += 4 + relation->bytes().size();
        by_pointer_.emplace(relation.get(), next);
    }
    return known->second;
}

// A small transaction is not cut in two, since who reads one piece has to read the other.
bool BatchWriter::is_full() const {
    if (goes_on_) return plain_bytes() >= kJournalPieceBytes;
    const bool is_small = inside_ && records_.size() - begin_offset_ < kJournalBatchBytes / 4 &&
                          plain_bytes() < kJournalPieceBytes;
    return plain_bytes() >= kJournalBatchBytes && !is_small;
}

void BatchWriter::cut_if_full() {
    if (is_full()) full_.push_back(cut());
}

JournalBatch BatchWriter::cut() {
    std::vector<std::string_view> relations;
    for (const RelationRef& relation : relations_)
        relations.emplace_back(relation->bytes());
    JournalBatch batch{.plain = join(relations, relation_bytes_, records_),
                       .end_lsn = end_lsn_,
                       .is_open = inside_.has_value()};
    forget_relations();
    records_.clear();
    end_lsn_ = {};
    if (inside_) {
        goes_on_ = true;
        begin_offset_ = 0;
        append_begin(records_, *inside_, true);
    }
    return batch;
}

std::optional<JournalBatch> BatchWriter::take_full() {
    if (full_.empty()) return std::nullopt;
    JournalBatch batch = std::move(full_.front());
    full_.pop_front();
    return batch;
}

std::optional<JournalBatch> BatchWriter::take() {
    WV_ASSERT(full_.empty());
    // Of a transaction that goes on, its beginning alone is nothing.
    const bool is_begun_only = goes_on_ && records_.size() <= kJournalBeginBytes;
    if (relations_.empty() && (records_.empty() || is_begun_only)) return std::nullopt;
    return cut();
}

std::uint32_t BatchMerger::place_of(const std::string& relation) {
    auto [known, is_new] =
        places_.try_emplace(relation, static_cast<std::uint32_t>(relations_.size()));
    if (is_new) {
        relations_.push_back(relation);
        relation_bytes_ += 4 + relation.size();
    }
    return known->second;
}

Result<bool> BatchMerger::add(ByteSpan batch, bool without_last) {
    if (!is_empty() && relation_bytes_ + records_.size() + batch.size() > kJournalBatchBytes)
        return false;
    WV_TRY(BatchReader reader, BatchReader::open(batch));
    std::vector<std::uint32_t> places;
    for (std::string_view relation : reader.relation_bytes())
        places.push_back(place_of(std::string(relation)));
    JournalRecordView record;
    std::size_t last_begin = 0;
    for (bool is_first = true;; is_first = false) {
        WV_TRY(bool more, reader.next(record));
        if (is_first && ends_inside_ != (more && record.goes_on))
            return fail(Errc::corrupt,
                        ends_inside_ ? "a batch does not go on with the transaction before it"
                                     : "a batch goes on with a transaction that is not there");
        if (!more) break;
        if (is_first && ends_inside_ && !records_.empty()) continue;  // goes on in this batch
        if (record.kind == JournalRecordKind::commit) end_lsn_ = record.end_lsn;
        const std::size_t at = records_.size();
        if (record.kind == JournalRecordKind::begin) last_begin = at;
        append(records_, batch.subspan(record.offset, reader.offset() - record.offset));
        move_places(record, places, at);
    }
    ends_inside_ = reader.is_inside_transaction();
    if (ends_inside_ && without_last) {
        records_.resize(last_begin);
        ends_inside_ = false;
    }
    return true;
}

// Numbers of relation versions stand at fixed places of a record.
void BatchMerger::move_places(const JournalRecordView& record,
                              const std::vector<std::uint32_t>& places, std::size_t at) {
    using Kind = JournalRecordKind;
    if (record.kind == Kind::truncated) {
        for (std::size_t i = 0; i < record.relations.size(); ++i)
            store_le(records_.data() + at + 6 + 4 * i, places[record.relations[i]]);
        return;
    }
    const bool is_part = record.kind == Kind::part;
    const Kind kind = is_part ? record.part_of : record.kind;
    if (kind == Kind::inserted || kind == Kind::updated || kind == Kind::deleted ||
        kind == Kind::row)
        store_le(records_.data() + at + (is_part ? 2 : 1), places[record.relation]);
}

JournalBatch BatchMerger::take() {
    std::vector<std::string_view> relations(relations_.begin(), relations_.end());
    JournalBatch batch{.plain = join(relations, relation_bytes_, records_),
                       .end_lsn = end_lsn_,
                       .is_open = ends_inside_};
    relations_.clear();
    places_.clear();
    relation_bytes_ = 4;
    records_.clear();
    end_lsn_ = {};
    return batch;
}

}  // namespace walvault
