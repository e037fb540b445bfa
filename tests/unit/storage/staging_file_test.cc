#include "storage/staging_file.h"

#include <doctest/doctest.h>

#include <filesystem>

#include "tests/support/scratch_directory.h"

namespace walvault::storage {
namespace {

TEST_CASE("What is staged comes back, and no file is left to find") {
    ScratchDirectory directory;
    auto file = StagingFile::create(posix_file_system(), directory.path());
    REQUIRE(file);
    CHECK(std::filesystem::is_empty(directory.path()));
    const std::string first(300'000, 'a');
    const std::string second = "the second";
    REQUIRE((*file)->append(as_bytes(first)));
    REQUIRE((*file)->append(as_bytes(second)));
    CHECK((*file)->block_count() == 2);
    // Compressed.
    CHECK((*file)->stored_bytes() < 10'000);
    ByteBuffer block;
    REQUIRE((*file)->read(1, block));
    CHECK(as_text(block) == second);
    REQUIRE((*file)->read(0, block));
    CHECK(as_text(block) == first);
}

TEST_CASE("A directory that is not there is an error") {
    CHECK_FALSE(StagingFile::create(posix_file_system(), "/nowhere/at/all"));
}

}  // namespace
}  // namespace walvault::storage
