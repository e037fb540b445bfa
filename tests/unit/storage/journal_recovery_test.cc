// What a crash or a damaged disk leaves of a journal.
#include <doctest/doctest.h>

#include "storage/journal_reader.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/flip_bit.h"
#include "tests/unit/storage/journal_stage.h"

namespace walvault::storage {
namespace {

using Kind = JournalRecordKind;

// Transaction number `n` inserts order n, padded so that every fifth is one of two pieces.
void insert_order(JournalKeeper& keeper, std::uint64_t n) {
    keeper.transaction(1000 * n, static_cast<Xid>(n), [&](BatchWriter& writer) {
        writer.change(
            Kind::inserted, kOrders,
            made_insert({std::to_string(n), std::string(n % 5 == 0 ? 1'200'000 : 10, 'x')}));
        writer.change(Kind::updated, kOrders, made_update({std::to_string(n), kUnchanged}));
    });
}

// Each order that is stored, in order, once: how many. From each transaction both changes or none.
std::uint64_t orders_in(RepositoryView& view, JournalOrder order = JournalOrder::forward) {
    const auto journals = must(view.journals("main"));
    if (journals.empty()) return 0;
    JournalReader reader = must(JournalReader::open(view, journals[0]));
    std::vector<Xid> xids;
    std::uint64_t changes = 0;
    JournalSink sink;
    sink.on_change = [&](const JournalTransaction& transaction,
                         const JournalChange&) -> Result<bool> {
        if (xids.empty() || xids.back() != transaction.xid) xids.push_back(transaction.xid);
        ++changes;
        return true;
    };
    must(reader.read({.order = order}, sink));
    if (order == JournalOrder::backward) std::ranges::reverse(xids);
    for (std::size_t i = 0; i < xids.size(); ++i)
        CHECK(xids[i] == i + 1);
    CHECK(changes == 2 * xids.size());
    return xids.size();
}

// What a writer does until an operation fails; `synced` is what may have been acknowledged.
Result<> live(Stage& stage, FileSystem& files, std::uint64_t& synced, bool& snapshot) {
    WV_TRY(auto repository, stage.open(files));
    JournalKeeper keeper(*repository);
    WV_CHECK(keeper.begin());
    for (std::uint64_t n = 1; n <= 5; ++n) {
        insert_order(keeper, n);
        WV_CHECK(keeper.store());
        synced = n;
        if (n == 2) WV_CHECK(keeper.snapshot(kOrders, 2040, {{"1", "a"}}));
        if (n == 2) snapshot = true;
        if (n % 4 == 0) WV_CHECK(keeper.close());
    }
    return {};
}

}  // namespace

TEST_CASE("Whatever operation fails, each transaction that was synced is there once, and whole") {
    bool tear = false;
    SUBCASE("the operation does nothing") {}
    SUBCASE("a failing write leaves half of its bytes") { tear = true; }
    // What fails while a repository is opened is another test's.
    std::uint64_t opening = 0;
    {
        Stage stage;
        stage.create();
        FaultyFileSystem counting(posix_file_system(), 0, false);
        must(stage.open(counting));
        opening = counting.operation_count();
    }
    for (std::uint64_t fail_at = opening + 1;; ++fail_at) {
        CAPTURE(fail_at);
        Stage stage;
        stage.create();
        FaultyFileSystem files(posix_file_system(), fail_at, tear);
        std::uint64_t synced = 0;
        bool snapshot = false;
        (void)live(stage, files, synced, snapshot);
        CHECK(orders_in(*stage.view(false)) >= synced);
        auto repository = must(stage.open());
        CHECK(stage.paths_of(".tail").empty());
        CHECK(stage.paths_of(".tmp").empty());
        const auto view = stage.view();
        const std::uint64_t stored = orders_in(*view);
        CHECK(stored >= synced);
        CHECK(orders_in(*view, JournalOrder::backward) == stored);
        std::size_t journal_packs = 0;
        for (const pb::PackInfo& pack : must(view->packs("main")))
            journal_packs += must(view->verify_pack(pack, true)) > 0 ? 1 : 0;
        CHECK(journal_packs == stage.paths_of(".pack").size());  // nothing lies there unnamed
        // It goes on where it ended.
        JournalKeeper keeper(*repository);
        must(keeper.begin());
        if (snapshot) CHECK(must(repository->last_snapshots(keeper.journal.id)).size() == 1);
        insert_order(keeper, stored + 1);
        must(keeper.store());
        CHECK(orders_in(*stage.view()) == stored + 1);
        if (!files.fired()) break;
    }
}

TEST_CASE("Damage in a pack of a journal is a named error, and nothing else is harmed by it") {
    JournalStage stage;
    auto& repository = stage.repository;
    JournalKeeper& keeper = stage.keeper;
    for (std::uint64_t n = 1; n <= 20; ++n)
        insert_order(keeper, n);
    must(keeper.store());
    must(keeper.close());
    repository.reset();
    const std::string pack = stage.paths_of(".pack").at(0);
    const auto size = std::filesystem::file_size(pack);
    for (std::uint64_t at = 0; at < size; at += 1 + size / 60) {
        CAPTURE(at);
        flip_bit(pack, at);
        const auto view = stage.view();
        const pb::PackInfo info = must(view->packs("main")).at(0);
        const auto verified = view->verify_pack(info, true);
        REQUIRE_FALSE(verified.has_value());
        const Errc code = verified.error().code;
        CHECK((code == Errc::corrupt || code == Errc::wrong_key || code == Errc::unsupported));
        CHECK(verified.error().message.find(info.path()) != std::string::npos);
        flip_bit(pack, at);
    }
    flip_bit(pack, size / 2);
    CHECK(stage.open().has_value());
    flip_bit(pack, size / 2);
    CHECK(orders_in(*stage.view()) == 20);
}

TEST_CASE("A synced frame of a tail that is damaged ends the journal before it, and says so") {
    JournalStage stage;
    auto& repository = stage.repository;
    JournalKeeper& keeper = stage.keeper;
    std::vector<std::uint64_t> offsets;
    for (std::uint64_t n = 1; n <= 9; ++n) {
        offsets.push_back(keeper.tail ? keeper.tail->stored_bytes() : 0);
        insert_order(keeper, n);
        must(keeper.store());
    }
    keeper.drop();
    repository.reset();
    const std::string tail = stage.paths_of(".tail").at(0);
    SUBCASE("one that a later frame vouches for") {
        flip_bit(tail, offsets[6] + 70);
        {
            const auto view = stage.view();
            const JournalRecord journal = must(view->journals("main"))[0];
            REQUIRE(journal.damage.has_value());
            CHECK(journal.end_lsn == Lsn{6040});
            CHECK(orders_in(*view) == 6);
        }
        repository = must(stage.open());
        CHECK(stage.paths_of(".damaged").size() == 1);
        CHECK(orders_in(*stage.view()) == 6);
        JournalKeeper again(*repository);
        must(again.begin());
        CHECK(again.end == Lsn{6040});
    }
    SUBCASE("the last one, which nothing vouches for, is a torn end") {
        flip_bit(tail, offsets[8] + 70);
        repository = must(stage.open());
        CHECK(stage.paths_of(".damaged").empty());
        CHECK(orders_in(*stage.view()) == 8);
    }
    SUBCASE("its header") {
        flip_bit(tail, 90);
        repository = must(stage.open());
        CHECK(stage.paths_of(".damaged").size() == 1);
        CHECK(orders_in(*stage.view()) == 0);
    }
    SUBCASE("it is gone") {
        std::filesystem::remove(tail);
        {
            const auto view = stage.view();
            CHECK(must(view->journals("main"))[0].damage.has_value());
        }
        repository = must(stage.open());
        CHECK(orders_in(*stage.view()) == 0);
    }
    must(repository->begin_backup("main"));  // the repository goes on
}

TEST_CASE("Frames go into a tail only as they were planned") {
    JournalStage stage;
    JournalKeeper& keeper = stage.keeper;
    must(keeper.open());
    insert_order(keeper, 1);
    const JournalBatch first = *keeper.writer.take();
    insert_order(keeper, 2);
    const JournalBatch second = *keeper.writer.take();
    JournalFramePlan first_plan = keeper.tail->plan_batch(first);
    JournalFramePlan second_plan = keeper.tail->plan_batch(second);
    CHECK(seal_batch(first_plan, second, 1).error().code == Errc::corrupt);
    auto sealed = must(seal_batch(second_plan, second, 1));
    CHECK(keeper.tail->append(std::move(sealed)).error().code == Errc::corrupt);
    must(keeper.tail->append(must(seal_batch(first_plan, first, 1))));
    must(keeper.tail->append(must(seal_batch(second_plan, second, 1))));
    CHECK(keeper.tail->end_lsn() == Lsn{100});
    must(keeper.tail->sync());
    CHECK(keeper.tail->end_lsn() == Lsn{2040});
    CHECK(orders_in(*stage.view()) == 2);
}

}  // namespace walvault::storage
