// The journals of a Repository: docs/journal.md.
#include <algorithm>

#include "base/log.h"
#include "storage/index_journal.h"
#include "storage/index_retention.h"
#include "storage/journal_rewrite.h"
#include "storage/repository_state.h"

namespace walvault::storage {
namespace {

constexpr int kRecoveryLevel = 3;  // zstd; the agent's start waits for it

std::string suffix_of(std::uint64_t generation, std::uint64_t serial) {
    return std::to_string(generation) + "." + std::to_string(serial);
}

pb::LedgerEntry abandoned_entry(const pb::TailOpened& tail, Lsn end, std::int64_t covered_until_us,
                                const std::string& reason) {
    pb::LedgerEntry entry;
    pb::TailAbandoned& abandoned = *entry.mutable_tail_abandoned();
    abandoned.set_path(tail.path());
    abandoned.set_file_id(tail.file_id());
    abandoned.set_end_lsn(end.value);
    abandoned.set_reason(reason);
    abandoned.set_covered_until_us(covered_until_us);
    return entry;
}

}  // namespace

std::string journal_file_name(const std::string& cluster, const Id16& journal, Lsn lsn,
                              const std::string& suffix) {
    char place[24];
    std::snprintf(place, sizeof place, "-%016llX-", static_cast<unsigned long long>(lsn.value));
    return cluster + "/journal/" + to_hex(journal) + place + suffix;
}

Result<std::vector<JournalRecord>> journal_records(Index& index, const std::string& cluster) {
    WV_TRY(auto opened, index.journals().opened(cluster));
    std::vector<JournalRecord> records;
    for (const pb::JournalOpened& each : opened) {
        JournalRecord record;
        record.id = id_from<16>(each.journal_id());
        record.cluster = cluster;
        record.database = each.database();
        record.data_class = each.data_class();
        record.slot = each.slot();
        record.publication = each.publication();
        record.start_lsn = Lsn{each.start_lsn()};
        WV_TRY(IndexJournal::End end, index.journals().end_of(record.id));
        record.end_lsn = end.lsn;
        record.covered_until = WallTime(Micros(end.covered_until_us));
        WV_TRY(record.wal_history, index.journals().wal_history(record.id));
        records.push_back(std::move(record));
    }
    settle_whole_until(records);
    return records;
}

// The main journal of a database is the last one that was opened for it.
void settle_whole_until(std::vector<JournalRecord>& records) {
    for (JournalRecord& record : records) {
        record.whole_until_lsn = record.end_lsn;
        for (const JournalRecord& main : records)
            if (main.database == record.database && main.data_class.empty() &&
                !record.data_class.empty())
                record.whole_until_lsn = main.end_lsn;
    }
}

Result<std::vector<JournalRecord>> Repository::journals(const std::string& cluster) {
    WV_TRY(auto records, journal_records(*state_->index, cluster));
    WV_TRY(auto tails, state_->index->open_tails(pb::PACK_KIND_JOURNAL));
    for (const OpenTail& tail : tails)
        for (JournalRecord& record : records)
            if (text_of(record.id) == tail.opened.history_id() &&
                !state_->held_tails.contains(tail.opened.path()))
                record.damage = Error{Errc::corrupt,
                                      "the tail " + tail.opened.path() + " could not be read back",
                                      "the log says why; it is tried again at each start"};
    return records;
}

Result<> Repository::State::make_journal_key(const std::string& data_class) {
    return make_keys({{pb::KEY_PURPOSE_JOURNAL, data_class}});
}

Result<Id16> Repository::open_journal(pb::JournalOpened journal) {
    WV_CHECK(state_->make_journal_key(journal.data_class()));
    const Id16 id = random_id16();
    journal.set_journal_id(text_of(id));
    pb::LedgerEntry entry;
    *entry.mutable_journal_opened() = std::move(journal);
    WV_CHECK(state_->enter(std::move(entry)));
    return id;
}

Result<> Repository::enter_journal_gap(pb::JournalGap gap) {
    WV_TRY(auto tails, state_->index->open_tails(pb::PACK_KIND_JOURNAL));
    // What is in it may be read back later: it is not known yet where the journal ends.
    for (const OpenTail& tail : tails)
        if (tail.opened.history_id() == gap.journal_id())
            return fail(Errc::unavailable,
                        "no gap is entered while the tail " + tail.opened.path() + " is open",
                        "the log says why it could not be closed");
    pb::LedgerEntry entry;
    *entry.mutable_journal_gap() = std::move(gap);
    return state_->enter(std::move(entry));
}

Result<std::vector<pb::JournalGap>> Repository::journal_gaps(const Id16& journal) {
    return state_->index->journals().gaps(journal);
}

Result<> Repository::enter_table_left(pb::JournalTableLeft left) {
    pb::LedgerEntry entry;
    *entry.mutable_journal_table_left() = std::move(left);
    return state_->enter(std::move(entry));
}

Result<std::vector<pb::JournalTableLeft>> Repository::tables_left(const Id16& journal) {
    return state_->index->journals().tables_left(journal, 0);
}

Result<> Repository::note_looked(const Id16& journal, Lsn lsn) {
    return state_->index->note_looked(journal, lsn);
}

Result<std::optional<Lsn>> Repository::looked_until(const Id16& journal) {
    return state_->index->journals().looked_until(journal);
}

FileHeader Repository::State::journal_header(const Id16& journal, const ClusterRecord& cluster,
                                             TimelineId timeline, Lsn start) const {
    FileHeader header = header_for(StreamKind::journal, cluster);
    header.history_id = journal;
    header.timeline = timeline;
    header.start_lsn = start;
    return header;
}

Result<std::unique_ptr<JournalTail>> Repository::open_journal_tail(const JournalRecord& journal,
                                                                   const ClusterRecord& cluster,
                                                                   TimelineId timeline, Lsn start) {
    State& state = *state_;
    WV_TRY(auto tails, state.index->open_tails(pb::PACK_KIND_JOURNAL));
    for (const OpenTail& tail : tails)
        if (tail.opened.history_id() == text_of(journal.id) &&
            !state.held_tails.contains(tail.opened.path()))
            return fail(Errc::corrupt,
                        "the journal of database \"" + journal.database +
                            "\" cannot go on: its tail " + tail.opened.path() +
                            " could not be read back",
                        "the log says why; it is tried again when the agent starts");
    WV_CHECK(state.make_journal_key(journal.data_class));
    FileHeader header = state.journal_header(journal.id, cluster, timeline, start);
    const DataKey* key = state.keyring.current(pb::KEY_PURPOSE_JOURNAL, journal.data_class);
    FileCipher cipher = FileCipher::for_new_file(*key, header);
    std::string path = journal_file_name(cluster.name, journal.id, start,
                                         suffix_of(state.generation, state.next_serial++)) +
                       ".tail";
    auto plan = std::make_shared<const TailPlan>(
        TailPlan{std::move(path), cluster.name, std::move(cipher)});
    WV_TRY(auto tail, open_tail(plan, journal.wal_history));
    return std::make_unique<JournalTail>(std::move(tail), std::move(plan));
}

void Repository::drop_journal_tail(std::unique_ptr<JournalTail> tail) {
    release_journal_tail(tail->plan().path);
}

void Repository::release_journal_tail(const std::string& path) { state_->held_tails.erase(path); }

Result<std::unique_ptr<JournalRewrite>> Repository::begin_closing(
    std::unique_ptr<JournalTail> tail) {
    pb::PackFooter footer = std::move(tail->footer_);
    footer.set_format_version(kFormatVersion);
    const std::vector<pb::JournalTable>& tables = tail->tables_.tables();
    footer.mutable_tables()->Assign(tables.begin(), tables.end());
    while (footer.frames_size() > 0 &&
           footer.frames(footer.frames_size() - 1).frame_number() >= tail->synced_frames_)
        footer.mutable_frames()->RemoveLast();
    pb::TailOpened opened;
    opened.set_cluster(tail->plan().cluster);
    opened.set_history_id(text_of(tail->plan().header().history_id));
    opened.set_path(tail->plan().path);
    opened.set_file_id(text_of(tail->plan().header().file_id));
    opened.set_start_lsn(tail->plan().header().start_lsn.value);
    auto reader = std::make_shared<const PackReader>(tail->plan().path, tail->plan().cipher,
                                                     std::move(footer));
    return state_->plan_rewrite(std::move(opened), std::move(reader), tail->synced_end_lsn_,
                                tail->synced_covered_us_, state_->options.journal_level);
}

Result<std::unique_ptr<JournalRewrite>> Repository::State::plan_rewrite(
    pb::TailOpened opened, std::shared_ptr<const PackReader> reader, Lsn end,
    std::int64_t covered_until_us, int level) {
    FileHeader header = reader->cipher().header();
    // The newest key of the class of the one that sealed the tail.
    const DataKey* sealed_by = keyring.find(header.key_id);
    WV_ASSERT(sealed_by != nullptr);
    WV_CHECK(make_journal_key(sealed_by->data_class));
    header.generation = generation;
    const std::string suffix = suffix_of(generation, next_serial++);
    const Lsn start = header.start_lsn;
    std::unique_ptr<JournalRewrite::Plan> plan(new JournalRewrite::Plan{
        .files = files,
        .store = *store,
        .root = root,
        .cluster = opened.cluster(),
        .opened = opened,
        .reader = std::move(reader),
        .start_lsn = start,
        .end_lsn = end,
        .covered_until_us = covered_until_us,
        .key = keyring.current(pb::KEY_PURPOSE_JOURNAL, sealed_by->data_class),
        .header = header,
        .name_suffix = suffix,
        .level = level});
    return std::make_unique<JournalRewrite>(std::move(plan));
}

Result<> Repository::finish_closing(std::unique_ptr<JournalRewrite> rewrite) {
    JournalRewrite::Plan& plan = rewrite->plan();
    state_->held_tails.erase(plan.opened.path());
    if (!plan.is_done) return fail(Errc::io, "the tail " + plan.opened.path() + " was not closed");
    return state_->enter_rewrite(plan);
}

Result<> Repository::State::enter_rewrite(JournalRewrite::Plan& plan) {
    pb::LedgerEntry entry;
    Footers footers;
    if (plan.packs.empty()) {
        entry = abandoned_entry(plan.opened, plan.end_lsn, plan.covered_until_us,
                                "no transaction was written to it");
    } else {
        plan.packs.back().info.mutable_summary()->set_covered_until_us(plan.covered_until_us);
        pb::PackClosed& closed = *entry.mutable_pack_closed();
        for (WrittenJournalPack& each : plan.packs) {
            *(footers.empty() ? closed.mutable_pack() : closed.add_further()) = each.info;
            footers.push_back(&each.footer);
        }
        closed.set_replaces_tail(plan.opened.path());
    }
    // Where entering fails it may have been entered: then the packs are named, and stay.
    plan.is_entered = true;
    WV_CHECK(enter(std::move(entry), footers));
    const std::string tail = root + "/" + plan.opened.path();
    return plan.keep_tail ? files.rename(tail, tail + ".damaged") : files.remove(tail);
}

Result<> Repository::State::recover_journal_tail(const OpenTail& tail,
                                                 std::optional<Lsn> next_start) {
    const pb::TailOpened& opened = tail.opened;
    const std::string file = root + "/" + opened.path();
    const Lsn start{opened.start_lsn()};
    const Lsn reached = next_start.value_or(Lsn{});
    auto scanned = scan_journal_tail(*store, opened.path(), keyring, tail.synced_frames, reached);
    const bool missing = !scanned && scanned.error().code == Errc::not_found;
    if (!scanned && !missing && scanned.error().code != Errc::corrupt)
        return fail(std::move(scanned).error());
    if (!scanned || scanned->damage || next_start)
        WV_CHECK(enter_lost_changes(opened, scanned ? scanned->end_lsn : start, next_start));
    if (!scanned) {
        log::error("journal.tail_lost", scanned.error().message, {{"tail", opened.path()}});
        WV_CHECK(enter(
            abandoned_entry(opened, start, 0, missing ? "the file is missing" : "it is damaged")));
        if (!missing) WV_CHECK(files.rename(file, file + ".damaged"));
    } else {
        if (scanned->damage)
            log::error("journal.tail_damaged", scanned->damage->message, {{"tail", opened.path()}});
        WV_TRY(auto rewrite, plan_rewrite(opened, scanned->reader, scanned->end_lsn,
                                          scanned->covered_until_us, kRecoveryLevel));
        WV_CHECK(rewrite->run());
        JournalRewrite::Plan& plan = rewrite->plan();
        plan.keep_tail = scanned->damage.has_value();
        WV_CHECK(enter_rewrite(plan));
    }
    return {};
}

// What lies between a damaged tail and the next one of its journal was there and is lost. Behind
// the last tail of a main journal the slot still has it, or its position tells; of a class the main
// journal has said that it was stored.
Result<> Repository::State::enter_lost_changes(const pb::TailOpened& tail, Lsn end,
                                               std::optional<Lsn> next_start) {
    Lsn to = next_start.value_or(end);
    if (!next_start) {
        WV_TRY(auto records, journal_records(*index, tail.cluster()));
        for (const JournalRecord& record : records)
            if (text_of(record.id) == tail.history_id() && !record.data_class.empty())
                to = record.whole_until_lsn;
    }
    if (end >= to) return {};
    pb::LedgerEntry entry;
    pb::JournalGap& gap = *entry.mutable_journal_gap();
    gap.set_cluster(tail.cluster());
    gap.set_journal_id(tail.history_id());
    gap.set_from_lsn(end.value);
    gap.set_to_lsn(to.value);
    gap.set_cause("the tail " + tail.path() + " is damaged");
    return enter(std::move(entry));
}

// Nothing of a journal keeps the physical stream from going on: what cannot be closed stays as it
// is.
Result<> Repository::State::recover_journal_tails() {
    WV_TRY(auto tails, index->open_tails(pb::PACK_KIND_JOURNAL));
    // Main journals first: their ends say up to where the others had something.
    std::set<std::string> classes;
    for (const OpenTail& tail : tails) {
        WV_TRY(auto journal, index->journals().journal(id_from<16>(tail.opened.history_id())));
        if (journal && !journal->data_class().empty()) classes.insert(tail.opened.history_id());
    }
    std::ranges::stable_sort(tails, {}, [&](const OpenTail& tail) {
        return classes.contains(tail.opened.history_id());
    });
    for (const OpenTail& tail : tails) {
        if (held_tails.contains(tail.opened.path())) continue;
        std::optional<Lsn> next;
        for (const OpenTail& other : tails)
            if (other.opened.history_id() == tail.opened.history_id() &&
                other.opened.start_lsn() > tail.opened.start_lsn() &&
                (!next || other.opened.start_lsn() < next->value))
                next = Lsn{other.opened.start_lsn()};
        auto recovered = recover_journal_tail(tail, next);
        if (recovered) continue;
        WV_CHECK(require_writer());
        log::error("journal.tail_left", recovered.error().message,
                   {{"tail", tail.opened.path()}, {"hint", recovered.error().hint}});
    }
    return {};
}

Result<std::unique_ptr<SnapshotWriter>> Repository::begin_snapshot(const JournalRecord& journal,
                                                                   const ClusterRecord& cluster,
                                                                   TimelineId timeline,
                                                                   pb::SnapshotTaken taken) {
    State& state = *state_;
    WV_CHECK(state.make_journal_key(journal.data_class));
    const Lsn lsn{taken.lsn()};
    taken.set_cluster(cluster.name);
    taken.set_journal_id(text_of(journal.id));
    std::unique_ptr<SnapshotWriter::Plan> plan(new SnapshotWriter::Plan{
        .files = state.files,
        .root = state.root,
        .taken = std::move(taken),
        .key = state.keyring.current(pb::KEY_PURPOSE_JOURNAL, journal.data_class),
        .header = state.journal_header(journal.id, cluster, timeline, lsn),
        .path_prefix = journal_file_name(cluster.name, journal.id, lsn,
                                         suffix_of(state.generation, state.next_serial++)),
        .level = state.options.journal_level});
    return std::make_unique<SnapshotWriter>(std::move(plan));
}

Result<> Repository::take_snapshot(std::unique_ptr<SnapshotWriter> snapshot) {
    SnapshotWriter::Plan& plan = snapshot->plan();
    WV_CHECK(plan.finish_pack());
    if (plan.packs.empty())
        return fail(Errc::invalid_argument, "a snapshot without a batch, which would say of what");
    pb::LedgerEntry entry;
    pb::PackClosed& closed = *entry.mutable_pack_closed();
    Footers footers;
    for (WrittenJournalPack& each : plan.packs) {
        *(footers.empty() ? closed.mutable_pack() : closed.add_further()) = each.info;
        footers.push_back(&each.footer);
    }
    plan.taken.set_row_count(plan.row_count());
    *closed.mutable_snapshot() = plan.taken;
    plan.is_entered = true;
    return state_->enter(std::move(entry), footers);
}

Result<std::vector<pb::SnapshotTaken>> Repository::last_snapshots(const Id16& journal) {
    WV_TRY(auto stored, state_->index->journals().snapshots(journal, 0));
    std::map<std::uint32_t, pb::SnapshotTaken> last;
    for (const pb::StoredSnapshot& each : stored)  // oldest first
        last[each.taken().table_oid()] = each.taken();
    std::vector<pb::SnapshotTaken> found;
    for (auto& [oid, taken] : last)
        found.push_back(std::move(taken));
    return found;
}

// One without frames was not entered yet; of one that the ledger has ended there is a pack that
// begins where it did, or it says that nothing happened there. Anything else stays where it is: a
// ledger may have been put back to an older one.
Result<bool> Repository::State::is_leftover_journal_tail(const ObjectInfo& object) {
    if (object.size_bytes <= kFileHeaderBytes) return true;
    auto cipher = open_cipher(*store, object.name, keyring);
    if (!cipher) return false;
    const FileHeader& header = cipher->header();
    WV_TRY(auto quiet, index->journals().quiet_stretches(header.history_id));
    if (quiet.contains(header.start_lsn)) return true;
    WV_TRY(auto packs, index->journals().packs(header.history_id, header.start_lsn));
    return std::ranges::any_of(packs, [&](const pb::PackInfo& pack) {
        return pack.start_lsn() == header.start_lsn.value;
    });
}

// What a crash left: temporary files, tails that the ledger has ended, and packs that it does not
// name: of snapshots that do not count, and of tails that are still open, and there.
Result<> Repository::State::remove_journal_leftovers(const std::string& cluster) {
    const std::string directory = cluster + "/journal";
    auto entries = files.list(root + "/" + directory);
    if (!entries && entries.error().code == Errc::not_found) return {};
    if (!entries) return fail(entries.error());
    WV_TRY(auto open, index->open_tails(pb::PACK_KIND_JOURNAL));
    WV_TRY(auto packs, index->journals().all_packs(cluster));
    std::set<std::string> named, journals_with_tails;
    for (const pb::PackInfo& pack : packs)
        named.insert(pack.path());
    for (const OpenTail& tail : open) {
        named.insert(tail.opened.path());
        WV_TRY(const bool is_there, files.exists(root + "/" + tail.opened.path()));
        if (is_there) journals_with_tails.insert(to_hex(as_bytes(tail.opened.history_id())));
    }
    bool removed = false;
    for (const FileInfo& entry : *entries) {
        const std::string path = directory + "/" + entry.name;
        bool leftover = entry.name.ends_with(".tmp");
        if (entry.name.ends_with(".pack") && !named.contains(path)) {
            WV_TRY(bool condemned, index->retention().is_condemned(path));
            leftover = !condemned && (entry.name.ends_with(".rows.pack") ||
                                      journals_with_tails.contains(entry.name.substr(0, 32)));
        }
        if (entry.name.ends_with(".tail") && !named.contains(path)) {
            WV_TRY(leftover, is_leftover_journal_tail({path, entry.size_bytes}));
        }
        if (!leftover) continue;
        WV_CHECK(files.remove(root + "/" + path));
        removed = true;
    }
    return removed ? files.sync_directory(root + "/" + directory) : Result<>{};
}

}  // namespace walvault::storage
