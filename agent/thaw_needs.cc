#include "agent/thaw_needs.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <set>

#include "storage/lineage.h"
#include "storage/repository_files.h"

namespace walvault::agent {
namespace {

using storage::RepositoryView;
using storage::ThawItem;

constexpr std::size_t kIdBytes = std::tuple_size_v<Id32>;

ThawItem item_of(const pb::PackInfo& pack) {
    const auto kind = pack.kind() == pb::PACK_KIND_WAL        ? ThawItem::Kind::wal
                      : pack.kind() == pb::PACK_KIND_MANIFEST ? ThawItem::Kind::manifest
                                                              : ThawItem::Kind::base;
    return ThawItem{
        .name = pack.path(), .kind = kind, .size_bytes = pack.stored_bytes(), .state = {}};
}

// "20261123T180300Z~": behind every id that was taken by then.
std::string last_id_at(const pb::BackupInfo& base) {
    const std::time_t at = static_cast<std::time_t>(base.stopped_at_us() / 1'000'000);
    std::tm parts{};
    gmtime_r(&at, &parts);
    char text[32];
    std::strftime(text, sizeof text, "%Y%m%dT%H%M%SZ~", &parts);
    return std::max(std::string(text), base.backup_id() + "~");
}

// Packs that hold chunks of the base; `all_told` is false where some could not be found out.
Result<std::set<Id16>> packs_of_base(RepositoryView& view, const pb::BackupInfo& base,
                                     bool& all_told) {
    std::set<Id16> packs;
    all_told = true;
    auto on_file = [&](pb::ManifestFile& file) -> Result<> {
        for (std::size_t at = 0; at + kIdBytes <= file.content_ids().size(); at += kIdBytes) {
            auto place =
                view.place_of_chunk(storage::id_from<32>(file.content_ids().substr(at, kIdBytes)));
            if (place)
                packs.insert(place->file_id);
            else if (place.error().code == Errc::not_found)
                all_told = false;
            else
                return fail(place.error());
        }
        return {};
    };
    auto read = view.read_manifest(
        base, [](const pb::ManifestHead&) { return Result<>{}; }, on_file);
    if (!read && read.error().code != Errc::archived) return fail(read.error());
    if (!read) all_told = false;
    return packs;
}

Result<> add_base(RepositoryView& view, const pb::BackupInfo& base, bool widest, ThawNeeds& needs) {
    bool all_told = true;
    WV_TRY(std::set<Id16> known, packs_of_base(view, base, all_told));
    const std::string last_id = last_id_at(base);
    // Chunks are shared by all clusters of a repository.
    WV_TRY(auto clusters, view.clusters());
    for (const auto& cluster : clusters) {
        WV_TRY(auto packs, view.packs(cluster.name));
        for (const pb::PackInfo& pack : packs) {
            const bool by_then = widest || pack.backup_id() <= last_id;
            const bool holds_chunks =
                pack.kind() == pb::PACK_KIND_BASE &&
                (known.contains(storage::id_from<16>(pack.file_id())) || (!all_told && by_then));
            if (holds_chunks || pack.path() == base.manifest_path()) needs.push_back(item_of(pack));
        }
    }
    return {};
}

Result<> add_wal(RepositoryView& view, const std::string& cluster, const Id16& history, Lsn from,
                 Lsn to, ThawNeeds& needs) {
    WV_TRY(auto stretches, view.lineage(history));
    WV_TRY(auto packs, view.packs(cluster));
    for (const pb::PackInfo& pack : packs) {
        if (pack.kind() != pb::PACK_KIND_WAL || pack.path().ends_with(".tail")) continue;
        for (const storage::Stretch& stretch : stretches) {
            if (stretch.history != storage::id_from<16>(pack.history_id())) continue;
            const Lsn begin = std::max({Lsn{pack.start_lsn()}, stretch.from, from});
            const Lsn end = std::min({Lsn{pack.end_lsn()}, stretch.to, to});
            if (begin < end) needs.push_back(item_of(pack));
        }
    }
    return {};
}

Result<std::uint64_t> segment_bytes_of(RepositoryView& view, const std::string& name) {
    WV_TRY(auto clusters, view.clusters());
    for (const auto& cluster : clusters)
        if (cluster.name == name && cluster.segment_bytes > 0) return cluster.segment_bytes;
    return fail(Errc::corrupt,
                "the repository does not say how large WAL segments of " + name + " are");
}

// The newest that is consistent before `lsn`; else the oldest.
const pb::BackupInfo* base_before(const std::vector<pb::BackupInfo>& bases, Lsn lsn) {
    const pb::BackupInfo* found = bases.empty() ? nullptr : &bases.front();
    for (const pb::BackupInfo& base : bases)
        if (base.stop_lsn() <= lsn.value) found = &base;
    return found;
}

}  // namespace

Lsn segment_end(Lsn lsn, std::uint64_t segment_bytes) {
    return (lsn + (segment_bytes - 1)).round_down(segment_bytes);
}

Result<ThawNeeds> needs_of_restore(RepositoryView& view, const StopPoint& stop, Lsn wal_to,
                                   bool widest) {
    ThawNeeds needs;
    WV_CHECK(add_base(view, stop.base, widest, needs));
    WV_CHECK(
        add_wal(view, stop.history.cluster, stop.history.id, stop.wal_from_lsn, wal_to, needs));
    return needs;
}

Result<ThawNeeds> needs_to_look(RepositoryView& view, const std::string& cluster,
                                const std::string& refused, bool widest) {
    ThawNeeds needs{ThawItem{.name = refused}};
    WV_TRY(auto packs, view.packs(cluster));
    auto pack = std::ranges::find(packs, refused, &pb::PackInfo::path);
    if (pack == packs.end()) return needs;
    needs.front() = item_of(*pack);
    if (pack->kind() != pb::PACK_KIND_WAL) return needs;
    WV_TRY(auto histories, view.histories(cluster));
    WV_TRY(auto backups, view.backups(cluster));
    const Id16 id = storage::id_from<16>(pack->history_id());
    for (const auto& history : histories) {
        if (history.id != id) continue;
        const auto bases = storage::bases_on_path(history, histories, backups);
        const pb::BackupInfo* base = base_before(bases, Lsn{pack->start_lsn()});
        if (base == nullptr) return needs;
        WV_CHECK(add_base(view, *base, widest, needs));
        WV_TRY(const std::uint64_t segment, segment_bytes_of(view, cluster));
        const Lsn from = Lsn{base->start_lsn()}.round_down(segment);
        WV_CHECK(
            add_wal(view, cluster, id, from, segment_end(Lsn{pack->end_lsn()}, segment), needs));
    }
    return needs;
}

}  // namespace walvault::agent
