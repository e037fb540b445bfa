#include "proto/journal_keys.h"
#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

namespace {

// Every view of a record lies inside of the batch.
void require_inside(ByteSpan batch, ByteSpan view) {
    if (view.empty()) return;
    WV_ASSERT(view.data() >= batch.data() &&
              view.data() + view.size() <= batch.data() + batch.size());
}

bool read_all(ByteSpan batch) {
    auto reader = BatchReader::open(batch);
    if (!reader) return false;
    PartJoiner joiner;
    JournalRecordView record;
    for (std::size_t last = 0;; last = reader->offset()) {
        auto more = reader->next(record);
        if (!more) return false;
        if (!*more) return true;
        WV_ASSERT(record.offset >= last && reader->offset() > record.offset);
        for (ByteSpan view :
             {record.content, record.old_tuple, record.new_tuple, as_bytes(record.name)})
            require_inside(batch, view);
        if (record.kind == JournalRecordKind::part) {
            auto whole = joiner.add(record);
            if (whole && *whole) (void)reader->read_joined(record, joiner.body());
            continue;
        }
        if (record.old_tuple.empty() && record.new_tuple.empty()) continue;
        // Tuples were checked by the reader.
        const pb::JournalRelation& relation = reader->relations()[record.relation];
        auto keys =
            each_journal_key(relation.oid(), key_columns(relation), record, [](ByteSpan) {});
        WV_ASSERT(keys.has_value());
    }
}

}  // namespace

// A batch that is read whole is described and merged, and what is merged says the same.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const ByteSpan input = fuzz_input(data, size);
    const bool is_whole = read_all(input);
    JournalTables tables;
    auto facts = describe_batch(input, tables);
    WV_ASSERT(is_whole || !facts);
    if (!facts || input.size() > kJournalBatchBytes || facts->frame.goes_on()) return 0;
    BatchMerger merger;
    WV_ASSERT(merger.add(input).value());
    const JournalBatch merged = merger.take();
    JournalTables again;
    auto facts_again = describe_batch(merged.plain, again);
    WV_ASSERT(facts_again &&
              facts_again->summary.SerializeAsString() == facts->summary.SerializeAsString());
    WV_ASSERT(facts_again->frame.counts_size() == facts->frame.counts_size());
    return 0;
}
