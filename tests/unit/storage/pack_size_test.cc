#include <doctest/doctest.h>

#include "storage/pack_reader.h"
#include "tests/unit/storage/fixtures.h"
#include "tests/unit/storage/stage.h"

namespace walvault::storage {
namespace {

WalFinding commit_at(std::uint64_t lsn, std::int64_t at_us) {
    WalFinding finding;
    finding.kind = WalFinding::Kind::commit;
    finding.start_lsn = Lsn{lsn};
    finding.end_lsn = Lsn{lsn + 40};
    finding.xid = static_cast<Xid>(lsn / 40);
    finding.at = WallTime(Micros(at_us));
    return finding;
}

std::vector<pb::MarkEntry> marks_of(MarkBuilder& builder, std::vector<std::int64_t> seconds) {
    std::vector<pb::MarkEntry> marks;
    std::uint64_t lsn = 4000;
    for (std::int64_t second : seconds)
        builder.add(commit_at(lsn += 40, second * 1'000'000), marks);
    return marks;
}

TEST_CASE("a clock that is set back is one mark, however long it takes to catch up") {
    MarkBuilder builder(0);
    auto marks = marks_of(builder, {100, 200, 50, 51, 52, 199, 201, 202});
    REQUIRE(marks.size() == 1);
    CHECK(marks[0].kind() == pb::MarkEntry::CLOCK_STEP);
    CHECK(marks[0].at_us() == 50'000'000);
    CHECK(marks[0].step_from_us() == 200'000'000);
}

TEST_CASE("a clock that is set back again before it has caught up is a mark again") {
    MarkBuilder builder(200'000'000);
    auto marks = marks_of(builder, {50, 60, 20, 21, 300, 250});
    REQUIRE(marks.size() == 3);
    CHECK(marks[0].at_us() == 50'000'000);
    CHECK(marks[1].at_us() == 20'000'000);
    CHECK(marks[1].step_from_us() == 200'000'000);
    CHECK(marks[2].at_us() == 250'000'000);
    CHECK(marks[2].step_from_us() == 300'000'000);
}

TEST_CASE("a footer that no frame can hold is an error, and the pack is not there") {
    ScratchDirectory directory;
    FileHeader header = test_wal_header();
    header.stream = StreamKind::base;
    DataKey key = test_data_key(1, pb::KEY_PURPOSE_BASE);
    FileCipher cipher = FileCipher::for_new_file(key, header);
    auto pack = must(
        PackWriter::create(posix_file_system(), directory.path(), "a.pack", std::move(cipher)));
    pb::FrameEntry entry;
    entry.set_content_id(std::string(32, 'c'));
    ByteBuffer sealed(100);
    for (std::uint32_t number = 0; number < 150'000; ++number) {
        entry.set_frame_number(number);
        must(pack->append(sealed, entry));
    }
    auto finished = pack->finish({});
    REQUIRE(!finished);
    CHECK(finished.error().code == Errc::invalid_argument);
    pack.reset();
    CHECK(std::filesystem::is_empty(directory.path()));
}

// Restore points, each of which is a mark, and a commit now and then.
void add_restore_points(MadeWal& wal, int count) {
    for (int n = 0; n < count; ++n) {
        ByteBuffer body;
        append_le(body, wal.clock_us += 10);
        std::string name = "point " + std::to_string(n);
        name.resize(63, '.');
        append(body, as_bytes(name));
        body.push_back(std::byte{0});
        wal.builder.add({.rmgr = 0, .info = 0x70, .body = WalBuilder::main_data(body)});
        if (n % 1000 != 0) continue;
        Lsn at = wal.builder.add(WalBuilder::commit(wal.next_xid, wal.clock_us += 2000));
        wal.commits.push_back({at, wal.next_xid++, from_postgres_micros(wal.clock_us)});
    }
}

TEST_CASE("a tail with more marks than a footer can hold becomes several packs, entered at once") {
    constexpr int kPoints = 90'000;
    Stage stage;
    stage.create();
    MadeWal wal;
    add_restore_points(wal, kPoints);
    bool crash = false;
    SUBCASE("when it is closed") {}
    SUBCASE("when a crash left it") { crash = true; }
    {
        auto repository = must(stage.open());
        HistoryWriter writer(*repository, wal);
        must(writer.begin());
        must(writer.store(300'000, 1u << 30));
        if (!crash) must(writer.close());
    }
    auto repository = must(stage.open());
    CHECK(stage.paths_of(".tail").empty());
    for (bool with_index : {true, false}) {
        CAPTURE(with_index);
        auto view = stage.view(with_index);
        HistoryRecord history = must(view->histories("main")).back();
        CHECK(history.end_lsn == wal.builder.end());
        CHECK(must(view->packs("main")).size() > 1);
        CHECK(must(view->packs("main")).size() == must(view->totals("main")).pack_count);
        CHECK(must(view->marks("main", {}, {}, {})).size() == kPoints);
        ByteBuffer stored = read_all(*view, history);
        CHECK(std::ranges::equal(stored, wal.builder.bytes()));
        for (const MadeCommit& commit : wal.commits) {
            auto after = must(view->first_transaction_after(history.id, commit.at - Micros(1)));
            REQUIRE(after);
            CHECK(after->start_lsn == commit.start_lsn);
        }
        for (const pb::PackInfo& pack : must(view->packs("main")))
            must(view->verify_pack(pack, true));
    }
}

}  // namespace
}  // namespace walvault::storage
