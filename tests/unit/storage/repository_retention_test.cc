#include <doctest/doctest.h>

#include "storage/lease.h"
#include "tests/support/faulty_file_system.h"
#include "tests/unit/storage/life.h"

namespace walvault::storage {
namespace {

using namespace std::chrono_literals;

// What a reader is told, of which index and ledger must say the same.
std::string answers_of(RepositoryView& view) {
    std::string text;
    for (const std::string& path : paths_in(view))
        text += path + "\n";
    for (const pb::BackupInfo& base : must(view.backups("main")))
        text += base.backup_id() + "\n";
    for (const CondemnedThere& each : must(view.condemned("main", "")))
        text += "condemned " + each.pack.path() + " " + to_utc_text(each.at) + "\n";
    const RepositoryView::Totals totals = must(view.totals("main"));
    for (std::uint64_t number :
         {totals.wal_plain_bytes, totals.wal_stored_bytes, totals.base_plain_bytes,
          totals.base_stored_bytes, totals.chunk_count, totals.pack_count})
        text += std::to_string(number) + " ";
    const HistoryRecord history = must(view.histories("main")).back();
    text += to_string(history.end_lsn) + to_utc_text(history.last_commit_at) +
            to_string(must(view.expired_until(history.id)));
    for (const MarkRecord& mark : must(view.marks("main", {}, {}, {})))
        text += " " + to_string(Lsn{mark.mark.start_lsn()});
    auto first = must(view.first_transaction_after(history.id, WallTime{}));
    return text + (first ? to_string(first->start_lsn) : "none");
}

TEST_CASE("what expires is condemned at first, out of sight, and deleted when its time is over") {
    Life life;
    const std::size_t packs_before = life.paths_of(".pack").size();
    const RetentionSurvey survey = life.survey(life.rules(2));
    CHECK(!survey.plan.backups[0].keep);
    CHECK(!survey.plan.backups[1].keep);
    CHECK(survey.plan.backups[2].keep);
    auto repository = must(life.open());
    must(repository->condemn(survey));
    {
        auto view = life.view();
        CHECK(must(view->backups("main")).size() == 3);
        CHECK(must(view->expired_until(must(view->histories("main")).back().id)) > Lsn{});
        require_whole(*view, Lsn{life.bases[2].start_lsn()}.round_down(WalBuilder::kSegmentBytes));
        CHECK(life.paths_of(".pack").size() == packs_before);
        CHECK(answers_of(*view) == answers_of(*life.view(false)));
        // The bases share the first one's pack for "common" and "even": it stays. That of the
        // second holds nothing that is needed.
        std::set<std::string> gone;
        for (const CondemnedThere& each : must(view->condemned("main", "")))
            gone.insert(each.pack.path());
        CHECK(!gone.contains("main/base/" + life.bases[0].backup_id() + "_00001.pack"));
        CHECK(gone.contains("main/base/" + life.bases[1].backup_id() + "_00001.pack"));
        CHECK(gone.contains(life.bases[0].manifest_path()));
    }
    // Nothing in a condemned pack is shared any more.
    auto has = [&](const char* content) {
        return must(repository->has_chunk(
            content_id(repository->content_key(), as_bytes(std::string(content)))));
    };
    CHECK(has("common"));
    CHECK(!has("only 1"));
    CHECK(has("old"));

    DeletionOrder later = delete_now();
    later.grace = 24h;
    Deletions done = must(repository->delete_condemned(later));
    CHECK(done.pack_count == 0);
    CHECK(done.condemned_count > 5);
    CHECK(life.paths_of(".pack").size() == packs_before);
    const std::uint64_t condemned = done.condemned_count;
    done = must(repository->delete_condemned(delete_now(2)));
    CHECK(done.pack_count == 2);
    CHECK(done.more);
    done = must(repository->delete_condemned(delete_now()));
    CHECK(done.pack_count == condemned - 2);
    CHECK(!done.more);
    CHECK(life.paths_of(".pack").size() == packs_before - condemned);
    auto view = life.view();
    CHECK(paths_in(*view) == packs_on_disk(life.root));
    CHECK(answers_of(*view) == answers_of(*life.view(false)));
    require_whole(*view, Lsn{life.bases[2].start_lsn()}.round_down(WalBuilder::kSegmentBytes));
    // A second look finds nothing more, and an index made anew agrees.
    const RetentionSurvey again = life.survey(life.rules(2));
    CHECK(again.condemned().empty());
    repository.reset();
    const std::string before = answers_of(*view);
    view.reset();
    must(life.open(posix_file_system(), true));
    CHECK(answers_of(*life.view()) == before);
}

TEST_CASE("a history goes on in its open tail when all packs just before it have expired") {
    Life life;
    auto repository = must(life.open());
    auto writer = std::make_unique<HistoryWriter>(*repository, life.wal);
    must(writer->begin());
    life.wal.grow(78, 200'000);
    must(writer->store(50'000, 1'000'000));
    RetentionSurvey survey = life.survey(life.rules(0));
    REQUIRE(survey.wal_packs.size() > 4);
    for (std::size_t i = 0; i < survey.wal_packs.size(); ++i)
        survey.plan.wal_packs[i] = {i < 2, "as for a single base"};
    must(repository->condemn(survey));
    for (bool with_index : {true, false}) {
        const HistoryRecord history = must(life.view(with_index)->histories("main")).back();
        CHECK(history.end_lsn == life.wal.builder.end());
    }
    // As the agent finds it after a crash.
    writer.reset();
    repository.reset();
    repository = must(life.open());
    CHECK(must(repository->current_history("main"))->end_lsn == life.wal.builder.end());
}

TEST_CASE("a chunk whose pack is condemned is stored anew, and stays when the old pack goes") {
    Life life;
    auto repository = must(life.open());
    must(repository->condemn(life.survey(life.rules(2))));
    const HistoryRecord history = *must(repository->current_history("main"));
    const std::size_t last = life.wal.commits.size() - 10;
    must(make_base(*repository, history, life.wal.commits[last], life.wal.commits[last + 1],
                   {"common", "only 1"}));
    must(repository->delete_condemned(delete_now()));
    require_whole(*life.view(), std::nullopt);
    require_whole(*life.view(false), std::nullopt);
}

TEST_CASE("what changed since retention looked is not condemned by what it saw") {
    Life life;
    auto repository = must(life.open());
    const RetentionSurvey survey = life.survey(life.rules(2));
    const std::string running = must(repository->begin_backup("main"));
    auto condemned = repository->condemn(survey);
    REQUIRE(!condemned);
    CHECK(condemned.error().code == Errc::busy);
    // While it runs, it may share any chunk: only WAL and bases are judged.
    const RetentionSurvey meanwhile = life.survey(life.rules(2));
    CHECK(!meanwhile.bases_unjudged.empty());
    for (const RetentionVerdict& verdict : meanwhile.base_verdicts)
        CHECK(verdict.keep);
    must(repository->condemn(meanwhile));
    CHECK(must(life.view()->backups("main")).size() == 3);
    must(repository->fail_backup("main", running, "test"));
    auto stale = repository->condemn(survey);
    CHECK(!stale);
    must(repository->condemn(life.survey(life.rules(2))));
    must(repository->delete_condemned(delete_now()));
    CHECK(paths_in(*life.view()) == packs_on_disk(life.root));
}

TEST_CASE("a hold is in ledger and index until it is released, and no survey from before counts") {
    Life life;
    const RetentionSurvey before = life.survey(life.rules(2));
    CHECK(!before.plan.backups[1].keep);
    auto repository = must(life.open());
    pb::HoldPlaced wanted;
    wanted.set_cluster("main");
    wanted.set_backup_id(life.bases[1].backup_id());
    wanted.set_reason("case 4711");
    const std::string id = must(repository->place_hold(wanted, "hold by alice"));
    auto condemned = repository->condemn(before);
    REQUIRE(!condemned);
    CHECK(condemned.error().code == Errc::busy);
    const RetentionSurvey survey = life.survey(life.rules(2));
    CHECK(survey.plan.backups[1].reason == "held by " + id + ": case 4711");
    CHECK(!survey.plan.backups[0].keep);
    must(repository->condemn(survey));
    for (bool with_index : {true, false}) {
        const auto holds = must(life.view(with_index)->holds("main"));
        REQUIRE(holds.size() == 1);
        CHECK(holds[0].id == id);
        CHECK(holds[0].backup_id == life.bases[1].backup_id());
        CHECK(holds[0].placed_by == "hold by alice");
        CHECK(!holds[0].until);
    }
    pb::HoldReleased released;
    released.set_cluster("main");
    released.set_hold_id("H1");
    auto unknown = repository->release_hold(released, "test");
    REQUIRE(!unknown);
    CHECK(unknown.error().code == Errc::not_found);
    released.set_hold_id(id);
    must(repository->release_hold(released, "test"));
    CHECK(must(life.view()->holds("main")).empty());
    CHECK(must(life.view(false)->holds("main")).empty());
    // The first one is condemned by now.
    const RetentionSurvey after = life.survey(life.rules(2));
    CHECK(after.backups[0].backup_id() == life.bases[1].backup_id());
    CHECK(!after.plan.backups[0].keep);
}

TEST_CASE("a lease older than the condemnation keeps what was condemned until it is let go") {
    Life life;
    auto repository = must(life.open());
    auto store = make_directory_store(posix_file_system(), life.root);
    auto lease = must(HeldLease::take(*store, "a test", system_clock()));
    REQUIRE(must(valid_leases(*store, system_clock().now())).size() == 1);
    CHECK(must(valid_leases(*store, system_clock().now())).front().who == "a test");
    CHECK(must(valid_leases(*store, system_clock().now() + 2h)).empty());
    auto reader = life.view();
    must(repository->condemn(life.survey(life.rules(2))));
    DeletionOrder held = delete_now();
    held.leases = must(valid_leases(*store, system_clock().now()));
    Deletions done = must(repository->delete_condemned(held));
    CHECK(done.pack_count == 0);
    CHECK(done.waits_for == "a test");
    // Who began before goes on as if nothing had happened; so does who asks for what is condemned.
    CHECK(must(reader->backups("main")).size() == 5);
    require_whole(*reader, must(reader->histories("main")).back().start_lsn);
    RepositoryView::Options all = life.view_options();
    all.with_condemned = true;
    auto everything = must(RepositoryView::open(*store, life.master, all));
    const HistoryRecord history = must(everything->histories("main")).back();
    must(everything->require_coverage(history.id, history.start_lsn, history.end_lsn));
    lease.reset();
    CHECK(must(valid_leases(*store, system_clock().now())).empty());
    done = must(repository->delete_condemned(delete_now()));
    CHECK(done.pack_count > 0);
    must(store->put("lease/strange", as_bytes(std::string("?"))));
    auto strange = valid_leases(*store, system_clock().now());
    REQUIRE(!strange);
    CHECK(strange.error().message.find("lease/strange") != std::string::npos);
}

TEST_CASE("a lease is renewed while it is held") {
    Life life;
    auto store = make_directory_store(posix_file_system(), life.root);
    auto lease = must(HeldLease::take(*store, "a test", system_clock(), {}, 1s));
    const Lease first = must(valid_leases(*store, system_clock().now())).front();
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    bool renewed = false;
    while (!renewed && std::chrono::steady_clock::now() < deadline) {
        const auto held = must(valid_leases(*store, system_clock().now()));
        renewed = !held.empty() && held.front().until > first.until;
        if (renewed) CHECK(held.front().since == first.since);
    }
    CHECK(renewed);
}

// One pass, as the agent makes it.
Result<> pass(FileSystem& files, const std::string& root, Life& life) {
    RepositoryOptions options;
    WV_TRY(auto repository, Repository::open(files, root, life.master, system_clock(), options));
    auto store = make_directory_store(posix_file_system(), root);
    WV_TRY(auto view, RepositoryView::open(*store, life.master,
                                           {.index_directory = root + "/index",
                                            .scratch_directory = life.directory.path()}));
    WV_TRY(RetentionSurvey survey,
           survey_retention(*view, "main", life.rules(3), life.wal.commits.back().at));
    WV_CHECK(repository->condemn(survey));
    WV_TRY(Deletions done, repository->delete_condemned(delete_now()));
    if (done.more) return fail(Errc::busy, "there is more");
    return {};
}

TEST_CASE(
    "wherever a pass of retention is cut off, nothing needed is lost and the next one ends it") {
    Life life;
    const std::string saved = life.directory / "saved";
    std::filesystem::copy(life.root, saved, std::filesystem::copy_options::recursive);
    const Lsn anchor = Lsn{life.bases[3].start_lsn()}.round_down(WalBuilder::kSegmentBytes);
    std::uint64_t opening = 0;
    {
        FaultyFileSystem counting(posix_file_system(), 0, false);
        must(Repository::open(counting, life.root, life.master, system_clock(), {}));
        opening = counting.operation_count();
    }
    unsigned cuts = 0;
    for (std::uint64_t at = opening + 1;; ++at) {
        std::filesystem::remove_all(life.root);
        std::filesystem::copy(saved, life.root, std::filesystem::copy_options::recursive);
        FaultyFileSystem faulty(posix_file_system(), at, at % 2 == 0);
        auto passed = pass(faulty, life.root, life);
        if (!faulty.fired()) {
            must(std::move(passed));
            break;
        }
        ++cuts;
        CAPTURE(at);
        require_whole(*life.view(at % 3 == 0), anchor);
        must(pass(posix_file_system(), life.root, life));
        auto view = life.view();
        CHECK(must(view->backups("main")).size() == 2);
        CHECK(paths_in(*view) == packs_on_disk(life.root));
        require_whole(*view, anchor);
    }
    CHECK(cuts > 20);
}

}  // namespace
}  // namespace walvault::storage
