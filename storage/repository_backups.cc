#include <cstdio>

#include "storage/repository_state.h"

namespace walvault::storage {

Result<std::string> Repository::begin_backup(const std::string& cluster) {
    std::string base = backup_id_at(state_->clock.now());
    std::string id = base;
    // Ids are names of files and are never used again, also not by a backup that failed.
    WV_TRY(auto objects, state_->store->list(cluster + "/base/" + base));
    WV_TRY(auto complete, state_->index->backups(cluster));
    auto taken = [&](const std::string& candidate) {
        for (const ObjectInfo& object : objects)
            if (object.name.starts_with(cluster + "/base/" + candidate + ".") ||
                object.name.starts_with(cluster + "/base/" + candidate + "_"))
                return true;
        for (const pb::BackupInfo& backup : complete)
            if (backup.backup_id() == candidate) return true;
        return false;
    };
    for (int n = 2; taken(id); ++n)
        id = base + "-" + std::to_string(n);
    pb::LedgerEntry entry;
    entry.mutable_backup_started()->set_backup_id(id);
    entry.mutable_backup_started()->set_cluster(cluster);
    WV_CHECK(state_->enter(std::move(entry)));
    return id;
}

Result<std::unique_ptr<PackWriter>> Repository::begin_pack(pb::PackKind kind,
                                                           const ClusterRecord& cluster,
                                                           const std::string& backup_id,
                                                           unsigned number) {
    bool manifest = kind == pb::PACK_KIND_MANIFEST;
    FileHeader header =
        state_->header_for(manifest ? StreamKind::manifest : StreamKind::base, cluster);
    WV_TRY(FileCipher cipher,
           state_->new_cipher(manifest ? pb::KEY_PURPOSE_MANIFEST : pb::KEY_PURPOSE_BASE, header));
    char suffix[32];
    std::snprintf(suffix, sizeof suffix, manifest ? ".manifest.pack" : "_%05u.pack", number);
    return PackWriter::create(state_->files, state_->root,
                              cluster.name + "/base/" + backup_id + suffix, std::move(cipher));
}

Result<pb::PackInfo> Repository::commit_pack(std::unique_ptr<PackWriter> pack, pb::PackInfo info) {
    WV_TRY(pb::PackInfo finished, pack->finish(std::move(info)));
    pb::LedgerEntry entry;
    *entry.mutable_pack_closed()->mutable_pack() = finished;
    WV_CHECK(state_->enter(std::move(entry), {&pack->footer()}));
    return finished;
}

Result<> Repository::complete_backup(const pb::BackupInfo& backup) {
    pb::LedgerEntry entry;
    *entry.mutable_backup_completed()->mutable_backup() = backup;
    return state_->enter(std::move(entry));
}

Result<> Repository::fail_backup(const std::string& cluster, const std::string& backup_id,
                                 const std::string& reason) {
    pb::LedgerEntry entry;
    entry.mutable_backup_failed()->set_cluster(cluster);
    entry.mutable_backup_failed()->set_backup_id(backup_id);
    entry.mutable_backup_failed()->set_reason(reason);
    return state_->enter(std::move(entry));
}

Result<bool> Repository::has_chunk(const Id32& content_id) {
    WV_TRY(auto place, state_->index->chunk(content_id));
    return place && !place->condemned;
}

const DataKey& Repository::content_key() const {
    const DataKey* key = state_->keyring.current(pb::KEY_PURPOSE_CONTENT_ID);
    WV_ASSERT(key != nullptr);
    return *key;
}

}  // namespace walvault::storage
