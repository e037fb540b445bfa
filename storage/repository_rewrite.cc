#include <algorithm>

#include "base/log.h"
#include "storage/index_retention.h"
#include "storage/pack_rewrite.h"
#include "storage/repository_state.h"

namespace walvault::storage {
namespace {

// "rewritten-7.12.pack": of the writer's generation and its serial, neither of which comes again.
constexpr const char* kPrefix = "rewritten-";

}  // namespace

Result<std::unique_ptr<PackRewrite>> Repository::begin_rewrite(
    std::vector<RewriteCandidate> sources) {
    WV_ASSERT(!sources.empty());
    WV_CHECK(state_->catch_index_up());
    const std::string& name = sources.front().pack.cluster();
    const auto known = cluster(name);
    if (!known) return fail(Errc::not_found, "the repository holds nothing of server " + name);
    WV_TRY(FileCipher cipher,
           state_->new_cipher(pb::KEY_PURPOSE_BASE, state_->header_for(StreamKind::base, *known)));
    const std::string path = name + "/base/" + kPrefix + std::to_string(state_->generation) + "." +
                             std::to_string(state_->next_serial++) + ".pack";
    WV_TRY(auto writer, PackWriter::create(state_->files, state_->root, path, std::move(cipher)));
    const RewriteStores stores{state_->packs_store(), *state_->store, state_->keyring,
                               *state_->index};
    return std::make_unique<PackRewrite>(stores, std::move(sources), std::move(writer),
                                         state_->options.base_level);
}

Result<> Repository::enter_rewrite(std::unique_ptr<PackRewrite> rewrite) {
    if (!rewrite->has_pack()) return {};
    pb::LedgerEntry entry;
    pb::PackClosed& closed = *entry.mutable_pack_closed();
    *closed.mutable_pack() = rewrite->pack();
    for (const RewriteCandidate& source : rewrite->sources())
        closed.add_copied_from(source.pack.path());
    return state_->enter(std::move(entry), {&rewrite->footer()});
}

// Whole ones that no entry of the ledger names: the process ended before it could be entered.
Result<> Repository::State::remove_unentered_rewrites(const std::string& cluster) {
    const std::string directory = cluster + "/base";
    auto entries = files.list(root + "/" + directory);
    if (!entries && entries.error().code == Errc::not_found) return {};
    if (!entries) return fail(entries.error());
    WV_TRY(auto packs, index->base_packs(cluster));
    bool removed = false;
    for (const FileInfo& entry : *entries) {
        if (!entry.name.starts_with(kPrefix) || !entry.name.ends_with(".pack")) continue;
        const std::string path = directory + "/" + entry.name;
        // Readers do not see all that is condemned.
        WV_TRY(bool condemned, index->retention().is_condemned(path));
        if (condemned || std::ranges::any_of(
                             packs, [&](const pb::PackInfo& pack) { return pack.path() == path; }))
            continue;
        log::info("store.rewrite_left", "it was written when the process ended, and is not needed",
                  {{"pack", path}});
        WV_CHECK(files.remove(root + "/" + path));
        removed = true;
    }
    return removed ? files.sync_directory(root + "/" + directory) : Result<>{};
}

}  // namespace walvault::storage
