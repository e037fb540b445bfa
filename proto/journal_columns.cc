#include "proto/journal_columns.h"

#include <algorithm>
#include <array>

#include "proto/frame_format.h"
#include "proto/value_columns.h"

namespace walvault {
namespace {

using Kind = JournalRecordKind;

// No batch has so many relation versions.
constexpr std::uint32_t kMark = 0xFFFFFFFF;
// Streams that are smaller share a block with what follows.
constexpr std::size_t kCutBytesMin = 1024;

// Which records there are; one byte for each. An update and a delete say in it what they have of
// the old row.
constexpr char kUpdateWithKey = 'k', kUpdateWithOld = 'o', kDeleteWithOld = 'd';

// How a value stands in its column; besides, as in a tuple.
constexpr char kSameAsOld = '=';

// Streams that are not of a column, in this order.
enum Stream : std::size_t {
    kKinds,
    kRelations,   // of each change its relation version
    kBeginLsns,   // differences, from transaction to transaction
    kBeginTimes,  // likewise
    kXids,        // likewise
    kBeginFlags,
    kCommitLsns,   // differences to the transaction's B
    kEndLsns,      // differences to the LSN of its commit record
    kCommitTimes,  // differences to the transaction's B
    kOtherLengths,
    kOthers,  // bodies of other records
    kStreamCount,
};

struct Transaction {
    std::uint64_t lsn = 0;
    std::uint64_t at = 0;
    std::uint32_t xid = 0;
};
std::uint64_t bits(WallTime at) {
    return static_cast<std::uint64_t>(at.time_since_epoch().count());
}

void append_difference(ByteBuffer& out, std::uint64_t value, std::uint64_t base) {
    append_varint(out, zigzag(value - base));
}

bool is_change(Kind kind) {
    return kind == Kind::inserted || kind == Kind::updated || kind == Kind::deleted ||
           kind == Kind::row;
}

char code_of(const JournalRecordView& record) {
    if (record.kind == Kind::updated && record.old_kind == 'K') return kUpdateWithKey;
    if (record.kind == Kind::updated && record.old_kind == 'O') return kUpdateWithOld;
    if (record.kind == Kind::deleted && record.old_kind == 'O') return kDeleteWithOld;
    return static_cast<char>(record.kind);
}

// --- To columns ------------------------------------------------------------------------------

// The values of a column in one place of the change: the old row, or the new one.
struct Collected {
    ByteBuffer kinds;
    std::vector<std::string_view> values;
    bool all_text = true;
};

class ColumnWriter {
public:
    explicit ColumnWriter(ByteSpan batch) : batch_(batch) {}

    Result<std::optional<ColumnBatch>> write() {
        WV_TRY(BatchReader reader, BatchReader::open(batch_));
        for (const pb::JournalRelation& relation : reader.relations())
            for (auto& place : columns_.emplace_back())
                place.resize(static_cast<std::size_t>(relation.columns_size()));
        JournalRecordView record;
        for (;;) {
            WV_TRY(bool more, reader.next(record));
            if (!more) break;
            WV_CHECK(take(record, reader.offset()));
        }
        return join(reader);
    }

private:
    Result<> take(const JournalRecordView& record, std::size_t end) {
        streams_[kKinds].push_back(static_cast<std::byte>(code_of(record)));
        if (record.kind == Kind::begin) return take_begin(record), Result<>();
        if (record.kind == Kind::commit) return take_commit(record), Result<>();
        if (is_change(record.kind)) return take_change(record);
        const ByteSpan body = batch_.subspan(record.offset + 1, end - record.offset - 1);
        append_varint(streams_[kOtherLengths], body.size());
        append(streams_[kOthers], body);
        return {};
    }

    void take_begin(const JournalRecordView& record) {
        append_difference(streams_[kBeginLsns], record.commit_lsn.value, last_.lsn);
        append_difference(streams_[kBeginTimes], bits(record.at), last_.at);
        append_difference(streams_[kXids], record.xid, last_.xid);
        streams_[kBeginFlags].push_back(static_cast<std::byte>(record.goes_on ? 1 : 0));
        last_ = {record.commit_lsn.value, bits(record.at), record.xid};
    }

    void take_commit(const JournalRecordView& record) {
        append_difference(streams_[kCommitLsns], record.commit_lsn.value, last_.lsn);
        append_difference(streams_[kEndLsns], record.end_lsn.value, record.commit_lsn.value);
        append_difference(streams_[kCommitTimes], bits(record.at), last_.at);
    }

    Result<> take_change(const JournalRecordView& record) {
        append_varint(streams_[kRelations], record.relation);
        auto& [old_columns, new_columns] = columns_[record.relation];
        if (!record.old_tuple.empty()) WV_CHECK(take_tuple(record.old_tuple, {}, old_columns));
        if (!record.new_tuple.empty())
            WV_CHECK(take_tuple(record.new_tuple, record.old_tuple, new_columns));
        return {};
    }

    static Result<> take_tuple(ByteSpan tuple, ByteSpan old, std::vector<Collected>& columns) {
        TupleReader reader(tuple);
        std::optional<TupleReader> old_reader;
        if (!old.empty()) old_reader.emplace(old);
        for (Collected& column : columns) {
            TupleValue value;
            TupleValue before;
            WV_CHECK(reader.next(value));
            if (old_reader) WV_CHECK(old_reader->next(before));
            take_value(value, old_reader ? &before : nullptr, column);
        }
        return {};
    }

    static void take_value(const TupleValue& value, const TupleValue* before, Collected& column) {
        using Of = TupleValue::Kind;
        const bool has_text = value.kind == Of::text || value.kind == Of::masked;
        const bool is_same = has_text && before != nullptr && before->kind == value.kind &&
                             before->text == value.text;
        const char kind = is_same                    ? kSameAsOld
                          : value.kind == Of::text   ? 't'
                          : value.kind == Of::masked ? 'm'
                          : value.kind == Of::null   ? 'n'
                                                     : 'u';
        column.kinds.push_back(static_cast<std::byte>(kind));
        column.all_text = column.all_text && kind == 't';
        if (has_text && !is_same) column.values.push_back(value.text);
    }

    Result<std::optional<ColumnBatch>> join(const BatchReader& reader) {
        ByteBuffer directory;
        for (const ByteBuffer& stream : streams_)
            add_stream(directory, stream);
        std::vector<ValueColumn> written;
        written.reserve(columns_count());
        for (auto& places : columns_)
            for (auto& columns : places)
                for (Collected& column : columns) {
                    if (column.all_text) column.kinds.clear();
                    ValueColumn& values = written.emplace_back(encode_values(column.values));
                    directory.push_back(static_cast<std::byte>(values.coding));
                    directory.push_back(static_cast<std::byte>(values.form));
                    add_stream(directory, column.kinds);
                    add_stream(directory, values.lengths);
                    add_stream(directory, values.bytes);
                }
        ColumnBatch result;
        append_le(result.plain, kMark);
        append_le(result.plain, static_cast<std::uint32_t>(batch_.size()));
        append_le(result.plain, static_cast<std::uint32_t>(reader.relations().size()));
        for (std::string_view relation : reader.relation_bytes()) {
            append_le(result.plain, static_cast<std::uint32_t>(relation.size()));
            append(result.plain, as_bytes(relation));
        }
        append(result.plain, directory);
        lay_out(result);
        ByteBuffer again;
        if (result.plain.size() >= batch_.size() || !from_columns(result.plain, again) ||
            !std::ranges::equal(again, batch_))
            return std::optional<ColumnBatch>();
        return std::optional(std::move(result));
    }

    std::size_t columns_count() const {
        std::size_t count = 0;
        for (const auto& places : columns_)
            count += places[0].size() + places[1].size();
        return count;
    }

    void add_stream(ByteBuffer& directory, const ByteBuffer& stream) {
        append_varint(directory, stream.size());
        bodies_.push_back(&stream);
    }

    void lay_out(ColumnBatch& result) const {
        std::size_t last_cut = 0;
        for (const ByteBuffer* stream : bodies_) {
            const std::size_t at = result.plain.size();
            if (!stream->empty() && at - last_cut >= kCutBytesMin) {
                result.cuts.push_back(at);
                last_cut = at;
            }
            append(result.plain, *stream);
        }
    }

    ByteSpan batch_;
    std::array<ByteBuffer, kStreamCount> streams_;
    std::vector<std::array<std::vector<Collected>, 2>> columns_;  // by relation version: old, new
    std::vector<const ByteBuffer*> bodies_;
    Transaction last_;
};

// --- From columns ----------------------------------------------------------------------------

tl::unexpected<Error> bad_columns(const char* what) {
    return fail(Errc::corrupt, std::string("the columns of a batch ") + what);
}

// Bytes of a known number, one behind the other.
class Writer {
public:
    explicit Writer(MutableByteSpan room) : room_(room) {}
    bool put(ByteSpan bytes) {
        if (bytes.size() > room_.size()) return false;
        if (!bytes.empty()) std::memcpy(room_.data(), bytes.data(), bytes.size());
        room_ = room_.subspan(bytes.size());
        return true;
    }
    bool put(char each) { return put(as_bytes({&each, 1})); }
    template <class T>
    bool le(T value) {
        if (room_.size() < sizeof value) return false;
        store_le(room_.data(), value);
        room_ = room_.subspan(sizeof value);
        return true;
    }
    MutableByteSpan room() const { return room_; }
    bool skip(std::size_t bytes) {
        if (bytes > room_.size()) return false;
        room_ = room_.subspan(bytes);
        return true;
    }

private:
    MutableByteSpan room_;
};

struct ColumnReader {
    ByteSpan kinds;
    bool has_kinds = false;
    ValueReader values;
    ByteSpan value;  // of the tuple that was written last, where it has text
    char kind = 0;
};

class ColumnDecoder {
public:
    Result<> read(ByteSpan plain, ByteBuffer& out) {
        WV_CHECK(open(plain));
        out.resize(batch_bytes_);
        Writer writer(out);
        if (!writer.put(relations_)) return bad_columns("are more than was announced");
        for (std::byte code : kinds_)
            if (!put_record(static_cast<char>(code), writer))
                return bad_columns("do not give what their records say");
        if (!writer.room().empty() || !is_used_up())
            return bad_columns("have more or less than was announced");
        return {};
    }

private:
    Result<> open(ByteSpan plain) {
        ByteReader reader(plain);
        if (reader.le<std::uint32_t>() != kMark) return bad_columns("have no mark");
        batch_bytes_ = reader.le<std::uint32_t>();
        if (batch_bytes_ > kFramePlainBytesMax) return bad_columns("announce too many bytes");
        const std::size_t first = reader.position();
        const auto count = reader.le<std::uint32_t>();
        for (std::uint32_t i = 0; i < count && reader.ok(); ++i) {
            pb::JournalRelation relation;
            const ByteSpan bytes = reader.bytes(reader.le<std::uint32_t>());
            if (!relation.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
                return bad_columns("have a relation version that cannot be read");
            columns_.emplace_back();
            for (auto& columns : columns_.back())
                columns.resize(static_cast<std::size_t>(relation.columns_size()));
        }
        if (!reader.ok()) return bad_columns("end inside of their relation versions");
        relations_ = plain.subspan(first, reader.position() - first);
        return open_streams(plain.subspan(reader.position()));
    }

    // The directory, and behind it the streams that it tells of.
    Result<> open_streams(ByteSpan rest) {
        struct Coding {
            std::uint8_t coding, form;
        };
        std::vector<Coding> codings;
        std::vector<std::uint64_t> sizes;
        ByteReader reader(rest);
        const auto read_sizes = [&](std::size_t count) {
            for (std::size_t i = 0; i < count; ++i) {
                std::uint64_t size = 0;
                for (unsigned shift = 0;; shift += 7) {
                    const auto byte = reader.le<std::uint8_t>();
                    size |= std::uint64_t{byte & 0x7fU} << shift;
                    if (byte < 0x80) break;
                    if (shift >= 28) return false;
                }
                sizes.push_back(size);
            }
            return reader.ok();
        };
        bool is_good = read_sizes(kStreamCount);
        for (const auto& places : columns_)
            for (const auto& columns : places)
                for (std::size_t i = 0; i < columns.size() && is_good; ++i) {
                    const auto coding = reader.le<std::uint8_t>();
                    codings.push_back({coding, reader.le<std::uint8_t>()});
                    is_good = read_sizes(3);
                }
        std::vector<ByteSpan> streams;
        for (std::uint64_t size : sizes)
            streams.push_back(reader.bytes(size));
        if (!is_good || !reader.ok() || reader.remaining() > 0)
            return bad_columns("have streams of other sizes than was announced");
        std::ranges::copy_n(streams.begin(), kStreamCount, streams_.begin());
        kinds_ = streams[kKinds];
        for (std::size_t i = 0; i < kStreamCount; ++i)
            varints_[i] = VarintReader(streams[i]);
        std::size_t next = kStreamCount;
        std::size_t next_coding = 0;
        for (auto& places : columns_)
            for (auto& columns : places)
                for (ColumnReader& column : columns) {
                    const Coding coding = codings[next_coding++];
                    column.kinds = streams[next++];
                    column.has_kinds = !column.kinds.empty();
                    WV_TRY(column.values, ValueReader::open(coding.coding, coding.form,
                                                            streams[next], streams[next + 1]));
                    next += 2;
                }
        return {};
    }

    bool is_used_up() const {
        for (std::size_t stream : {kRelations, kBeginLsns, kBeginTimes, kXids, kCommitLsns,
                                   kEndLsns, kCommitTimes, kOtherLengths})
            if (!varints_[stream].at_end()) return false;
        for (const auto& places : columns_)
            for (const auto& columns : places)
                for (const ColumnReader& column : columns)
                    if (!column.kinds.empty() || !column.values.at_end()) return false;
        return streams_[kBeginFlags].empty() && streams_[kOthers].empty();
    }

    bool difference(Stream stream, std::uint64_t base, std::uint64_t& value) {
        if (!varints_[stream].next(value)) return false;
        value = base + unzigzag(value);
        return true;
    }
    static bool take(ByteSpan& from, std::size_t count, ByteSpan& bytes) {
        if (count > from.size()) return false;
        bytes = from.first(count);
        from = from.subspan(count);
        return true;
    }

    bool put_record(char code, Writer& out) {
        switch (code) {
            case 'B':
                return put_begin(out);
            case 'C':
                return put_commit(out);
            case 'I':
            case 'R':
                return put_change(code, 0, true, out);
            case 'U':
                return put_change('U', 0, true, out);
            case kUpdateWithKey:
                return put_change('U', 'K', true, out);
            case kUpdateWithOld:
                return put_change('U', 'O', true, out);
            case 'D':
                return put_change('D', 'K', false, out);
            case kDeleteWithOld:
                return put_change('D', 'O', false, out);
            default:
                return put_other(code, out);
        }
    }

    bool put_begin(Writer& out) {
        std::uint64_t xid = 0;
        ByteSpan flags;
        if (!difference(kBeginLsns, last_.lsn, last_.lsn) ||
            !difference(kBeginTimes, last_.at, last_.at) || !difference(kXids, last_.xid, xid) ||
            !take(streams_[kBeginFlags], 1, flags))
            return false;
        last_.xid = static_cast<std::uint32_t>(xid);
        return out.put('B') && out.le(last_.lsn) && out.le(last_.at) && out.le(last_.xid) &&
               out.put(flags);
    }

    bool put_commit(Writer& out) {
        std::uint64_t lsn = 0;
        std::uint64_t end = 0;
        std::uint64_t at = 0;
        return difference(kCommitLsns, last_.lsn, lsn) && difference(kEndLsns, lsn, end) &&
               difference(kCommitTimes, last_.at, at) && out.put('C') && out.le(lsn) &&
               out.le(end) && out.le(at);
    }

    bool put_other(char code, Writer& out) {
        std::uint64_t length = 0;
        ByteSpan body;
        return varints_[kOtherLengths].next(length) && take(streams_[kOthers], length, body) &&
               out.put(code) && out.put(body);
    }

    bool put_change(char kind, char old_kind, bool has_new, Writer& out) {
        std::uint64_t relation = 0;
        if (!varints_[kRelations].next(relation) || relation >= columns_.size()) return false;
        auto& [old_columns, new_columns] = columns_[relation];
        const MutableByteSpan head = out.room();
        if (!out.put(kind) || !out.le(static_cast<std::uint32_t>(relation)) || !out.skip(4))
            return false;
        const std::size_t room = out.room().size();
        if (old_kind != 0 && !(out.put(old_kind) && put_tuple(old_columns, nullptr, out)))
            return false;
        const bool has_mark = has_new && kind != 'R';
        if (has_mark && !out.put('N')) return false;
        if (has_new && !put_tuple(new_columns, old_kind != 0 ? &old_columns : nullptr, out))
            return false;
        store_le(head.data() + 5, static_cast<std::uint32_t>(room - out.room().size()));
        return true;
    }

    static bool put_tuple(std::vector<ColumnReader>& columns, const std::vector<ColumnReader>* old,
                          Writer& out) {
        MutableByteSpan room = out.room();
        if (!out.skip(2)) return false;
        store_be(room.data(), static_cast<std::uint16_t>(columns.size()));
        for (std::size_t i = 0; i < columns.size(); ++i)
            if (!put_value(columns[i], old != nullptr ? &(*old)[i] : nullptr, out)) return false;
        return true;
    }

    static bool put_value(ColumnReader& column, const ColumnReader* old, Writer& out) {
        column.kind = 't';
        column.value = {};
        if (column.has_kinds) {
            ByteSpan kind;
            if (!take(column.kinds, 1, kind)) return false;
            column.kind = static_cast<char>(kind[0]);
        }
        if (column.kind == 'n' || column.kind == 'u') return out.put(column.kind);
        const MutableByteSpan head = out.room();
        if (column.kind == kSameAsOld) {
            if (old == nullptr || (old->kind != 't' && old->kind != 'm')) return false;
            column.kind = old->kind;
            column.value = old->value;
            return out.put(old->kind) && out.skip(4) && put_length(head, old->value.size()) &&
                   out.put(old->value);
        }
        if ((column.kind != 't' && column.kind != 'm') || !out.put(column.kind) || !out.skip(4))
            return false;
        const MutableByteSpan room = out.room();
        const auto length = column.values.next(room);
        if (!length) return false;
        column.value = room.first(*length);
        return put_length(head, *length) && out.skip(*length);
    }

    static bool put_length(MutableByteSpan head, std::size_t length) {
        store_be(head.data() + 1, static_cast<std::uint32_t>(length));
        return true;
    }

    std::size_t batch_bytes_ = 0;
    ByteSpan relations_;
    ByteSpan kinds_;
    std::array<ByteSpan, kStreamCount> streams_;
    std::array<VarintReader, kStreamCount> varints_;
    std::vector<std::array<std::vector<ColumnReader>, 2>> columns_;
    Transaction last_;
};

}  // namespace

Result<std::optional<ColumnBatch>> to_columns(ByteSpan batch) {
    return ColumnWriter(batch).write();
}

bool is_columns(ByteSpan plain) {
    return plain.size() >= 4 && load_le<std::uint32_t>(plain.data()) == kMark;
}

Result<> from_columns(ByteSpan plain, ByteBuffer& out) { return ColumnDecoder().read(plain, out); }

}  // namespace walvault
