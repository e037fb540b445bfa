#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "agent/thaw_job.h"
#include "agent/thaw_text.h"
#include "storage/s3_store.h"
#include "tests/support/fake_repository_view.h"
#include "tests/support/s3_imposter.h"
#include "tests/support/scratch_directory.h"

namespace walvault::agent {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using storage::ImposterFault;
using storage::ImposterRequest;
using storage::plan_thaw;
using storage::ThawItem;
using storage::ThawPlan;

// The machine's, moved on.
class MovedClock final : public Clock {
public:
    WallTime now() const override { return system_clock().now() + ahead; }
    SteadyTime steady_now() const override { return system_clock().steady_now() + ahead; }
    seconds ahead{0};
};

struct KilledHere {};

// A bucket of archived objects, its clock and ours moved by each wait.
struct Archive {
    ScratchDirectory scratch;
    storage::S3Imposter imposter;
    std::unique_ptr<storage::S3Store> store;
    MovedClock clock;
    ProgressLine progress{{.mode = ProgressMode::none, .verb = "restore", .sink = {}}, clock};
    ArchiveConfig config;
    int waits = 0;
    int killed_at_wait = 0;  // 0: never

    Archive() {
        write_raw_file(scratch / "key", as_bytes("access_key = AK\nsecret_key = SeCrEt\n"));
        REQUIRE(::chmod((scratch / "key").c_str(), 0600) == 0);
        ::setenv("no_proxy", "127.0.0.1", 1);
        storage::S3Options options;
        options.bucket = "bucket";
        options.endpoint = imposter.endpoint();
        options.credentials = "file:" + (scratch / "key");
        options.retry_for = seconds(0);
        store = storage::make_s3_store(posix_file_system(), options).value();
        config.poll_interval = hours(1);
        for (const std::string& name : names(20))
            REQUIRE(store->put(name, as_bytes(std::string(100, 'x'))).has_value());
    }
    static std::vector<std::string> names(int count) {
        std::vector<std::string> made;
        for (int i = 0; i < count; ++i)
            made.push_back("main/base/" + std::to_string(100 + i) + ".pack");
        return made;
    }
    ThawNeeds needs(int count) const {
        ThawNeeds needs;
        for (const std::string& name : names(count))
            needs.push_back(
                {.name = name, .kind = ThawItem::Kind::base, .size_bytes = 1, .state = {}});
        return needs;
    }
    std::string record() const { return thaw_record_path(scratch / "pgdata"); }
    Result<std::unique_ptr<ThawJob>> open() {
        ThawJob::Options options{.archive = config, .record_path = record()};
        options.clock = &clock;
        options.wait = [this](milliseconds time) {
            if (++waits == killed_at_wait) throw KilledHere();
            const auto whole = std::chrono::duration_cast<seconds>(time);
            clock.ahead += whole;
            imposter.advance(whole);
        };
        return ThawJob::open(*store, std::move(options));
    }
    std::size_t restore_requests() const {
        const auto all = imposter.requests();
        return static_cast<std::size_t>(std::ranges::count_if(
            all, [](const ImposterRequest& request) { return request.has("restore"); }));
    }
    bool all_readable(int count) {
        for (const std::string& name : names(count))
            if (!store->get(name, 0, 1)) return false;
        return true;
    }
    void check_paid_once(int count) const {
        CHECK(imposter.retrievals().size() == static_cast<std::size_t>(count));
        for (const auto& [name, times] : imposter.retrievals())
            CHECK(times == 1);
    }
};

TEST_CASE("what is archived is agreed to once, asked for, waited for, and can be read then") {
    Archive at;
    at.imposter.move_to_class("main/", "GLACIER");
    auto job = at.open().value();
    CHECK(job->has_archived_objects().value());
    ThawPlan plan = job->look(at.needs(20)).value();
    CHECK(plan.to_ask.size() == 20);
    CHECK(plan.ask_bytes == 2000);
    CHECK_FALSE(job->is_agreed(plan));
    CHECK(at.restore_requests() == 0);
    REQUIRE(job->agree(plan, "id").has_value());
    CHECK(job->is_agreed(plan));
    CHECK(at.restore_requests() == 0);
    REQUIRE(job->thaw(plan, at.progress).has_value());
    CHECK(at.waits == 4);
    CHECK(at.all_readable(20));
    CHECK(job->look(at.needs(20))->is_ready());
    at.check_paid_once(20);
    CHECK(posix_file_system().exists(at.record()).value());
    REQUIRE(job->finish().has_value());
    CHECK_FALSE(posix_file_system().exists(at.record()).value());
    REQUIRE(job->finish().has_value());
}

TEST_CASE("a job that is killed at any wait goes on, and neither asks nor pays twice") {
    for (int killed = 1; killed <= 4; ++killed) {
        INFO("at wait " << killed);
        Archive at;
        at.imposter.move_to_class("main/", "GLACIER");
        at.killed_at_wait = killed;
        {
            auto job = at.open().value();
            ThawPlan plan = job->look(at.needs(20)).value();
            REQUIRE(job->agree(plan, "id").has_value());
            CHECK_THROWS_AS(static_cast<void>(job->thaw(plan, at.progress)), KilledHere);
        }
        auto job = at.open().value();
        ThawPlan plan = job->look(at.needs(20)).value();
        CHECK(job->is_agreed(plan));
        CHECK(plan.waiting.size() == 20);
        REQUIRE(job->thaw(plan, at.progress).has_value());
        CHECK(at.all_readable(20));
        at.check_paid_once(20);
    }
}

TEST_CASE("where asking breaks off in the middle the rest is asked for without a question") {
    Archive at;
    at.imposter.move_to_class("main/", "GLACIER");
    auto left = std::make_shared<std::atomic<int>>(7);
    at.imposter.set_faults([left](const ImposterRequest& request) {
        const bool over = request.has("restore") && left->fetch_sub(1) <= 0;
        return over ? ImposterFault{ImposterFault::Kind::answer, 403, "AccessDenied"}
                    : ImposterFault{};
    });
    auto job = at.open().value();
    ThawPlan plan = job->look(at.needs(20)).value();
    REQUIRE(job->agree(plan, "id").has_value());
    CHECK(job->thaw(plan, at.progress).error().code == Errc::unavailable);
    CHECK(at.imposter.retrievals().size() == 7);
    at.imposter.set_faults({});
    job = at.open().value();
    plan = job->look(at.needs(20)).value();
    CHECK(plan.to_ask.size() == 13);
    CHECK(plan.waiting.size() == 7);
    CHECK(job->is_agreed(plan));
    REQUIRE(job->thaw(plan, at.progress).has_value());
    at.check_paid_once(20);
}

TEST_CASE("more than was agreed to, and what went again, is asked about again") {
    Archive at;
    at.imposter.move_to_class("main/", "GLACIER");
    auto job = at.open().value();
    ThawPlan plan = job->look(at.needs(10)).value();
    REQUIRE(job->agree(plan, "id").has_value());
    CHECK_FALSE(job->is_agreed(job->look(at.needs(11)).value()));
    REQUIRE(job->thaw(plan, at.progress).has_value());
    at.imposter.advance(hours(24 * 4));
    at.clock.ahead += hours(24 * 4);
    job = at.open().value();
    plan = job->look(at.needs(10)).value();
    CHECK(plan.to_ask.size() == 10);
    CHECK_FALSE(job->is_agreed(plan));
}

TEST_CASE("copies that would go before the others are thawed are made to stay") {
    Archive at;
    at.config.thaw.days = 1;
    at.imposter.move_to_class("main/base/100", "GLACIER");
    auto job = at.open().value();
    ThawPlan plan = job->look(at.needs(20)).value();
    CHECK(plan.to_ask.size() == 1);
    CHECK(plan.ready_count == 19);
    REQUIRE(job->agree(plan, "id").has_value());
    REQUIRE(job->thaw(plan, at.progress).has_value());
    // The rest takes two days more.
    at.imposter.move_to_class("main/base/1", "GLACIER");
    at.imposter.set_thaw_time(hours(48));
    job = at.open().value();
    plan = job->look(at.needs(20)).value();
    CHECK(plan.thawed.size() == 1);
    CHECK(plan.to_ask.size() == 19);
    REQUIRE(job->agree(plan, "id").has_value());
    REQUIRE(job->thaw(plan, at.progress).has_value());
    CHECK(at.all_readable(20));
    at.check_paid_once(20);
    CHECK(at.restore_requests() > 20);
}

TEST_CASE("copies that would go during the copying are made to stay when it begins") {
    Archive at;
    at.config.thaw.days = 1;
    at.imposter.move_to_class("main/", "GLACIER");
    auto job = at.open().value();
    ThawPlan plan = job->look(at.needs(20)).value();
    REQUIRE(job->agree(plan, "id").has_value());
    REQUIRE(job->thaw(plan, at.progress).has_value());
    at.imposter.advance(hours(13));
    at.clock.ahead += hours(13);
    job = at.open().value();
    CHECK(job->look(at.needs(20))->is_ready());
    { auto keeper = job->keep().value(); }
    at.imposter.advance(hours(20));
    CHECK(at.all_readable(20));
    at.check_paid_once(20);
}

TEST_CASE("a record of another store is refused, and one that cannot be read is no record") {
    Archive at;
    ThawRecord record{.repository = "id", .url = "s3://other", .objects = {}};
    REQUIRE(write_thaw_record(posix_file_system(), at.record(), record).has_value());
    CHECK(at.open().error().code == Errc::refused);
    for (const char* text : {"", "{", "[]", "{\"version\": 1}",
                             "{\"version\": 1, \"repository\": 7, \"url\": \"\", \"objects\": {}}",
                             "{\"version\": 1, \"repository\": \"\", \"url\": \"\", \"objects\": "
                             "{\"a\": {\"bytes\": -1}}}"}) {
        write_raw_file(at.record(), as_bytes(text));
        CHECK(at.open().error().code == Errc::corrupt);
    }
    write_raw_file(at.record(), as_bytes("{\"version\": 2}"));
    CHECK(at.open().error().code == Errc::unsupported);
}

TEST_CASE("a record is read as it was written") {
    ScratchDirectory scratch;
    const std::string path = thaw_record_path(scratch / "a/b");
    CHECK_FALSE(read_thaw_record(posix_file_system(), path)->has_value());
    ThawRecord record{.repository = "id", .url = "s3://b/p", .objects = {}};
    record.objects["x"] = {5, "GLACIER", WallTime(seconds(7))};
    record.objects["y"] = {6, "DEEP_ARCHIVE", {}};
    REQUIRE(write_thaw_record(posix_file_system(), path, record).has_value());
    const ThawRecord read = read_thaw_record(posix_file_system(), path)->value();
    CHECK(read.url == record.url);
    CHECK(read.objects.at("x").asked_at == WallTime(seconds(7)));
    CHECK(read.objects.at("x").size_bytes == 5);
    CHECK(read.objects.at("y").storage_class == "DEEP_ARCHIVE");
    CHECK_FALSE(read.objects.at("y").asked_at);
}

// --- what a restore needs
// ---------------------------------------------------------------------------

Id16 id16(int n) {
    Id16 id{};
    id[0] = static_cast<std::byte>(n);
    return id;
}
Id32 id32(int n) {
    Id32 id{};
    id[0] = static_cast<std::byte>(n);
    return id;
}
template <std::size_t N>
std::string text_of(const std::array<std::byte, N>& id) {
    return std::string(as_text(id));
}

struct Stored {
    storage::FakeRepositoryView view;
    StopPoint stop;

    Stored() {
        view.cluster_records = {{"main", 1, 400, 150000}};
        storage::HistoryRecord history{.cluster = "main",
                                       .id = id16(1),
                                       .timeline = 1,
                                       .start_lsn = Lsn{0},
                                       .end_lsn = Lsn{1000}};
        view.history_records = {history};
        for (int i = 0; i < 10; ++i) {
            pb::PackInfo pack;
            pack.set_path("main/wal/" + std::to_string(i) + (i == 9 ? ".tail" : ".pack"));
            pack.set_kind(pb::PACK_KIND_WAL);
            pack.set_history_id(text_of(id16(1)));
            pack.set_start_lsn(static_cast<std::uint64_t>(i) * 100);
            pack.set_end_lsn(static_cast<std::uint64_t>(i) * 100 + 100);
            view.pack_infos.push_back(pack);
        }
        for (int day = 1; day <= 3; ++day)
            add_base(day);
        stop.history = history;
        stop.base = view.backup_infos[1];
        stop.wal_from_lsn = Lsn{300};
        stop.wal_to_lsn = Lsn{501};
        // Base 2 shares a chunk of base 1, and has two of its own in one pack.
        pb::ManifestFile file;
        file.set_content_ids(text_of(id32(1)) + text_of(id32(2)) + text_of(id32(3)));
        view.files = {file};
        view.chunk_packs = {{id32(1), id16(101)}, {id32(2), id16(102)}, {id32(3), id16(102)}};
    }
    void add_base(int day) {
        const std::string id = "2026010" + std::to_string(day) + "T000000Z";
        pb::BackupInfo base;
        base.set_backup_id(id);
        base.set_cluster("main");
        base.set_history_id(text_of(id16(1)));
        base.set_manifest_path("main/base/" + id + ".manifest.pack");
        base.set_start_lsn(static_cast<std::uint64_t>(day) * 200 - 100);
        base.set_stop_lsn(static_cast<std::uint64_t>(day) * 200 - 50);
        base.set_stopped_at_us((1767225600LL + (day - 1) * 86400 + 60) * 1'000'000);
        view.backup_infos.push_back(base);
        for (bool manifest : {false, true}) {
            pb::PackInfo pack;
            pack.set_path(manifest ? base.manifest_path() : "main/base/" + id + ".pack");
            pack.set_kind(manifest ? pb::PACK_KIND_MANIFEST : pb::PACK_KIND_BASE);
            pack.set_file_id(text_of(id16(manifest ? 200 + day : 100 + day)));
            pack.set_backup_id(id);
            view.pack_infos.push_back(pack);
        }
    }
    static std::vector<std::string> names(const ThawNeeds& needs) {
        std::vector<std::string> names;
        for (const ThawItem& item : needs)
            names.push_back(item.name);
        std::ranges::sort(names);
        return names;
    }
};

const std::vector<std::string> kWal{"main/wal/3.pack", "main/wal/4.pack", "main/wal/5.pack"};

std::vector<std::string> with_wal(std::vector<std::string> names) {
    names.insert(names.end(), kWal.begin(), kWal.end());
    return names;
}

TEST_CASE("a restore needs the packs of its chunks, its manifest and the WAL between") {
    Stored at;
    CHECK(Stored::names(needs_of_restore(at.view, at.stop, at.stop.wal_to_lsn, false).value()) ==
          with_wal({"main/base/20260101T000000Z.pack", "main/base/20260102T000000Z.manifest.pack",
                    "main/base/20260102T000000Z.pack"}));
    CHECK(segment_end(Lsn{501}, 400) == Lsn{800});
    CHECK(segment_end(Lsn{800}, 400) == Lsn{800});
    at.view.chunk_packs[id32(1)] = id16(102);
    CHECK(
        Stored::names(needs_of_restore(at.view, at.stop, at.stop.wal_to_lsn, false).value()) ==
        with_wal({"main/base/20260102T000000Z.manifest.pack", "main/base/20260102T000000Z.pack"}));
}

TEST_CASE("where it cannot be told which packs those are, all that can be are needed") {
    Stored at;
    at.view.chunk_packs.erase(id32(1));
    const auto by_then =
        with_wal({"main/base/20260101T000000Z.pack", "main/base/20260102T000000Z.manifest.pack",
                  "main/base/20260102T000000Z.pack"});
    CHECK(Stored::names(needs_of_restore(at.view, at.stop, at.stop.wal_to_lsn, false).value()) ==
          by_then);
    CHECK(needs_of_restore(at.view, at.stop, at.stop.wal_to_lsn, true)->size() ==
          by_then.size() + 1);
    at.view.manifest_error = Error{Errc::archived, "archived"};
    CHECK(Stored::names(needs_of_restore(at.view, at.stop, at.stop.wal_to_lsn, false).value()) ==
          by_then);
    at.view.manifest_error = Error{Errc::corrupt, "damaged"};
    CHECK(needs_of_restore(at.view, at.stop, at.stop.wal_to_lsn, false).error().code ==
          Errc::corrupt);
}

TEST_CASE("where the target lies in archived WAL, what leads there is needed at once") {
    Stored at;
    CHECK(Stored::names(needs_to_look(at.view, "main", "main/wal/5.pack", false).value()) ==
          std::vector<std::string>{
              "main/base/20260101T000000Z.pack", "main/base/20260102T000000Z.manifest.pack",
              "main/base/20260102T000000Z.pack", "main/wal/0.pack", "main/wal/1.pack",
              "main/wal/2.pack", "main/wal/3.pack", "main/wal/4.pack", "main/wal/5.pack",
              "main/wal/5.pack", "main/wal/6.pack", "main/wal/7.pack"});
    CHECK(Stored::names(needs_to_look(at.view, "main", "ledger/1", false).value()) ==
          std::vector<std::string>{"ledger/1"});
}

TEST_CASE("a thaw is told with its time and its cost, or that there are no prices") {
    std::vector<ThawItem> items{{"a",
                                 ThawItem::Kind::base,
                                 2'000'000'000,
                                 {storage::ArchiveState::Kind::archived, "GLACIER", 0, {}}}};
    storage::ThawPrices prices;
    std::string text = thaw_text(plan_thaw(items, prices, {}), {});
    CHECK(text.find("no prices configured") != std::string::npos);
    CHECK(text.find("5 h 0 min at standard speed, as S3 names it") != std::string::npos);
    prices.thaws[{"GLACIER", storage::ThawSpeed::standard}] = {0.01, 0.05, hours(4)};
    prices.egress_per_gb = 0.09;
    const ThawPlan plan = plan_thaw(items, prices, {});
    text = thaw_text(plan, {});
    CHECK(text.find("0.02 USD for thawing, 0.18 USD for 1.86 GiB going out") != std::string::npos);
    const auto json = thaw_json(plan, {});
    CHECK(json["objects"][0]["name"] == "a");
    CHECK(json["cost"]["egress"].get<double>() == doctest::Approx(0.18));
    CHECK(json["ready_after_s"] == 4 * 3600);
    CHECK(thaw_text(plan_thaw({}, {}, {}), {}).empty());
}

}  // namespace
}  // namespace walvault::agent
