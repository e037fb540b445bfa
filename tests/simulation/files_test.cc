// The disk that the simulation trusts to forget.
#include <doctest/doctest.h>

#include "tests/simulation/files.h"

namespace walvault::simulation {
namespace {

using Cut = SimulatedFiles::Cut;

ByteBuffer content(FileSystem& files, const std::string& path) {
    auto bytes = read_file(files, path, 1 << 20);
    return bytes ? *bytes : ByteBuffer();
}

struct Disk {
    SimulatedFiles files;
    Random random{1};
    std::unique_ptr<File> file;
    Disk() {
        (void)files.make_directories("/d", 0700);
        (void)files.sync_directory("/");
        file = std::move(*files.create("/d/f", 0600));
    }
    std::unique_ptr<SimulatedFiles> left(Cut cut = Cut::everything_lost) {
        return files.after_power_cut(cut, random);
    }
};

TEST_CASE("a file whose directory was not synced is gone after a power cut") {
    Disk disk;
    REQUIRE(disk.file->write(as_bytes("one")));
    REQUIRE(disk.file->sync_data());
    CHECK_FALSE(disk.left()->info("/d/f"));
    REQUIRE(disk.files.sync_directory("/d"));
    CHECK_EQ(as_text(content(*disk.left(), "/d/f")), "one");
}

TEST_CASE("what was not synced is lost, and what was stays") {
    Disk disk;
    REQUIRE(disk.files.sync_directory("/d"));
    REQUIRE(disk.file->write(as_bytes("one")));
    REQUIRE(disk.file->sync_data());
    REQUIRE(disk.file->write(as_bytes("two")));
    CHECK_EQ(as_text(content(disk.files, "/d/f")), "onetwo");
    CHECK_EQ(as_text(content(*disk.left(), "/d/f")), "one");
    CHECK_EQ(as_text(content(*disk.left(Cut::everything_kept), "/d/f")), "onetwo");
}

TEST_CASE("a rename is undone unless its directory is synced") {
    Disk disk;
    REQUIRE(disk.files.sync_directory("/d"));
    REQUIRE(disk.files.rename("/d/f", "/d/g"));
    CHECK(disk.left()->info("/d/f"));
    CHECK_FALSE(disk.left()->info("/d/g"));
    REQUIRE(disk.files.sync_directory("/d"));
    CHECK_FALSE(disk.left()->info("/d/f"));
    CHECK(disk.left()->info("/d/g"));
}

TEST_CASE("after a sync that failed the next one succeeds and keeps nothing") {
    Disk disk;
    REQUIRE(disk.files.sync_directory("/d"));
    REQUIRE(disk.file->write(as_bytes("one")));
    disk.files.fail_sync_in = 1;
    CHECK_FALSE(disk.file->sync_data());
    auto again = std::move(*disk.files.open_append("/d/f"));
    CHECK(again->sync_data());
    CHECK_EQ(as_text(content(disk.files, "/d/f")), "one");
    CHECK(content(*disk.left(), "/d/f").empty());
}

TEST_CASE("a full disk takes what there is room for") {
    Disk disk;
    disk.files.capacity_bytes = 4;
    auto written = disk.file->write(as_bytes("123456"));
    REQUIRE_FALSE(written);
    CHECK(written.error().code == Errc::no_space);
    CHECK_EQ(as_text(content(disk.files, "/d/f")), "1234");
}

TEST_CASE("a lock is held until it is let go") {
    Disk disk;
    auto held = disk.files.lock("/d/lock");
    REQUIRE(held);
    CHECK_FALSE(disk.files.lock("/d/lock"));
    held->reset();
    CHECK(disk.files.lock("/d/lock"));
}

}  // namespace
}  // namespace walvault::simulation
