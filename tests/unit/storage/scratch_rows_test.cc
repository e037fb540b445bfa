#include "storage/scratch_rows.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <map>
#include <random>

#include "tests/support/scratch_directory.h"

namespace walvault::storage {
namespace {

using Contents = std::map<std::string, std::string>;

Contents contents(const ScratchRows& rows, const std::string& prefix) {
    Contents found;
    auto done = rows.each(prefix, [&](std::string_view key, std::string_view value) {
        CHECK((found.empty() || found.rbegin()->first < key));
        found.emplace(key, value);
        return Result<bool>(true);
    });
    CHECK(done);
    return found;
}

TEST_CASE("Scratch rows are what a map would be, and leave nothing behind") {
    ScratchDirectory parent;
    {
        auto rows = ScratchRows::open(parent / "made");
        REQUIRE(rows);
        std::mt19937_64 random(11);
        Contents wanted;
        for (int i = 0; i < 20'000; ++i) {
            std::string key = (random() % 2 == 0 ? "a" : "b") + std::to_string(random() % 2'000);
            if (random() % 3 == 0) {
                REQUIRE((*rows)->remove(key));
                wanted.erase(key);
            } else if (random() % 5'000 == 0) {
                REQUIRE((*rows)->clear("a"));
                std::erase_if(wanted, [](const auto& each) { return each.first[0] == 'a'; });
            } else {
                wanted[key] = std::string(random() % 300, 'x') + std::to_string(i);
                REQUIRE((*rows)->put(key, wanted[key]));
            }
        }
        CHECK(*(*rows)->has(wanted.begin()->first));
        CHECK_FALSE(*(*rows)->has("c"));
        CHECK(*(*rows)->get(wanted.begin()->first) == wanted.begin()->second);
        Contents all = contents(**rows, "a");
        all.merge(contents(**rows, "b"));
        CHECK(all == wanted);
        CHECK_FALSE(std::filesystem::is_empty(parent / "made"));
    }
    CHECK(std::filesystem::is_empty(parent / "made"));
}

TEST_CASE("A prefix of the highest bytes has an end") {
    ScratchDirectory parent;
    auto rows = ScratchRows::open(parent.path());
    REQUIRE(rows);
    REQUIRE((*rows)->put("a\xFF\xFF", "1"));
    REQUIRE((*rows)->put("a\xFF\xFFz", "2"));
    REQUIRE((*rows)->put("b", "3"));
    CHECK(contents(**rows, "a\xFF\xFF").size() == 2);
    REQUIRE((*rows)->clear("a\xFF\xFF"));
    CHECK(contents(**rows, "a").empty());
    CHECK(contents(**rows, "b").size() == 1);
}

}  // namespace
}  // namespace walvault::storage
