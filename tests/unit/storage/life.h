// Life: a repository with five bases over some fifteen packs of WAL, and what retention may do with
// it.
#pragma once

#include <doctest/doctest.h>

#include <set>

#include "storage/retention_survey.h"
#include "tests/unit/storage/stage.h"

namespace walvault::storage {

inline Result<> add_frame(PackWriter& pack, ByteSpan plain, const Id32& content_id) {
    FramePlace place;
    place.frame_number = pack.next_frame_number();
    place.content_id = content_id;
    pb::FrameEntry entry;
    entry.set_frame_number(place.frame_number);
    entry.set_plain_bytes(static_cast<std::uint32_t>(plain.size()));
    if (content_id != Id32{}) entry.set_content_id(text_of(content_id));
    return pack.append(pack.cipher().seal(place, plain, 1), std::move(entry));
}

// A base backup whose one file consists of `contents`, taken between two commits.
inline Result<pb::BackupInfo> make_base(Repository& repository, const HistoryRecord& history,
                                        const MadeCommit& before, const MadeCommit& behind,
                                        const std::vector<std::string>& contents) {
    const ClusterRecord cluster = *repository.cluster("main");
    pb::BackupInfo base;
    WV_TRY(*base.mutable_backup_id(), repository.begin_backup("main"));
    WV_TRY(auto chunks, repository.begin_pack(pb::PACK_KIND_BASE, cluster, base.backup_id(), 1));
    pb::ManifestFile file;
    file.set_path("file");
    for (const std::string& content : contents) {
        const Id32 id = content_id(repository.content_key(), as_bytes(content));
        file.mutable_content_ids()->append(text_of(id));
        WV_TRY(bool known, repository.has_chunk(id));
        if (!known) WV_CHECK(add_frame(*chunks, as_bytes(content), id));
    }
    pb::PackInfo pack;
    pack.set_kind(pb::PACK_KIND_BASE);
    pack.set_cluster("main");
    pack.set_backup_id(base.backup_id());
    if (chunks->next_frame_number() > 0) WV_CHECK(repository.commit_pack(std::move(chunks), pack));
    base.set_cluster("main");
    base.set_history_id(text_of(history.id));
    base.set_timeline(1);
    base.set_start_lsn(before.start_lsn.value);
    base.set_stop_lsn(behind.start_lsn.value);
    base.set_started_at_us(before.at.time_since_epoch().count());
    base.set_stopped_at_us(behind.at.time_since_epoch().count());
    WV_TRY(auto manifest,
           repository.begin_pack(pb::PACK_KIND_MANIFEST, cluster, base.backup_id(), 0));
    base.set_manifest_path(manifest->path());
    pb::ManifestBatch batch;
    *batch.add_files() = file;
    WV_CHECK(add_frame(*manifest, as_bytes(batch.SerializeAsString()), {}));
    pb::ManifestBatch last;
    *last.mutable_head()->mutable_backup() = base;
    WV_CHECK(add_frame(*manifest, as_bytes(last.SerializeAsString()), {}));
    pack.set_kind(pb::PACK_KIND_MANIFEST);
    WV_CHECK(repository.commit_pack(std::move(manifest), pack));
    WV_CHECK(repository.complete_backup(base));
    return base;
}

// Five bases over some fifteen packs of WAL. The chunk "common" is in all of them, "old" in the
// first two, "even" in the first, third and fifth.
struct Life : Stage {
    MadeWal wal;
    std::vector<pb::BackupInfo> bases;

    Life() {
        create();
        wal.grow(77, 8'000'000);
        auto repository = must(open());
        HistoryWriter writer(*repository, wal);
        must(writer.begin());
        must(writer.store(150'000, 600'000));
        must(writer.close());
        const std::size_t step = wal.commits.size() / 6;
        for (std::size_t i = 0; i < 5; ++i) {
            std::vector<std::string> contents{"common", "only " + std::to_string(i)};
            if (i < 2) contents.push_back("old");
            if (i % 2 == 0) contents.push_back("even");
            const MadeCommit& before = wal.commits[i * step + 1];
            bases.push_back(must(make_base(*repository, writer.history(), before,
                                           wal.commits[i * step + 5], contents)));
        }
    }

    // A window that begins behind the end of base `number`.
    RetentionRules rules(std::size_t number) const {
        RetentionRules chosen;
        chosen.protect_min = 1;
        const auto window = wal.commits.back().at - WallTime(Micros(bases[number].stopped_at_us()));
        chosen.window = std::chrono::floor<std::chrono::seconds>(window);
        return chosen;
    }
    RetentionSurvey survey(const RetentionRules& chosen) {
        return must(survey_retention(*view(), "main", chosen, wal.commits.back().at));
    }
};

inline std::set<std::string> paths_in(RepositoryView& view) {
    std::set<std::string> paths;
    for (const pb::PackInfo& pack : must(view.packs("main")))
        paths.insert(pack.path());
    return paths;
}

inline std::set<std::string> packs_on_disk(const std::string& root) {
    std::set<std::string> paths;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root))
        if (entry.path().extension() == ".pack")
            paths.insert(std::filesystem::relative(entry.path(), root));
    return paths;
}

// Every base that is listed is whole, and so is the WAL behind `from` and what single bases need.
inline void require_whole(RepositoryView& view, std::optional<Lsn> from) {
    for (const pb::BackupInfo& base : must(view.backups("main"))) {
        CAPTURE(base.backup_id());
        const Id16 history = id_from<16>(base.history_id());
        must(view.require_coverage(history, Lsn{base.start_lsn()}, Lsn{base.stop_lsn()}));
        must(view.read_manifest(
            base, [](const pb::ManifestHead&) { return Result<>{}; },
            [&](pb::ManifestFile& file) -> Result<> {
                ByteBuffer plain;
                for (std::size_t at = 0; at < file.content_ids().size(); at += 32)
                    WV_CHECK(
                        view.read_chunk(id_from<32>(file.content_ids().substr(at, 32)), plain));
                return {};
            }));
    }
    const HistoryRecord history = must(view.histories("main")).back();
    if (from) must(view.require_coverage(history.id, *from, history.end_lsn));
}

inline DeletionOrder delete_now(std::size_t most = 1000) {
    DeletionOrder order;
    order.most = most;
    return order;
}

}  // namespace walvault::storage
