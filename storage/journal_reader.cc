#include "storage/journal_reader.h"

#include <algorithm>

#include "storage/journal_pack.h"
#include "storage/journal_source.h"
#include "storage/journal_walk.h"
#include "storage/repository_files.h"

namespace walvault::storage {
namespace {

using Kind = JournalRecordKind;

void add_counts(TableChanges& sum, const pb::JournalCount& counts) {
    sum.inserted += counts.inserted();
    sum.updated += counts.updated();
    sum.deleted += counts.deleted();
    sum.truncated += counts.truncated();
}

// The frames of a pack in which a key may occur.
Result<std::set<std::uint32_t>> frames_of_key(ObjectStore& store, const PackReader& pack,
                                              ByteSpan encoded_key) {
    const std::uint32_t hash = KeyHash(pack.cipher())(encoded_key);
    std::set<std::uint32_t> frames;
    ByteBuffer plain;
    for (int i = 0; i < pack.footer().key_blocks_size(); ++i) {
        const pb::KeyBlock& block = pack.footer().key_blocks(i);
        if (hash < block.first_hash() || hash > block.last_hash()) continue;
        WV_CHECK(pack.read_keys(store, i, plain));
        auto places = decode_key_block(plain);
        if (!places) return fail_while(pack.path(), places.error());
        const auto [first, last] = std::ranges::equal_range(*places, hash, {}, &KeyPlace::hash);
        for (auto place = first; place != last; ++place)
            frames.insert(place->frame_number);
    }
    return frames;
}

bool truncates(const pb::PackFooter& footer, const pb::FrameEntry& frame, std::uint32_t oid) {
    return std::ranges::any_of(frame.journal().counts(), [&](const pb::JournalCount& count) {
        return count.truncated() > 0 && footer.tables(static_cast<int>(count.table())).oid() == oid;
    });
}

// Whether the row that a change names has this key, now or before.
Result<bool> has_key(const JournalChange& change, const std::vector<std::uint32_t>& columns,
                     ByteSpan encoded_key) {
    JournalRecordView record;
    record.kind = change.kind;
    record.old_tuple = change.old_tuple;
    record.new_tuple = change.new_tuple;
    bool found = false;
    WV_CHECK(each_journal_key(change.relation->oid(), columns, record, [&](ByteSpan key) {
        found = found || std::ranges::equal(key, encoded_key);
    }));
    return found;
}

// Whether one of the tuples has the bytes of a key's first column somewhere: most have not, and
// need not be taken apart.
bool may_have_key(const JournalChange& change, const JournalKey& key) {
    if (key.columns.empty()) return true;
    const auto holds = [&key](ByteSpan tuple) {
        return as_text(tuple).find(key.columns.front()) != std::string_view::npos;
    };
    return holds(change.old_tuple) || holds(change.new_tuple);
}

std::optional<RowSought> row_of(const JournalKey& key) {
    if (key.columns.empty()) return std::nullopt;
    return RowSought{key.table_oid, SoughtValue(key.columns.front())};
}

ByteBuffer encoded(const JournalKey& key) {
    return encode_journal_key(key.table_oid, {key.columns.begin(), key.columns.end()});
}

}  // namespace

struct JournalReader::State {
    JournalRecord journal;
    std::unique_ptr<JournalSource> source;
};

JournalReader::JournalReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
JournalReader::JournalReader(JournalReader&&) noexcept = default;
JournalReader::~JournalReader() = default;
const JournalRecord& JournalReader::journal() const { return state_->journal; }

std::uint64_t JournalSummary::rows() const {
    std::uint64_t sum = 0;
    for (const auto& [oid, changes] : tables)
        sum += changes.rows();
    return sum;
}

Result<JournalReader> JournalReader::open(RepositoryView& view, const JournalRecord& journal) {
    WV_TRY(auto source, view.journal_source(journal.id));
    if (!source)
        return fail(Errc::not_found, "the repository knows no journal " + to_hex(journal.id));
    auto state = std::make_unique<State>();
    state->journal = journal;
    state->source = std::move(source);
    return JournalReader(std::move(state));
}

Result<std::vector<JournalTableRecord>> JournalReader::tables() {
    std::map<std::uint32_t, JournalTableRecord> found;
    const auto add = [&](const pb::JournalTable& table, const pb::JournalCount& counts) {
        JournalTableRecord& record = found[table.oid()];
        record.oid = table.oid();
        record.schema = table.schema();
        record.name = table.name();
        add_counts(record.changes, counts);
    };
    WV_TRY(auto seen, state_->source->index().tables(state_->journal.id));
    for (const pb::JournalSeen& each : seen)
        add(each.table(), each.counts());
    for (const JournalFile& file : state_->source->files()) {
        if (!file.tail) continue;
        const pb::PackFooter& footer = file.tail->footer();
        for (const pb::FrameEntry& frame : footer.frames())
            for (const pb::JournalCount& count : frame.journal().counts())
                add(footer.tables(static_cast<int>(count.table())), count);
    }
    std::vector<JournalTableRecord> records;
    for (auto& [oid, record] : found)
        records.push_back(std::move(record));
    return records;
}

Result<std::vector<pb::JournalGap>> JournalReader::gaps() { return state_->source->gaps(); }

Result<std::vector<pb::JournalTableLeft>> JournalReader::table_left(std::uint32_t table_oid) {
    return state_->source->index().tables_left(state_->journal.id, table_oid);
}

Result<> JournalReader::read(const JournalQuery& query, const JournalSink& sink) {
    return JournalWalk(*state_->source, state_->journal, query, sink, {}).run();
}

Result<> JournalReader::summarize(const JournalQuery& query, std::uint64_t rows_min,
                                  const std::function<Result<bool>(const JournalSummary&)>& sink) {
    JournalWalk::Hooks hooks;
    hooks.on_summary = sink;
    hooks.rows_min = rows_min;
    return JournalWalk(*state_->source, state_->journal, query, {}, std::move(hooks)).run();
}

Result<> JournalReader::read_key(const JournalKey& key, const JournalQuery& query,
                                 const JournalSink& sink) {
    const ByteBuffer wanted = encoded(key);
    JournalQuery of_table = query;
    of_table.tables = {key.table_oid};
    JournalWalk::Hooks hooks;
    const std::optional<RowSought> sought = row_of(key);
    hooks.sought = sought ? &*sought : nullptr;
    std::string of;  // by name: another reader may be made where one was
    std::set<std::uint32_t> frames;
    hooks.wants_frame = [&](const JournalFile& file, const PackReader& pack,
                            int index) -> Result<bool> {
        if (file.tail) return true;  // it has no key blocks yet
        if (of != pack.path()) {
            WV_TRY(frames, frames_of_key(state_->source->store(), pack, wanted));
            of = pack.path();
        }
        const pb::FrameEntry& frame = pack.footer().frames(index);
        return frames.contains(frame.frame_number()) ||
               truncates(pack.footer(), frame, key.table_oid);
    };
    hooks.wants_change = [&](const JournalChange& change) -> Result<bool> {
        if (change.relation == nullptr) return change.kind == Kind::truncated;
        if (!may_have_key(change, key)) return false;
        return has_key(change, key_columns(*change.relation), wanted);
    };
    return JournalWalk(*state_->source, state_->journal, of_table, sink, std::move(hooks)).run();
}

Result<std::vector<pb::StoredSnapshot>> JournalReader::snapshots(std::uint32_t table_oid) {
    return state_->source->index().snapshots(state_->journal.id, table_oid);
}

Result<std::optional<pb::StoredSnapshot>> JournalReader::snapshot_at(std::uint32_t table_oid,
                                                                     Lsn lsn) {
    WV_TRY(auto found, snapshots(table_oid));
    std::erase_if(found, [&](const auto& each) { return each.taken().lsn() > lsn.value; });
    if (found.empty()) return std::optional<pb::StoredSnapshot>{};
    return std::optional<pb::StoredSnapshot>(std::move(found.back()));
}

namespace {

Result<pb::JournalRelation> relation_in(const PackReader& pack, int index, ByteSpan batch) {
    const std::string name = pack.path() + ", frame " + std::to_string(index);
    auto reader = BatchReader::open(batch);
    if (!reader) return fail_while(name, reader.error());
    if (reader->relations().empty())
        return fail(Errc::corrupt, name + " does not say of which table its rows are");
    return reader->relations().front();
}

// The rows of one batch of a snapshot; `joiner` holds what was begun in those before.
Result<bool> read_rows_of(
    ByteSpan batch, PartJoiner& joiner,
    const std::function<Result<bool>(const pb::JournalRelation&, ByteSpan)>& sink) {
    WV_TRY(BatchReader reader, BatchReader::open(batch));
    JournalRecordView record;
    for (;;) {
        WV_TRY(bool read, reader.next(record));
        if (!read) return true;
        if (record.kind == Kind::part) {
            // Of a row whose first part was not read nothing is asked for.
            const bool follows = record.part_offset == joiner.body().size() && joiner.is_waiting();
            if (record.part_offset == 0 || !follows) joiner.clear();
            if (record.part_offset != 0 && !follows) continue;
            WV_TRY(bool whole, joiner.add(record));
            if (!whole) continue;
            WV_TRY(record, reader.read_joined(record, joiner.body()));
        }
        WV_TRY(bool more, sink(reader.relations()[record.relation], record.new_tuple));
        if (!more) return false;
    }
}

}  // namespace

Result<std::optional<pb::JournalRelation>> JournalReader::relation_of(
    const pb::StoredSnapshot& snapshot) {
    std::optional<pb::JournalRelation> relation;
    if (snapshot.packs().empty()) return relation;
    WV_TRY(auto pack, state_->source->open({snapshot.packs(0), nullptr}));
    if (pack->frame_count() == 0) return relation;
    const RowSought none{0, SoughtValue("")};
    ByteBuffer plain;
    WV_CHECK(pack->read_batch(state_->source->store(), 0, plain, &none));
    WV_TRY(relation, relation_in(*pack, 0, plain));
    return relation;
}

Result<> JournalReader::read_rows(
    const pb::StoredSnapshot& snapshot,
    const std::function<Result<bool>(const pb::JournalRelation&, ByteSpan)>& sink) {
    ByteBuffer plain;
    bool is_first = true;
    for (const pb::PackInfo& info : snapshot.packs()) {
        WV_TRY(auto pack, state_->source->open({info, nullptr}));
        PartJoiner joiner;
        for (int i = 0; i < pack->frame_count(); ++i) {
            WV_CHECK(pack->read_batch(state_->source->store(), i, plain));
            if (is_first) {
                WV_TRY(const auto relation, relation_in(*pack, i, plain));
                WV_TRY(bool more, sink(relation, {}));
                if (!more) return {};
            }
            is_first = false;
            WV_TRY(bool more, read_rows_of(plain, joiner, sink));
            if (!more) return {};
        }
    }
    return {};
}

Result<> JournalReader::read_rows_of_key(
    const pb::StoredSnapshot& snapshot, const JournalKey& key,
    const std::function<Result<bool>(const pb::JournalRelation&, ByteSpan)>& sink) {
    const ByteBuffer wanted = encoded(key);
    const std::optional<RowSought> sought = row_of(key);
    const auto filter = [&](const pb::JournalRelation& relation, ByteSpan tuple) -> Result<bool> {
        JournalChange row;
        row.kind = Kind::row;
        row.relation = &relation;
        row.new_tuple = tuple;
        if (!may_have_key(row, key)) return true;
        WV_TRY(bool found, has_key(row, key_columns(relation), wanted));
        return found ? sink(relation, tuple) : Result<bool>(true);
    };
    ByteBuffer plain;
    for (const pb::PackInfo& info : snapshot.packs()) {
        WV_TRY(auto pack, state_->source->open({info, nullptr}));
        WV_TRY(auto frames, frames_of_key(state_->source->store(), *pack, wanted));
        PartJoiner joiner;
        for (int i = 0; i < pack->frame_count(); ++i) {
            if (!frames.contains(pack->footer().frames(i).frame_number())) continue;
            WV_CHECK(
                pack->read_batch(state_->source->store(), i, plain, sought ? &*sought : nullptr));
            WV_TRY(bool more, read_rows_of(plain, joiner, filter));
            if (!more) return {};
        }
    }
    return {};
}

}  // namespace walvault::storage
