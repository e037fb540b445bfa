#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>

#include "base/file_system.h"

using namespace walvault;

namespace {

class Directory {
public:
    Directory() {
        std::string pattern =
            (std::filesystem::temp_directory_path() / "walvault-test-XXXXXX").string();
        REQUIRE(::mkdtemp(pattern.data()) != nullptr);
        path_ = pattern;
    }
    ~Directory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

struct FreeBlocks {
    void operator()(std::byte* bytes) const { std::free(bytes); }
};

// Files of this process may not grow beyond `bytes` while it lives.
class FileSizeLimit {
public:
    explicit FileSizeLimit(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
        ::getrlimit(RLIMIT_FSIZE, &old_limit_);
        const rlimit limit{bytes, old_limit_.rlim_max};
        REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
    }
    ~FileSizeLimit() {
        ::setrlimit(RLIMIT_FSIZE, &old_limit_);
        std::signal(SIGXFSZ, old_handler_);
    }

private:
    void (*old_handler_)(int);
    rlimit old_limit_{};
};

std::string content_of(const std::string& path) {
    auto bytes = read_file(posix_file_system(), path, 1_MiB);
    REQUIRE(bytes);
    return std::string(as_text(*bytes));
}

FileSystem& files() { return posix_file_system(); }

}  // namespace

TEST_CASE("a file is created once, appended to, and read at any place") {
    Directory directory;
    auto file = files().create(directory / "f", 0640);
    REQUIRE(file);
    CHECK((*file)->write(as_bytes("hello ")));
    CHECK((*file)->write(as_bytes("world")));
    CHECK((*file)->write_at(0, as_bytes("H")));
    CHECK((*file)->sync_data());
    CHECK((*file)->size().value() == 11);
    ByteBuffer into(100);
    CHECK((*file)->read_at(6, into).value() == 5);
    CHECK(as_text(ByteSpan(into).first(5)) == "world");
    CHECK((*file)->read_at(11, into).value() == 0);
    CHECK(files().create(directory / "f").error().code == Errc::refused);
    auto again = files().open_append(directory / "f");
    REQUIRE(again);
    CHECK((*again)->write(as_bytes("!")));
    CHECK((*again)->truncate(3));
    CHECK((*again)->write(as_bytes("p")));
    CHECK(content_of(directory / "f") == "Help");
    CHECK(files().info(directory / "f")->mode == 0640);
}

TEST_CASE("whole blocks and parts of blocks may be written in any order, and read in between") {
    Directory directory;
    auto file = files().create(directory / "f");
    REQUIRE(file);
    constexpr std::size_t kBlock = 4096;
    const std::unique_ptr<std::byte, FreeBlocks> memory(
        static_cast<std::byte*>(std::aligned_alloc(kBlock, 3 * kBlock)));
    std::memset(memory.get(), 'b', 3 * kBlock);
    const ByteSpan blocks(memory.get(), 3 * kBlock);
    CHECK((*file)->write(as_bytes("head")));
    CHECK((*file)->write_at(0, blocks));
    ByteBuffer into(5);
    CHECK((*file)->read_at(3 * kBlock - 3, into).value() == 3);
    CHECK((*file)->write_at(10, as_bytes("part")));
    CHECK((*file)->write_at(kBlock, blocks.first(kBlock)));
    CHECK((*file)->write_at(3 * kBlock, blocks));
    CHECK((*file)->write(as_bytes("tail")));
    CHECK((*file)->sync_data());
    std::string expected(6 * kBlock, 'b');
    expected.replace(10, 4, "part");
    CHECK(content_of(directory / "f") == expected + "tail");
}

TEST_CASE("what is absent is not_found, and nothing else is") {
    Directory directory;
    CHECK(files().open_read(directory / "no").error().code == Errc::not_found);
    CHECK(files().open_append(directory / "no").error().code == Errc::not_found);
    CHECK(files().info(directory / "no").error().code == Errc::not_found);
    CHECK(files().list(directory / "no").error().code == Errc::not_found);
    CHECK(files().remove(directory / "no").error().code == Errc::not_found);
    CHECK(files().rename(directory / "no", directory / "x").error().code == Errc::not_found);
    CHECK(files().list(directory.path())->empty());
    CHECK(files().symlink("/nowhere", directory / "link"));
    CHECK(files().open_read(directory / "link").error().code == Errc::io);
    CHECK(files().info(directory / "link")->is_symlink);
}

TEST_CASE("a file is broken for good after a write that failed half way") {
    Directory directory;
    auto file = files().create(directory / "f");
    REQUIRE(file);
    {
        FileSizeLimit limit(1000);
        auto written = (*file)->write(ByteBuffer(2000, std::byte{1}));
        REQUIRE_FALSE(written);
        CHECK(written.error().code == Errc::io);
    }
    CHECK((*file)->size().value() == 1000);
    CHECK((*file)->write(as_bytes("x")).error().code == Errc::io);
    CHECK((*file)->sync_data().error().code == Errc::io);
    CHECK((*file)->truncate(0).error().code == Errc::io);
    CHECK((*file)->write_at(0, as_bytes("x")).error().code == Errc::io);
    CHECK((*file)->size().value() == 1000);
    auto other = files().open_append(directory / "f");
    REQUIRE(other);
    CHECK((*other)->write(as_bytes("x")));
}

TEST_CASE("a full device is no_space at first and io from then on") {
    if (::access("/dev/full", W_OK) != 0) return;
    auto file = files().open_append("/dev/full");
    REQUIRE(file);
    CHECK((*file)->write(as_bytes("x")).error().code == Errc::no_space);
    CHECK((*file)->write(as_bytes("x")).error().code == Errc::io);
    CHECK((*file)->sync_data().error().code == Errc::io);
}

TEST_CASE("an atomic write leaves the old content or the new, and no temporary file") {
    Directory directory;
    REQUIRE(write_file_atomically(files(), directory / "f", as_bytes("one"), 0600));
    REQUIRE(write_file_atomically(files(), directory / "f", as_bytes("two"), 0600));
    CHECK(content_of(directory / "f") == "two");
    {
        FileSizeLimit limit(10);
        CHECK_FALSE(write_file_atomically(files(), directory / "f", ByteBuffer(100), 0600));
    }
    CHECK(content_of(directory / "f") == "two");
    REQUIRE(write_file_atomically(files(), directory / "f", as_bytes("three"), 0600));
    CHECK(content_of(directory / "f") == "three");
    CHECK(files().list(directory.path())->size() == 1);
    CHECK(read_file(files(), directory / "f", 4).error().code == Errc::corrupt);
}

TEST_CASE("directories are made with their parents and listed in order") {
    Directory directory;
    REQUIRE(files().make_directories(directory / "a/b/c"));
    REQUIRE(files().make_directories(directory / "a/b/c"));
    CHECK(files().info(directory / "a/b/c")->is_directory);
    CHECK(files().info(directory / "a/b/c")->mode == 0700);
    for (const char* name : {"z", "y", "x"})
        REQUIRE(files().create(directory / (std::string("a/") + name)));
    auto entries = files().list(directory / "a");
    REQUIRE(entries);
    REQUIRE(entries->size() == 4);
    CHECK((*entries)[0].name == "b");
    CHECK((*entries)[1].name == "x");
    CHECK((*entries)[3].name == "z");
    CHECK(files().sync_directory(directory / "a"));
    CHECK(files().sync_directory(directory / "none").error().code == Errc::not_found);
    CHECK(files().available_bytes(directory.path()).value() > 0);
    CHECK(files().size_bytes(directory.path()).value() >=
          files().available_bytes(directory.path()).value());
    CHECK(files().size_bytes(directory / "none").error().code == Errc::not_found);
    CHECK(files().rename(directory / "a/z", directory / "a/x"));
    CHECK(files().list(directory / "a")->size() == 3);
}

TEST_CASE("a lock is held by one holder until it lets go") {
    Directory directory;
    {
        auto lock = files().lock(directory / "lock");
        REQUIRE(lock);
        CHECK(files().lock(directory / "lock").error().code == Errc::busy);
    }
    CHECK(files().lock(directory / "lock"));
}
