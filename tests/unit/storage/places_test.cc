// What lies where: the repository's directory and its tiers, each with a retention of its own.
#include <random>

#include "storage/index_retention.h"
#include "storage/layered_store.h"
#include "storage/offloader.h"
#include "storage/read_back.h"
#include "storage/tier_store.h"
#include "tests/support/cut_store.h"
#include "tests/unit/storage/life.h"

namespace walvault::storage {
namespace {

using namespace std::chrono_literals;

// A tier of a life in a directory of its own.
struct Tier {
    std::string name;
    ScratchDirectory directory;
    std::unique_ptr<ObjectStore> objects =
        make_directory_store(posix_file_system(), directory.path());

    explicit Tier(std::string called) : name(std::move(called)) {}
    std::unique_ptr<ObjectStore> reader() const {
        return make_tier_store(make_directory_store(posix_file_system(), directory.path()));
    }
};

struct Places : Life {
    std::unique_ptr<ObjectStore> repository_store = make_directory_store(posix_file_system(), root);
    std::vector<std::unique_ptr<Tier>> tiers;

    Tier& add(Repository& repository, const std::string& name) {
        tiers.push_back(std::make_unique<Tier>(name));
        must(initialize_tier(*repository_store, *tiers.back()->objects, master, name));
        must(repository.add_place(name, true));
        return *tiers.back();
    }
    std::unique_ptr<Offloader> offloader(Repository& repository, const Tier& tier,
                                         ObjectStore& to) {
        return must(Offloader::open(
            *repository_store, to, master,
            {.name = tier.name, .keeps = [&repository, &tier](const pb::PackInfo& pack) {
                 return repository.keeps(pack, tier.name);
             }}));
    }
    void offload(Repository& repository, const Tier& tier) {
        const OffloadSnapshot snapshot{.ledger_sequence = repository.ledger_sequence(),
                                       .tails = {}};
        CHECK(must(offloader(repository, tier, *tier.objects)->offload(snapshot, always))
                  .is_complete);
    }
    std::unique_ptr<ObjectStore> layered() {
        std::vector<std::unique_ptr<ObjectStore>> further;
        for (const auto& tier : tiers)
            further.push_back(tier->reader());
        return make_layered_store(make_directory_store(posix_file_system(), root),
                                  std::move(further));
    }
    std::unique_ptr<RepositoryView> open_view(std::unique_ptr<ObjectStore> from,
                                              std::optional<std::string> place,
                                              bool with_index = true) {
        view_stores.push_back(std::move(from));
        RepositoryView::Options options = view_options(with_index);
        options.is_tier = place && !place->empty() && !with_index;
        options.place = std::move(place);
        return must(RepositoryView::open(*view_stores.back(), master, options));
    }
    // What the host has, wherever it lies.
    std::unique_ptr<RepositoryView> anywhere(bool with_index = true) {
        return open_view(layered(), std::nullopt, with_index);
    }
    std::unique_ptr<RepositoryView> here(bool with_index = true) {
        return open_view(make_directory_store(posix_file_system(), root), "", with_index);
    }
    // As a machine sees a tier that has nothing else.
    std::unique_ptr<RepositoryView> there(const Tier& tier) {
        return open_view(tier.reader(), tier.name, false);
    }
    RetentionSurvey survey_of(const std::string& place, const RetentionRules& chosen) {
        auto view = open_view(layered(), place);
        return must(survey_retention(*view, "main", chosen, wal.commits.back().at, {}, place));
    }
    // Of what is condemned here and kept by tiers, what each of them has.
    std::map<std::string, std::vector<std::string>> proved(Repository& repository) {
        std::map<std::string, std::vector<std::string>> paths;
        for (const CondemnedThere& each : must(repository.condemned(""))) {
            bool all = true;
            for (const auto& tier : tiers)
                if (std::ranges::find(each.kept_at, tier->name) != each.kept_at.end())
                    all = all && read_back(*repository_store, *tier->objects, each.pack, 12'345);
            if (all) paths[each.pack.path()] = each.kept_at;
        }
        return paths;
    }
    Lsn anchor(std::size_t base) const {
        return Lsn{bases[base].start_lsn()}.round_down(WalBuilder::kSegmentBytes);
    }
};

TEST_CASE("what the directory lets go is read from the tier that keeps it") {
    Places places;
    auto repository = must(places.open());
    const Tier& tier = places.add(*repository, "second");
    must(repository->condemn(places.survey_of("", places.rules(3))));
    // Out of sight here, and to be seen all the same.
    CHECK(must(places.here()->backups("main")).size() == 2);
    CHECK(must(places.anywhere()->backups("main")).size() == 5);
    // Before the tier has it, it stays.
    const auto before = packs_on_disk(places.root);
    DeletionOrder order = delete_now();
    order.proved = places.proved(*repository);
    CHECK(order.proved.empty());
    Deletions done = must(repository->delete_condemned(order));
    CHECK(done.pack_count == 0);
    CHECK(done.waits_for.find("second") != std::string::npos);
    CHECK(packs_on_disk(places.root) == before);

    places.offload(*repository, tier);
    order.proved = places.proved(*repository);
    done = must(repository->delete_condemned(order));
    CHECK(done.pack_count > 5);
    CHECK(done.waits_for.empty());
    CHECK(packs_on_disk(places.root).size() == before.size() - done.pack_count);
    CHECK(packs_on_disk(tier.directory.path()) == before);
    require_whole(*places.here(), places.anchor(3));
    const auto host = places.anywhere();
    CHECK(must(host->backups("main")).size() == 5);
    const HistoryRecord history = must(host->histories("main")).back();
    CHECK(must(host->expired_until(history.id)) == Lsn{});
    require_whole(*host, history.start_lsn);
    CHECK(paths_in(*host) == before);
    CHECK(paths_in(*places.here()) == packs_on_disk(places.root));
    require_whole(*places.there(tier), history.start_lsn);
    places.offload(*repository, tier);
    CHECK(must(places.there(tier)->backups("main")).size() == 5);
    CHECK(packs_on_disk(tier.directory.path()) == before);

    // An index that is made anew takes the footers from where the packs are.
    const auto marks = must(host->marks("main", {}, {}, {})).size();
    repository.reset();
    RepositoryOptions options;
    options.rebuild_index = true;
    options.packs_store = places.layered();
    must(
        Repository::open(posix_file_system(), places.root, places.master, system_clock(), options));
    const auto again = places.anywhere();
    CHECK(must(again->marks("main", {}, {}, {})).size() == marks);
    CHECK(paths_in(*again) == before);
    require_whole(*again, history.start_lsn);
    require_whole(*places.anywhere(false), history.start_lsn);
}

TEST_CASE("an index that is made anew finds a chunk where it was stored last") {
    Places places;
    auto repository = must(places.open());
    const Tier& tier = places.add(*repository, "second");
    must(repository->condemn(places.survey_of("", places.rules(3))));
    places.offload(*repository, tier);
    DeletionOrder order = delete_now();
    order.proved = places.proved(*repository);
    REQUIRE(must(repository->delete_condemned(order)).waits_for.empty());
    // What the tier alone has of it is read behind everything that lies here.
    const HistoryRecord history = *must(repository->current_history("main"));
    const std::size_t last = places.wal.commits.size() - 10;
    must(make_base(*repository, history, places.wal.commits[last], places.wal.commits[last + 1],
                   {"common", "only 1"}));
    repository.reset();
    RepositoryOptions options;
    options.rebuild_index = true;
    options.packs_store = places.layered();
    repository = must(
        Repository::open(posix_file_system(), places.root, places.master, system_clock(), options));
    auto alone = places.open_view(make_directory_store(posix_file_system(), places.root), "");
    require_whole(*alone, std::nullopt);
    for (const RetentionVerdict& verdict : places.survey_of("", places.rules(3)).base_verdicts)
        CHECK(verdict.keep);
}

TEST_CASE("a pack that the tier has lost, or has otherwise, stays here") {
    Places places;
    auto repository = must(places.open());
    const Tier& tier = places.add(*repository, "second");
    places.offload(*repository, tier);
    must(repository->condemn(places.survey_of("", places.rules(3))));
    std::vector<CondemnedThere> condemned = must(repository->condemned(""));
    REQUIRE(condemned.size() > 3);
    const pb::PackInfo lost = condemned[0].pack;
    const pb::PackInfo longer = condemned[1].pack;
    auto manifest = std::find_if(condemned.begin() + 2, condemned.end(), [](const auto& each) {
        return each.pack.kind() == pb::PACK_KIND_MANIFEST;
    });
    REQUIRE(manifest != condemned.end());
    const pb::PackInfo other = manifest->pack;
    must(tier.objects->remove(lost.path()));
    auto bytes = must(tier.objects->get(longer.path(), 0, longer.stored_bytes()));
    bytes.push_back(std::byte{0});
    must(tier.objects->remove(longer.path()));
    must(tier.objects->put(longer.path(), bytes));
    bytes = must(tier.objects->get(other.path(), 0, ~0ull));
    bytes.back() ^= std::byte{1};
    must(tier.objects->remove(other.path()));
    must(tier.objects->put(other.path(), bytes));
    for (const pb::PackInfo* pack : {&lost, &longer, &other}) {
        auto said = read_back(*places.repository_store, *tier.objects, *pack, 7);
        REQUIRE(!said);
        CHECK(said.error().code == Errc::corrupt);
        CHECK(said.error().message.find(pack->path()) != std::string::npos);
    }
    DeletionOrder order = delete_now();
    order.proved = places.proved(*repository);
    const Deletions done = must(repository->delete_condemned(order));
    CHECK(done.pack_count == condemned.size() - 3);
    CHECK(done.condemned_count == 3);
    CHECK(packs_on_disk(places.root).contains(lost.path()));
    CHECK(packs_on_disk(places.root).contains(longer.path()));
    CHECK(packs_on_disk(places.root).contains(other.path()));
}

TEST_CASE("a tier that cannot be asked is no proof of absence") {
    Places places;
    auto repository = must(places.open());
    const Tier& tier = places.add(*repository, "second");
    places.offload(*repository, tier);
    std::vector<std::unique_ptr<ObjectStore>> further;
    further.push_back(make_directory_store(posix_file_system(), tier.directory / "away"));
    auto store = make_layered_store(make_directory_store(posix_file_system(), places.root),
                                    std::move(further));
    auto asked = store->info("main/base/none.pack");
    REQUIRE(!asked);
    CHECK(asked.error().code == Errc::unavailable);
    CHECK(must(places.layered()->list("")).size() ==
          must(places.repository_store->list("")).size());
    CHECK(places.layered()->info("main/base/none.pack").error().code == Errc::not_found);
    CHECK(store->info("ledger/none").error().code == Errc::not_found);
}

TEST_CASE("a tier has a retention of its own") {
    Places places;
    auto repository = must(places.open());
    const Tier& tier = places.add(*repository, "second");
    places.offload(*repository, tier);
    const auto all = packs_on_disk(places.root);
    must(repository->condemn(places.survey_of("second", places.rules(2))));
    DeletionOrder order = delete_now();
    order.place = "second";
    const Deletions done = must(repository->delete_condemned(order));
    CHECK(done.pack_count > 5);
    // The objects go when the tier's ledger has the entry.
    CHECK(packs_on_disk(tier.directory.path()) == all);
    places.offload(*repository, tier);
    CHECK(packs_on_disk(tier.directory.path()).size() == all.size() - done.pack_count);
    CHECK(packs_on_disk(places.root) == all);
    const auto far = places.there(tier);
    CHECK(must(far->backups("main")).size() == 3);
    CHECK(paths_in(*far) == packs_on_disk(tier.directory.path()));
    require_whole(*far, places.anchor(2));
    CHECK(must(places.here()->backups("main")).size() == 5);
    require_whole(*places.here(), must(far->histories("main")).back().start_lsn);
    // What is condemned at one place is not shared: the other's next base would lack it there.
    CHECK(!must(repository->has_chunk(
        content_id(repository->content_key(), as_bytes(std::string("only 1"))))));
    // Then here as well: it is gone from the index.
    must(repository->condemn(places.survey_of("", places.rules(2))));
    must(repository->delete_condemned(delete_now()));
    CHECK(paths_in(*places.anywhere()) == packs_on_disk(places.root));
    CHECK(must(places.anywhere()->backups("main")).size() == 3);
    CHECK(packs_on_disk(places.root) == packs_on_disk(tier.directory.path()));
}

TEST_CASE("packs that expired before a tier saw them never go there") {
    Places places;
    auto repository = must(places.open());
    must(repository->condemn(places.survey_of("", places.rules(1))));
    must(repository->delete_condemned(delete_now()));
    const Tier& tier = places.add(*repository, "late");
    must(repository->condemn(places.survey_of("late", places.rules(3))));
    places.offload(*repository, tier);
    const auto far = places.there(tier);
    CHECK(must(far->backups("main")).size() == 2);
    CHECK(paths_in(*far) == packs_on_disk(tier.directory.path()));
    CHECK(packs_on_disk(tier.directory.path()).size() < packs_on_disk(places.root).size());
    require_whole(*far, places.anchor(3));
    require_whole(*places.anywhere(), places.anchor(1));
}

TEST_CASE("what only a removed tier had does not count any more") {
    Places places;
    auto repository = must(places.open());
    const Tier& tier = places.add(*repository, "second");
    places.offload(*repository, tier);
    must(repository->condemn(places.survey_of("", places.rules(3))));
    DeletionOrder order = delete_now();
    order.proved = places.proved(*repository);
    must(repository->delete_condemned(order));
    CHECK(must(places.anywhere()->backups("main")).size() == 5);
    CHECK(repository->remove_place("third").error().code == Errc::not_found);
    must(repository->remove_place("second"));
    places.tiers.clear();
    CHECK(must(places.anywhere()->backups("main")).size() == 2);
    CHECK(paths_in(*places.anywhere()) == packs_on_disk(places.root));
    const auto totals = must(places.anywhere()->totals("main"));
    CHECK(totals.pack_count == packs_on_disk(places.root).size());
    require_whole(*places.anywhere(), places.anchor(3));
    require_whole(*places.anywhere(false), places.anchor(3));
}

TEST_CASE("a copy of the directory has no name") {
    Places places;
    auto repository = must(places.open());
    ScratchDirectory scratch;
    auto copy = make_directory_store(posix_file_system(), scratch.path());
    must(initialize_tier(*places.repository_store, *copy, places.master, ""));
    auto offloader = must(Offloader::open(*places.repository_store, *copy, places.master, {}));
    const OffloadSnapshot snapshot{.ledger_sequence = repository->ledger_sequence(), .tails = {}};
    CHECK(must(offloader->offload(snapshot, always)).is_complete);
    CHECK(!must(read_tier_name(*copy)));
    auto named = initialize_tier(*places.repository_store, *copy, places.master, "second");
    must(std::move(named));
    CHECK(initialize_tier(*places.repository_store, *copy, places.master, "").error().code ==
          Errc::refused);
}

TEST_CASE("a tier keeps its name") {
    Places places;
    auto repository = must(places.open());
    const Tier& tier = places.add(*repository, "second");
    auto renamed = initialize_tier(*places.repository_store, *tier.objects, places.master, "other");
    REQUIRE(!renamed);
    CHECK(renamed.error().code == Errc::refused);
    auto offloader = must(
        Offloader::open(*places.repository_store, *tier.objects, places.master, {.name = "other"}));
    CHECK(offloader->offload({}, always).error().code == Errc::refused);
    CHECK(must(read_tier_name(*tier.objects)) == "second");
    CHECK(!must(read_tier_name(*places.repository_store)));
    must(tier.objects->remove("tier"));
    must(tier.objects->put("tier", as_bytes(std::string("WVTIER1\nsec/ond\n"))));
    CHECK(read_tier_name(*tier.objects).error().code == Errc::corrupt);
}

TEST_CASE("a tier that is empty again, or has the name of one that is no more, is refused") {
    Places places;
    auto repository = must(places.open());
    const Tier& tier = places.add(*repository, "second");
    places.offload(*repository, tier);
    must(repository->add_place("second", false));
    auto emptied = repository->add_place("second", true);
    REQUIRE(!emptied);
    CHECK(emptied.error().code == Errc::refused);
    CHECK(emptied.error().hint.find("repo remove second") != std::string::npos);
    must(repository->remove_place("second"));
    auto again = repository->add_place("second", true);
    REQUIRE(!again);
    CHECK(again.error().code == Errc::refused);
    must(repository->add_place("third", true));
    CHECK(must(repository->tiers()) == std::vector<std::string>{"third"});
}

TEST_CASE("an offloader notices that its tier was emptied or put back, and goes no further") {
    Places places;
    auto repository = must(places.open());
    const Tier& tier = places.add(*repository, "second");
    auto offloader = places.offloader(*repository, tier, *tier.objects);
    CHECK(must(offloader->is_empty()));
    auto snapshot = [&] {
        return OffloadSnapshot{.ledger_sequence = repository->ledger_sequence(), .tails = {}};
    };
    CHECK(must(offloader->offload(snapshot(), always)).is_complete);
    CHECK_FALSE(must(offloader->is_empty()));
    for (const ObjectInfo& object : must(tier.objects->list("ledger/")))
        must(tier.objects->remove(object.name));
    must(repository->add_place("third", true));
    auto noticed = offloader->offload(snapshot(), always);
    REQUIRE(!noticed);
    CHECK(noticed.error().code == Errc::refused);
    auto still = offloader->offload(snapshot(), always);
    REQUIRE(!still);
    CHECK(still.error().message.find("holds nothing any more") != std::string::npos);
    CHECK(must(tier.objects->list("ledger/")).empty());
}

TEST_CASE("a tier's pack is deleted when the tier knows that it is condemned") {
    Places places;
    auto repository = must(places.open());
    const Tier& tier = places.add(*repository, "second");
    places.offload(*repository, tier);
    const std::uint64_t before = repository->ledger_sequence();
    must(repository->condemn(places.survey_of("second", places.rules(2))));
    DeletionOrder order = delete_now();
    order.place = "second";
    order.through_sequence = before;
    Deletions done = must(repository->delete_condemned(order));
    CHECK(done.pack_count == 0);
    CHECK(done.waits_for.find("second") != std::string::npos);
    order.through_sequence = repository->ledger_sequence();
    CHECK(must(repository->delete_condemned(order)).pack_count > 5);
}

TEST_CASE("wherever the offloader of a tier that lets go is cut off, the next round ends it") {
    for (std::uint64_t at = 1;; ++at) {
        Places places;
        auto repository = must(places.open());
        const Tier& tier = places.add(*repository, "second");
        places.offload(*repository, tier);
        must(repository->condemn(places.survey_of("second", places.rules(3))));
        DeletionOrder order = delete_now();
        order.place = "second";
        must(repository->delete_condemned(order));
        CutStore cut(*tier.objects);
        cut.cut_at(at, at % 2 == 0);
        const OffloadSnapshot snapshot{.ledger_sequence = repository->ledger_sequence(),
                                       .tails = {}};
        auto round = places.offloader(*repository, tier, cut)->offload(snapshot, always);
        if (!cut.was_cut()) {
            must(std::move(round));
            CHECK(at > 10);
            break;
        }
        CAPTURE(at);
        require_whole(*places.there(tier), places.anchor(3));
        places.offload(*repository, tier);
        CHECK(paths_in(*places.there(tier)) == packs_on_disk(tier.directory.path()));
    }
}

}  // namespace
}  // namespace walvault::storage
