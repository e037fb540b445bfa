// RewritePlan: which packs of base backups are written anew, because most of what they hold is
// needed by nobody any more. A pure function of what is stored and of the rules.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "proto/repository.pb.h"

namespace walvault::storage {

// More is copied by later passes.
inline constexpr std::uint64_t kRewrittenInOnePass = 1 << 30;
// Where a pack of base backups ends, in bytes of sealed chunks.
inline constexpr std::uint64_t kBasePackBytes = 256 << 20;

struct RewriteRules {
    bool is_on = false;
    std::chrono::seconds grace{0};     // a pack is older than that
    std::string reader;                // who holds a lease there; empty: nobody
    std::uint64_t room_bytes = ~0ull;  // that copies may take up in the repository's directory
    bool only_from_directory = false;  // what the directory has let go is not read: it costs money
    std::uint64_t most_bytes = kRewrittenInOnePass;
};

// A pack of base backups that stays at the place.
struct RewriteCandidate {
    pb::PackInfo pack;
    // The frames that a base which stays is made of, by their numbers; and their sealed bytes.
    std::vector<bool> live = {};
    std::uint64_t live_bytes = 0;
    bool is_in_directory = true;
};

struct RewriteFacts {
    WallTime now;
    // The directory and the tiers: each of them gets the new pack.
    std::size_t place_count = 1;
    std::string newest_base;  // its id
    std::vector<RewriteCandidate> candidates;
};

struct RewriteVerdict {
    bool rewrite = false;
    bool waits = false;  // it would be, but for something that passes
    std::string reason;  // for people; empty: it is not mostly dead
    std::uint64_t won_bytes = 0;
};

// A pack is rewritten where its live chunks, once for each place that gets them, are less than
// what it holds, and less than half of it: so all places together get smaller by each rewriting,
// and no pack is rewritten twice for the same dead chunks. In the order of the candidates; those
// that win most go first where not all can be done at once.
std::vector<RewriteVerdict> plan_rewrites(const RewriteRules& rules, const RewriteFacts& facts);

// The sealed bytes of all frames of a pack.
std::uint64_t frame_bytes_of(const pb::PackInfo& pack);

}  // namespace walvault::storage
