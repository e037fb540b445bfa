#include <doctest/doctest.h>

#include "proto/wal_decoder.h"
#include "tests/support/wal_builder.h"

using namespace walvault;

namespace {

constexpr Lsn kWalStart{WalBuilder::kSegmentBytes * 3};
constexpr RelationFile kCopied{.tablespace = 1663, .database = 5, .relation = 16'397};

// What the servers themselves write, as the sources of each major have it.
struct Major {
    unsigned number;
    std::uint16_t page_magic;
    std::uint32_t dropped_statistics_words;
    std::uint8_t compressed;  // a page image's info bit
    std::uint8_t to_apply;
};
constexpr Major kMajors[] = {{14, 0xD10D, 0, 0x02, 0x04},
                             {15, 0xD110, 3, 0x04, 0x02},
                             {16, 0xD113, 3, 0x08, 0x02},
                             {17, 0xD116, 3, 0x10, 0x02},
                             {18, 0xD118, 4, 0x04, 0x02}};

struct DecodedMajor {
    std::vector<WalFinding> findings;
    std::string error;
};

DecodedMajor decode(const Major& major, ByteSpan bytes) {
    auto decoder = WalDecoder::open({.server_major = major.number,
                                     .system_identifier = WalBuilder::kSystem,
                                     .segment_bytes = WalBuilder::kSegmentBytes,
                                     .timeline = 1},
                                    kWalStart);
    REQUIRE(decoder);
    DecodedMajor out;
    auto fed = decoder->feed(bytes, out.findings);
    if (!fed) out.error = fed.error().message;
    return out;
}

WalBuilder wal_of(const Major& major) { return WalBuilder(kWalStart, 1, major.page_magic); }

// COPY of five rows into `kCopied` whose page is logged whole, then the commit.
WalBuilder wal_with_image(const Major& major, std::uint8_t image_info,
                          std::optional<std::uint16_t> hole_bytes) {
    WalBuilder wal = wal_of(major);
    wal.add({.rmgr = 9,
             .info = 0xD0,
             .xid = 50,
             .body = WalBuilder::block_with_image(kCopied, image_info, hole_bytes,
                                                  words({5U << 16, 0}))});
    wal.add(WalBuilder::commit(50, 1'000));
    return wal;
}

std::uint64_t rows_in(const DecodedMajor& decoded) {
    CHECK(decoded.error == "");
    REQUIRE(decoded.findings.size() == 1);
    return decoded.findings[0].inserted_rows;
}

}  // namespace

TEST_CASE("each major's pages are known by their magic, and another major's are refused") {
    for (const Major& written : kMajors) {
        WalBuilder wal = wal_of(written);
        wal.add(WalBuilder::commit(700, 1'000));
        for (const Major& read : kMajors) {
            CAPTURE(written.number);
            CAPTURE(read.number);
            DecodedMajor decoded = decode(read, wal.bytes());
            CHECK(decoded.findings.size() == (read.number == written.number ? 1 : 0));
            CHECK((decoded.error.find("the page has the magic") == std::string::npos) ==
                  (read.number == written.number));
        }
    }
}

TEST_CASE("a page image is measured by its own major's bits") {
    constexpr std::uint8_t kHole = 0x01;
    for (const Major& major : kMajors) {
        CAPTURE(major.number);
        const auto both = static_cast<std::uint8_t>(kHole | major.compressed | major.to_apply);
        CHECK(rows_in(decode(major, wal_with_image(major, both, 900).bytes())) == 5);
        const auto no_hole = static_cast<std::uint8_t>(major.compressed | major.to_apply);
        CHECK(rows_in(decode(major, wal_with_image(major, no_hole, {}).bytes())) == 5);
        // Not compressed: the hole's length follows from the image's.
        const auto plain = static_cast<std::uint8_t>(kHole | major.to_apply);
        CHECK(rows_in(decode(major, wal_with_image(major, plain, {}).bytes())) == 5);
    }
    // What 14 calls compressed, 15 calls to be applied: the record then does not add up.
    const Major& fourteen = kMajors[0];
    WalBuilder taken_for_15 = wal_with_image(fourteen, kHole | 0x04, 900);
    CHECK(rows_in(decode(fourteen, taken_for_15.bytes())) == 0);
}

TEST_CASE("the list of dropped statistics is passed over by its major's measure") {
    for (const Major& major : kMajors) {
        CAPTURE(major.number);
        const bool has_list = major.dropped_statistics_words > 0;
        ByteBuffer commit;
        append_le(commit, std::int64_t{77});
        append(commit, words({0x10U | 0x8U | (has_list ? 0x100U : 0U)}));
        if (has_list) {
            append(commit, words({2}));
            append(commit, ByteBuffer(2 * 4 * major.dropped_statistics_words, std::byte{0x11}));
        }
        append(commit, words({1, 0, 0, 0, 0}));  // invalidations
        append(commit, words({4'711}));          // the transaction that was prepared
        WalBuilder wal = wal_of(major);
        wal.add({.rmgr = 1, .info = 0xB0, .body = WalBuilder::main_data(commit)});
        DecodedMajor decoded = decode(major, wal.bytes());
        CHECK(decoded.error == "");
        REQUIRE(decoded.findings.size() == 1);
        CHECK(decoded.findings[0].xid == 4'711);
    }
}

TEST_CASE("records of extensions' resource managers are taken from 15 on") {
    for (const Major& major : kMajors) {
        CAPTURE(major.number);
        WalBuilder wal = wal_of(major);
        wal.add({.rmgr = 200, .body = WalBuilder::main_data(words({1, 2, 3}))});
        wal.add(WalBuilder::commit(700, 1'000));
        DecodedMajor decoded = decode(major, wal.bytes());
        CHECK(decoded.findings.size() == (major.number == 14 ? 0 : 1));
        CHECK((decoded.error.find("resource manager 200") != std::string::npos) ==
              (major.number == 14));
    }
}

TEST_CASE(
    "what 17 adds to the records of checkpoints and promotions changes nothing that is read") {
    for (const Major& major : kMajors) {
        CAPTURE(major.number);
        ByteBuffer checkpoint;
        append_le(checkpoint, kWalStart.value + 40);
        append(checkpoint, words({2, 1, 1, major.number >= 17 ? 2U : 0U}));
        checkpoint.resize(64);
        append_le(checkpoint, std::int64_t{1'700'000'000});
        checkpoint.resize(88);
        WalBuilder wal = wal_of(major);
        wal.add({.rmgr = 0, .info = 0x10, .body = WalBuilder::main_data(checkpoint)});
        ByteBuffer promotion = words({64, 0, 2, 1});
        if (major.number >= 17) append(promotion, words({2}));
        wal.add({.rmgr = 0, .info = 0x90, .body = WalBuilder::main_data(promotion)});
        // CHECKPOINT_REDO, which 17 writes where an online checkpoint begins.
        wal.add({.rmgr = 0, .info = 0xE0, .body = WalBuilder::main_data(words({2}))});
        DecodedMajor decoded = decode(major, wal.bytes());
        CHECK(decoded.error == "");
        REQUIRE(decoded.findings.size() == 2);
        CHECK(decoded.findings[0].redo_lsn == kWalStart + 40);
        CHECK(decoded.findings[0].timeline == 2);
        CHECK(to_utc_text(decoded.findings[0].at) == "2023-11-14T22:13:20.000000Z");
        CHECK(decoded.findings[1].timeline == 2);
    }
}
