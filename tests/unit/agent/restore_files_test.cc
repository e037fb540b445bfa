#include "agent/restore_files.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "agent/restore_directory.h"
#include "agent/restore_wal.h"
#include "tests/support/fake_repository_view.h"

namespace walvault::agent {
namespace {

namespace fs = std::filesystem;

// A directory of its own, removed at the end.
class Scratch {
public:
    Scratch() {
        std::string pattern = (fs::temp_directory_path() / "walvault-test-XXXXXX").string();
        REQUIRE(::mkdtemp(pattern.data()) != nullptr);
        path = fs::canonical(pattern);
    }
    ~Scratch() { fs::remove_all(path); }
    std::string read(const std::string& name) const {
        std::ifstream file(path / name, std::ios::binary);
        return std::string((std::istreambuf_iterator<char>(file)), {});
    }
    fs::path path;
};

RestoreTree open_tree(const Scratch& scratch) {
    auto tree = RestoreTree::open({{"", scratch.path.string()}}, std::nullopt);
    REQUIRE(tree);
    return std::move(*tree);
}

// A file of `chunks`, whose ids are made from their number.
class Backup {
public:
    storage::FakeRepositoryView view;

    pb::ManifestFile file(const std::string& path, const std::vector<std::string>& chunks,
                          std::uint32_t chunk_bytes) {
        pb::ManifestFile made;
        made.set_path(path);
        made.set_mode(0600);
        made.set_chunk_bytes(chunk_bytes);
        std::uint64_t size = 0;
        for (const auto& chunk : chunks) {
            Id32 id{};
            store_le(id.data(), ++next_id_);
            ByteBuffer& plain = view.chunks[id];
            append(plain, as_bytes(chunk));
            made.mutable_content_ids()->append(as_text(id));
            size += chunk.size();
        }
        made.set_size_bytes(size);
        return made;
    }

private:
    std::uint64_t next_id_ = 0;
};

Result<> restore(Backup& backup, const RestoreTree& tree,
                 const std::vector<pb::ManifestFile>& files) {
    RestoreFiles restorer(backup.view, tree, 2);
    for (const auto& file : files)
        WV_CHECK(restorer.add(file));
    return restorer.finish([] {});
}

TEST_CASE("files come back byte for byte, and zeros as holes") {
    Scratch scratch;
    Backup backup;
    const std::string first(1 << 20, 'a');
    const std::string zeros(1 << 20, '\0');
    const std::string last(777, 'z');
    std::vector<pb::ManifestFile> files{
        backup.file("base/5/16385", {first, zeros, zeros, last}, 1 << 20),
        backup.file("PG_VERSION", {"15\n"}, 8192), backup.file("empty", {}, 8192)};
    REQUIRE(restore(backup, open_tree(scratch), files));
    CHECK(scratch.read("base/5/16385") == first + zeros + zeros + last);
    CHECK(scratch.read("PG_VERSION") == "15\n");
    CHECK(fs::file_size(scratch.path / "empty") == 0);
    struct stat status {};
    REQUIRE(::stat((scratch.path / "base/5/16385").c_str(), &status) == 0);
    CHECK(static_cast<std::uint64_t>(status.st_blocks) * 512 < 2_MiB);
    CHECK((status.st_mode & 0777) == 0600);
}

TEST_CASE("a large file is whole, in whatever pieces it is written") {
    Scratch scratch;
    RestoreTree tree = open_tree(scratch);
    std::string content;
    for (std::size_t i = 0; i < 2 * 1_MiB; ++i)
        content += static_cast<char>('a' + i * 7919 % 26);
    // Whole blocks, parts of blocks, and both after one another.
    const std::vector<std::vector<std::size_t>> pieces{{1_MiB, 1_MiB},
                                                       {4'096, 2 * 1_MiB - 4'096},
                                                       {1, 4'095, 2 * 1_MiB - 4'096},
                                                       {216, 1_MiB, 1_MiB - 216}};
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        auto file = tree.create_file("large" + std::to_string(i), 0600);
        REQUIRE(file);
        REQUIRE(file->set_size(content.size()));
        std::size_t offset = 0;
        for (std::size_t size : pieces[i]) {
            REQUIRE(file->write_at(offset, as_bytes(content).subspan(offset, size)));
            offset += size;
        }
        CHECK(scratch.read("large" + std::to_string(i)) == content);
    }
}

TEST_CASE("pg_control is kept back and signal files are left out") {
    Scratch scratch;
    Backup backup;
    const RestoreTree tree = open_tree(scratch);
    RestoreFiles restorer(backup.view, tree, 1);
    REQUIRE(restorer.add(backup.file("global/pg_control", {"control"}, 8192)));
    REQUIRE(restorer.add(backup.file("standby.signal", {}, 8192)));
    REQUIRE(restorer.add(backup.file("backup_label", {"label"}, 8192)));
    REQUIRE(restorer.finish([] {}));
    CHECK_FALSE(fs::exists(scratch.path / "global/pg_control"));
    CHECK_FALSE(fs::exists(scratch.path / "standby.signal"));
    CHECK(restorer.has_backup_label());
    CHECK(as_text(*restorer.control_file()) == "control");
}

TEST_CASE("a manifest that lies is refused before it does harm") {
    Backup backup;
    auto outside = backup.file("../outside", {"x"}, 8192);
    auto absolute = backup.file("/tmp/outside", {"x"}, 8192);
    auto short_chunk = backup.file("base/1", {"x"}, 8192);
    short_chunk.set_size_bytes(5);
    auto too_many = backup.file("base/2", {"x", "y"}, 8192);
    auto no_chunks = backup.file("base/3", {}, 0);
    no_chunks.set_size_bytes(100);
    auto odd_ids = backup.file("base/4", {"x"}, 8192);
    odd_ids.mutable_content_ids()->pop_back();
    for (const auto& file : {outside, absolute, short_chunk, too_many, no_chunks, odd_ids}) {
        Scratch scratch;
        auto done = restore(backup, open_tree(scratch), {file});
        REQUIRE_MESSAGE(!done, file.path());
        CHECK_MESSAGE(done.error().code == Errc::corrupt, file.path());
    }
    Scratch scratch;
    auto file = backup.file("twice", {"x"}, 8192);
    CHECK(restore(backup, open_tree(scratch), {file, file}).error().code == Errc::refused);
}

TEST_CASE("a missing chunk names the file and the place") {
    Scratch scratch;
    Backup backup;
    auto file = backup.file("base/5/1", {std::string(8192, 'x'), "y"}, 8192);
    backup.view.chunks.erase(std::prev(backup.view.chunks.end()));
    auto done = restore(backup, open_tree(scratch), {file});
    REQUIRE(!done);
    CHECK(done.error().message.find("base/5/1 at byte 8192") == 0);
}

TEST_CASE("no symbolic link on the way is followed") {
    Scratch scratch;
    Scratch elsewhere;
    fs::create_directory_symlink(elsewhere.path, scratch.path / "base");
    Backup backup;
    CHECK_FALSE(restore(backup, open_tree(scratch), {backup.file("base/1", {"x"}, 8192)}));
    CHECK(fs::is_empty(elsewhere.path));
}

TEST_CASE("segments have full size and end in zeros after the last byte planned") {
    Scratch scratch;
    storage::FakeRepositoryView view;
    RestorePlan plan;
    plan.cluster = {"main", 7, 1_MiB, 150020};
    plan.stop.history = {.cluster = "main",
                         .id = {},
                         .timeline = 2,
                         .start_lsn = Lsn{1_MiB},
                         .end_lsn = Lsn{9_MiB},
                         .last_commit_at = {},
                         .covered_until = {}};
    plan.stop.wal_from_lsn = Lsn{2_MiB};
    plan.stop.wal_to_lsn = Lsn{3_MiB + 100};
    plan.segments = {{"000000020000000000000002", Lsn{2_MiB}, Lsn{3_MiB}},
                     {"000000020000000000000003", Lsn{3_MiB}, Lsn{3_MiB + 100}}};
    view.history_records.push_back(plan.stop.history);
    view.timeline_histories[2] = "1\t0/200000\tno recovery target specified\n";
    std::uint64_t told = 0;
    REQUIRE(write_wal(view, plan, open_tree(scratch), [&](std::uint64_t bytes) { told += bytes; }));
    CHECK(told == 1_MiB + 100);
    const std::string whole = scratch.read("pg_wal/000000020000000000000002");
    const std::string last = scratch.read("pg_wal/000000020000000000000003");
    REQUIRE(whole.size() == 1_MiB);
    REQUIRE(last.size() == 1_MiB);
    CHECK(static_cast<std::byte>(whole[12345]) == view.wal_byte(Lsn{2_MiB + 12345}));
    CHECK(static_cast<std::byte>(last[99]) == view.wal_byte(Lsn{3_MiB + 99}));
    CHECK(is_all_zeros(as_bytes(std::string_view(last).substr(100))));
    CHECK(scratch.read("pg_wal/00000002.history") == view.timeline_histories[2]);
}

TEST_CASE("a directory is claimed by one restore, and cleared only if it holds our marker") {
    Scratch scratch;
    const std::string path = (scratch.path / "a/b").string();
    auto facts = inspect_directory(path);
    REQUIRE(facts);
    CHECK(facts->state == DirectoryFacts::State::absent);
    {
        auto lock = claim_directory(*facts, std::nullopt);
        REQUIRE(lock);
        CHECK(claim_directory(*facts, std::nullopt).error().code == Errc::busy);
        std::ofstream(path + "/half") << "x";
    }
    facts = inspect_directory(path);
    CHECK(facts->state == DirectoryFacts::State::incomplete);
    REQUIRE(claim_directory(*facts, std::nullopt));
    CHECK_FALSE(fs::exists(path + "/half"));
    fs::remove(path + "/" + kIncompleteMarker);
    std::ofstream(path + "/PG_VERSION") << "15\n";
    facts = inspect_directory(path);
    CHECK(facts->state == DirectoryFacts::State::occupied);
    CHECK(facts->detail == "PG_VERSION 15");
    CHECK(claim_directory(*facts, std::nullopt).error().code == Errc::refused);
    std::ofstream(path + "/postmaster.pid") << ::getpid() << "\n";
    CHECK(inspect_directory(path)->state == DirectoryFacts::State::running);
    CHECK(inspect_directory("/").error().code == Errc::invalid_argument);
}

}  // namespace
}  // namespace walvault::agent
