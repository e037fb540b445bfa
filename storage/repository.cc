#include "storage/repository.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <ctime>

#include "base/log.h"
#include "storage/repository_state.h"

namespace walvault::storage {
namespace {

// Data keys are cut by time, so that erasing one erases a slice.
constexpr std::chrono::hours kKeySlice{30 * 24};

Result<> write_keyring(ObjectStore& store, const Keyring& keyring, const MasterKey& master) {
    return store.put(keyring_name(keyring.generation()), keyring.encode(master));
}

// True if `root` has nothing in it, or does not exist.
Result<bool> is_empty_directory(FileSystem& files, const std::string& root) {
    auto entries = files.list(root);
    if (!entries && entries.error().code == Errc::not_found) return true;
    if (!entries) return fail(entries.error());
    std::erase_if(*entries, [](const FileInfo& entry) { return entry.name == "lost+found"; });
    return entries->empty();
}

}  // namespace

Result<> Repository::create(FileSystem& files, const std::string& root, const MasterKey& master,
                            const Clock& clock) {
    WV_TRY(bool empty, is_empty_directory(files, root));
    auto store = make_directory_store(files, root);
    if (!empty) {
        auto opened = open_repository_files(*store, master);
        if (opened) return {};
        if (opened.error().code == Errc::not_found)
            return fail(Errc::refused, root + " is not empty and is not a walvault repository",
                        "name an empty directory, or one that does not exist yet");
        return fail(opened.error());
    }
    WV_CHECK(files.make_directories(root));
    WV_CHECK(files.sync_directory(parent_directory(root)));
    Id16 id = random_id16();
    Keyring keyring = Keyring::create(id, master);
    for (pb::KeyPurpose purpose :
         {pb::KEY_PURPOSE_WAL, pb::KEY_PURPOSE_BASE, pb::KEY_PURPOSE_MANIFEST,
          pb::KEY_PURPOSE_CONTENT_ID, pb::KEY_PURPOSE_LEDGER, pb::KEY_PURPOSE_INDEX})
        keyring.add(purpose, {}, clock.now());
    WV_CHECK(write_keyring(*store, keyring, master));
    LedgerKeys keys = LedgerKeys::derive(*keyring.current(pb::KEY_PURPOSE_LEDGER));
    pb::LedgerEntry first;
    first.set_actor("init");
    first.mutable_repository_created()->set_repository_id(text_of(id));
    first.mutable_repository_created()->set_signing_public_key(text_of(keys.public_key));
    WV_TRY(auto ledger, Ledger::open(files, root, id, std::move(keys), clock));
    WV_TRY(auto entered, ledger->append(std::move(first)));
    // The header comes last: until it is there, the directory is not a repository.
    pb::RepositoryHeader header;
    header.set_format_version(kFormatVersion);
    header.set_repository_id(text_of(id));
    header.set_created_at_us(entered.at_us());
    header.set_key_derivation("keyfile-1");
    header.set_master_key_id(text_of(master.id()));
    return store->put(kHeaderName, encode_repository_header(header));
}

Repository::Repository(std::unique_ptr<State> state) : state_(std::move(state)) {}
Repository::~Repository() = default;

Result<> Repository::State::enter(pb::LedgerEntry entry, const Footers& footers) {
    WV_CHECK(catch_index_up());
    if (entry.actor().empty()) entry.set_actor("agent");
    WV_CHECK(require_writer());
    auto entered = ledger->append(std::move(entry));
    if (!entered) {
        ++ledger_errors;
        return fail(entered.error());
    }
    // Where no lock holds (a network file system, a copied machine), another may have begun
    // meanwhile.
    WV_CHECK(require_writer());
    auto applied = index->apply(*entered, ledger->head(), footers);
    index_is_behind = !applied;
    if (applied) known_sequence = ledger->head().sequence;
    return applied;
}

Result<> Repository::State::require_writer() const {
    auto later = files.exists(later_writer);
    if (!later) return fail_while("look for a later writer", later.error());
    if (!*later) return {};
    return fail(Errc::busy,
                "another agent has taken over the repository " + root + " as its writer " +
                    std::to_string(generation + 1) + "; this one was writer " +
                    std::to_string(generation),
                "what this one had acknowledged is there; let one agent write, and stop the other");
}

Result<> Repository::State::claim_generation() {
    WV_TRY(std::uint64_t last, index->generation());
    WV_CHECK(files.make_directories(root + "/writer"));
    WV_TRY(auto claims, files.list(root + "/writer"));
    for (const FileInfo& claim : claims) {
        std::uint64_t number = 0;
        auto [end, error] =
            std::from_chars(claim.name.data(), claim.name.data() + claim.name.size(), number);
        if (error == std::errc() && end == claim.name.data() + claim.name.size())
            last = std::max(last, number);
    }
    generation = last + 1;
    later_writer = root + "/" + writer_name(generation + 1);
    WV_TRY(auto file, files.create(root + "/" + writer_name(generation)));
    std::string who = options.host + " " + std::to_string(::getpid()) + "\n";
    WV_CHECK(file->write(as_bytes(who)));
    WV_CHECK(file->sync_data());
    WV_CHECK(files.sync_directory(root + "/writer"));
    return files.sync_directory(root);
}

Result<> Repository::State::catch_index_up() {
    if (!index_is_behind) return {};
    LedgerKeys keys = LedgerKeys::derive(*keyring.current(pb::KEY_PURPOSE_LEDGER));
    WV_TRY(LedgerHead head, catch_up(*index, *store, packs_store(), id, keys, keyring));
    index_is_behind = false;
    known_sequence = head.sequence;
    log::debug("index.caught_up", "the index has what could not be written to it before",
               {{"sequence", head.sequence}});
    return {};
}

Result<> Repository::State::open_index() {
    std::string directory = root + "/" + kIndexName;
    LedgerKeys keys = LedgerKeys::derive(*keyring.current(pb::KEY_PURPOSE_LEDGER));
    for (bool rebuild = options.rebuild_index;; rebuild = true) {
        if (rebuild) {
            index.reset();
            WV_CHECK(options.index_home->remove(directory));
            ++index_rebuilds;
        }
        auto opened = Index::open(directory, *options.index_home);
        if (!opened && !rebuild && opened.error().code != Errc::no_space) {
            log::warn("index.rebuild", opened.error().message, {{"directory", directory}});
            continue;
        }
        if (!opened) return fail(opened.error());
        index = std::move(*opened);
        WV_TRY(LedgerHead watermark, index->watermark());
        if (watermark.sequence > ledger->head().sequence)
            return fail(Errc::corrupt,
                        "the ledger ends at entry " + std::to_string(ledger->head().sequence) +
                            " but entry " + std::to_string(watermark.sequence) + " was seen before",
                        "the repository was rolled back or its ledger cut; bring the newer ledger "
                        "back, or accept "
                        "what is there with `walvault repo rebuild-index`");
        auto head = catch_up(*index, *store, packs_store(), id, keys, keyring);
        if (head) return {};
        Errc code = head.error().code;
        if (rebuild ||
            (code != Errc::invalid_argument && code != Errc::corrupt && code != Errc::io))
            return fail(head.error());
        log::warn("index.rebuild", head.error().message, {{"directory", directory}});
    }
}

Result<> Repository::State::ensure_keys() {
    return make_keys(
        {{pb::KEY_PURPOSE_WAL, ""}, {pb::KEY_PURPOSE_BASE, ""}, {pb::KEY_PURPOSE_MANIFEST, ""}});
}

Result<> Repository::State::make_keys(
    const std::vector<std::pair<pb::KeyPurpose, std::string>>& wanted) {
    std::vector<const DataKey*> made;
    for (const auto& [purpose, data_class] : wanted) {
        const DataKey* current = keyring.current(purpose, data_class);
        if (current == nullptr || current->made_at + kKeySlice < clock.now())
            made.push_back(&keyring.add(purpose, data_class, clock.now()));
    }
    if (made.empty()) return {};
    WV_CHECK(write_keyring(*store, keyring, master));
    for (const DataKey* key : made) {
        pb::LedgerEntry entry;
        entry.mutable_key_made()->set_key_id(text_of(key->id));
        entry.mutable_key_made()->set_purpose(key->purpose);
        entry.mutable_key_made()->set_data_class(key->data_class);
        entry.mutable_key_made()->set_keyring_generation(keyring.generation());
        WV_CHECK(enter(std::move(entry)));
    }
    return {};
}

// A tail without ledger entry is younger than its first acknowledgement; one whose pack is in the
// index was to be removed when the crash came. Anything else stays where it is.
Result<bool> Repository::State::is_leftover_tail(const ObjectInfo& object,
                                                 const std::vector<OpenTail>& open) {
    for (const OpenTail& tail : open)
        if (tail.opened.path() == object.name) return false;
    if (object.size_bytes <= kFileHeaderBytes) return true;
    WV_TRY(FileCipher cipher, open_cipher(*store, object.name, keyring));
    WV_TRY(auto pack, index->wal_pack_at(cipher.header().history_id, cipher.header().start_lsn));
    return pack && pack->start_lsn() == cipher.header().start_lsn.value;
}

// Whole ones that no entry of the ledger names yet. Gone for good before the backup counts as
// failed: nobody looks for them afterwards.
Result<> Repository::State::remove_unentered_packs(const pb::BackupStarted& backup) {
    const std::string directory = backup.cluster() + "/base";
    auto entries = files.list(root + "/" + directory);
    if (!entries && entries.error().code == Errc::not_found) return {};
    if (!entries) return fail(entries.error());
    WV_TRY(auto packs, index->base_packs(backup.cluster()));
    bool removed = false;
    for (const FileInfo& entry : *entries) {
        const std::string path = directory + "/" + entry.name;
        const bool is_of_it = entry.name.starts_with(backup.backup_id() + "_") ||
                              entry.name.starts_with(backup.backup_id() + ".");
        if (!is_of_it || !entry.name.ends_with(".pack")) continue;
        WV_TRY(bool condemned, index->retention().is_condemned(path));
        if (condemned || std::ranges::find(packs, path, [](const auto& pack) -> const std::string& {
                             return pack.path();
                         }) != packs.end())
            continue;
        WV_CHECK(files.remove(root + "/" + path));
        removed = true;
    }
    return removed ? files.sync_directory(root + "/" + directory) : Result<>{};
}

Result<> Repository::State::remove_leftovers() {
    WV_TRY(auto clusters, index->clusters());
    WV_TRY(auto open, index->open_tails());
    for (const ClusterRecord& cluster : clusters) {
        WV_CHECK(remove_journal_leftovers(cluster.name));
        for (const char* part : {"/wal", "/base"}) {
            auto entries = files.list(root + "/" + cluster.name + part);
            if (!entries && entries.error().code == Errc::not_found) continue;
            if (!entries) return fail(entries.error());
            for (const FileInfo& entry : *entries) {
                ObjectInfo object{cluster.name + part + "/" + entry.name, entry.size_bytes};
                bool leftover = entry.name.ends_with(".tmp");
                if (entry.name.ends_with(".tail")) {
                    WV_TRY(leftover, is_leftover_tail(object, open));
                }
                if (leftover) WV_CHECK(files.remove(root + "/" + object.name));
            }
        }
    }
    for (const ClusterRecord& cluster : clusters)
        WV_CHECK(remove_unentered_rewrites(cluster.name));
    WV_TRY(auto unfinished, index->unfinished_backups());
    for (const pb::BackupStarted& backup : unfinished) {
        WV_CHECK(remove_unentered_packs(backup));
        pb::LedgerEntry entry;
        entry.mutable_backup_failed()->set_backup_id(backup.backup_id());
        entry.mutable_backup_failed()->set_cluster(backup.cluster());
        entry.mutable_backup_failed()->set_reason("the agent stopped while it ran");
        WV_CHECK(enter(std::move(entry)));
    }
    return {};
}

Result<std::unique_ptr<Repository>> Repository::open(FileSystem& files, const std::string& root,
                                                     const MasterKey& master, const Clock& clock,
                                                     const RepositoryOptions& options) {
    auto state = std::make_unique<State>(files, root, clock, options, master.clone());
    state->store = make_directory_store(files, root);
    WV_TRY(OpenedRepository opened, open_repository_files(*state->store, master));
    auto lock = files.lock(root + "/" + kLockName);
    if (!lock && lock.error().code == Errc::busy)
        return fail(Errc::busy, "another walvault agent is using the repository " + root,
                    "stop it first; one repository has one agent");
    if (!lock) return fail(lock.error());
    state->lock = std::move(*lock);
    state->id = opened.id;
    state->keyring = std::move(opened.keyring);
    const DataKey* ledger_key = state->keyring.current(pb::KEY_PURPOSE_LEDGER);
    if (ledger_key == nullptr) return fail(Errc::corrupt, "the keyring has no key for the ledger");
    WV_TRY(state->ledger,
           Ledger::open(files, root, state->id, LedgerKeys::derive(*ledger_key), clock));
    if (state->ledger->head().sequence == 0)
        return fail(Errc::corrupt, "the repository " + root + " has no ledger",
                    "copy the folder `ledger` from another copy of this repository");
    WV_CHECK(state->open_index());
    WV_CHECK(state->claim_generation());
    // The writer before may have entered something until the claim stopped it.
    WV_CHECK(state->ledger->reload());
    state->index_is_behind = true;
    WV_CHECK(state->catch_index_up());
    state->ledger->set_generation(state->generation);
    pb::LedgerEntry claim;
    claim.mutable_writer_claimed()->set_generation(state->generation);
    claim.mutable_writer_claimed()->set_host(options.host);
    claim.mutable_writer_claimed()->set_pid(static_cast<std::uint32_t>(::getpid()));
    claim.mutable_writer_claimed()->set_version(options.version);
    WV_CHECK(state->enter(std::move(claim)));
    WV_CHECK(state->ensure_keys());
    WV_CHECK(state->remove_leftovers());
    state->wal = std::make_unique<WalStore>(*state->store, state->keyring, *state->index);
    std::unique_ptr<Repository> repository(new Repository(std::move(state)));
    WV_CHECK(repository->recover_tails());
    return repository;
}

const Id16& Repository::repository_id() const { return state_->id; }
std::uint64_t Repository::generation() const { return state_->generation; }
Result<> Repository::require_writer() const { return state_->require_writer(); }
std::uint64_t Repository::ledger_sequence() const { return state_->known_sequence; }
std::uint64_t Repository::index_rebuilds() const { return state_->index_rebuilds; }
const std::string& Repository::root() const { return state_->root; }
Result<Troubles> Repository::troubles(const std::string& cluster) {
    return state_->index->troubles(cluster);
}
Repository::Counts Repository::counts() const {
    const ObjectStore::Reads reads = state_->store->reads();
    return {.read_bytes = reads.bytes,
            .read_errors = reads.errors,
            .ledger_errors = state_->ledger_errors};
}
Result<std::uint64_t> Repository::available_bytes() const {
    return state_->files.available_bytes(state_->root);
}
WalStore& Repository::wal() { return *state_->wal; }
Result<> Repository::sync() { return state_->index->sync(); }
Result<> Repository::append_to_ledger(pb::LedgerEntry entry) {
    return state_->enter(std::move(entry));
}

void Repository::set_wal_level(int level) { state_->options.wal_level = level; }

std::optional<ClusterRecord> Repository::cluster(const std::string& name) {
    auto known = state_->index->clusters();
    if (!known) return std::nullopt;
    for (ClusterRecord& record : *known)
        if (record.name == name) return record;
    return std::nullopt;
}

Result<ClusterRecord> Repository::ensure_cluster(const ClusterRecord& wanted) {
    if (is_reserved_name(wanted.name))
        return fail(Errc::invalid_argument,
                    "\"" + wanted.name +
                        "\" cannot be a server's name: the repository keeps files of "
                        "its own under it",
                    "name the server otherwise");
    WV_TRY(auto known, state_->index->clusters());
    for (const ClusterRecord& record : known) {
        if (record.name != wanted.name) continue;
        if (record.system_identifier != wanted.system_identifier)
            return fail(Errc::refused,
                        "the server has system identifier " +
                            std::to_string(wanted.system_identifier) + " but \"" + wanted.name +
                            "\" in this repository is " + std::to_string(record.system_identifier) +
                            ": another cluster",
                        "check conninfo, or protect the new cluster under another name");
        if (record.segment_bytes != wanted.segment_bytes)
            return fail(Errc::refused,
                        "the server's WAL segments have " + std::to_string(wanted.segment_bytes) +
                            " bytes, those stored have " + std::to_string(record.segment_bytes));
        if (record.server_version_num == wanted.server_version_num) return record;
    }
    pb::LedgerEntry entry;
    entry.mutable_cluster_added()->set_cluster(wanted.name);
    entry.mutable_cluster_added()->set_system_identifier(wanted.system_identifier);
    entry.mutable_cluster_added()->set_segment_bytes(wanted.segment_bytes);
    entry.mutable_cluster_added()->set_server_version_num(wanted.server_version_num);
    WV_CHECK(state_->enter(std::move(entry)));
    return wanted;
}

Result<std::vector<HistoryRecord>> Repository::histories(const std::string& cluster) {
    WV_TRY(auto opened, state_->index->histories(cluster));
    std::vector<HistoryRecord> records;
    for (const pb::HistoryOpened& history : opened) {
        WV_TRY(HistoryRecord record, history_record(*state_->wal, history));
        records.push_back(std::move(record));
    }
    return records;
}

Result<std::optional<HistoryRecord>> Repository::current_history(const std::string& cluster) {
    WV_TRY(auto id, state_->index->current_history(cluster));
    if (!id) return std::optional<HistoryRecord>{};
    WV_TRY(auto opened, state_->index->history(*id));
    if (!opened) return fail(Errc::corrupt, "the history " + to_hex(*id) + " is not in the ledger");
    WV_TRY(HistoryRecord record, history_record(*state_->wal, *opened));
    return std::optional<HistoryRecord>(std::move(record));
}

Result<Id16> Repository::open_history(pb::HistoryOpened history, std::optional<pb::GapFound> gap) {
    Id16 id = random_id16();
    history.set_history_id(text_of(id));
    // The gap first: a crash in between leaves it named twice, never a hole that nobody names.
    if (gap) {
        gap->set_next_history_id(text_of(id));
        pb::LedgerEntry found;
        *found.mutable_gap_found() = std::move(*gap);
        WV_CHECK(state_->enter(std::move(found)));
    }
    pb::LedgerEntry entry;
    *entry.mutable_history_opened() = std::move(history);
    WV_CHECK(state_->enter(std::move(entry)));
    return id;
}

Result<> Repository::resume_history(const std::string& cluster, const Id16& history,
                                    const std::string& reason) {
    pb::LedgerEntry entry;
    entry.mutable_history_resumed()->set_cluster(cluster);
    entry.mutable_history_resumed()->set_history_id(text_of(history));
    entry.mutable_history_resumed()->set_reason(reason);
    return state_->enter(std::move(entry));
}

Result<> Repository::record_timeline_history(const std::string& cluster, const Id16& history,
                                             TimelineId timeline, const std::string& content) {
    WV_TRY(auto known, state_->index->timeline_history(history, timeline));
    if (known && *known == content) return {};
    if (known)
        return fail(Errc::forked,
                    "the server's history of timeline " + std::to_string(timeline) +
                        " is not the one stored: another promotion took the same number");
    pb::LedgerEntry entry;
    entry.mutable_timeline_history()->set_cluster(cluster);
    entry.mutable_timeline_history()->set_history_id(text_of(history));
    entry.mutable_timeline_history()->set_timeline(timeline);
    entry.mutable_timeline_history()->set_content(content);
    return state_->enter(std::move(entry));
}

Result<std::vector<pb::BackupInfo>> Repository::backups(const std::string& cluster) {
    return state_->index->backups(cluster);
}
Result<std::vector<pb::GapFound>> Repository::gaps(const std::string& cluster) {
    return state_->index->gaps(cluster);
}
Result<RepositoryView::Totals> Repository::totals(const std::string& cluster) {
    return state_->index->totals(cluster);
}

Result<> append_to_ledger(FileSystem& files, const std::string& root, const MasterKey& master,
                          const Clock& clock, pb::LedgerEntry entry) {
    auto store = make_directory_store(files, root);
    WV_TRY(OpenedRepository opened, open_repository_files(*store, master));
    WV_TRY(auto lock, files.lock(root + "/" + kLockName));
    WV_CHECK(files.give_to_owner_of(root + "/" + kLockName, root));
    const DataKey* key = opened.keyring.current(pb::KEY_PURPOSE_LEDGER);
    if (key == nullptr) return fail(Errc::corrupt, "the keyring has no key for the ledger");
    WV_TRY(auto ledger, Ledger::open(files, root, opened.id, LedgerKeys::derive(*key), clock));
    WV_TRY(auto entered, ledger->append(std::move(entry)));
    (void)entered;
    // Root may have made the next file of the ledger; the agent has another user.
    WV_TRY(auto ledger_files, store->list("ledger/"));
    return files.give_to_owner_of(root + "/" + ledger_files.back().name, root);
}

}  // namespace walvault::storage
