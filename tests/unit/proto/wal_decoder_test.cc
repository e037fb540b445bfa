#include "proto/wal_decoder.h"

#include <doctest/doctest.h>

#include "tests/support/wal_builder.h"

using namespace walvault;

namespace {

constexpr Lsn kStart{WalBuilder::kSegmentBytes * 3};
constexpr RelationFile kTable{.tablespace = 1663, .database = 5, .relation = 16'397};

WalDecoderOptions options_of_test() {
    return {.server_major = 15,
            .system_identifier = WalBuilder::kSystem,
            .segment_bytes = WalBuilder::kSegmentBytes,
            .timeline = 1};
}

struct Decoded {
    std::vector<WalFinding> findings;
    std::string error;
    Lsn end_lsn, record_start_lsn, checked_lsn, last_record_lsn;
};

Decoded decode(ByteSpan bytes, Lsn start, std::size_t piece_bytes = ~std::size_t{0},
               const WalDecoderOptions& options = options_of_test()) {
    auto decoder = WalDecoder::open(options, start);
    REQUIRE(decoder);
    Decoded out;
    while (!bytes.empty() && out.error.empty()) {
        const ByteSpan piece = bytes.first(std::min(piece_bytes, bytes.size()));
        bytes = bytes.subspan(piece.size());
        auto fed = decoder->feed(piece, out.findings);
        if (!fed) {
            CHECK(fed.error().code == Errc::corrupt);
            out.error = fed.error().message;
        }
    }
    out.end_lsn = decoder->end_lsn();
    out.record_start_lsn = decoder->record_start_lsn();
    out.checked_lsn = decoder->checked_lsn();
    out.last_record_lsn = decoder->last_record_lsn();
    return out;
}

std::string summary(const Decoded& decoded) {
    std::string text = decoded.error;
    for (const WalFinding& finding : decoded.findings) {
        text += "\n" + std::to_string(static_cast<int>(finding.kind)) + " " +
                to_string(finding.start_lsn) + " " + to_string(finding.end_lsn) + " " +
                std::to_string(finding.xid) + " " + to_utc_text(finding.at) + finding.name +
                std::to_string(finding.inserted_rows);
    }
    return text + "\n" + to_string(decoded.checked_lsn) + " " + to_string(decoded.last_record_lsn) +
           " " + to_string(decoded.end_lsn) + " " + to_string(decoded.record_start_lsn);
}

WalBuilder::Record filler(std::size_t data_bytes) {
    return {.rmgr = 20, .body = WalBuilder::main_data(ByteBuffer(data_bytes, std::byte{0x5A}))};
}

// Short and long records, one that spans three pages, headers cut by a page's end, a switch, a
// commit.
WalBuilder mixed_wal() {
    WalBuilder wal(kStart);
    wal.add(WalBuilder::commit(700, 1'000'000));
    wal.add(filler(20'000));
    // The next record starts 8 bytes before the end of its page: its header is cut.
    const std::uint64_t room = kWalPageBytes - (wal.end().value + 7) / 8 * 8 % kWalPageBytes;
    wal.add(filler(room - 24 - 5 - 8));
    wal.add(WalBuilder::commit(701, 2'000'000));
    wal.add_switch();
    wal.add(WalBuilder::commit(702, 3'000'000));
    return wal;
}

bool mentions(const Decoded& decoded, std::string_view text) {
    INFO(decoded.error);
    return decoded.error.find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("valid WAL is decoded to its last record, across pages and a segment switch") {
    WalBuilder wal = mixed_wal();
    Decoded decoded = decode(wal.bytes(), kStart);
    CHECK(decoded.error == "");
    REQUIRE(decoded.findings.size() == 4);
    CHECK(decoded.findings[0].kind == WalFinding::Kind::commit);
    CHECK(decoded.findings[0].xid == 700);
    CHECK(decoded.findings[0].at == from_postgres_micros(1'000'000));
    CHECK(decoded.findings[0].start_lsn == kStart + 40);
    CHECK(decoded.findings[1].start_lsn.value % kWalPageBytes == kWalPageBytes - 8);
    CHECK(decoded.findings[2].kind == WalFinding::Kind::segment_switch);
    CHECK(decoded.findings[3].start_lsn == kStart + WalBuilder::kSegmentBytes + 40);
    CHECK(decoded.end_lsn == wal.end());
    CHECK(decoded.checked_lsn == wal.end());
    CHECK(decoded.last_record_lsn == decoded.findings[3].start_lsn);
}

TEST_CASE("findings do not depend on where the bytes are cut") {
    WalBuilder wal = mixed_wal();
    const std::string whole = summary(decode(wal.bytes(), kStart));
    for (std::size_t piece : {1, 3, 7, 8, 23, 24, 25, 40, 8191, 8192, 8193})
        CHECK(summary(decode(wal.bytes(), kStart, piece)) == whole);
}

TEST_CASE("a decoder opened at record_start_lsn continues where another stopped, at every byte") {
    WalBuilder wal = mixed_wal();
    const std::size_t until =
        50'000;  // all of the records before the switch's zeros, and some of those
    const Decoded whole = decode(wal.bytes(), kStart);
    for (std::size_t cut = 0; cut < until; cut += 1 + (cut > 300 && cut < 8000 ? 97 : 0)) {
        Decoded first = decode(ByteSpan(wal.bytes()).first(cut), kStart);
        const std::size_t from = first.record_start_lsn - kStart;
        auto rest = ByteSpan(wal.bytes());
        // The start of the next record may lie in padding that has not been fed yet.
        if (from > rest.size()) continue;
        Decoded second = decode(rest.subspan(from), first.record_start_lsn);
        REQUIRE_MESSAGE(second.error == "", "cut at ", cut);
        REQUIRE(first.findings.size() + second.findings.size() >= whole.findings.size());
        REQUIRE(second.checked_lsn == whole.checked_lsn);
        REQUIRE(second.last_record_lsn == whole.last_record_lsn);
    }
}

TEST_CASE("a decoder that starts at a page inside a record begins with the next record") {
    WalBuilder wal(kStart);
    wal.add(filler(20'000));
    const Lsn commit = wal.add(WalBuilder::commit(9, 5));
    Decoded decoded = decode(ByteSpan(wal.bytes()).subspan(kWalPageBytes), kStart + kWalPageBytes);
    CHECK(decoded.error == "");
    REQUIRE(decoded.findings.size() == 1);
    CHECK(decoded.findings[0].start_lsn == commit);
    auto half = ByteSpan(wal.bytes()).subspan(kWalPageBytes, 100);
    CHECK(decode(half, kStart + kWalPageBytes).record_start_lsn == kStart + kWalPageBytes);
}

TEST_CASE("a decoder that starts behind a segment switch begins with the next segment") {
    WalBuilder wal = mixed_wal();
    const Lsn start = kStart + (WalBuilder::kSegmentBytes - 3 * kWalPageBytes);
    const ByteBuffer bytes(wal.bytes().begin() + static_cast<std::ptrdiff_t>(start - kStart),
                           wal.bytes().end());
    for (std::size_t piece :
         {std::size_t{1}, std::size_t{23}, std::size_t{kWalPageBytes}, bytes.size()}) {
        Decoded decoded = decode(bytes, start, piece);
        CHECK(decoded.error == "");
        REQUIRE(decoded.findings.size() == 1);
        CHECK(decoded.findings[0].xid == 702);
        CHECK(decoded.checked_lsn == wal.end());
    }
    CHECK(decode(ByteSpan(bytes).first(9000), start).record_start_lsn == start);
    ByteBuffer damaged = bytes;
    damaged[2 * kWalPageBytes + 100] = std::byte{1};
    CHECK(mentions(decode(damaged, start), "an empty page is followed by one that is not"));
    // A page of a stream that is being followed is never empty, the first of a segment neither.
    auto first = ByteSpan(wal.bytes()).first(kWalPageBytes);
    ByteBuffer hole(first.begin(), first.end());
    hole.resize(3 * kWalPageBytes);
    CHECK(mentions(decode(hole, kStart), "the page has the magic 0000"));
    CHECK(mentions(decode(ByteBuffer(kWalPageBytes), kStart), "the page has the magic 0000"));
}

TEST_CASE("a record that a crash cut off is dropped when the next page overwrites it") {
    WalBuilder wal(kStart);
    wal.add(WalBuilder::commit(1, 5));
    const Lsn lost = wal.add(filler(20'000), 9'000);
    wal.add_overwrite(lost);
    wal.add(WalBuilder::commit(2, 6));
    Decoded decoded = decode(wal.bytes(), kStart, 100);
    CHECK(decoded.error == "");
    CHECK(decoded.findings.size() == 2);
    CHECK(decoded.checked_lsn == wal.end());

    WalBuilder wrong(kStart);
    wrong.add(filler(20'000), 9'000);
    wrong.add_overwrite(kStart + 48);
    CHECK(mentions(decode(wrong.bytes(), kStart),
                   "overwrites the one at 0/300030 instead of 0/300028"));

    WalBuilder none(kStart);
    none.add(WalBuilder::commit(1, 5));
    none.add_overwrite(kStart + 40);
    none.fill_page();
    CHECK(decode(none.bytes(), kStart).error != "");
}

TEST_CASE("every kind of damage is named, with the LSN it is at") {
    struct Damage {
        std::uint64_t offset;
        std::uint8_t value;
        const char* named;
    };
    // Offsets in the first page: its long header, then the record at 40.
    const Damage damages[] = {
        {0, 0x11, "magic"},
        {2, 0x82, "flags"},
        {2, 0x00, "without a long page header"},
        {4, 9, "timeline 9"},
        {9, 0x20, "belongs at"},
        {24, 0, "is of system"},
        {34, 0x20, "bytes instead of 1048576"},
        {37, 0x40, "pages of 16384"},
        {40, 0, "length of 0"},
        {43, 0x50, "length of"},
        {48, 0x01, "CRC"},
        {51, 0x77, "before it"},
        {57, 99, "resource manager 99"},
        {60, 0x00, "CRC"},
        {66, 0xFE, "CRC"},
    };
    for (const Damage& damage : damages) {
        for (std::size_t piece : {1, 100'000}) {
            WalBuilder wal = mixed_wal();
            wal.bytes()[damage.offset] = static_cast<std::byte>(damage.value);
            Decoded decoded = decode(wal.bytes(), kStart, piece);
            INFO("offset ", damage.offset);
            CHECK(mentions(decoded, damage.named));
            CHECK(decoded.findings.empty());
            CHECK(decoded.checked_lsn == kStart);
            CHECK(decoded.error.find("0/3000") != std::string::npos);
        }
    }
}

TEST_CASE("a flipped bit anywhere in a record is found") {
    WalBuilder wal(kStart);
    const Lsn first = wal.add(WalBuilder::commit(1, 5));
    const Lsn second = wal.add(WalBuilder::commit(2, 6));
    const Lsn end = wal.end();
    for (std::uint64_t at = first.value; at < end.value; ++at) {
        // Neither the padding between records nor the padding inside a header's first 20 bytes is
        // free: the latter is under the CRC.
        const bool padding = at >= first.value + 34 && at < second.value;
        if (padding) continue;
        WalBuilder damaged = wal;
        *damaged.at(Lsn{at}) ^= std::byte{0x10};
        Decoded decoded = decode(damaged.bytes(), kStart);
        // A longer length makes the record wait for bytes: it is then not counted as checked
        // either.
        const bool whole = decoded.error.empty() && decoded.checked_lsn == end;
        CHECK_FALSE(whole);
    }
}

TEST_CASE("a page in mid-record must continue exactly that record") {
    WalBuilder wal(kStart);
    wal.add(filler(20'000));
    std::byte* second_page = wal.at(kStart + kWalPageBytes);
    const std::byte saved_flags = second_page[2];
    second_page[2] = std::byte{0};
    CHECK(mentions(decode(wal.bytes(), kStart), "does not continue the record at 0/300028"));
    second_page[2] = saved_flags;
    second_page[16] ^= std::byte{8};
    CHECK(mentions(decode(wal.bytes(), kStart), "bytes left instead of"));
    second_page[16] ^= std::byte{8};
    second_page[4] = std::byte{0};
    CHECK(mentions(decode(wal.bytes(), kStart), "timeline 0"));

    WalBuilder whole(kStart);
    whole.add(filler(kWalPageBytes - 40 - 24 - 5));
    whole.add(WalBuilder::commit(1, 1));
    REQUIRE(decode(whole.bytes(), kStart).error == "");
    *whole.at(kStart + kWalPageBytes + 2) = std::byte{1};
    *whole.at(kStart + kWalPageBytes + 16) = std::byte{9};
    CHECK(mentions(decode(whole.bytes(), kStart), "none is incomplete"));
    *whole.at(kStart + kWalPageBytes + 2) = std::byte{8};
    CHECK(mentions(decode(whole.bytes(), kStart), "none is incomplete"));
}

TEST_CASE("a record that names another predecessor is refused") {
    WalBuilder wal(kStart);
    wal.add(WalBuilder::commit(1, 5));
    WalBuilder other(kStart);
    other.add(WalBuilder::commit(1, 5));
    other.add(WalBuilder::commit(2, 5));
    const Lsn third = other.add(WalBuilder::commit(3, 5));
    ByteBuffer spliced = wal.bytes();
    spliced.resize((spliced.size() + 7) / 8 * 8);
    append(spliced, ByteSpan(other.bytes()).subspan(third - kStart));
    CHECK(mentions(decode(spliced, kStart), "as the record before it instead of 0/300028"));
}

TEST_CASE("opening refuses what it cannot read") {
    WalDecoderOptions options = options_of_test();
    for (unsigned major : {0U, 13U, 19U}) {
        options.server_major = major;
        auto opened = WalDecoder::open(options, kStart);
        REQUIRE_FALSE(opened);
        CHECK(opened.error().code == Errc::unsupported);
    }
    options = options_of_test();
    for (std::uint64_t bytes : {0ULL, 3ULL << 20, 1ULL << 19, 1ULL << 31}) {
        options.segment_bytes = bytes;
        CHECK(WalDecoder::open(options, kStart).error().code == Errc::invalid_argument);
    }
    CHECK(WalDecoder::open(options_of_test(), kStart + 8).error().code == Errc::invalid_argument);
    CHECK(WalDecoder::open(options_of_test(), Lsn{~0ULL}).error().code == Errc::invalid_argument);
}

TEST_CASE("the system identifier is learned from the first segment and then held to") {
    WalDecoderOptions options = options_of_test();
    options.system_identifier = 0;
    WalBuilder wal = mixed_wal();
    CHECK(decode(wal.bytes(), kStart, 4096, options).error == "");
    *wal.at(kStart + WalBuilder::kSegmentBytes + 24) = std::byte{1};
    *wal.at(kStart + WalBuilder::kSegmentBytes + 25) = std::byte{1};
    CHECK(mentions(decode(wal.bytes(), kStart, 4096, options), "is of system"));
}

TEST_CASE(
    "a commit carries what its transaction and subtransactions changed, created and dropped") {
    WalBuilder wal(kStart);
    constexpr RelationFile kOther{1663, 5, 20'000};
    constexpr RelationFile kCatalog{1663, 5, 1259};
    wal.add(
        {.rmgr = 10, .info = 0x00, .xid = 50, .body = WalBuilder::block_and_main(kOther, {}, {})});
    wal.add(
        {.rmgr = 10, .info = 0x10, .xid = 51, .body = WalBuilder::block_and_main(kTable, {}, {})});
    wal.add(
        {.rmgr = 10, .info = 0xC0, .xid = 51, .body = WalBuilder::block_and_main(kTable, {}, {})});
    wal.add({.rmgr = 10,
             .info = 0x00,
             .xid = 51,
             .body = WalBuilder::block_and_main(kCatalog, {}, {})});
    const ByteBuffer multi = words({7U << 16, 0});
    const ByteBuffer tuples(6'000, std::byte{1});
    for (int i = 0; i < 3; ++i)
        wal.add({.rmgr = 9,
                 .info = 0xD0,
                 .xid = 50,
                 .body = WalBuilder::block_and_main(kTable, tuples, multi)});
    for (std::uint32_t fork : {0U, 1U})
        wal.add({.rmgr = 2,
                 .info = 0x10,
                 .xid = 51,
                 .body = WalBuilder::main_data(words({1663, 5, 20'001, fork}))});
    ByteBuffer commit;
    append_le(commit, std::int64_t{77});
    append(commit, words({0x1 | 0x2 | 0x4 | 0x8 | 0x100, 5, 1663}));  // xinfo, database
    append(commit, words({1, 51}));                                   // subtransactions
    append(commit, words({2, 1663, 5, 16'400, 1663, 5, 16'401}));     // dropped files
    append(commit, words({1, 2, 5, 16'400}));                         // dropped statistics
    append(commit, words({1, 0, 0, 0, 0}));                           // invalidations
    wal.add({.rmgr = 1, .info = 0x80, .xid = 50, .body = WalBuilder::main_data(commit)});
    for (std::size_t piece : {1, 1'000'000}) {
        Decoded decoded = decode(wal.bytes(), kStart, piece);
        CHECK(decoded.error == "");
        REQUIRE(decoded.findings.size() == 1);
        const WalFinding& finding = decoded.findings[0];
        CHECK(finding.inserted_rows == 22);
        CHECK(finding.deleted_rows == 1);
        CHECK(finding.updated_rows == 1);
        CHECK(finding.most_changed == kTable);
        CHECK(finding.dropped == std::vector<RelationFile>{{1663, 5, 16'400}, {1663, 5, 16'401}});
        CHECK(finding.created == std::vector<RelationFile>{{1663, 5, 20'001}});
    }
}

TEST_CASE("prepared transactions end under the xid they were prepared with") {
    WalBuilder wal(kStart);
    wal.add(
        {.rmgr = 10, .info = 0x00, .xid = 60, .body = WalBuilder::block_and_main(kTable, {}, {})});
    ByteBuffer prepare = words({0x57F94534, 100, 60, 5});
    append_le(prepare, std::int64_t{1'000});
    wal.add({.rmgr = 1, .info = 0x10, .xid = 60, .body = WalBuilder::main_data(prepare)});
    ByteBuffer commit;
    append_le(commit, std::int64_t{2'000});
    append(commit, words({0x10 | 0x80, 60, 0x64696700}));  // xinfo, xid, gid
    wal.add({.rmgr = 1, .info = 0xB0, .body = WalBuilder::main_data(commit)});
    wal.add({.rmgr = 1, .info = 0xC0, .body = WalBuilder::main_data(commit)});
    Decoded decoded = decode(wal.bytes(), kStart);
    CHECK(decoded.error == "");
    REQUIRE(decoded.findings.size() == 3);
    CHECK(decoded.findings[0].kind == WalFinding::Kind::prepare);
    CHECK(decoded.findings[0].at == from_postgres_micros(1'000));
    CHECK(decoded.findings[1].kind == WalFinding::Kind::commit);
    CHECK(decoded.findings[1].xid == 60);
    CHECK(decoded.findings[1].inserted_rows == 1);
    CHECK(decoded.findings[2].kind == WalFinding::Kind::abort);
    CHECK(decoded.findings[2].xid == 60);
}

TEST_CASE("a commit record whose lists run past its end is refused") {
    WalBuilder wal(kStart);
    ByteBuffer commit;
    append_le(commit, std::int64_t{77});
    append(commit, words({0x4, 0xFFFFFFFF, 1, 2, 3}));
    wal.add({.rmgr = 1, .info = 0x80, .xid = 50, .body = WalBuilder::main_data(commit)});
    CHECK(mentions(decode(wal.bytes(), kStart), "does not write"));
    WalBuilder tail(kStart);
    tail.add({.rmgr = 1, .xid = 50, .body = {std::byte{255}, std::byte{9}, std::byte{0}}});
    CHECK(mentions(decode(tail.bytes(), kStart), "does not write"));
}

TEST_CASE("the records of the WAL machinery give marks") {
    WalBuilder wal(kStart);
    ByteBuffer point;
    append_le(point, std::int64_t{4'000});
    append(point, as_bytes("before release"));
    point.resize(72);
    wal.add({.rmgr = 0, .info = 0x70, .body = WalBuilder::main_data(point)});
    ByteBuffer checkpoint;
    append_le(checkpoint, kStart.value + 40);
    append(checkpoint, words({1, 1}));
    checkpoint.resize(64);
    append_le(checkpoint, std::int64_t{1'700'000'000});
    checkpoint.resize(88);
    wal.add({.rmgr = 0, .info = 0x10, .body = WalBuilder::main_data(checkpoint)});
    wal.add(
        {.rmgr = 0, .info = 0x60, .body = WalBuilder::main_data(words({100, 8, 10, 0, 64, 0, 0}))});
    wal.add(
        {.rmgr = 0, .info = 0x60, .body = WalBuilder::main_data(words({100, 8, 10, 0, 64, 1, 0}))});
    wal.add({.rmgr = 0, .info = 0x50, .body = WalBuilder::main_data(words({40, 1}))});
    wal.add({.rmgr = 0, .info = 0x90, .body = WalBuilder::main_data(words({64, 0, 2, 1}))});
    wal.add({.rmgr = 10,
             .info = 0x30,
             .xid = 5,
             .body = WalBuilder::main_data(words({5, 2, 0, 16'390, 16'391}))});
    Decoded decoded = decode(wal.bytes(), kStart);
    CHECK(decoded.error == "");
    REQUIRE(decoded.findings.size() == 7);
    CHECK(decoded.findings[0].name == "before release");
    CHECK(decoded.findings[0].at == from_postgres_micros(4'000));
    CHECK(decoded.findings[1].redo_lsn == kStart + 40);
    CHECK(to_utc_text(decoded.findings[1].at) == "2023-11-14T22:13:20.000000Z");
    CHECK(decoded.findings[2].wal_level_minimal);
    CHECK_FALSE(decoded.findings[3].wal_level_minimal);
    CHECK(decoded.findings[4].redo_lsn == Lsn{(1ULL << 32) + 40});
    CHECK(decoded.findings[5].timeline == 2);
    CHECK(decoded.findings[6].dropped == std::vector<RelationFile>{{0, 5, 16'390}, {0, 5, 16'391}});
}
