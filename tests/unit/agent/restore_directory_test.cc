#include "agent/restore_directory.h"

#include <doctest/doctest.h>

#include "tests/support/scratch_directory.h"

namespace walvault::agent {
namespace {

using State = DirectoryFacts::State;

State state_of(const std::string& path) {
    auto facts = inspect_directory(path);
    REQUIRE(facts);
    return facts->state;
}

TEST_CASE("A directory with the marker is ours until it could be started as a cluster") {
    ScratchDirectory directory;
    const std::string target = directory / "target";
    std::filesystem::create_directories(target + "/global");
    CHECK(state_of(target) == State::occupied);
    write_raw_file(target + "/" + kIncompleteMarker, {});
    CHECK(state_of(target) == State::incomplete);
    write_raw_file(target + "/global/pg_control.walvault", as_bytes("control"));
    CHECK(state_of(target) == State::incomplete);
    write_raw_file(target + "/global/pg_control", as_bytes("control"));
    CHECK(state_of(target) == State::occupied);
    auto facts = inspect_directory(target);
    REQUIRE(facts);
    CHECK(!claim_directory(*facts, std::nullopt));
    CHECK(std::filesystem::exists(target + "/global/pg_control"));
}

}  // namespace
}  // namespace walvault::agent
