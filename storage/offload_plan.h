// OffloadPlan: what a tier gets next, so that it can be restored from at every moment. Pure.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace walvault::storage {

// An object that must be on the tier before the ledger there names it.
struct NeededObject {
    std::string name;
    std::uint64_t size_bytes = 0;
};

// An entry of the ledger that the tier does not have yet.
struct PendingEntry {
    std::uint64_t sequence = 0;
    std::uint64_t record_bytes = 0;
    std::vector<NeededObject> needs;  // packs, and the keyring of a key
    std::string opens_tail;           // its path, or empty
    std::string ends_tail;
    // Packs of that tail which the tier is not to keep: their WAL is in its pieces alone there.
    std::set<std::string> left_out;
    std::string deletes;  // a pack that is deleted at this tier
    Id16 history{};       // of the tail that it opens
    bool is_gap = false;  // WAL that is synced behind it must not be seen without it
};

struct OffloadedTail {
    Id16 history{};
    std::uint64_t end_offset = 0;  // of its pieces on the tier
};

struct OffloadState {
    // Tails that the tier's ledger opens and does not end, by path.
    std::map<std::string, OffloadedTail> tails;
    // Those that it ends and whose pieces are still there.
    std::set<std::string> superseded_tails;
    // Packs that it calls deleted there and whose objects are still there.
    std::set<std::string> deleted;
    std::deque<PendingEntry> pending;  // in order, none left out
    bool pending_is_all = true;        // up to the snapshot
    // Of what `pending` needs: what is there, and what is being put.
    std::set<std::string> present;
    std::set<std::string> under_way;
    bool has_room = true;     // for one more that is put beside the others
    bool is_held_up = false;  // by one that could not be put: what is before its entry goes
};

// What is durable in the repository, all at one moment: the ledger up to an entry, and of each tail
// that is not closed yet, by path, the end of its last synced frame.
struct OffloadSnapshot {
    std::uint64_t ledger_sequence = 0;
    std::map<std::string, std::uint64_t> tails;
};

struct OffloadStep {
    enum class Kind {
        nothing,    // the snapshot is on the tier
        wait,       // for a later snapshot: a tail that is neither whole on the tier nor a pack yet
        read_on,    // more of the ledger is needed to decide
        object,     // begin to put `name`, beside those that are under way
        under_way,  // for the end of one of those
        ledger,     // put the first `entry_count` pending entries as one piece
        tail,       // put what the tail `name` has from `from` to `to`
        remove,     // remove the pieces of the tail `name`
        erase,      // remove the object `name`, which the ledger there calls deleted
    };
    Kind kind = Kind::nothing;
    std::string name = {};
    std::uint64_t from = 0, to = 0;
    std::size_t entry_count = 0;
};

// The order it keeps: an object before the entry that names it; the entry that opens a tail before
// its pieces; all pieces of a tail before the entry that opens the next one of the history, unless
// the entry that ends it comes in the same piece of the ledger; a gap before the pieces behind it;
// the pieces of a tail are removed after the entry that ends it and, where it has become packs that
// are not put there, after those that call these deleted; a pack after the one that calls it
// deleted. Tails go first: packs may be many. Objects are begun in the order of the ledger, also
// those behind an entry that waits; an entry goes only when all that it names is there.
OffloadStep next_offload_step(const OffloadState& state, const OffloadSnapshot& snapshot);

// What the snapshot has and the tier does not, as far as `pending` tells.
std::uint64_t pending_bytes(const OffloadState& state, const OffloadSnapshot& snapshot);

}  // namespace walvault::storage
