#include "storage/repository.h"

#include <doctest/doctest.h>

#include "tests/support/faulty_file_system.h"
#include "tests/support/stored_history.h"
#include "tests/unit/storage/stage.h"

namespace walvault::storage {
namespace {

// Every answer a resolver asks for, against the list of commits that were made.
void check_answers(RepositoryView& view, MadeWal& wal) {
    HistoryRecord history = must(view.histories("main")).back();
    CHECK(history.end_lsn == wal.builder.end());
    ByteBuffer stored = read_all(view, history);
    CHECK(std::equal(stored.begin(), stored.end(), wal.builder.bytes().begin(),
                     wal.builder.bytes().end()));
    std::size_t step = std::max<std::size_t>(1, wal.commits.size() / 25);
    for (std::size_t i = 0; i < wal.commits.size(); i += step) {
        const MadeCommit& commit = wal.commits[i];
        auto after = must(view.first_transaction_after(history.id, commit.at - Micros(1)));
        REQUIRE(after);
        CHECK(after->start_lsn == commit.start_lsn);
        auto next = must(view.first_transaction_after(history.id, commit.at));
        CHECK(next.has_value() == (i + 1 < wal.commits.size()));
        if (next) CHECK(next->start_lsn == wal.commits[i + 1].start_lsn);
        auto before = must(view.last_commit_before(history.id, commit.start_lsn));
        CHECK(before.has_value() == (i > 0));
        if (before) CHECK(before->start_lsn == wal.commits[i - 1].start_lsn);
        auto inside = must(view.last_commit_before(history.id, commit.start_lsn + 8));
        REQUIRE(inside);
        CHECK(inside->xid == commit.xid);
        CHECK(must(view.has_commit_behind(history.id, commit.start_lsn)));
        CHECK(must(view.has_commit_behind(history.id, Lsn{after->end_lsn.value - 1})));
        CHECK(must(view.has_commit_behind(history.id, after->end_lsn)) ==
              (i + 1 < wal.commits.size()));
        auto from = must(view.first_transaction_from(history.id, commit.start_lsn));
        REQUIRE(from);
        CHECK(from->xid == commit.xid);
        auto found = must(view.find_xid(history.id, commit.xid));
        REQUIRE(found.size() == 1);
        CHECK(found.front().at == commit.at);
    }
    std::size_t scanned = 0;
    must(view.scan(history.id, history.start_lsn, history.end_lsn, [&](const WalFinding& finding) {
        if (finding.kind == WalFinding::Kind::commit) ++scanned;
        return true;
    }));
    CHECK(scanned == wal.commits.size());
}

TEST_CASE(
    "what was stored is read back and every commit is found, in packs, tails and across both") {
    std::uint64_t seed = std::random_device{}();
    CAPTURE(seed);
    for (std::size_t frame_bytes : {700u, 5'000u, 70'000u, 300'000u}) {
        CAPTURE(frame_bytes);
        Stage stage;
        stage.create();
        MadeWal wal;
        wal.grow(seed + frame_bytes, 900'000);
        {
            auto repository = must(stage.open());
            HistoryWriter writer(*repository, wal);
            must(writer.begin());
            must(writer.store(frame_bytes, 1u << 30));
            auto view = stage.view();  // one open tail and no pack
            check_answers(*view, wal);
            must(writer.close());
        }
        wal.grow(seed + 1, 1'200'000);
        auto repository = must(stage.open());
        HistoryWriter writer(*repository, wal);
        must(writer.begin());
        must(writer.store(frame_bytes, 400'000));
        check_answers(*stage.view(), wal);
        check_answers(*stage.view(false), wal);  // without an index
    }
}

TEST_CASE("a commit that begins in one pack and ends in the next is found from where it begins") {
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(7, 300'000);
    const std::size_t middle = wal.commits.size() / 2;
    const MadeCommit& commit = wal.commits[middle];
    auto repository = must(stage.open());
    HistoryWriter writer(*repository, wal);
    must(writer.begin());
    const std::size_t cut = commit.start_lsn + 8 - wal.builder.start();
    must(writer.store(cut, cut));
    must(writer.close());
    auto view = stage.view();
    const HistoryRecord history = writer.history();
    auto from = must(view->first_transaction_from(history.id, commit.start_lsn));
    REQUIRE(from);
    CHECK(from->xid == commit.xid);
    from = must(view->first_transaction_from(history.id, commit.start_lsn + 1));
    REQUIRE(from);
    CHECK(from->xid == wal.commits[middle + 1].xid);
}

// With frames of so many bytes where the other history leaves this one.
void check_commits_behind_a_fork(std::size_t frame_bytes) {
    CAPTURE(frame_bytes);
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(77, WalBuilder::kSegmentBytes + 200'000);
    auto repository = must(stage.open());
    HistoryWriter writer(*repository, wal);
    must(writer.begin());
    const Lsn leaves = wal.builder.start() + WalBuilder::kSegmentBytes;
    must(writer.store(50'000, ~std::size_t{0}, Lsn{leaves.value - 3'000}));
    must(writer.store(frame_bytes, ~std::size_t{0}, leaves + 3'000));
    must(writer.store(50'000, ~std::size_t{0}));
    must(writer.close());
    const Id16 whole = must(repository->histories("main")).front().id;
    pb::HistoryOpened opened;
    opened.set_cluster("main");
    opened.set_timeline(2);
    opened.set_parent_id(std::string(as_text(whole)));
    opened.set_start_lsn(leaves.value);
    opened.set_fork_lsn(leaves.value);
    opened.set_reason("test");
    const Id16 branch = must(repository->open_history(opened));

    auto view = stage.view();
    std::vector<Lsn> ends;
    must(view->scan(whole, wal.builder.start(), wal.builder.end(), [&](const WalFinding& finding) {
        if (finding.kind == WalFinding::Kind::commit) ends.push_back(finding.end_lsn);
        return true;
    }));
    const auto last = std::ranges::upper_bound(ends, leaves) - 1;
    REQUIRE(last > ends.begin());
    REQUIRE(last + 1 < ends.end());
    for (const Lsn at : {*(last - 1), Lsn{last->value - 1}}) {
        CHECK(must(view->has_commit_behind(branch, at)));
        CHECK(must(view->has_commit_behind(whole, at)));
    }
    for (const Lsn at : {*last, leaves}) {
        CHECK_FALSE(must(view->has_commit_behind(branch, at)));
        CHECK(must(view->has_commit_behind(whole, at)));
    }
    CHECK_FALSE(must(view->has_commit_behind(whole, ends.back())));
}

TEST_CASE("of a pack that a history leaves in the middle, only what comes before counts for it") {
    for (std::size_t frame_bytes = 150; frame_bytes <= 1'350; frame_bytes += 75)
        check_commits_behind_a_fork(frame_bytes);
}

TEST_CASE("a tail that a crash left becomes a pack, and nothing flushed is lost") {
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(1, 300'000);
    {
        auto repository = must(stage.open());
        HistoryWriter writer(*repository, wal);
        must(writer.begin());
        must(writer.store(10'000, 1u << 30));
    }
    auto repository = must(stage.open());
    auto history = must(repository->current_history("main"));
    REQUIRE(history);
    CHECK(history->end_lsn == wal.builder.end());
    check_answers(*stage.view(), wal);
}

TEST_CASE("a second writer is refused, and a wrong key is told from damage") {
    Stage stage;
    stage.create();
    auto first = must(stage.open());
    auto second = stage.open();
    REQUIRE(!second);
    CHECK(second.error().code == Errc::busy);
    first.reset();
    MasterKey right = std::move(stage.master);
    stage.master = MasterKey::generate();
    auto wrong = stage.open();
    REQUIRE(!wrong);
    CHECK(wrong.error().code == Errc::wrong_key);
    stage.master = std::move(right);
    CHECK(stage.open());
}

// One scripted life: three tails, closings in place and by rewriting, a reopening.
Result<> live(Stage& stage, FileSystem& files, MadeWal& wal, bool ahead, Lsn& flushed) {
    for (int life = 0; life < 2; ++life) {
        WV_TRY(auto repository, stage.open(files));
        HistoryWriter writer(*repository, wal);
        writer.writes_ahead = ahead;
        auto run = [&]() -> Result<> {
            WV_CHECK(writer.begin());
            WV_CHECK(writer.store(life == 0 ? 12'000 : 280'000, ahead ? 300'000 : 60'000));
            return life == 1 ? writer.close() : Result<>{};
        };
        auto ran = run();
        flushed = std::max(flushed, writer.flushed);
        if (!ran) {
            writer.drop();
            return ran;
        }
        wal.grow(7, 300'000);
    }
    return {};
}

// For a reader on what a crash left, before any writer has tidied up.
void check_nothing_is_damaged(RepositoryView& view) {
    for (const pb::PackInfo& pack : must(view.packs("main"))) {
        CAPTURE(pack.path());
        auto checked = view.verify_pack(pack, true);
        if (!checked) FAIL_CHECK(std::string(checked.error().message));
    }
}

TEST_CASE("whatever operation fails, everything flushed before it is there after a restart") {
    bool tear = false;
    SUBCASE("the operation does nothing") {}
    SUBCASE("a failing write leaves half of its bytes") { tear = true; }
    bool ahead = false;
    SUBCASE("that, and frames stand on space written ahead") { tear = ahead = true; }
    for (std::uint64_t fail_at = 1;; ++fail_at) {
        CAPTURE(fail_at);
        Stage stage;
        stage.create();
        MadeWal wal;
        wal.grow(3, 100'000);
        FaultyFileSystem files(posix_file_system(), fail_at, tear);
        Lsn flushed = wal.builder.start();
        (void)live(stage, files, wal, ahead, flushed);
        check_nothing_is_damaged(*stage.view(false));
        auto repository = stage.open();
        if (!repository) FAIL(std::string(repository.error().message));
        auto history = must((*repository)->current_history("main"));
        Lsn end = history ? history->end_lsn : wal.builder.start();
        CHECK(end >= flushed);
        if (history) {
            HistoryWriter writer(**repository, wal);
            must(writer.begin());
            must(writer.store(100'000, 400'000));
            ByteBuffer stored =
                read_all(*stage.view(), must((*repository)->current_history("main")).value());
            ByteSpan wanted = wal.from(wal.builder.start()).first(stored.size());
            CHECK(std::equal(stored.begin(), stored.end(), wanted.begin(), wanted.end()));
        }
        if (!files.fired()) break;
    }
}

TEST_CASE("an index that is gone, damaged or of an older day is made good, with the same answers") {
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(11, 600'000);
    {
        auto repository = must(stage.open());
        HistoryWriter writer(*repository, wal);
        must(writer.begin());
        must(writer.store(30'000, 200'000));
        must(writer.close());
    }
    std::string index = stage.root + "/index";
    SUBCASE("gone") { std::filesystem::remove_all(index); }
    SUBCASE("without CURRENT") { std::filesystem::remove(index + "/CURRENT"); }
    SUBCASE("every file cut in half") {
        for (const auto& entry : std::filesystem::directory_iterator(index))
            if (entry.file_size() > 1)
                std::filesystem::resize_file(entry.path(), entry.file_size() / 2);
    }
    SUBCASE("of an older day") {
        std::string older = stage.directory / "older";
        std::filesystem::copy(index, older, std::filesystem::copy_options::recursive);
        wal.grow(12, 300'000);
        {
            auto repository = must(stage.open());
            HistoryWriter writer(*repository, wal);
            must(writer.begin());
            must(writer.store(30'000, 200'000));
            must(writer.close());
        }
        std::filesystem::remove_all(index);
        std::filesystem::rename(older, index);
    }
    check_answers(*stage.view(), wal);  // a reader alone
    auto repository = must(stage.open());
    check_answers(*stage.view(), wal);
}

TEST_CASE("a ledger that is shorter than what was seen is refused") {
    Stage stage;
    stage.create();
    std::string saved = stage.directory / "ledger";
    std::filesystem::copy(stage.root + "/ledger", saved, std::filesystem::copy_options::recursive);
    { auto repository = must(stage.open()); }
    std::filesystem::remove_all(stage.root + "/ledger");
    std::filesystem::rename(saved, stage.root + "/ledger");
    auto rolled_back = stage.open();
    REQUIRE(!rolled_back);
    CHECK(rolled_back.error().code == Errc::corrupt);
}

TEST_CASE("a synced frame that is damaged is told from the torn end of a crash") {
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(21, 200'000);
    std::string tail;
    {
        auto repository = must(stage.open());
        HistoryWriter writer(*repository, wal);
        must(writer.begin());
        must(writer.store(20'000, 1u << 30));
        for (const auto& entry : std::filesystem::recursive_directory_iterator(stage.root))
            if (entry.path().extension() == ".tail") tail = entry.path();
    }
    REQUIRE(!tail.empty());
    stage.store = make_directory_store(posix_file_system(), stage.root);
    RepositoryView::Options options{.index_directory = stage.root + "/index",
                                    .scratch_directory = stage.directory.path()};
    ByteBuffer whole = raw_file(tail);
    auto write = [&](ByteSpan bytes) {
        std::ofstream(tail, std::ios::binary | std::ios::trunc) << as_text(bytes);
    };
    SUBCASE("a flipped bit in the middle") {
        ByteBuffer bytes = whole;
        bytes[bytes.size() / 2] ^= std::byte{4};
        write(bytes);
        auto view = must(RepositoryView::open(*stage.store, stage.master, options));
        HistoryRecord history = must(view->histories("main")).back();
        REQUIRE(history.damage);
        CHECK(history.damage->code == Errc::corrupt);
        CHECK(history.end_lsn > history.start_lsn);
        // What is before the damage is there; what is behind it was, and is no gap.
        ByteBuffer stored = read_all(*view, history);
        CHECK(std::equal(stored.begin(), stored.end(), wal.builder.bytes().begin()));
        auto covered = view->require_coverage(history.id, history.start_lsn, wal.builder.end());
        REQUIRE(!covered);
        CHECK(covered.error().code == Errc::corrupt);
        // The agent goes on from there, and keeps the file.
        auto repository = must(stage.open());
        CHECK(must(repository->current_history("main"))->end_lsn == history.end_lsn);
        CHECK(std::filesystem::exists(tail + ".damaged"));
    }
    SUBCASE("half a frame at the end") {
        REQUIRE(whole.size() > 100);
        write(ByteSpan(whole).first(whole.size() - 100));
        auto view = must(RepositoryView::open(*stage.store, stage.master, options));
        HistoryRecord history = must(view->histories("main")).back();
        CHECK(history.end_lsn < wal.builder.end());
        ByteBuffer stored = read_all(*view, history);
        CHECK(std::equal(stored.begin(), stored.end(), wal.builder.bytes().begin()));
    }
    SUBCASE("the file is missing") {
        std::filesystem::remove(tail);
        auto view = must(RepositoryView::open(*stage.store, stage.master, options));
        HistoryRecord history = must(view->histories("main")).back();
        REQUIRE(history.damage);
        CHECK(history.damage->message.find("missing") != std::string::npos);
    }
}

void close_what_was_written_ahead(std::size_t frame_bytes, bool by_a_crash) {
    CAPTURE(frame_bytes);
    CAPTURE(by_a_crash);
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(23, 1'500'000);
    auto repository = must(stage.open());
    HistoryWriter writer(*repository, wal);
    writer.writes_ahead = true;
    must(writer.begin());
    must(writer.store(frame_bytes, 1u << 30));
    const std::string tail = stage.paths_of(".tail").at(0);
    const ByteBuffer written = raw_file(tail);
    std::size_t used = written.size();
    while (used > 0 && written[used - 1] == std::byte{})
        --used;
    REQUIRE(written.size() - used > 1000);
    {
        auto view = stage.view();
        HistoryRecord history = must(view->histories("main")).back();
        CHECK(!history.damage);
        CHECK(history.end_lsn == wal.builder.end());
        CHECK(std::ranges::equal(read_all(*view, history), wal.builder.bytes()));
    }
    auto scanned = must(repository->wal().scan_continuation(
        [&] {
            pb::TailOpened opened;
            opened.set_path(tail.substr(stage.root.size() + 1));
            opened.set_history_id(text_of(writer.history().id));
            opened.set_start_lsn(writer.history().start_lsn.value);
            return opened;
        }(),
        0));
    CHECK(scanned.torn_bytes == 0);
    CHECK(!scanned.damage);
    if (by_a_crash) {
        writer.drop();
        repository.reset();
        repository = must(stage.open());
    } else {
        must(writer.close());
    }
    auto view = stage.view(false);
    HistoryRecord history = must(view->histories("main")).back();
    CHECK(std::ranges::equal(read_all(*view, history), wal.builder.bytes()));
    REQUIRE(stage.paths_of(".pack").size() == 1);
    for (const pb::PackInfo& pack : must(view->packs("main"))) {
        must(view->verify_pack(pack, true));
        CHECK(pack.stored_bytes() == std::filesystem::file_size(stage.root + "/" + pack.path()));
    }
}

TEST_CASE("space written ahead of the frames is neither damage nor torn, and no pack keeps it") {
    for (std::size_t frame_bytes : {10'000u, 300'000u})  // rewritten, closed in place
        for (bool by_a_crash : {false, true})
            close_what_was_written_ahead(frame_bytes, by_a_crash);
}

TEST_CASE("a synced frame that reads as zeros is damage where a later one vouches for it") {
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(22, 200'000);
    {
        auto repository = must(stage.open());
        HistoryWriter writer(*repository, wal);
        writer.writes_ahead = true;
        must(writer.begin());
        must(writer.store(20'000, 1u << 30));
    }
    const std::string tail = stage.paths_of(".tail").at(0);
    ByteBuffer bytes = raw_file(tail);
    std::fill_n(bytes.begin() + 30'000, 9'000, std::byte{});
    std::ofstream(tail, std::ios::binary | std::ios::trunc) << as_text(bytes);
    HistoryRecord history = must(stage.view()->histories("main")).back();
    REQUIRE(history.damage);
    CHECK(history.damage->code == Errc::corrupt);
    CHECK(history.end_lsn > history.start_lsn);
}

TEST_CASE(
    "what went wrong is known again after a restart, and a clean look at everything ends it") {
    Stage stage;
    stage.create();
    auto verified = [](const std::string& level, std::uint64_t failed) {
        pb::LedgerEntry entry;
        entry.mutable_verify_done()->set_level(level);
        entry.mutable_verify_done()->set_failed_count(failed);
        return entry;
    };
    const WallTime before = system_clock().now();
    {
        auto repository = must(stage.open());
        CHECK(must(repository->troubles("main")).failed_backups == 0);
        must(repository->ensure_cluster({.name = "main", .segment_bytes = 1_MiB}));
        std::string id = must(repository->begin_backup("main"));
        must(repository->fail_backup("main", id, "test"));
        must(repository->fail_backup("other", "x", "not of this cluster"));
        must(repository->append_to_ledger(verified("chunks", 2)));
        CHECK(must(repository->troubles("main")).failed_backups == 1);
    }
    auto repository = must(stage.open());
    auto known = must(repository->troubles("main"));
    CHECK(known.failed_backups == 1);
    CHECK(known.last_failed_backup >= before);
    CHECK(known.damaged == 2);
    must(repository->append_to_ledger(verified("wal", 0)));
    CHECK(must(repository->troubles("main")).damaged == 2);
    must(repository->append_to_ledger(verified("wal", 5)));
    CHECK(must(repository->troubles("main")).damaged == 5);
    must(repository->append_to_ledger(verified("chunks", 0)));
    CHECK(must(repository->troubles("main")).damaged == 0);
}

TEST_CASE("an entry that the ledger could not take is counted") {
    Stage stage;
    stage.create();
    FaultyFileSystem counting(posix_file_system(), 0, false);
    { auto repository = must(stage.open(counting)); }
    FaultyFileSystem files(posix_file_system(), counting.operation_count() + 1, false);
    auto repository = must(stage.open(files));
    CHECK(repository->counts().ledger_errors == 0);
    while (repository->begin_backup("main")) {
    }
    CHECK(repository->counts().ledger_errors == 1);
}

}  // namespace
}  // namespace walvault::storage
