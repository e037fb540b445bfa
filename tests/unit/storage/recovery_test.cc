#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/faulty_file_system.h"
#include "tests/unit/storage/stage.h"

namespace walvault::storage {
namespace {

WallTime covered_until(RepositoryView& view) {
    return must(view.histories("main")).back().covered_until;
}

TEST_CASE("what quiet frames prove is kept when their tail goes, and never moves back") {
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(5, 300'000);
    const WallTime proof = wal.commits.back().at + std::chrono::hours(3);
    std::size_t frame_bytes = 10'000;
    SUBCASE("small frames, rewritten") {}
    SUBCASE("large frames, closed in place") { frame_bytes = 300'000; }
    {
        auto repository = must(stage.open());
        HistoryWriter writer(*repository, wal);
        must(writer.begin());
        must(writer.store(frame_bytes, 1u << 30));
        must(writer.store_quiet(proof));
        must(writer.close());
        CHECK(covered_until(*stage.view()) == proof);
        // The server was lost and came back: tails that hold nothing but proofs.
        must(writer.store_quiet(proof + std::chrono::hours(1)));
        must(writer.close());
        CHECK(covered_until(*stage.view()) == proof + std::chrono::hours(1));
        must(writer.store_quiet(proof + std::chrono::hours(2)));
        writer.drop();
    }
    auto repository = must(stage.open());
    CHECK(stage.paths_of(".tail").empty());
    // A pack without any proof of its own.
    wal.grow(6, 100'000);
    HistoryWriter writer(*repository, wal);
    must(writer.begin());
    must(writer.store(frame_bytes, 1u << 30));
    must(writer.close());
    for (bool with_index : {true, false}) {
        CAPTURE(with_index);
        CHECK(covered_until(*stage.view(with_index)) == proof + std::chrono::hours(2));
    }
}

TEST_CASE("a pack that a crash left in a tail's place keeps what its quiet frames proved") {
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(5, 600'000);
    const WallTime proof = wal.commits.back().at + std::chrono::hours(3);
    {
        auto repository = must(stage.open());
        HistoryWriter writer(*repository, wal);
        must(writer.begin());
        must(writer.store(300'000, 1u << 30));
        must(writer.store_quiet(proof));
        // Closed as far as its new name.
        std::string saved = stage.directory / "ledger";
        std::filesystem::copy(stage.root + "/ledger", saved,
                              std::filesystem::copy_options::recursive);
        must(writer.close());
        repository.reset();
        std::filesystem::remove_all(stage.root + "/ledger");
        std::filesystem::rename(saved, stage.root + "/ledger");
        std::filesystem::remove_all(stage.root + "/index");
    }
    REQUIRE(stage.paths_of(".pack").size() == 1);
    CHECK(covered_until(*stage.view()) == proof);
    auto repository = must(stage.open());
    CHECK(covered_until(*stage.view()) == proof);
}

void close_while_reading(std::size_t frame_bytes, bool with_index) {
    CAPTURE(frame_bytes);
    CAPTURE(with_index);
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(31, 900'000);
    auto repository = must(stage.open());
    HistoryWriter writer(*repository, wal);
    must(writer.begin());
    must(writer.store(frame_bytes, 1u << 30));
    auto view = stage.view(with_index);
    auto verifier = stage.view(with_index);
    auto listed = must(view->packs("main"));
    REQUIRE(listed.size() == 1);
    HistoryRecord history = must(view->histories("main")).back();
    ByteBuffer read;
    must(view->read_wal(history.id, history.start_lsn, history.end_lsn,
                        [&](ByteSpan piece) -> Result<> {
                            if (read.empty()) WV_CHECK(writer.close());
                            append(read, piece);
                            return {};
                        }));
    CHECK(stage.paths_of(".tail").empty());
    CHECK(std::ranges::equal(read, wal.builder.bytes()));
    CHECK(must(view->first_transaction_from(history.id, wal.commits.back().start_lsn)));
    must(verifier->verify_pack(listed.front(), true));
    must(view->verify_pack(listed.front(), true));
}

TEST_CASE("a reader goes on when the writer closes the tail that it reads") {
    for (std::size_t frame_bytes : {9'000u, 300'000u})  // rewritten, closed in place
        for (bool with_index : {true, false})
            close_while_reading(frame_bytes, with_index);
}

TEST_CASE("a reader goes on where a tail has its pack's name and the ledger does not say so yet") {
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(32, 900'000);
    auto repository = must(stage.open());
    HistoryWriter writer(*repository, wal);
    must(writer.begin());
    must(writer.store(300'000, 1u << 30));
    auto view = stage.view();
    HistoryRecord history = must(view->histories("main")).back();
    const std::string saved = stage.directory / "ledger";
    std::filesystem::copy(stage.root + "/ledger", saved, std::filesystem::copy_options::recursive);
    must(writer.close());
    std::filesystem::remove_all(stage.root + "/ledger");
    std::filesystem::rename(saved, stage.root + "/ledger");
    CHECK(std::ranges::equal(read_all(*view, history), wal.builder.bytes()));
    // And where nothing is in its place, that is said.
    for (const std::string& pack : stage.paths_of(".pack"))
        std::filesystem::remove(pack);
    auto read = view->read_wal(history.id, history.start_lsn, history.end_lsn,
                               [](ByteSpan) { return Result<>{}; });
    REQUIRE(!read);
    CHECK(read.error().code == Errc::corrupt);
}

// Two open tails of one history, the second one beginning in mid-record; the path of the first.
std::string two_open_tails(Stage& stage, MadeWal& wal, Lsn& second_start) {
    auto repository = must(stage.open());
    HistoryWriter writer(*repository, wal);
    must(writer.begin());
    second_start = wal.builder.start() + 200'003;
    must(writer.store(20'000, 1u << 30, second_start));
    const std::string first = stage.paths_of(".tail").front();
    must(writer.store_behind(20'000));
    writer.drop();
    return first;
}

TEST_CASE(
    "a last frame that does not check is damage where the next tail proves that it was synced") {
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(41, 400'000);
    Lsn second_start;
    const std::string first = two_open_tails(stage, wal, second_start);
    const std::string second = stage.paths_of(".tail").back();
    REQUIRE(first != second);
    ByteBuffer bytes = raw_file(first);
    bytes[bytes.size() - 20] ^= std::byte{1};
    write_raw_file(first, bytes);
    {
        HistoryRecord history = must(stage.view()->histories("main")).back();
        CHECK(history.damage.has_value());
        CHECK(history.end_lsn < second_start);
    }
    auto repository = must(stage.open());
    CHECK(stage.paths_of(".tail").empty());
    CHECK(stage.paths_of(".damaged") == std::vector<std::string>{first + ".damaged"});
    auto gaps = must(repository->gaps("main"));
    REQUIRE(gaps.size() == 1);
    CHECK(gaps.front().to_lsn() == second_start.value);
    // What is behind the hole is whole, and its transactions are found.
    auto view = stage.view();
    HistoryRecord history = must(view->histories("main")).back();
    CHECK(history.end_lsn == wal.builder.end());
    ByteBuffer stored;
    must(view->read_wal(history.id, second_start, history.end_lsn, [&](ByteSpan piece) -> Result<> {
        append(stored, piece);
        return {};
    }));
    CHECK(std::ranges::equal(stored, wal.from(second_start)));
    for (const MadeCommit& commit : wal.commits) {
        if (commit.start_lsn < second_start + kWalPageBytes) continue;
        auto found = must(view->first_transaction_from(history.id, commit.start_lsn));
        REQUIRE(found);
        CHECK(found->xid == commit.xid);
    }
    std::size_t scanned = 0;
    must(view->scan(history.id, second_start, history.end_lsn, [&](const WalFinding& finding) {
        if (finding.kind == WalFinding::Kind::commit) ++scanned;
        return true;
    }));
    CHECK(scanned > 20);
    // And it goes on.
    wal.grow(43, 100'000);
    HistoryWriter writer(*repository, wal);
    must(writer.begin());
    must(writer.store(20'000, 1u << 30));
    must(writer.close());
    CHECK(must(stage.view()->histories("main")).back().end_lsn == wal.builder.end());
}

TEST_CASE("no server can have a name that the repository keeps for itself") {
    Stage stage;
    stage.create();
    auto repository = must(stage.open());
    for (const char* name :
         {"index", "keyring", "ledger", "repository", "lock", "writer", "control.sock"}) {
        CAPTURE(name);
        ClusterRecord cluster{name, WalBuilder::kSystem, WalBuilder::kSegmentBytes, 150020};
        auto added = repository->ensure_cluster(cluster);
        REQUIRE(!added);
        CHECK(added.error().code == Errc::invalid_argument);
    }
}

TEST_CASE("only a file with a generation's name is a keyring") {
    Stage stage;
    stage.create();
    std::filesystem::create_directories(stage.root + "/keyring/wal");
    write_raw_file(stage.root + "/keyring/wal/0000000009", as_bytes("not a keyring"));
    write_raw_file(stage.root + "/keyring/0000000009.old", as_bytes("not a keyring"));
    write_raw_file(stage.root + "/keyring/notes", as_bytes("not a keyring"));
    CHECK(stage.open());
    must(stage.view()->clusters());
}

std::size_t mapping_count() {
    std::ifstream maps("/proc/self/maps");
    return static_cast<std::size_t>(
        std::count(std::istreambuf_iterator<char>(maps), std::istreambuf_iterator<char>(), '\n'));
}

TEST_CASE("chunks are read from any number of packs with a bounded number of open keys") {
    constexpr unsigned kPacks = 400;
    Stage stage;
    stage.create();
    auto repository = must(stage.open());
    ClusterRecord cluster{"main", WalBuilder::kSystem, WalBuilder::kSegmentBytes, 150020};
    must(repository->ensure_cluster(cluster));
    const std::string backup = must(repository->begin_backup("main"));
    std::vector<Id32> ids;
    for (unsigned n = 0; n < kPacks; ++n) {
        const std::string text = "chunk " + std::to_string(n);
        auto pack = must(repository->begin_pack(pb::PACK_KIND_BASE, cluster, backup, n));
        const Id32 id = content_id(repository->content_key(), as_bytes(text));
        FramePlace place{.frame_number = 0, .content_id = id};
        pb::FrameEntry entry;
        entry.set_plain_bytes(static_cast<std::uint32_t>(text.size()));
        entry.set_content_id(std::string(as_text(id)));
        must(pack->append(pack->cipher().seal(place, as_bytes(text), 1), entry));
        pb::PackInfo info;
        info.set_kind(pb::PACK_KIND_BASE);
        info.set_cluster("main");
        info.set_backup_id(backup);
        must(repository->commit_pack(std::move(pack), info));
        ids.push_back(id);
    }
    auto view = stage.view();
    const std::size_t before = mapping_count();
    ByteBuffer plain;
    for (int round = 0; round < 2; ++round)
        for (unsigned n = 0; n < kPacks; ++n) {
            must(view->read_chunk(ids[n], plain));
            CHECK(as_text(plain) == "chunk " + std::to_string(n));
        }
    CHECK(mapping_count() < before + kPacks);
}

TEST_CASE("an index that a reader makes for itself is nobody else's to read, and goes with it") {
    namespace fs = std::filesystem;
    Stage stage;
    stage.create();
    auto view = stage.view(false);
    std::vector<fs::path> made;
    for (const auto& entry : fs::directory_iterator(stage.directory.path()))
        if (entry.path() != stage.root) made.push_back(entry.path());
    REQUIRE(made.size() == 1);
    CHECK(fs::status(made.front()).permissions() == fs::perms::owner_all);
    view.reset();
    CHECK(!fs::exists(made.front()));
}

TEST_CASE("a pack that has a tail's name and is another's is not taken for it") {
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(51, 300'000);
    Lsn closed;
    {
        auto repository = must(stage.open());
        HistoryWriter writer(*repository, wal);
        must(writer.begin());
        must(writer.store(300'000, 1u << 30, wal.builder.start() + 200'000));
        must(writer.close());
        closed = writer.flushed;
        must(writer.store(300'000, 1u << 30));
        writer.drop();
    }
    const std::string pack = stage.paths_of(".pack").front();
    const std::string tail = stage.paths_of(".tail").front();
    std::filesystem::rename(tail, stage.directory / "lost");
    std::filesystem::copy_file(
        pack, stage.root + "/" + pack_path_of_tail(tail.substr(stage.root.size() + 1)));
    {
        HistoryRecord history = must(stage.view()->histories("main")).back();
        CHECK(history.damage.has_value());
        CHECK(history.end_lsn == closed);
    }
    auto repository = must(stage.open());
    CHECK(must(repository->totals("main")).pack_count == 1);
    CHECK(must(repository->current_history("main"))->end_lsn == closed);
}

TEST_CASE("what root adds to a repository belongs to the repository's owner") {
    if (::geteuid() != 0) return;
    Stage stage;
    stage.create();
    constexpr uid_t kOwner = 4711;
    REQUIRE(::chown(stage.root.c_str(), kOwner, kOwner) == 0);
    std::filesystem::remove(stage.root + "/lock");
    pb::LedgerEntry entry;
    entry.mutable_verify_done()->set_level("wal");
    must(append_to_ledger(posix_file_system(), stage.root, stage.master, system_clock(), entry));
    for (const std::string& path : {stage.root + "/lock", stage.paths_of(".log").back()}) {
        CAPTURE(path);
        struct stat status {};
        REQUIRE(::lstat(path.c_str(), &status) == 0);
        CHECK(status.st_uid == kOwner);
        CHECK(status.st_gid == kOwner);
    }
}

TEST_CASE("the directories that lead to a pack are synced before the ledger names it") {
    Stage stage;
    FaultyFileSystem files(posix_file_system(), 0, false);
    must(Repository::create(files, stage.root, stage.master, system_clock()));
    CHECK(files.take_synced_directories().contains(stage.directory.path()));
    auto repository = must(stage.open(files));
    ClusterRecord cluster{"main", WalBuilder::kSystem, WalBuilder::kSegmentBytes, 150020};
    must(repository->ensure_cluster(cluster));
    const std::string backup = must(repository->begin_backup("main"));
    files.take_synced_directories();
    auto pack = must(repository->begin_pack(pb::PACK_KIND_BASE, cluster, backup, 1));
    auto synced = files.take_synced_directories();
    CHECK(synced.contains(stage.root));
    CHECK(synced.contains(stage.root + "/main"));
}

}  // namespace
}  // namespace walvault::storage
