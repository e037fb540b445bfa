#include <algorithm>
#include <cstring>

#include "storage/tier_store.h"
#include "tests/simulation/keeping.h"

namespace walvault::simulation {

using namespace storage;

namespace {

std::set<std::string> ids_of(const std::vector<pb::BackupInfo>& bases) {
    std::set<std::string> ids;
    for (const pb::BackupInfo& base : bases)
        ids.insert(base.backup_id());
    return ids;
}

std::set<std::string> packs_in(const SimulatedFiles& files, const std::string& root) {
    std::set<std::string> paths;
    for (const auto& [path, size] : files.sizes())
        if (path.starts_with(root + "/") && path.ends_with(".pack"))
            paths.insert(path.substr(root.size() + 1));
    return paths;
}

// What the view knows of: what it shows, and what is condemned at the place and not yet deleted.
std::set<std::string> packs_of(RepositoryView& view, const std::string& place) {
    std::set<std::string> paths;
    for (const pb::PackInfo& pack : must_hold(view.packs("main"), "packs"))
        if (pack.path().ends_with(".pack")) paths.insert(pack.path());
    for (const CondemnedThere& each : must_hold(view.condemned("main", place), "condemned"))
        paths.insert(each.pack.path());
    return paths;
}

void require_same(const std::set<std::string>& are, const std::set<std::string>& should_be,
                  const std::string& where) {
    std::string what;
    for (const std::string& path : are)
        if (!should_be.contains(path)) what += " " + path + " for ever;";
    for (const std::string& path : should_be)
        if (!are.contains(path)) what += " " + path + " missing;";
    hold(what.empty(), where + " has" + what);
}

Lsn round_up(Lsn lsn) {
    return (lsn + (WalBuilder::kSegmentBytes - 1)).round_down(WalBuilder::kSegmentBytes);
}

}  // namespace

void Keeping::check_wal(RepositoryView& view, const Id16& history, Lsn from, Lsn to) {
    Lsn at = from;
    auto compare = [&](ByteSpan piece) -> Result<> {
        if (std::memcmp(piece.data(), wal_.from(at).data(), piece.size()) != 0)
            return fail(Errc::corrupt, "WAL is another at " + to_string(at));
        at = at + piece.size();
        return {};
    };
    must_hold(view.read_wal(history, from, to, compare), "read WAL");
    hold(at == to, "WAL ends at " + to_string(at) + " instead of " + to_string(to));
}

void Keeping::check_base(RepositoryView& view, const Base& base, bool reads) {
    const std::string name = "base " + base.info.backup_id();
    const Id16 history = id_from<16>(base.info.history_id());
    Lsn end = round_up(Lsn{base.info.stop_lsn()});
    for (const HistoryRecord& each : must_hold(view.histories("main"), "histories"))
        if (each.id == history) end = std::min(end, each.end_lsn);
    hold(end.value >= base.info.stop_lsn(), name + " ends at " +
                                                to_string(Lsn{base.info.stop_lsn()}) +
                                                ", and all WAL at " + to_string(end));
    must_hold(view.require_coverage(
                  history, Lsn{base.info.start_lsn()}.round_down(WalBuilder::kSegmentBytes), end),
              name + " lacks WAL");
    if (!reads) return;
    ++outcome_.counts["bases read"];
    std::size_t number = 0;
    auto on_file = [&](pb::ManifestFile& file) -> Result<> {
        for (std::size_t at = 0; at < file.content_ids().size(); at += 32, ++number) {
            ByteBuffer plain;
            WV_CHECK(view.read_chunk(id_from<32>(file.content_ids().substr(at, 32)), plain));
            if (number >= base.contents.size() ||
                as_text(plain) != content_of(base.contents[number]))
                return fail(Errc::corrupt, "another chunk");
        }
        return {};
    };
    must_hold(view.read_manifest(
                  base.info, [](const pb::ManifestHead&) { return Result<>{}; }, on_file),
              "read " + name);
    hold(number == base.contents.size(), name + " is shorter than it was");
}

// The ledger of a tier may be ahead of the WAL there: nobody restores such a base.
bool Keeping::has_its_wal(RepositoryView& view, const Base& base) {
    for (const HistoryRecord& each : must_hold(view.histories("main"), "histories"))
        if (each.id == id_from<16>(base.info.history_id()))
            return each.end_lsn.value >= base.info.stop_lsn();
    return false;
}

// Every base of the window, the one before it, and all WAL from there on; no base that never was.
void Keeping::check_promise(RepositoryView& view, const std::string& place) {
    const Promise& promise = promises_[place];
    const auto listed = ids_of(must_hold(view.backups("main"), "backups"));
    const Base* anchor = nullptr;
    std::vector<const Base*> kept;
    for (const auto& [id, base] : bases_) {
        if (promise.never_there.contains(id)) continue;
        if (WallTime(Micros(base.info.stopped_at_us())) > promise.window_from)
            kept.push_back(&base);
        else if (anchor == nullptr || anchor->info.stopped_at_us() < base.info.stopped_at_us())
            anchor = &base;
    }
    if (anchor != nullptr) kept.push_back(anchor);
    for (const Base* base : kept)
        hold(listed.contains(base->info.backup_id()),
             "base " + base->info.backup_id() + " of the window is gone at \"" + place + "\"");
    for (const HistoryRecord& history : must_hold(view.histories("main"), "histories")) {
        const Lsn from = anchor == nullptr ? promise.wal_from : Lsn{anchor->info.start_lsn()};
        must_hold(
            view.require_coverage(
                history.id, std::max(from.round_down(WalBuilder::kSegmentBytes), history.start_lsn),
                history.end_lsn),
            "WAL of the window at \"" + place + "\"");
    }
}

// What is held is listed and whole where it was when the hold was placed.
void Keeping::check_holds(RepositoryView& view, const std::string& place, bool reads) {
    std::set<std::string> told;
    for (const HoldRecord& each : must_hold(view.holds("main"), "holds"))
        told.insert(each.id);
    const auto listed = ids_of(must_hold(view.backups("main"), "backups"));
    for (const auto& [id, placed] : holds_) {
        hold(told.contains(id), "the hold " + id + " is forgotten");
        if (placed.place != place) continue;
        ++outcome_.counts["holds looked at"];
        const Base& base = bases_.at(placed.base_id);
        hold(listed.contains(placed.base_id),
             "base " + placed.base_id + " is gone, which " + id + " keeps");
        check_base(view, base, reads);
        if (!placed.from) continue;
        const Id16 history = id_from<16>(base.info.history_id());
        Lsn end;
        for (const HistoryRecord& each : must_hold(view.histories("main"), "histories"))
            if (each.id == history) end = each.end_lsn;
        if (placed.to)
            if (auto behind =
                    must_hold(view.first_transaction_after(history, *placed.to), "look behind"))
                end = behind->start_lsn;
        must_hold(view.require_coverage(history, Lsn{base.info.start_lsn()}, end),
                  "WAL that " + id + " keeps at \"" + place + "\"");
    }
}

void Keeping::check_place(const std::string& place, bool reads) {
    ++outcome_.counts["looks"];
    // The directory stands alone; what a tier has of itself, its own reader looks at.
    auto store = place.empty() ? directory_store() : layered_store();
    auto view = open_view(*store, place, true);
    check_promise(*view, place);
    check_holds(*view, place, reads);
    for (const pb::BackupInfo& info : must_hold(view->backups("main"), "backups")) {
        auto known = bases_.find(info.backup_id());
        hold(known != bases_.end(), "a base that never was complete: " + info.backup_id());
        check_base(*view, known->second, reads);
    }
    if (!place.empty() || tiers_.empty()) return;
    auto all = layered_store();
    auto anywhere = open_view(*all, std::nullopt, true);
    for (const pb::BackupInfo& info : must_hold(anywhere->backups("main"), "backups")) {
        hold(bases_.contains(info.backup_id()), "never complete: " + info.backup_id());
        check_base(*anywhere, bases_.at(info.backup_id()), reads);
    }
}

// Until a tier's ledger has caught up, it may list a base that is to go, and whose packs were never
// put there.
void Keeping::check_tier_reader(const Tier& tier, bool is_settled) {
    ++outcome_.counts["looks at a tier"];
    auto store = make_tier_store(make_directory_store(const_cast<Tier&>(tier).files, "/tier"));
    auto view = open_view(*store, tier.name, false);
    auto all = layered_store();
    auto host = open_view(*all, tier.name, true);
    const auto staying = ids_of(must_hold(host->backups("main"), "backups"));
    const auto listed = ids_of(must_hold(view->backups("main"), "backups"));
    for (const std::string& id : listed) {
        hold(bases_.contains(id), "never complete: " + id);
        if (staying.contains(id) && (is_settled || has_its_wal(*view, bases_.at(id))))
            check_base(*view, bases_.at(id), true);
    }
    if (!is_settled) return;
    require_same(listed, staying, tier.name + " lists bases, and of those");
    check_promise(*view, tier.name);
    const auto lie_there = packs_in(tier.files, "/tier");
    require_same(lie_there, packs_of(*view, tier.name), tier.name + ", as its reader sees it,");
    require_same(lie_there, packs_of(*host, tier.name), tier.name);
    const auto open_tails = writer_->snapshot().tails;
    for (const auto& [path, size] : tier.files.sizes())
        if (auto piece = parse_tail_piece_name(path.substr(std::string("/tier/").size())))
            hold(open_tails.contains(piece->tail_path), path + " is left for ever");
}

void Keeping::check_objects() {
    auto store = directory_store();
    auto view = open_view(*store, "", true);
    require_same(packs_in(files_, "/srv/repository"), packs_of(*view, ""), "the directory");
    for (const auto& [path, size] : files_.sizes())
        hold(!path.ends_with(".tmp"), path + " was left");
}

void Keeping::check_totals() {
    auto store = layered_store();
    RepositoryView::Options options{.index_directory = "/srv/repository/index",
                                    .scratch_directory = "/scratch",
                                    .index_home = &indexes_,
                                    .with_condemned = true};
    auto view = must_hold(RepositoryView::open(*store, *master_, options), "open a view");
    RepositoryView::Totals sum;
    for (const pb::PackInfo& pack : must_hold(view->packs("main"), "packs")) {
        if (!pack.path().ends_with(".pack")) continue;
        ++sum.pack_count;
        const bool is_wal = pack.kind() == pb::PACK_KIND_WAL;
        (is_wal ? sum.wal_stored_bytes : sum.base_stored_bytes) += pack.stored_bytes();
        if (pack.kind() == pb::PACK_KIND_BASE) sum.chunk_count += pack.frame_count();
    }
    const RepositoryView::Totals told = must_hold(view->totals("main"), "totals");
    hold(told.pack_count == sum.pack_count && told.wal_stored_bytes == sum.wal_stored_bytes &&
             told.base_stored_bytes == sum.base_stored_bytes && told.chunk_count == sum.chunk_count,
         "the totals are not those of the packs: " + std::to_string(told.pack_count) +
             " packs are told, " + std::to_string(sum.pack_count) + " are there");
}

void Keeping::finish(const Restore& restore) {
    note("  of " + restore.base.info.backup_id() + " from " + restore.name);
    check_base(*restore.view, restore.base, true);
    check_wal(*restore.view, restore.history, restore.from, restore.to);
}

}  // namespace walvault::simulation
