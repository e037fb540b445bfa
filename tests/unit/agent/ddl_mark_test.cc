#include "agent/ddl_mark.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

namespace walvault::agent {
namespace {

std::string told(std::string_view content) { return ddl_text(read_ddl_mark(content)); }

TEST_CASE("DDL is told by its tag and what it was done to") {
    CHECK(
        told(
            R"({"tag":"ALTER TABLE","dropped":false,"objects":[{"type":"table","name":"public.a"}],)"
            R"("count":1,"user":"app"})") == "ALTER TABLE public.a by app");
    CHECK(
        told(R"({"tag":"DROP TABLE","dropped":true,"objects":[{"type":"table","name":"public.a"},)"
             R"({"type":"view","name":"public.v"}],"count":2,"user":"app"})") ==
        "DROP TABLE public.a, view public.v by app");
    CHECK(told(R"({"tag":"ALTER TABLE","dropped":true,"objects":[{"type":"table column",)"
               R"("name":"public.a.b"}],"count":1,"user":"app"})") ==
          "ALTER TABLE dropping table column public.a.b by app");
    CHECK(told(R"({"tag":"GRANT","dropped":false,"objects":[{"type":"TABLE","name":null}]})") ==
          "GRANT TABLE");
}

TEST_CASE("Of many objects the first ones are told, and how many there are") {
    std::string list;
    for (int i = 0; i < 20; ++i)
        list += std::string(i > 0 ? "," : "") + R"({"type":"table","name":"s.t)" +
                std::to_string(i) + "\"}";
    CHECK(told(R"({"tag":"DROP SCHEMA","dropped":true,"objects":[)" + list +
               R"(],"count":1500,"user":"app"})") ==
          "DROP SCHEMA table s.t0, table s.t1, table s.t2, table s.t3 and 1 496 more by app");
}

TEST_CASE("Who is named once for statements that follow one another") {
    const DdlMark one{
        .tag = "CREATE TABLE", .objects = {{"table", "a"}}, .object_count = 1, .user = "app"};
    const DdlMark two{
        .tag = "CREATE INDEX", .objects = {{"index", "i"}}, .object_count = 1, .user = "app"};
    const DdlMark other{.tag = "DROP VIEW",
                        .is_drop = true,
                        .objects = {{"view", "v"}},
                        .object_count = 1,
                        .user = "dba"};
    CHECK(ddl_text({one, two, other}) ==
          "CREATE TABLE a; CREATE INDEX i by app; DROP VIEW v by dba");
    CHECK(ddl_json(other).dump() ==
          R"({"tag":"DROP VIEW","dropped":true,"objects":[{"type":"view","name":"v"}],)"
          R"("object_count":1,"user":"dba"})");
}

TEST_CASE("What the trigger would not write is text, and no byte of it escapes") {
    for (const std::string content :
         {"", "{", "[]", "null", "{}", R"({"tag":"x"})", R"({"tag":"","objects":[]})",
          R"({"tag":"x","objects":{}})", R"({"tag":"x","objects":[1]})", "{\"tag\":\"\xFF\"}",
          R"({"tag":7,"objects":[]})"}) {
        CAPTURE(content);
        const DdlMark mark = read_ddl_mark(content);
        CHECK(mark.tag.empty());
        CHECK(mark.content == content);
        CHECK(ddl_json(mark).size() == 2);
    }
    CHECK(told("\x1b[2J") == "walvault.ddl '\\x1B[2J'");
    CHECK(told(std::string(200'000, '[')).starts_with("walvault.ddl '[[["));
    // However large it is, little of it is kept.
    CHECK(read_ddl_mark(std::string(20'000'000, '[')).held_bytes() < 8'000);
    CHECK(read_ddl_mark(std::string(20'000'000, '[')).content_bytes == 20'000'000);
    std::string many = R"({"tag":"x","objects":[)";
    for (int i = 0; i < 1000; ++i)
        many += R"({"type":"table","name":"a"},)";
    many.back() = ']';
    CHECK(read_ddl_mark(many + "}").objects.size() == 20);
    CHECK(read_ddl_mark(many + "}").object_count == 1000);
    CHECK(
        read_ddl_mark(R"({"objects":[],"tag":")" + std::string(50'000, 'x') + "\"}").held_bytes() <
        8'000);
    CHECK(read_ddl_mark(R"({"tag":"x","objects":[],"pad":")" + std::string(300'000, 'x') + "\"}")
              .tag.empty());
    CHECK(told(R"({"tag":"A\u001b","objects":[{"type":"t\u0007","name":"n\n"}],"count":-1,)"
               R"("user":"u\u009b"})") == "A\\x1B t\\x07 n\\x0A by u\\xC2\\x9B");
}

}  // namespace
}  // namespace walvault::agent
