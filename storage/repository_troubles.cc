// What the ledger remembers of failures, so that a restart does not forget them.
#include <algorithm>

#include "storage/repository_state.h"

namespace walvault::storage {

void Repository::State::note_trouble(const pb::LedgerEntry& entry) {
    if (entry.has_backup_failed()) {
        Troubles& known = (*troubles)[entry.backup_failed().cluster()];
        ++known.failed_backups;
        known.last_failed_backup = WallTime(Micros(entry.at_us()));
    }
    if (entry.has_verify_done()) {
        const pb::VerifyDone& done = entry.verify_done();
        std::uint64_t& damaged = (*troubles)[""].damaged;
        // Only the level that reads everything can say that nothing is damaged any more.
        damaged = done.level() == "chunks" ? done.failed_count()
                                           : std::max<std::uint64_t>(damaged, done.failed_count());
    }
}

Result<Repository::Troubles> Repository::troubles(const std::string& cluster) {
    if (!state_->troubles) {
        state_->troubles.emplace();
        LedgerKeys keys = LedgerKeys::derive(*state_->keyring.current(pb::KEY_PURPOSE_LEDGER));
        auto note = [this](const pb::LedgerEntry& entry) -> Result<> {
            state_->note_trouble(entry);
            return {};
        };
        auto head = read_ledger(*state_->store, state_->id, keys, {}, true, note);
        if (!head) {
            state_->troubles.reset();
            return fail(head.error());
        }
    }
    Troubles found = (*state_->troubles)[cluster];
    found.damaged = (*state_->troubles)[""].damaged;
    return found;
}

Repository::Counts Repository::counts() const {
    const ObjectStore::Reads reads = state_->store->reads();
    return {.read_bytes = reads.bytes,
            .read_errors = reads.errors,
            .ledger_errors = state_->ledger_errors};
}

}  // namespace walvault::storage
