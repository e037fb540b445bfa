#include "storage/pack_check.h"

#include <algorithm>

#include "storage/journal_pack.h"
#include "storage/repository_files.h"

namespace walvault::storage {
namespace {

std::string frame_name(const PackReader& reader, int index) {
    return reader.path() + ", frame " + std::to_string(index);
}

// Key blocks are read once, and each key of a batch is looked for in them.
class KeyCheck {
public:
    KeyCheck(ObjectStore& store, const PackReader& reader)
        : store_(store), reader_(reader), hash_(reader.cipher()) {}

    Result<> open(std::uint64_t& checked) {
        ByteBuffer plain;
        for (int i = 0; i < reader_.footer().key_blocks_size(); ++i) {
            const pb::KeyBlock& block = reader_.footer().key_blocks(i);
            WV_CHECK(reader_.read_keys(store_, i, plain));
            auto places = decode_key_block(plain);
            const std::string name = reader_.path() + ", key block " + std::to_string(i);
            if (!places) return fail_while(name, places.error());
            if (places->empty() || places->front().hash != block.first_hash() ||
                places->back().hash != block.last_hash())
                return fail(Errc::corrupt, name + " does not hold what its footer says");
            places_.insert(places_.end(), places->begin(), places->end());
            checked += block.stored_bytes();
        }
        std::ranges::sort(places_);
        return {};
    }

    // Of records that are whole in this batch.
    Result<> check(ByteSpan batch, std::uint32_t frame_number) const {
        WV_TRY(BatchReader reader, BatchReader::open(batch));
        std::vector<std::vector<std::uint32_t>> columns;
        for (const pb::JournalRelation& relation : reader.relations())
            columns.push_back(key_columns(relation));
        JournalRecordView record;
        bool missing = false;
        const auto look = [&](ByteSpan key) {
            missing =
                missing || !std::ranges::binary_search(places_, KeyPlace{hash_(key), frame_number});
        };
        for (;;) {
            WV_TRY(bool more, reader.next(record));
            if (!more) break;
            if (record.old_tuple.empty() && record.new_tuple.empty()) continue;
            WV_CHECK(each_journal_key(reader.relations()[record.relation].oid(),
                                      columns[record.relation], record, look));
        }
        if (missing) return fail(Errc::corrupt, "it has a key that its key blocks do not name");
        return {};
    }

private:
    ObjectStore& store_;
    const PackReader& reader_;
    KeyHash hash_;
    std::vector<KeyPlace> places_;
};

Result<> check_batch(const pb::PackFooter& footer, const pb::FrameEntry& entry, ByteSpan batch) {
    JournalTables tables;
    WV_TRY(BatchFacts facts, describe_batch(batch, tables));
    if (facts.frame.end_lsn() == 0) facts.frame.set_end_lsn(entry.start_lsn());
    bool equal = facts.frame.end_lsn() == entry.journal().end_lsn() &&
                 facts.frame.open() == entry.journal().open() &&
                 facts.frame.goes_on() == entry.journal().goes_on() &&
                 facts.summary.SerializeAsString() == entry.summary().SerializeAsString() &&
                 facts.frame.counts_size() == entry.journal().counts_size();
    const auto said = [&](std::uint32_t oid) -> const pb::JournalCount* {
        for (const pb::JournalCount& count : entry.journal().counts())
            if (count.table() < static_cast<std::uint32_t>(footer.tables_size()) &&
                footer.tables(static_cast<int>(count.table())).oid() == oid)
                return &count;
        return nullptr;
    };
    for (const pb::JournalCount& found : facts.frame.counts()) {
        const pb::JournalCount* count = said(tables.tables()[found.table()].oid());
        equal = equal && count != nullptr && count->inserted() == found.inserted() &&
                count->updated() == found.updated() && count->deleted() == found.deleted() &&
                count->truncated() == found.truncated() && count->rows() == found.rows();
    }
    if (!equal) return fail(Errc::corrupt, "it does not hold what the footer says");
    return {};
}

Result<> check_journal(ObjectStore& store, const PackReader& reader, bool has_keys,
                       std::uint64_t& checked) {
    KeyCheck keys(store, reader);
    WV_CHECK(keys.open(checked));
    ByteBuffer plain;
    for (int i = 0; i < reader.frame_count(); ++i) {
        const pb::FrameEntry& entry = reader.footer().frames(i);
        WV_CHECK(reader.read_batch(store, i, plain));
        auto done = check_batch(reader.footer(), entry, plain);
        if (done && has_keys) done = keys.check(plain, entry.frame_number());
        if (!done) return fail_while(frame_name(reader, i), done.error());
        checked += entry.stored_bytes();
    }
    return {};
}

}  // namespace

Result<> check_frames(ObjectStore& store, const Keyring& keyring, const PackReader& reader,
                      std::uint64_t& checked) {
    const DataKey* content_key = keyring.current(pb::KEY_PURPOSE_CONTENT_ID);
    WV_ASSERT(content_key != nullptr);
    ByteBuffer plain;
    for (int i = 0; i < reader.frame_count(); ++i) {
        WV_CHECK(reader.read_frame(store, i, plain));
        checked += reader.footer().frames(i).stored_bytes();
        const std::string& id = reader.footer().frames(i).content_id();
        if (!id.empty() && id_from<32>(id) != content_id(*content_key, plain))
            return fail(Errc::corrupt,
                        frame_name(reader, i) + " does not hold chunk " + to_hex(as_bytes(id)));
    }
    return {};
}

Error pack_missing(Error error, const std::string& path) {
    if (error.code != Errc::not_found) return error;
    return Error{
        Errc::corrupt, "the pack " + path + " is missing",
        "copy it back from another copy of this repository; `walvault verify` lists what it held"};
}

Result<> check_journal_file(const JournalHost& host, const pb::PackInfo& file,
                            std::uint64_t& checked) {
    if (!file.path().ends_with(".tail")) {
        WV_TRY(auto reader, PackReader::open(host.store, file, host.keyring));
        return check_journal(host.store, *reader, true, checked);
    }
    JournalSource source(host, id_from<16>(file.history_id()));
    WV_CHECK(source.refresh());
    // The whole range, whatever holds it by now.
    for (const JournalFile& each : source.files()) {
        if (each.info.end_lsn() <= file.start_lsn() || each.info.start_lsn() >= file.end_lsn())
            continue;
        WV_TRY(auto reader, source.open(each));
        WV_CHECK(check_journal(host.store, *reader, each.tail == nullptr, checked));
    }
    return source.damage() ? Result<>(fail(*source.damage())) : Result<>{};
}

}  // namespace walvault::storage
