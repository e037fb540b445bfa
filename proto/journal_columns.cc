#include "proto/journal_columns.h"

#include <algorithm>
#include <array>
#include <utility>

#include "proto/column_layout.h"
#include "proto/frame_format.h"
#include "proto/journal_keys.h"

namespace walvault {
namespace {

using namespace columns;

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
    // To where it was when this was its room.
    void go_back(MutableByteSpan room) { room_ = room; }
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

    bool take_kind() {
        kind = 't';
        if (!has_kinds) return true;
        if (kinds.empty()) return false;
        kind = static_cast<char>(kinds[0]);
        kinds = kinds.subspan(1);
        return true;
    }
    bool skip(std::size_t count) {
        if (!has_kinds) return values.skip(count);
        if (count > kinds.size()) return false;
        const auto has_text = [](std::byte each) {
            return each == std::byte{'t'} || each == std::byte{'m'};
        };
        const auto texts = std::ranges::count_if(kinds.first(count), has_text);
        kinds = kinds.subspan(count);
        return values.skip(static_cast<std::size_t>(texts));
    }
};

// The columns of a relation version in one place of a change: the old row, or the new one.
struct TupleColumns {
    std::vector<ColumnReader> columns;
    std::vector<bool> is_sought;  // of each tuple, whether it may be of the row that is sought
    std::size_t next = 0;         // tuple
    std::size_t behind = 0;       // tuples that the columns were not moved over yet

    bool catch_up() {
        const std::size_t count = std::exchange(behind, 0);
        if (count == 0) return true;
        return std::ranges::all_of(columns, [count](auto& each) { return each.skip(count); });
    }
};
struct RelationColumns {
    TupleColumns old_rows, new_rows;
    // Where a row is sought: of its table, by this column.
    std::optional<std::uint32_t> key_column;
};

class ColumnDecoder {
public:
    explicit ColumnDecoder(const RowSought* sought) : sought_(sought) {}

    Result<> read(ByteSpan plain, ByteBuffer& out) {
        WV_CHECK(open(plain));
        if (sought_ != nullptr) return read_sought(out);
        out.resize(batch_bytes_);
        Writer writer(out);
        WV_CHECK(put_all(writer));
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
            // Each has its five bytes of the directory, twice: so memory is bounded by what is
            // there.
            column_count_ += 2 * static_cast<std::size_t>(relation.columns_size());
            if (column_count_ > plain.size() / 5)
                return bad_columns("are more than there are bytes");
            RelationColumns& columns = columns_.emplace_back();
            for (TupleColumns* place : {&columns.old_rows, &columns.new_rows})
                place->columns.resize(static_cast<std::size_t>(relation.columns_size()));
            if (sought_ == nullptr || relation.oid() != sought_->table_oid) continue;
            if (const auto key = key_columns(relation); !key.empty()) columns.key_column = key[0];
        }
        if (!reader.ok()) return bad_columns("end inside of their relation versions");
        relations_ = plain.subspan(first, reader.position() - first);
        return open_streams(plain.subspan(reader.position()));
    }

    // As a rule next to nothing of what there is room for: it is not filled with zeros before.
    Result<> read_sought(ByteBuffer& out) {
        if (!find_sought()) return bad_columns("have too few keys");
        const auto room = std::make_unique_for_overwrite<std::byte[]>(batch_bytes_);
        const MutableByteSpan whole(room.get(), batch_bytes_);
        Writer writer(whole);
        WV_CHECK(put_all(writer));
        const ByteSpan found = whole.first(whole.size() - writer.room().size());
        out.assign(found.begin(), found.end());
        return {};
    }

    Result<> put_all(Writer& writer) {
        if (!writer.put(relations_)) return bad_columns("are more than was announced");
        for (std::byte code : kinds_)
            if (!put_record(static_cast<char>(code), writer))
                return bad_columns("do not give what their records say");
        return {};
    }

    // The directory, and behind it the streams that it tells of.
    Result<> open_streams(ByteSpan rest) {
        struct Coding {
            std::uint8_t coding = 0, form = 0;
        };
        std::vector<Coding> codings(column_count_);
        std::vector<std::uint64_t> sizes(kStreamCount + 3 * column_count_);
        VarintReader directory(rest);
        bool is_good = true;
        for (std::size_t i = 0; i < sizes.size() && is_good; ++i) {
            if (i >= kStreamCount && (i - kStreamCount) % 3 == 0) {
                Coding& of_column = codings[(i - kStreamCount) / 3];
                is_good = directory.byte(of_column.coding) && directory.byte(of_column.form);
            }
            is_good = is_good && directory.next(sizes[i]);
        }
        ByteSpan left = directory.rest();
        std::vector<ByteSpan> streams(sizes.size());
        for (std::size_t i = 0; i < sizes.size() && is_good; ++i)
            is_good = take(left, sizes[i], streams[i]);
        if (!is_good || !left.empty())
            return bad_columns("have streams of other sizes than was announced");
        std::ranges::copy_n(streams.begin(), kStreamCount, streams_.begin());
        kinds_ = streams[kKinds];
        for (std::size_t i = 0; i < kStreamCount; ++i)
            varints_[i] = VarintReader(streams[i]);
        std::size_t next = kStreamCount;
        std::size_t next_coding = 0;
        for (RelationColumns& each : columns_)
            for (TupleColumns* place : {&each.old_rows, &each.new_rows})
                for (ColumnReader& column : place->columns) {
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
        for (const RelationColumns& each : columns_)
            for (const TupleColumns* place : {&each.old_rows, &each.new_rows})
                for (const ColumnReader& column : place->columns)
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

    // Where a row is sought, a transaction that is whole here and has nothing of it is taken back.
    bool put_record(char code, Writer& out) {
        const MutableByteSpan before = out.room();
        if (!put_any(code, out)) return false;
        if (sought_ == nullptr) return true;
        if (code == 'B') {
            begun_ = goes_on_ ? std::nullopt : std::optional(before);
            is_empty_ = true;
        } else if (code != 'C') {
            is_empty_ = is_empty_ && out.room().size() == before.size();
        } else if (const auto begun = std::exchange(begun_, std::nullopt); begun && is_empty_) {
            out.go_back(*begun);
        }
        return true;
    }

    bool put_any(char code, Writer& out) {
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
        goes_on_ = flags[0] != std::byte{0};
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

    // Of all rows, which may be the one that is sought.
    bool find_sought() {
        for (RelationColumns& each : columns_)
            for (TupleColumns* place : {&each.old_rows, &each.new_rows}) {
                if (!each.key_column) continue;
                ColumnReader keys = place->columns[*each.key_column];
                // Without kinds, as many as there are values.
                while (keys.has_kinds ? !keys.kinds.empty() : !keys.values.at_end()) {
                    if (!keys.take_kind()) return false;
                    const bool has_text = keys.kind == 't' || keys.kind == 'm';
                    const auto is_it = has_text ? keys.values.next_is(sought_->first) : false;
                    if (!is_it) return false;
                    place->is_sought.push_back(*is_it);
                }
            }
        return true;
    }

    bool is_sought(RelationColumns& relation, bool has_old, bool has_new) const {
        if (!relation.key_column) return false;
        const auto may_be = [](const TupleColumns& place) {
            return place.next < place.is_sought.size() && place.is_sought[place.next];
        };
        return (has_old && may_be(relation.old_rows)) || (has_new && may_be(relation.new_rows));
    }

    bool put_change(char kind, char old_kind, bool has_new, Writer& out) {
        std::uint64_t number = 0;
        if (!varints_[kRelations].next(number) || number >= columns_.size()) return false;
        RelationColumns& relation = columns_[number];
        const bool has_old = old_kind != 0;
        if (sought_ != nullptr) {
            const bool is_wanted = is_sought(relation, has_old, has_new);
            relation.old_rows.next += has_old ? 1 : 0;
            relation.new_rows.next += has_new ? 1 : 0;
            if (!is_wanted) {
                relation.old_rows.behind += has_old ? 1 : 0;
                relation.new_rows.behind += has_new ? 1 : 0;
                return true;
            }
            if (!relation.old_rows.catch_up() || !relation.new_rows.catch_up()) return false;
        }
        const MutableByteSpan head = out.room();
        if (!out.put(kind) || !out.le(static_cast<std::uint32_t>(number)) || !out.skip(4))
            return false;
        const std::size_t room = out.room().size();
        const auto& old_columns = relation.old_rows.columns;
        if (has_old && !(out.put(old_kind) && put_tuple(relation.old_rows.columns, nullptr, out)))
            return false;
        const bool has_mark = has_new && kind != 'R';
        if (has_mark && !out.put('N')) return false;
        if (has_new && !put_tuple(relation.new_rows.columns, has_old ? &old_columns : nullptr, out))
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
        column.value = {};
        if (!column.take_kind()) return false;
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

    const RowSought* sought_;
    std::size_t batch_bytes_ = 0;
    std::size_t column_count_ = 0;  // of old and of new rows
    ByteSpan relations_;
    ByteSpan kinds_;
    std::array<ByteSpan, kStreamCount> streams_;
    std::array<VarintReader, kStreamCount> varints_;
    std::vector<RelationColumns> columns_;  // by relation version
    Transaction last_;
    bool goes_on_ = false;  // the transaction that began last: it has a piece in an earlier batch

    // Where a row is sought, of the transaction that is written: where it begins, if it does so
    // here, and whether it has nothing else yet.
    std::optional<MutableByteSpan> begun_;
    bool is_empty_ = true;
};

}  // namespace

bool is_columns(ByteSpan plain) {
    return plain.size() >= 4 && load_le<std::uint32_t>(plain.data()) == kMark;
}

Result<> from_columns(ByteSpan plain, ByteBuffer& out, const RowSought* sought) {
    return ColumnDecoder(sought).read(plain, out);
}

}  // namespace walvault
