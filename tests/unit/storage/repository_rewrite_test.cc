#include <doctest/doctest.h>

#include "storage/lease.h"
#include "storage/pack_reader.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/flip_bit.h"
#include "tests/unit/storage/life.h"

namespace walvault::storage {
namespace {

// Long ones, so that frames count for more than what stands around them.
std::string content(const std::string& name) {
    std::string text;
    for (int i = 0; i < 40; ++i)
        text += name + " " + std::to_string(i * 7919 % 1000) + " ";
    return text;
}

// In the time of the WAL that is made.
struct MadeClock final : Clock {
    WallTime now() const override { return at; }
    SteadyTime steady_now() const override { return SteadyTime(at.time_since_epoch()); }
    WallTime at{};
};

// Five bases: the first wrote eight chunks, of which the later ones share one.
struct Changing : Stage {
    MadeWal wal;
    std::vector<pb::BackupInfo> bases;
    MadeClock clock;

    Changing() {
        create();
        wal.grow(77, 1'000'000);
        auto repository = must(open());
        HistoryWriter writer(*repository, wal);
        must(writer.begin());
        must(writer.store(150'000, 600'000));
        must(writer.close());
        const std::size_t step = wal.commits.size() / 6;
        for (std::size_t i = 0; i < 5; ++i) {
            std::vector<std::string> contents{content("common")};
            for (int n = 0; n < (i == 0 ? 7 : 2); ++n)
                contents.push_back(content("of " + std::to_string(i) + "." + std::to_string(n)));
            const MadeCommit& before = wal.commits[i * step + 1];
            clock.at = before.at;
            bases.push_back(must(make_base(*repository, writer.history(), before,
                                           wal.commits[i * step + 5], contents)));
        }
        clock.at = wal.commits.back().at;
    }
    Result<std::unique_ptr<Repository>> open(FileSystem& files = posix_file_system(),
                                             bool rebuild = false) {
        RepositoryOptions options;
        options.host = "test";
        options.rebuild_index = rebuild;
        return Repository::open(files, root, master, clock, options);
    }
    RetentionRules rules(std::size_t number) const {
        RetentionRules chosen;
        chosen.protect_min = 1;
        const auto window = wal.commits.back().at - WallTime(Micros(bases[number].stopped_at_us()));
        chosen.window = std::chrono::floor<std::chrono::seconds>(window);
        return chosen;
    }
    static RewriteRules rewriting() { return {.is_on = true}; }
    RetentionSurvey survey(std::size_t number, const RewriteRules& rewriting,
                           const std::string& place = "") {
        RepositoryView::Options options = view_options();
        options.place = place;
        view_stores.push_back(make_directory_store(posix_file_system(), root));
        auto view = must(RepositoryView::open(*view_stores.back(), master, options));
        return must(
            survey_retention(*view, "main", rules(number), clock.now(), "", place, rewriting));
    }
    std::string first_pack() const { return "main/base/" + bases[0].backup_id() + "_00001.pack"; }
};

Result<std::unique_ptr<PackRewrite>> copied(Repository& repository,
                                            const std::vector<RewriteCandidate>& sources) {
    WV_TRY(auto rewrite, repository.begin_rewrite(sources));
    WV_CHECK(rewrite->copy());
    return rewrite;
}

std::string pack_of(RepositoryView& view, Repository& repository, const std::string& name) {
    const Id32 id = content_id(repository.content_key(), as_bytes(content(name)));
    const Id16 file_id = must(view.place_of_chunk(id)).file_id;
    for (const pb::PackInfo& pack : must(view.packs("main")))
        if (id_from<16>(pack.file_id()) == file_id) return pack.path();
    return "";
}

TEST_CASE("what lives of a pack that is mostly dead is copied, and then the pack expires") {
    Changing life;
    auto repository = must(life.open());
    RetentionSurvey survey = life.survey(3, life.rewriting());
    REQUIRE(survey.rewrites.size() == 1);
    CHECK(survey.rewrites.front().pack.path() == life.first_pack());
    CHECK(survey.rewrites_win_bytes > 0);
    CHECK(survey.judged.empty());
    must(repository->condemn(survey));
    CHECK(must(repository->condemned_by(life.first_pack(), "")) == std::nullopt);
    auto before = life.view();

    auto rewrite = must(copied(*repository, survey.rewrites));
    REQUIRE(rewrite->has_pack());
    const pb::PackInfo made = rewrite->pack();
    CHECK(made.frame_count() == 1);
    CHECK(made.backup_id() == life.bases[0].backup_id());
    must(repository->enter_rewrite(std::move(rewrite)));
    for (bool with_index : {true, false}) {
        auto view = life.view(with_index);
        CHECK(pack_of(*view, *repository, "common") == made.path());
        require_whole(*view, std::nullopt);
        CHECK(must(view->verify_pack(made, false)) > 0);
    }
    // Who opened it before reads as he did.
    CHECK(pack_of(*before, *repository, "common") == life.first_pack());
    require_whole(*before, std::nullopt);

    survey = life.survey(3, life.rewriting());
    CHECK(survey.rewrites.empty());
    must(repository->condemn(survey));
    CHECK(must(repository->condemned_by(life.first_pack(), "")).has_value());
    CHECK(!must(repository->condemned_by(made.path(), "")));
    must(repository->delete_condemned(delete_now()));
    CHECK(packs_on_disk(life.root).contains(made.path()));
    CHECK(!packs_on_disk(life.root).contains(life.first_pack()));
    auto view = life.view();
    CHECK(must(view->backups("main")).size() == 2);
    require_whole(*view, std::nullopt);
    CHECK(paths_in(*view) == packs_on_disk(life.root));
    const RepositoryView::Totals totals = must(view->totals("main"));
    CHECK(totals.chunk_count == 5);
    // Nothing more to do; and an index made anew says the same.
    CHECK(life.survey(3, life.rewriting()).condemned().empty());
    view.reset();
    before.reset();
    repository.reset();
    repository = must(life.open(posix_file_system(), true));
    CHECK(pack_of(*life.view(), *repository, "common") == made.path());
    require_whole(*life.view(), std::nullopt);
}

TEST_CASE("a chunk that was stored anew meanwhile is left out of a copy") {
    Changing life;
    auto repository = must(life.open());
    const RetentionSurvey survey = life.survey(3, life.rewriting());
    REQUIRE(survey.rewrites.size() == 1);
    auto first = must(copied(*repository, survey.rewrites));
    auto second = must(repository->begin_rewrite(survey.rewrites));
    must(repository->enter_rewrite(std::move(first)));
    must(second->copy());
    CHECK(!second->has_pack());
    must(repository->enter_rewrite(std::move(second)));
    for (const std::string& path : life.paths_of(".tmp"))
        FAIL(path);
    require_whole(*life.view(), std::nullopt);
}

TEST_CASE("a base backup that shares a chunk of the old pack keeps it, whenever it does") {
    Changing life;
    auto repository = must(life.open());
    must(repository->condemn(life.survey(3, {})));
    const RetentionSurvey survey = life.survey(3, life.rewriting());
    auto rewrite = must(copied(*repository, survey.rewrites));
    // A dead chunk of the pack that is being copied comes to life again.
    const HistoryRecord history = *must(repository->current_history("main"));
    const std::size_t last = life.wal.commits.size() - 10;
    must(make_base(*repository, history, life.wal.commits[last], life.wal.commits[last + 1],
                   {content("common"), content("of 0.3")}));
    must(repository->enter_rewrite(std::move(rewrite)));
    CHECK(pack_of(*life.view(), *repository, "of 0.3") == life.first_pack());
    must(repository->condemn(life.survey(3, {})));
    must(repository->delete_condemned(delete_now()));
    CHECK(packs_on_disk(life.root).contains(life.first_pack()));
    require_whole(*life.view(), std::nullopt);
    require_whole(*life.view(false), std::nullopt);
}

TEST_CASE("a pack whose chunk is damaged is not rewritten, and stays") {
    Changing life;
    auto repository = must(life.open());
    const RetentionSurvey survey = life.survey(3, life.rewriting());
    REQUIRE(survey.rewrites.size() == 1);
    auto store = make_directory_store(posix_file_system(), life.root);
    const OpenedRepository opened = must(open_repository_files(*store, life.master));
    auto reader = must(PackReader::open(*store, survey.rewrites.front().pack, opened.keyring));
    flip_bit(life.root + "/" + life.first_pack(), reader->footer().frames(0).offset() + 70);
    auto rewrite = copied(*repository, survey.rewrites);
    REQUIRE(!rewrite);
    CHECK(rewrite.error().code == Errc::corrupt);
    CHECK(rewrite.error().message.find(life.first_pack()) != std::string::npos);
    CHECK(life.paths_of(".tmp").empty());
    must(repository->condemn(life.survey(3, {})));
    CHECK(!must(repository->condemned_by(life.first_pack(), "")));
}

// Retention as the agent does it, in one pass, after which another one goes on.
Result<> pass(FileSystem& files, Changing& life) {
    WV_TRY(auto repository, life.open(files));
    auto look = [&](std::optional<RetentionSurvey>& survey) -> Result<> {
        auto store = make_directory_store(posix_file_system(), life.root);
        WV_TRY(auto view, RepositoryView::open(*store, life.master, life.view_options()));
        WV_TRY(survey, survey_retention(*view, "main", life.rules(3), life.clock.now(), "", "",
                                        life.rewriting()));
        return repository->condemn(*survey);
    };
    std::optional<RetentionSurvey> survey;
    WV_CHECK(look(survey));
    for (const auto& group : rewrite_groups(survey->rewrites)) {
        WV_TRY(auto rewrite, copied(*repository, group));
        WV_CHECK(repository->enter_rewrite(std::move(rewrite)));
        WV_CHECK(look(survey));
    }
    WV_TRY(Deletions done, repository->delete_condemned(delete_now()));
    return done.more ? fail(Errc::busy, "there is more") : Result<>{};
}

TEST_CASE("wherever a rewriting is cut off, no chunk is lost and the next pass ends it") {
    Changing life;
    const std::string saved = life.directory / "saved";
    std::filesystem::copy(life.root, saved, std::filesystem::copy_options::recursive);
    std::uint64_t opening = 0;
    {
        FaultyFileSystem counting(posix_file_system(), 0, false);
        must(life.open(counting));
        opening = counting.operation_count();
    }
    unsigned cuts = 0, leftovers = 0;
    for (std::uint64_t at = opening + 1;; ++at) {
        std::filesystem::remove_all(life.root);
        std::filesystem::copy(saved, life.root, std::filesystem::copy_options::recursive);
        FaultyFileSystem faulty(posix_file_system(), at, at % 2 == 0);
        auto passed = pass(faulty, life);
        if (!faulty.fired()) {
            must(std::move(passed));
            break;
        }
        ++cuts;
        CAPTURE(at);
        require_whole(*life.view(at % 3 == 0), std::nullopt);
        const auto left = packs_on_disk(life.root);
        const auto known = paths_in(*life.view());
        for (const std::string& path : left)
            leftovers += path.find("rewritten-") != std::string::npos && !known.contains(path);
        must(pass(posix_file_system(), life));
        auto view = life.view();
        CHECK(must(view->backups("main")).size() == 2);
        CHECK(paths_in(*view) == packs_on_disk(life.root));
        CHECK(life.paths_of(".tmp").empty());
        CHECK(!packs_on_disk(life.root).contains(life.first_pack()));
        require_whole(*view, std::nullopt);
    }
    CHECK(cuts > 30);
    CHECK(leftovers > 0);
}

}  // namespace
}  // namespace walvault::storage
