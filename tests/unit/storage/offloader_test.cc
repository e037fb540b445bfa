#include "storage/offloader.h"

#include <doctest/doctest.h>

#include "storage/held_tails.h"
#include "storage/ledger_file.h"
#include "tests/support/cut_store.h"
#include "tests/unit/storage/tier_pair.h"

namespace walvault::storage {
namespace {

struct Pair : TierPair {
    std::unique_ptr<Offloader> offloader(ObjectStore& to) {
        return must(Offloader::open(*repository, to, stage.master, {.name = "second"}));
    }
    std::vector<std::string> pieces() {
        std::vector<std::string> names;
        for (const ObjectInfo& object : must(objects->list("")))
            if (parse_tail_piece_name(object.name)) names.push_back(object.name);
        return names;
    }
};

}  // namespace

TEST_CASE("after each round a tier holds what was durable when it began") {
    for (std::size_t tail_bytes : {40'000u, 150'000u}) {
        Pair pair;
        pair.initialize();
        auto offloader = pair.offloader(*pair.objects);
        auto repository = must(pair.stage.open());
        HistoryWriter writer(*repository, pair.wal);
        pair.wal.grow(5, 600'000);
        must(writer.begin());
        while (writer.flushed < pair.wal.builder.end()) {
            must(writer.store(7'000, tail_bytes, writer.flushed + 23'000));
            auto round = must(offloader->offload(writer.snapshot(), always));
            CHECK(round.is_complete);
            CHECK(round.pending_bytes == 0);
            CHECK(pair.check_is_prefix() == writer.flushed);
            CHECK(pair.pieces().size() <= tail_bytes / 20'000 + 1);
        }
        must(writer.close());
        CHECK(must(offloader->offload(writer.snapshot(), always)).is_complete);
        CHECK(pair.pieces().empty());
        pair.check_is_whole();
    }
}

TEST_CASE("a tier that comes late gets everything, and one that was away gets the rest") {
    Pair pair;
    auto repository = must(pair.stage.open());
    HistoryWriter writer(*repository, pair.wal);
    pair.wal.grow(6, 500'000);
    must(writer.begin());
    must(writer.store(7'000, 60'000, pair.wal.builder.start() + 300'000));
    pair.initialize();
    CHECK(must(pair.offloader(*pair.objects)->offload(writer.snapshot(), always)).is_complete);
    CHECK(pair.check_is_prefix() == writer.flushed);
    must(writer.store(7'000, 60'000));
    CHECK(must(pair.offloader(*pair.objects)->offload(writer.snapshot(), always)).is_complete);
    CHECK(pair.check_is_prefix() == pair.wal.builder.end());
}

TEST_CASE("the pieces of a tail stay where the pack that it became is not to come") {
    Pair pair;
    pair.initialize();
    auto repository = must(pair.stage.open());
    HistoryWriter writer(*repository, pair.wal);
    pair.wal.grow(7, 100'000);
    must(writer.begin());
    must(writer.store(7'000, 500'000));
    OffloadPlace place{.name = "second"};
    const auto offloaded = [&] {
        auto offloader =
            must(Offloader::open(*pair.repository, *pair.objects, pair.stage.master, place));
        return must(offloader->offload(writer.snapshot(), always)).is_complete;
    };
    CHECK(offloaded());
    const auto pieces = pair.pieces();
    REQUIRE_FALSE(pieces.empty());
    // Retention lets go of it before it comes; somebody may be reading the pieces.
    place.keeps = [](const pb::PackInfo&) -> Result<bool> { return false; };
    must(writer.close());
    CHECK(offloaded());
    CHECK(pair.pieces() == pieces);
    // Also for who finds them there.
    CHECK(offloaded());
    CHECK(pair.pieces() == pieces);
}

TEST_CASE("tails are held until all packs that they became are over") {
    HeldTails held;
    held.hold("none", {});
    held.hold("one", {"a"});
    held.hold("two", {"b", "c"});
    CHECK_FALSE(held.holds("none"));
    CHECK(held.let_go("b").empty());
    CHECK(held.holds("two"));
    CHECK(held.let_go("x").empty());
    CHECK(held.let_go("c") == std::set<std::string>{"two"});
    CHECK_FALSE(held.holds("two"));
    CHECK(held.let_go_if([](const std::string&) { return true; }) == std::set<std::string>{"one"});
    CHECK(held.let_go("a").empty());
}

TEST_CASE("two tails that are open at once are seen as one run of WAL") {
    Pair pair;
    pair.initialize();
    auto repository = must(pair.stage.open());
    HistoryWriter writer(*repository, pair.wal);
    pair.wal.grow(7, 200'000);
    must(writer.begin());
    must(writer.store(5'000, 1u << 30, pair.wal.builder.start() + 100'000));
    auto offloader = pair.offloader(*pair.objects);
    CHECK(must(offloader->offload(writer.snapshot(), always)).is_complete);
    must(writer.store(5'000, 1u << 30, pair.wal.builder.start() + 130'000));
    must(writer.store_behind(5'000));
    int allowed = 0;
    for (bool complete = false; !complete; ++allowed) {
        int left = 1;
        complete =
            must(offloader->offload(writer.snapshot(), [&] { return left-- > 0; })).is_complete;
        pair.check_is_prefix();
    }
    CHECK(allowed >= 3);
    CHECK(pair.check_is_prefix() == writer.flushed);
    writer.drop();
}

TEST_CASE("a tail is never seen short of the next one, also while it is being closed") {
    Pair pair;
    pair.initialize();
    auto repository = must(pair.stage.open());
    HistoryWriter writer(*repository, pair.wal);
    pair.wal.grow(10, 200'000);
    must(writer.begin());
    must(writer.store(5'000, 1u << 30, pair.wal.builder.start() + 60'000));
    auto offloader = pair.offloader(*pair.objects);
    CHECK(must(offloader->offload(writer.snapshot(), always)).is_complete);
    const Lsn before = writer.flushed;
    must(writer.store(5'000, 1u << 30, pair.wal.builder.start() + 130'000));
    must(writer.store_behind(5'000));
    writer.drop_left();
    CHECK_FALSE(must(offloader->offload(writer.snapshot(), always)).is_complete);
    CHECK(pair.check_is_prefix() == before);
    must(repository->recover_tails());
    for (bool complete = false; !complete;) {
        int left = 1;
        auto once = [&] { return left-- > 0; };
        complete = must(offloader->offload(writer.snapshot(), once)).is_complete;
        pair.check_is_prefix();
    }
    CHECK(pair.check_is_prefix() == writer.flushed);
    CHECK(pair.pieces().size() == 1);
    writer.drop();
}

// Rounds with a store that goes away at each of its calls in turn; the next offloader goes on.
TEST_CASE("a tier cut off at any moment holds a prefix of the history, and catches up") {
    for (bool carried_out : {false, true}) {
        CAPTURE(carried_out);
        Pair pair;
        pair.initialize();
        CutStore store(*pair.objects);
        auto offloader = pair.offloader(store);
        auto repository = must(pair.stage.open());
        HistoryWriter writer(*repository, pair.wal);
        pair.wal.grow(8, 700'000);
        must(writer.begin());
        std::uint64_t call = 1;
        int cuts = 0;
        while (writer.flushed < pair.wal.builder.end()) {
            must(writer.store(4'000, 30'000, writer.flushed + 9'000));
            store.cut_at(call, carried_out);
            auto round = offloader->offload(writer.snapshot(), always);
            const bool failed = !round || round->failure;
            CHECK(failed == store.was_cut());
            if (store.was_cut()) ++cuts;
            const Lsn end = pair.check_is_prefix();
            CHECK(end <= writer.flushed);
            call = store.was_cut() ? call + 1 : 1;
            if (!failed) CHECK(end == writer.flushed);
        }
        CHECK(cuts > 30);
        store.cut_at(0, false);
        must(writer.close());
        CHECK(must(offloader->offload(writer.snapshot(), always)).is_complete);
        CHECK(pair.check_is_prefix() == pair.wal.builder.end());
        CHECK(pair.pieces().empty());
        CHECK(must(pair.objects->list("main/")).size() ==
              must(pair.repository->list("main/")).size());
    }
}

TEST_CASE("what a killed agent left open is a pack on the tier after the next start") {
    Pair pair;
    pair.initialize();
    pair.wal.grow(9, 200'000);
    {
        auto repository = must(pair.stage.open());
        HistoryWriter writer(*repository, pair.wal);
        must(writer.begin());
        must(writer.store(5'000, 1u << 30, pair.wal.builder.start() + 90'000));
        CHECK(must(pair.offloader(*pair.objects)->offload(writer.snapshot(), always)).is_complete);
        must(writer.store(5'000, 1u << 30));
    }
    CHECK(pair.pieces().size() == 1);
    auto repository = must(pair.stage.open());
    OffloadSnapshot snapshot{.ledger_sequence = repository->ledger_sequence(), .tails = {}};
    CHECK(must(pair.offloader(*pair.objects)->offload(snapshot, always)).is_complete);
    CHECK(pair.pieces().empty());
    CHECK(pair.check_is_prefix() == pair.wal.builder.end());
}

TEST_CASE("a tail that broke and is not a pack yet keeps a round from being complete") {
    Pair pair;
    pair.initialize();
    pair.wal.grow(9, 100'000);
    auto repository = must(pair.stage.open());
    HistoryWriter writer(*repository, pair.wal);
    must(writer.begin());
    must(writer.store(5'000, 1u << 30));
    OffloadSnapshot snapshot = writer.snapshot();
    snapshot.tails.clear();
    auto offloader = pair.offloader(*pair.objects);
    CHECK_FALSE(must(offloader->offload(snapshot, always)).is_complete);
    writer.drop();
    must(repository->recover_tails());
    snapshot.ledger_sequence = repository->ledger_sequence();
    CHECK(must(offloader->offload(snapshot, always)).is_complete);
    CHECK(pair.check_is_prefix() == pair.wal.builder.end());
}

TEST_CASE("only an empty tier, or one of this repository, is made one") {
    Pair pair;
    auto offloader = pair.offloader(*pair.objects);
    auto missing = offloader->offload({}, always);
    REQUIRE(!missing);
    CHECK(missing.error().code == Errc::not_found);
    CHECK(missing.error().hint.find("walvault repo add") != std::string::npos);
    must(pair.objects->put("photos/cat.jpg", as_bytes("meow")));
    auto refused = initialize_tier(*pair.repository, *pair.objects, pair.stage.master, "second");
    REQUIRE(!refused);
    CHECK(refused.error().code == Errc::refused);
    CHECK(refused.error().message.find("photos/cat.jpg") != std::string::npos);
    must(pair.objects->remove("photos/cat.jpg"));
    // One that was interrupted goes on; one that is done is left as it is.
    CutStore store(*pair.objects);
    store.cut_at(5, true);
    CHECK(initialize_tier(*pair.repository, store, pair.stage.master, "second").error().code ==
          Errc::unavailable);
    CHECK_FALSE(pair.objects->info("repository"));
    CHECK_FALSE(must(pair.objects->list("keyring/")).empty());
    pair.initialize();
    pair.initialize();
    CHECK(offloader->offload({}, always));
    Pair other;
    CHECK(initialize_tier(*other.repository, *pair.objects, other.stage.master, "second")
              .error()
              .code == Errc::refused);
    auto foreign = other.offloader(*pair.objects)->offload({}, always);
    REQUIRE(!foreign);
    CHECK(foreign.error().code == Errc::refused);
}

TEST_CASE("a repository is no tier of itself, under whatever name it is reached") {
    Pair pair;
    { auto repository = must(pair.stage.open()); }
    const std::string link = pair.scratch / "link";
    std::filesystem::create_directory_symlink(pair.stage.root, link);
    auto itself = make_directory_store(posix_file_system(), link);
    const auto before = must(pair.repository->list(""));
    auto made = initialize_tier(*pair.repository, *itself, pair.stage.master, "second");
    REQUIRE(!made);
    CHECK(made.error().code == Errc::refused);
    CHECK(made.error().message.find("writes to") != std::string::npos);
    auto offloaded = pair.offloader(*itself)->offload({.ledger_sequence = 2}, always);
    REQUIRE(!offloaded);
    CHECK(offloaded.error().code == Errc::refused);
    CHECK(must(pair.repository->list("")).size() == before.size());
}

TEST_CASE("a copy of the repository that goes on by itself is told from the tier's own") {
    Pair pair;
    pair.initialize();
    ScratchDirectory elsewhere;
    { must(pair.stage.open()); }
    std::filesystem::copy(pair.stage.root, elsewhere / "clone",
                          std::filesystem::copy_options::recursive);
    auto first = must(pair.stage.open());
    auto offload = [&](Repository& repository, Offloader& offloader) {
        return offloader.offload({.ledger_sequence = repository.ledger_sequence(), .tails = {}},
                                 always);
    };
    auto offloader = pair.offloader(*pair.objects);
    CHECK(must(offload(*first, *offloader)).is_complete);
    auto clone = must(Repository::open(posix_file_system(), elsewhere / "clone", pair.stage.master,
                                       system_clock(), {.host = "clone", .version = "test"}));
    auto clone_store = make_directory_store(posix_file_system(), elsewhere / "clone");
    auto second =
        must(Offloader::open(*clone_store, *pair.objects, pair.stage.master, {.name = "second"}));
    auto refused = offload(*clone, *second);
    REQUIRE(!refused);
    CHECK(refused.error().code == Errc::refused);
    // Also where it noticed nothing when it began.
    pb::LedgerEntry entry;
    entry.mutable_verify_done()->set_level("chunks");
    must(first->append_to_ledger(entry));
    must(pair.objects->put(ledger_file_name(first->ledger_sequence()), as_bytes("another's")));
    refused = offload(*first, *offloader);
    REQUIRE(!refused);
    CHECK(refused.error().code == Errc::refused);
}

TEST_CASE("a ledger of many small pieces is read as one") {
    Pair pair;
    pair.initialize();
    auto repository = must(pair.stage.open());
    auto offloader = pair.offloader(*pair.objects);
    for (int i = 0; i < 300; ++i) {
        pb::LedgerEntry entry;
        entry.mutable_verify_done()->set_checked_bytes(static_cast<std::uint64_t>(i));
        must(repository->append_to_ledger(entry));
        CHECK(must(offloader->offload({repository->ledger_sequence(), {}}, always)).is_complete);
    }
    CHECK(must(list_ledger_files(*pair.objects)).size() >= 300);
    auto opened = must(open_repository_files(*pair.tier, pair.stage.master));
    LedgerKeys keys = LedgerKeys::derive(*opened.keyring.current(pb::KEY_PURPOSE_LEDGER));
    std::vector<std::string> here, there;
    auto collect = [](std::vector<std::string>& entries) {
        return [&entries](const pb::LedgerEntry& entry) -> Result<> {
            entries.push_back(entry.SerializeAsString());
            return {};
        };
    };
    must(read_ledger(*pair.repository, opened.id, keys, {}, false, collect(here)));
    must(read_ledger(*pair.tier, opened.id, keys, {}, false, collect(there)));
    CHECK(here == there);
    must(pair.objects->remove(must(list_ledger_files(*pair.objects)).at(100).name));
    there.clear();
    CHECK(read_ledger(*pair.tier, opened.id, keys, {}, false, collect(there)).error().code ==
          Errc::corrupt);
}

}  // namespace walvault::storage
