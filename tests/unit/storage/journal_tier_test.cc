// A tier has the journals that the repository has.
#include <doctest/doctest.h>

#include "storage/journal_reader.h"
#include "tests/support/stored_journal.h"
#include "tests/unit/storage/tier_pair.h"

namespace walvault::storage {
namespace {

struct JournalTier : TierPair {
    std::unique_ptr<Offloader> offloader;

    JournalTier() {
        initialize();
        offloader = must(Offloader::open(*repository, *objects, stage.master, {.name = "second"}));
    }
    Offloader::Round offload(Repository& from, const JournalKeeper& keeper) {
        OffloadSnapshot snapshot{.ledger_sequence = from.ledger_sequence(), .tails = {}};
        if (keeper.tail) snapshot.tails[keeper.tail->plan().path] = keeper.tail->synced_offset();
        return must(offloader->offload(snapshot, [] { return true; }));
    }
    std::uint64_t orders() {
        auto there = view();
        for (const pb::PackInfo& pack : must(there->packs("main")))
            CHECK(must(there->verify_pack(pack, true)) > 0);
        const auto journals = must(there->journals("main"));
        REQUIRE(journals.size() == 1);
        CHECK_FALSE(journals[0].damage.has_value());
        JournalReader reader = must(JournalReader::open(*there, journals[0]));
        std::uint64_t count = 0;
        JournalSink sink;
        sink.on_end = [&](const JournalTransaction&) -> Result<bool> {
            ++count;
            return true;
        };
        must(reader.read({}, sink));
        return count;
    }
};

}  // namespace

TEST_CASE("Tails, packs and snapshots of a journal go to a tier, and are read there") {
    JournalTier tier;
    auto repository = must(tier.stage.open());
    JournalKeeper keeper(*repository);
    must(keeper.begin());
    must(keeper.snapshot(kOrders, 500, {{"0", "a"}}));
    for (std::uint64_t n = 1; n <= 12; ++n) {
        CAPTURE(n);
        keeper.transaction(1000 * n, static_cast<Xid>(n), [&](BatchWriter& writer) {
            writer.change(
                JournalRecordKind::inserted, kOrders,
                made_insert({std::to_string(n), std::string(n % 4 == 0 ? 1'500'000 : 9, 'x')}));
        });
        must(keeper.store());
        if (n == 5) must(keeper.store_quiet(5500, WallTime(Micros(9))));
        const auto round = tier.offload(*repository, keeper);
        CHECK(round.is_complete);
        CHECK(tier.orders() == n);
        if (n % 5 == 0) must(keeper.close());
    }
    must(keeper.close());
    CHECK(tier.offload(*repository, keeper).is_complete);
    CHECK(tier.orders() == 12);
    for (const ObjectInfo& object : must(tier.objects->list("")))
        CHECK_FALSE(parse_tail_piece_name(object.name).has_value());
}

}  // namespace walvault::storage
