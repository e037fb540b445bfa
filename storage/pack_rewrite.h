// PackRewrite: the chunks of some packs that are still needed, in a new pack. A copy and nothing
// else: the old packs stay as they are, and retention lets go what nobody needs any more.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "storage/index.h"
#include "storage/pack_writer.h"
#include "storage/rewrite_plan.h"

namespace walvault::storage {

// What a rewriting reads and writes; all of it outlives it.
struct RewriteStores {
    ObjectStore& packs;      // where the old packs lie
    ObjectStore& directory;  // where the new one is written
    const Keyring& keyring;
    Index& index;
};

// Made by Repository::begin_rewrite(). Dropped before it is entered, it leaves a file that no entry
// of the ledger names, or none: the next start removes it.
class PackRewrite {
public:
    PackRewrite(RewriteStores stores, std::vector<RewriteCandidate> sources,
                std::unique_ptr<PackWriter> writer, int level)
        : stores_(stores),
          sources_(std::move(sources)),
          writer_(std::move(writer)),
          level_(level) {}

    // Reads the chunks, proves that they are what their names say, seals them anew, syncs the new
    // pack and reads all of it back. A chunk that lies elsewhere by now is left out. Blocks for
    // both disks; from any one thread, beside the one that has the repository. Errors: corrupt,
    // not_found, archived, io, no_space.
    Result<> copy();

    // After copy(). False: nothing was left to be copied, and there is no pack.
    bool has_pack() const { return info_.has_value(); }
    const pb::PackInfo& pack() const { return *info_; }
    const pb::PackFooter& footer() const { return writer_->footer(); }
    const std::vector<RewriteCandidate>& sources() const { return sources_; }

private:
    Result<> copy_from(const RewriteCandidate& source);
    Result<> read_back() const;

    RewriteStores stores_;
    std::vector<RewriteCandidate> sources_;
    std::unique_ptr<PackWriter> writer_;
    int level_;
    std::optional<pb::PackInfo> info_;
};

// Those that are rewritten into one pack: of one cluster, as many as fit.
std::vector<std::vector<RewriteCandidate>> rewrite_groups(
    const std::vector<RewriteCandidate>& sources);

}  // namespace walvault::storage
