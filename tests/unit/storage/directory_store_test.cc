#include <doctest/doctest.h>
#include <unistd.h>

#include "base/file_system.h"
#include "tests/conformance/object_store_suite.h"
#include "tests/support/forwarding_store.h"
#include "tests/support/scratch_directory.h"

namespace walvault::storage {
namespace fs = std::filesystem;

TEST_CASE("a directory store does what every object store must do") {
    ScratchDirectory scratch;
    auto store = make_directory_store(posix_file_system(), scratch.path());
    object_store_suite(*store);
}

TEST_CASE("more than was asked for is an error, not written behind the caller's memory") {
    struct Generous final : ForwardingStore {
        using ForwardingStore::ForwardingStore;
        Result<ByteBuffer> get(const std::string&, std::uint64_t, std::uint64_t length) override {
            return ByteBuffer(length + 1);
        }
    };
    ScratchDirectory scratch;
    auto store = make_directory_store(posix_file_system(), scratch.path());
    ByteBuffer held(4);
    CHECK(Generous(*store).get_into("a", 0, held).error().code == Errc::corrupt);
}

TEST_CASE("a directory store says where it is, whatever the slashes") {
    ScratchDirectory scratch;
    CHECK(make_directory_store(posix_file_system(), scratch.path() + "//")->url() ==
          "file://" + scratch.path());
}

TEST_CASE("leftovers of interrupted puts, hidden files and links are not listed") {
    ScratchDirectory scratch;
    auto store = make_directory_store(posix_file_system(), scratch.path());
    REQUIRE(store->put("dir/real", as_bytes("x")).has_value());
    write_raw_file(scratch / "dir/.put-0011", as_bytes("half"));
    write_raw_file(scratch / "dir/x.pack.tmp", as_bytes("half"));
    fs::create_directory(scratch / "lost+found");
    write_raw_file(scratch / "lost+found/#17", as_bytes("of the file system"));
    fs::create_directory(scratch / ".snapshot");
    write_raw_file(scratch / ".snapshot/real", as_bytes("old"));
    fs::create_symlink(scratch / "dir", scratch / "linked");
    fs::create_symlink("real", scratch / "dir/alias");
    CHECK(names_of(*store, "") == std::vector<std::string>{"dir/real"});
    CHECK(store->info("dir").error().code == Errc::not_found);
    CHECK(store->info("dir/alias").error().code == Errc::io);
    CHECK(store->get("dir/alias", 0, 1).error().code == Errc::io);
}

TEST_CASE("where the root is missing nothing is proven absent") {
    ScratchDirectory scratch;
    auto store = make_directory_store(posix_file_system(), scratch / "unmounted");
    CHECK(store->get("a", 0, 1).error().code == Errc::unavailable);
    CHECK(store->info("a").error().code == Errc::unavailable);
    CHECK(store->remove("a").error().code == Errc::unavailable);
    CHECK(store->list("").error().code == Errc::unavailable);
    CHECK(store->list("a/").error().code == Errc::unavailable);
    CHECK(store->put("a", as_bytes("x")).error().code == Errc::unavailable);
    CHECK_FALSE(fs::exists(scratch / "unmounted"));
}

TEST_CASE("a file that another process appends to is read as far as it goes") {
    ScratchDirectory scratch;
    auto store = make_directory_store(posix_file_system(), scratch.path());
    auto tail = posix_file_system().create(scratch / "open.tail").value();
    REQUIRE(tail->write(as_bytes("abc")).has_value());
    CHECK(as_text(store->get("open.tail", 0, 100).value()) == "abc");
    REQUIRE(tail->write(as_bytes("def")).has_value());
    CHECK(as_text(store->get("open.tail", 2, 100).value()) == "cdef");
}

TEST_CASE("a failed put leaves nothing behind") {
    ScratchDirectory scratch;
    auto store = make_directory_store(posix_file_system(), scratch.path());
    REQUIRE(store->put("dir/first", as_bytes("x")).has_value());
    REQUIRE(store->put("file", as_bytes("x")).has_value());
    CHECK_FALSE(store->put("file/below", as_bytes("x")).has_value());
    CHECK(store->put("dir", as_bytes("x")).error().code == Errc::refused);
    std::size_t entries = 0;
    for (const auto& entry : fs::recursive_directory_iterator(scratch.path()))
        entries += entry.exists();
    CHECK(entries == 3);
}

TEST_CASE("what is read is counted, and so are failures other than absence") {
    ScratchDirectory scratch;
    auto store = make_directory_store(posix_file_system(), scratch.path());
    REQUIRE(store->put("dir/a", as_bytes("12345")).has_value());
    CHECK(store->reads().bytes == 0);
    CHECK(store->get("dir/a", 1, 3).has_value());
    CHECK(store->get("dir/a", 4, 9).has_value());
    CHECK(store->get("dir/absent", 0, 9).error().code == Errc::not_found);
    CHECK(store->reads().bytes == 4);
    ByteBuffer held(3);
    CHECK(store->get_into("dir/a", 1, held).value() == 3);
    CHECK(store->get_into("dir/absent", 0, held).error().code == Errc::not_found);
    CHECK(store->reads().bytes == 7);
    CHECK(store->reads().errors == 0);
    fs::create_symlink("a", scratch / "dir/link");
    CHECK(store->get("dir/link", 0, 9).error().code == Errc::io);
    CHECK(store->reads().errors == 1);
}

}  // namespace walvault::storage
