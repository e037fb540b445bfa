#include "storage/index_journal.h"

#include <rocksdb/iterator.h>

#include <algorithm>
#include <map>
#include <set>

#include "storage/index_keys.h"
#include "storage/index_retention.h"

namespace walvault::storage {
namespace {

using namespace index_keys;

std::string opened_prefix(const std::string& cluster) { return "journal/" + cluster + "/"; }
std::string id_key(const std::string& id) { return "journal of/" + id; }
std::string end_key(const std::string& id) { return "journal end/" + id; }
std::string wal_key_of(const std::string& id) { return "journal wal/" + id; }
std::string looked_key(const std::string& id) { return "journal looked/" + id; }
std::string gap_prefix(const std::string& id) { return "journal gap/" + id; }
// In Family::journal.
std::string pack_prefix(const std::string& id) { return "p" + id; }
std::string left_prefix(const std::string& id, std::uint32_t table_oid) {
    return table_oid == 0 ? "l" + id : numbered_key("l" + id, table_oid);
}
std::string quiet_prefix(const std::string& id) { return "q" + id; }
std::string table_prefix(const std::string& id) { return "t" + id; }
std::string snapshot_prefix(const std::string& id, std::uint32_t table_oid) {
    return table_oid == 0 ? "s" + id : numbered_key("s" + id, table_oid);
}

template <class Message, class Sink>
Result<> each(const IndexStore& store, Family family, const std::string& prefix, Sink sink) {
    auto at = store.iterate(family);
    for (at->Seek(prefix); at->Valid() && at->key().starts_with(prefix); at->Next()) {
        Message message;
        if (!message.ParseFromString(at->value().ToString()))
            return fail(Errc::corrupt, "index: a value of a journal cannot be read");
        sink(at->key().ToString(), message);
    }
    return IndexStore::check(*at);
}

enum class Verdict { keep, change, remove };

// `decide` may change the message.
template <class Message, class Decide>
Result<> revise(IndexStore& store, Family family, const std::string& prefix, Decide decide) {
    std::vector<std::string> gone;
    std::vector<std::pair<std::string, std::string>> changed;
    WV_CHECK(each<Message>(store, family, prefix, [&](const std::string& key, Message& message) {
        const Verdict verdict = decide(message);
        if (verdict == Verdict::remove) gone.push_back(key);
        if (verdict == Verdict::change) changed.emplace_back(key, message.SerializeAsString());
    }));
    for (const std::string& key : gone)
        store.remove(family, key);
    for (const auto& [key, value] : changed)
        store.put(family, key, value);
    return {};
}

// Of what reaches from one LSN to another, the part up to `end`.
template <class Message, class SetEnd>
Verdict cut(Message& message, std::uint64_t from, std::uint64_t to, std::uint64_t end,
            SetEnd set_end) {
    if (from >= end) return Verdict::remove;
    if (to <= end) return Verdict::keep;
    (message.*set_end)(end);
    return Verdict::change;
}

}  // namespace

bool is_of_journal(pb::PackKind kind) {
    return kind == pb::PACK_KIND_JOURNAL || kind == pb::PACK_KIND_JOURNAL_ROWS;
}

Result<std::vector<pb::JournalOpened>> IndexJournal::opened(const std::string& cluster) {
    std::vector<pb::JournalOpened> found;
    WV_CHECK(each<pb::JournalOpened>(
        store_, Family::state, opened_prefix(cluster),
        [&](const std::string&, pb::JournalOpened& each) { found.push_back(std::move(each)); }));
    return found;
}

Result<std::optional<pb::JournalOpened>> IndexJournal::journal(const Id16& id) {
    WV_TRY(auto value, store_.get(Family::state, id_key(text_of(id))));
    if (!value) return std::optional<pb::JournalOpened>{};
    pb::JournalOpened opened;
    if (!opened.ParseFromString(*value))
        return fail(Errc::corrupt, "index: a journal cannot be read");
    return std::optional<pb::JournalOpened>(std::move(opened));
}

Result<IndexJournal::End> IndexJournal::end_of(const Id16& id) {
    WV_TRY(auto value, store_.get(Family::state, end_key(text_of(id))));
    End end;
    if (!value) return end;
    ByteReader reader(as_bytes(*value));
    end.lsn = Lsn{reader.le<std::uint64_t>()};
    end.covered_until_us = static_cast<std::int64_t>(reader.le<std::uint64_t>());
    if (!reader.ok()) return fail(Errc::corrupt, "index: the end of a journal cannot be read");
    return end;
}

Result<> IndexJournal::move_end(const std::string& id, std::uint64_t end,
                                std::int64_t covered_until_us) {
    WV_TRY(End before, end_of(id_from<16>(id)));
    put_end(id,
            {std::max(before.lsn, Lsn{end}), std::max(before.covered_until_us, covered_until_us)});
    return {};
}

void IndexJournal::put_end(const std::string& id, End end) {
    ByteBuffer value;
    append_le(value, end.lsn.value);
    append_le(value, end.covered_until_us);
    store_.put(Family::state, end_key(id), std::string(as_text(value)));
}

Result<std::vector<pb::JournalGap>> IndexJournal::gaps(const Id16& id) {
    std::vector<pb::JournalGap> found;
    WV_CHECK(each<pb::JournalGap>(
        store_, Family::state, gap_prefix(text_of(id)),
        [&](const std::string&, pb::JournalGap& gap) { found.push_back(std::move(gap)); }));
    return found;
}

Result<std::vector<pb::JournalTableLeft>> IndexJournal::tables_left(const Id16& id,
                                                                    std::uint32_t table_oid) {
    std::vector<pb::JournalTableLeft> found;
    WV_CHECK(each<pb::JournalTableLeft>(
        store_, Family::journal, left_prefix(text_of(id), table_oid),
        [&](const std::string&, auto& left) { found.push_back(std::move(left)); }));
    return found;
}

Result<std::optional<Id16>> IndexJournal::wal_history(const Id16& id) {
    WV_TRY(auto value, store_.get(Family::state, wal_key_of(text_of(id))));
    if (!value) return std::optional<Id16>{};
    if (value->size() != sizeof(Id16))
        return fail(Errc::corrupt, "index: the WAL history of a journal cannot be read");
    return std::optional<Id16>(id_from<16>(*value));
}

Result<std::optional<Lsn>> IndexJournal::looked_until(const Id16& id) {
    WV_TRY(auto value, store_.get(Family::state, looked_key(text_of(id))));
    if (!value) return std::optional<Lsn>{};
    if (value->size() != sizeof(std::uint64_t))
        return fail(Errc::corrupt, "index: the last look at a journal's tables cannot be read");
    return std::optional<Lsn>(Lsn{load_be<std::uint64_t>(as_bytes(*value).data())});
}

void IndexJournal::put_looked(const Id16& id, Lsn lsn) {
    store_.put(Family::state, looked_key(text_of(id)), numbered_key("", lsn.value));
}

Result<std::map<Lsn, Lsn>> IndexJournal::quiet_stretches(const Id16& id) {
    std::map<Lsn, Lsn> found;
    const std::string prefix = quiet_prefix(text_of(id));
    WV_CHECK(each<pb::TailAbandoned>(
        store_, Family::journal, prefix, [&](const std::string& key, const auto& abandoned) {
            const std::uint64_t start = load_be<std::uint64_t>(
                as_bytes(std::string_view(key).substr(prefix.size())).data());
            found[Lsn{start}] = Lsn{abandoned.end_lsn()};
        }));
    return found;
}

Result<std::vector<pb::PackInfo>> IndexJournal::packs(const Id16& id, Lsn from) {
    std::vector<pb::PackInfo> stored;
    WV_CHECK(each<pb::PackInfo>(store_, Family::journal, pack_prefix(text_of(id)),
                                [&](const std::string&, pb::PackInfo& pack) {
                                    if (pack.end_lsn() > from.value)
                                        stored.push_back(std::move(pack));
                                }));
    std::vector<pb::PackInfo> found;
    for (pb::PackInfo& pack : stored) {
        WV_TRY(bool hidden, retention_.hides(pack.path()));
        if (!hidden) found.push_back(std::move(pack));
    }
    return found;
}

Result<std::vector<pb::PackInfo>> IndexJournal::all_packs(const std::string& cluster) {
    std::vector<pb::PackInfo> stored;
    WV_CHECK(each<pb::PackInfo>(store_, Family::packs, "", [&](const std::string&, auto& pack) {
        if (pack.cluster() == cluster && is_of_journal(pack.kind()))
            stored.push_back(std::move(pack));
    }));
    std::vector<pb::PackInfo> found;
    for (pb::PackInfo& pack : stored) {
        WV_TRY(bool hidden, retention_.hides(pack.path()));
        if (!hidden) found.push_back(std::move(pack));
    }
    std::ranges::sort(found, {}, &pb::PackInfo::path);
    return found;
}

Result<std::vector<pb::JournalSeen>> IndexJournal::tables(const Id16& id) {
    std::map<std::uint32_t, pb::JournalSeen> sums;
    WV_CHECK(each<pb::JournalSeen>(
        store_, Family::journal, table_prefix(text_of(id)),
        [&](const std::string&, const pb::JournalSeen& seen) {
            pb::JournalSeen& sum = sums[seen.table().oid()];
            *sum.mutable_table() = seen.table();  // the last pack has the latest name
            pb::JournalCount& counts = *sum.mutable_counts();
            counts.set_inserted(counts.inserted() + seen.counts().inserted());
            counts.set_updated(counts.updated() + seen.counts().updated());
            counts.set_deleted(counts.deleted() + seen.counts().deleted());
            counts.set_truncated(counts.truncated() + seen.counts().truncated());
        }));
    std::vector<pb::JournalSeen> found;
    for (auto& [oid, sum] : sums)
        found.push_back(std::move(sum));
    return found;
}

Result<std::vector<pb::StoredSnapshot>> IndexJournal::snapshots(const Id16& id,
                                                                std::uint32_t table_oid) {
    std::vector<pb::StoredSnapshot> stored;
    WV_CHECK(each<pb::StoredSnapshot>(
        store_, Family::journal, snapshot_prefix(text_of(id), table_oid),
        [&](const std::string&, auto& each) { stored.push_back(std::move(each)); }));
    std::vector<pb::StoredSnapshot> found;
    for (pb::StoredSnapshot& snapshot : stored) {
        bool hidden = false;
        for (int i = 0; i < snapshot.packs_size() && !hidden; ++i) {
            WV_TRY(hidden, retention_.hides(snapshot.packs(i).path()));
        }
        if (!hidden) found.push_back(std::move(snapshot));
    }
    std::ranges::stable_sort(found, {}, [](const auto& each) { return each.taken().lsn(); });
    return found;
}

Result<> IndexJournal::apply(const pb::LedgerEntry& entry) {
    if (entry.has_journal_gap()) return apply_gap(entry);
    if (entry.has_journal_opened()) apply_opened(entry);
    if (entry.has_journal_table_left()) apply_left(entry);
    return {};
}

void IndexJournal::apply_opened(const pb::LedgerEntry& entry) {
    const pb::JournalOpened& opened = entry.journal_opened();
    const std::string value = opened.SerializeAsString();
    store_.put(Family::state, numbered_key(opened_prefix(opened.cluster()), entry.sequence()),
               value);
    store_.put(Family::state, id_key(opened.journal_id()), value);
    put_end(opened.journal_id(), {Lsn{opened.start_lsn()}, 0});
}

void IndexJournal::apply_tail(const pb::TailOpened& tail) {
    if (tail.kind() == pb::PACK_KIND_JOURNAL && tail.wal_history_id().size() == sizeof(Id16))
        store_.put(Family::state, wal_key_of(tail.history_id()), tail.wal_history_id());
}

void IndexJournal::apply_left(const pb::LedgerEntry& entry) {
    const pb::JournalTableLeft& left = entry.journal_table_left();
    store_.put(Family::journal,
               numbered_key(left_prefix(left.journal_id(), left.table_oid()), entry.sequence()),
               left.SerializeAsString());
}

Result<> IndexJournal::apply_gap(const pb::LedgerEntry& entry) {
    const pb::JournalGap& gap = entry.journal_gap();
    store_.put(Family::state, numbered_key(gap_prefix(gap.journal_id()), entry.sequence()),
               gap.SerializeAsString());
    if (gap.wal_history_id().size() == sizeof(Id16))
        store_.put(Family::state, wal_key_of(gap.journal_id()), gap.wal_history_id());
    return gap.left_end_lsn() != 0 ? take_back(gap) : move_end(gap.journal_id(), gap.to_lsn(), 0);
}

// What the journal has behind gap.from_lsn() is of a way that the server left: LSNs there will mean
// something else. Its packs stay in the repository; nothing leads to them.
Result<> IndexJournal::take_back(const pb::JournalGap& gap) {
    const std::string& id = gap.journal_id();
    const std::uint64_t end = gap.from_lsn();
    std::set<std::uint64_t> starts;
    WV_CHECK(revise<pb::PackInfo>(store_, Family::journal, pack_prefix(id), [&](auto& pack) {
        if (pack.start_lsn() >= end) starts.insert(pack.start_lsn());
        return cut(pack, pack.start_lsn(), pack.end_lsn(), end, &pb::PackInfo::set_end_lsn);
    }));
    WV_CHECK(remove_counts(id, starts));
    WV_CHECK(revise<pb::StoredSnapshot>(
        store_, Family::journal, snapshot_prefix(id, 0), [&](const auto& snapshot) {
            return snapshot.taken().lsn() > end ? Verdict::remove : Verdict::keep;
        }));
    WV_CHECK(
        revise<pb::JournalTableLeft>(store_, Family::journal, left_prefix(id, 0), [&](auto& left) {
            return cut(left, left.from_lsn(), left.to_lsn(), end,
                       &pb::JournalTableLeft::set_to_lsn);
        }));
    WV_CHECK(revise<pb::JournalGap>(store_, Family::state, gap_prefix(id), [&](auto& before) {
        return cut(before, before.from_lsn(), before.to_lsn(), end, &pb::JournalGap::set_to_lsn);
    }));
    WV_CHECK(cut_quiet_stretches(id, end));
    WV_CHECK(begin_by(id, end));
    WV_TRY(const auto looked, looked_until(id_from<16>(id)));
    if (looked && looked->value > end) put_looked(id_from<16>(id), Lsn{end});
    put_end(id, {Lsn{gap.to_lsn()}, 0});
    return {};
}

// What tables have in packs that begin there.
Result<> IndexJournal::remove_counts(const std::string& id, const std::set<std::uint64_t>& starts) {
    const std::string prefix = table_prefix(id);
    std::vector<std::string> gone;
    WV_CHECK(each<pb::JournalSeen>(
        store_, Family::journal, prefix, [&](const std::string& key, const auto&) {
            // Longer ones are of snapshots.
            if (key.size() != prefix.size() + 16) return;
            const auto start = as_bytes(std::string_view(key).substr(prefix.size() + 8));
            if (starts.contains(load_be<std::uint64_t>(start.data()))) gone.push_back(key);
        }));
    for (const std::string& key : gone)
        store_.remove(Family::journal, key);
    return {};
}

Result<> IndexJournal::cut_quiet_stretches(const std::string& id, std::uint64_t end) {
    WV_TRY(const auto quiet, quiet_stretches(id_from<16>(id)));
    for (const auto& [from, to] : quiet) {
        const std::string key = numbered_key(quiet_prefix(id), from.value);
        if (from.value >= end) store_.remove(Family::journal, key);
        if (from.value >= end || to.value <= end) continue;
        pb::TailAbandoned rest;
        rest.set_end_lsn(end);
        store_.put(Family::journal, key, rest.SerializeAsString());
    }
    return {};
}

// A server that was taken back to before its journal had begun goes on from there.
Result<> IndexJournal::begin_by(const std::string& id, std::uint64_t lsn) {
    WV_TRY(auto opened, journal(id_from<16>(id)));
    if (!opened || opened->start_lsn() <= lsn) return {};
    opened->set_start_lsn(lsn);
    store_.put(Family::state, id_key(id), opened->SerializeAsString());
    return revise<pb::JournalOpened>(store_, Family::state, opened_prefix(opened->cluster()),
                                     [&](pb::JournalOpened& each) {
                                         if (each.journal_id() != id) return Verdict::keep;
                                         each.set_start_lsn(lsn);
                                         return Verdict::change;
                                     });
}

Result<> IndexJournal::apply_abandoned(const pb::TailOpened& tail,
                                       const pb::TailAbandoned& abandoned) {
    // Nothing was left of it because nothing happened: no hole for a reader.
    if (abandoned.end_lsn() > tail.start_lsn())
        store_.put(Family::journal, numbered_key(quiet_prefix(tail.history_id()), tail.start_lsn()),
                   abandoned.SerializeAsString());
    return move_end(tail.history_id(), abandoned.end_lsn(), abandoned.covered_until_us());
}

Result<> IndexJournal::apply_closed(const pb::PackClosed& closed, const Footers& footers) {
    std::vector<const pb::PackInfo*> packs{&closed.pack()};
    for (const pb::PackInfo& pack : closed.further())
        packs.push_back(&pack);
    for (const pb::PackInfo* pack : packs)
        store_.put(Family::packs, pack->file_id(), pack->SerializeAsString());
    if (closed.pack().kind() == pb::PACK_KIND_JOURNAL_ROWS) {
        pb::StoredSnapshot stored;
        *stored.mutable_taken() = closed.snapshot();
        for (const pb::PackInfo* pack : packs)
            *stored.add_packs() = *pack;
        const pb::SnapshotTaken& taken = closed.snapshot();
        std::string key = snapshot_prefix(taken.journal_id(), taken.table_oid());
        append_number(key, taken.lsn());
        store_.put(Family::journal, key + closed.pack().file_id(), stored.SerializeAsString());
        for (std::size_t i = 0; i < packs.size(); ++i)
            put_tables_read(*packs[i], *footers[i]);
        return {};
    }
    for (std::size_t i = 0; i < packs.size(); ++i) {
        store_.put(Family::journal,
                   numbered_key(pack_prefix(packs[i]->history_id()), packs[i]->start_lsn()),
                   packs[i]->SerializeAsString());
        put_tables(*packs[i], *footers[i]);
    }
    return move_end(packs.back()->history_id(), packs.back()->end_lsn(),
                    packs.back()->summary().covered_until_us());
}

// A table that was read is known before it changes.
void IndexJournal::put_tables_read(const pb::PackInfo& pack, const pb::PackFooter& footer) {
    for (const pb::JournalTable& table : footer.tables()) {
        pb::JournalSeen seen;
        *seen.mutable_table() = table;
        std::string key = numbered_key(table_prefix(pack.history_id()), table.oid());
        append_number(key, pack.start_lsn());
        store_.put(Family::journal, key + pack.file_id(), seen.SerializeAsString());
    }
}

void IndexJournal::put_tables(const pb::PackInfo& pack, const pb::PackFooter& footer) {
    if (pack.kind() != pb::PACK_KIND_JOURNAL) return;
    std::map<std::uint32_t, pb::JournalCount> sums;  // by place in tables
    for (const pb::FrameEntry& frame : footer.frames())
        for (const pb::JournalCount& each : frame.journal().counts()) {
            pb::JournalCount& sum = sums[each.table()];
            sum.set_inserted(sum.inserted() + each.inserted());
            sum.set_updated(sum.updated() + each.updated());
            sum.set_deleted(sum.deleted() + each.deleted());
            sum.set_truncated(sum.truncated() + each.truncated());
        }
    for (const auto& [place, sum] : sums) {
        if (place >= static_cast<std::uint32_t>(footer.tables_size())) continue;
        pb::JournalSeen seen;
        *seen.mutable_table() = footer.tables(static_cast<int>(place));
        *seen.mutable_counts() = sum;
        std::string key = numbered_key(table_prefix(pack.history_id()), seen.table().oid());
        append_number(key, pack.start_lsn());
        store_.put(Family::journal, key, seen.SerializeAsString());
    }
}

Result<> IndexJournal::forget(const pb::PackInfo& pack) {
    store_.remove(Family::packs, pack.file_id());
    const std::string& id = pack.history_id();
    std::vector<std::string> gone;
    bool is_taken_back = false;  // then another may stand in its place
    WV_CHECK(each<pb::PackInfo>(store_, Family::journal,
                                numbered_key(pack_prefix(id), pack.start_lsn()),
                                [&](const std::string& key, const auto& there) {
                                    is_taken_back = there.path() != pack.path();
                                    if (!is_taken_back) gone.push_back(key);
                                }));
    WV_CHECK(each<pb::StoredSnapshot>(store_, Family::journal, snapshot_prefix(id, 0),
                                      [&](const std::string& key, const auto& snapshot) {
                                          for (const pb::PackInfo& part : snapshot.packs())
                                              if (part.path() == pack.path()) gone.push_back(key);
                                      }));
    for (const std::string& key : gone)
        store_.remove(Family::journal, key);
    if (pack.kind() != pb::PACK_KIND_JOURNAL || is_taken_back) return {};
    return remove_counts(id, {pack.start_lsn()});
}

}  // namespace walvault::storage
