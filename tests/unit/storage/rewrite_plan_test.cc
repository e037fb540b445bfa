#include "storage/rewrite_plan.h"

#include <doctest/doctest.h>

#include "proto/frame_format.h"
#include "storage/pack_rewrite.h"

namespace walvault::storage {
namespace {

using namespace std::chrono_literals;

const WallTime kNow{std::chrono::hours(24 * 365 * 56)};  // 2025-12-18

RewriteCandidate candidate(std::uint64_t frame_bytes, std::uint64_t live_bytes,
                           const std::string& backup_id = "20250101T000000Z") {
    RewriteCandidate made;
    made.pack.set_path("main/base/" + backup_id + "_00001.pack");
    made.pack.set_kind(pb::PACK_KIND_BASE);
    made.pack.set_cluster("main");
    made.pack.set_backup_id(backup_id);
    made.pack.set_footer_offset(kFileHeaderBytes + frame_bytes);
    made.pack.set_stored_bytes(kFileHeaderBytes + frame_bytes + 1000);
    made.live_bytes = live_bytes;
    made.live = {true, false};
    return made;
}

struct Plan {
    RewriteRules rules{.is_on = true, .grace = 24h};
    RewriteFacts facts{
        .now = kNow, .place_count = 1, .newest_base = "20251201T000000Z", .candidates = {}};
    std::vector<RewriteVerdict> verdicts() const { return plan_rewrites(rules, facts); }
    RewriteVerdict of(const RewriteCandidate& one) const {
        Plan plan = *this;
        plan.facts.candidates = {one};
        return plan.verdicts().front();
    }
};

TEST_CASE("a pack is rewritten where more than half of its chunks' bytes are dead") {
    Plan plan;
    const RewriteVerdict verdict = plan.of(candidate(1000, 380));
    CHECK(verdict.rewrite);
    CHECK(!verdict.waits);
    CHECK(verdict.won_bytes == 620);
    CHECK(verdict.reason == "62 % of it is dead: the rest is copied into a new pack");
    CHECK(plan.of(candidate(1000, 499)).rewrite);
    for (std::uint64_t live : {500u, 501u, 1000u}) {
        CHECK(!plan.of(candidate(1000, live)).rewrite);
        CHECK(plan.of(candidate(1000, live)).reason.empty());
    }
}

TEST_CASE("header and footer are no dead bytes: a copy is not copied again") {
    Plan plan;
    RewriteCandidate copied = candidate(100, 100);
    copied.pack.set_stored_bytes(100'000);
    CHECK(!plan.of(copied).rewrite);
    CHECK(!plan.of(candidate(0, 0)).rewrite);
}

TEST_CASE("what holds nothing that is needed is let go and not rewritten") {
    CHECK(!Plan().of(candidate(1000, 0)).rewrite);
}

TEST_CASE("nothing is rewritten where it is off") {
    Plan plan;
    plan.rules.is_on = false;
    CHECK(!plan.of(candidate(1000, 1)).rewrite);
    CHECK(plan.of(candidate(1000, 1)).reason.empty());
}

TEST_CASE("all places together get smaller: each of them gets the copy") {
    Plan plan;
    plan.facts.place_count = 2;
    CHECK(plan.of(candidate(1000, 499)).rewrite);
    plan.facts.place_count = 4;
    CHECK(!plan.of(candidate(1000, 250)).rewrite);
    CHECK(plan.of(candidate(1000, 249)).rewrite);
}

TEST_CASE("a pack waits for its grace, for who reads, and for the next base backup") {
    Plan plan;
    RewriteVerdict verdict = plan.of(candidate(1000, 100, "20251217T000001Z"));
    CHECK(!verdict.rewrite);
    CHECK(verdict.waits);
    CHECK(verdict.reason == "90 % of it is dead, and it waits: it is younger than expire_grace");
    plan.rules.grace = 0h;
    verdict = plan.of(candidate(1000, 100, "20251217T000001Z"));
    CHECK(verdict.waits);
    CHECK(verdict.reason.ends_with("the next base backup may share it"));
    plan.facts.newest_base = "20251217T000001Z";
    CHECK(plan.of(candidate(1000, 100, "20251217T000001Z")).rewrite);
    plan.rules.reader = "restore of main";
    verdict = plan.of(candidate(1000, 100, "20251217T000001Z"));
    CHECK(verdict.waits);
    CHECK(verdict.reason.ends_with("restore of main reads"));
}

TEST_CASE("a pack that the directory let go is read only where that costs nothing") {
    Plan plan;
    RewriteCandidate outside = candidate(1000, 100);
    outside.is_in_directory = false;
    CHECK(plan.of(outside).rewrite);
    plan.rules.only_from_directory = true;
    const RewriteVerdict verdict = plan.of(outside);
    CHECK(!verdict.rewrite);
    CHECK(!verdict.waits);
    CHECK(!verdict.reason.empty());
    outside.is_in_directory = true;
    CHECK(plan.of(outside).rewrite);
}

TEST_CASE("what wins most goes first, and only so much is copied in one pass") {
    Plan plan;
    plan.rules.most_bytes = 500;
    plan.facts.candidates = {candidate(1000, 400), candidate(5000, 300), candidate(2000, 150),
                             candidate(900, 50)};
    const auto verdicts = plan.verdicts();
    CHECK(!verdicts[0].rewrite);
    CHECK(verdicts[0].waits);
    CHECK(verdicts[1].rewrite);
    CHECK(verdicts[2].rewrite);
    CHECK(verdicts[3].rewrite);
    // One that is larger than that is done too, alone.
    plan.facts.candidates = {candidate(9000, 600), candidate(900, 50)};
    CHECK(plan.verdicts()[0].rewrite);
    CHECK(!plan.verdicts()[1].rewrite);
}

TEST_CASE("nothing is copied that the directory has no room for") {
    Plan plan;
    plan.rules.room_bytes = 299;
    const RewriteVerdict verdict = plan.of(candidate(5000, 300));
    CHECK(!verdict.rewrite);
    CHECK(verdict.waits);
    CHECK(verdict.reason.ends_with("the directory has no room for a copy"));
    CHECK(plan.of(candidate(5000, 299)).rewrite);
}

TEST_CASE("copies go together into packs of the size of a pack, cluster by cluster") {
    std::vector<RewriteCandidate> sources;
    for (int i = 0; i < 5; ++i)
        sources.push_back(candidate(kBasePackBytes, kBasePackBytes * 2 / 5));
    CHECK(rewrite_groups(sources).size() == 3);
    sources.resize(2);
    sources[1].pack.set_cluster("other");
    CHECK(rewrite_groups(sources).size() == 2);
    sources[1].pack.set_cluster("main");
    for (RewriteCandidate& source : sources) {
        source.live_bytes = 1000;
        source.live.assign(kPackFramesMax / 2, true);
    }
    CHECK(rewrite_groups(sources).size() == 1);
    sources[0].live.push_back(true);
    CHECK(rewrite_groups(sources).size() == 2);
    CHECK(rewrite_groups({}).empty());
}

}  // namespace
}  // namespace walvault::storage
