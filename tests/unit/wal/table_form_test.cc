#include "wal/table_form.h"

#include <doctest/doctest.h>

namespace walvault::wal {
namespace {

const TableForm kBefore{500, "1:11:23:-1,2:-22:25:-1", 77};

TEST_CASE("what only moves rows, or only alters the catalogue, leaves a table as it was") {
    CHECK(compare_forms(kBefore, kBefore) == FormChange::none);
    CHECK(compare_forms(kBefore, {501, kBefore.columns, 77}) == FormChange::none);
    CHECK(compare_forms(kBefore, {500, kBefore.columns, 78}) == FormChange::none);
    // A column that is dropped takes nothing from the others.
    CHECK(compare_forms(kBefore, {500, "1:11:23:-1", 79}) == FormChange::none);
    CHECK(compare_forms({500, "", 0}, {500, "", 0}) == FormChange::none);
}

TEST_CASE("a column that is new, or is called otherwise, is told") {
    CHECK(compare_forms(kBefore, {500, kBefore.columns + ",3:33:25:-1", 79}) ==
          FormChange::columns);
    CHECK(compare_forms(kBefore, {500, "1:11:23:-1,2:44:25:-1", 79}) == FormChange::columns);
    CHECK(compare_forms({500, "", 0}, {500, "1:11:23:-1", 5}) == FormChange::columns);
    // varchar(20) and no text: no row was touched.
    CHECK(compare_forms(kBefore, {500, "1:11:23:-1,2:-22:1043:24", 79}) == FormChange::columns);
}

TEST_CASE("a rewriting ALTER is told, though columns look as before") {
    CHECK(compare_forms(kBefore, {501, kBefore.columns, 78}) == FormChange::rewritten);
    CHECK(compare_forms(kBefore, {501, "1:11:23:-1,2:-22:23:-1", 78}) == FormChange::rewritten);
    // Dropped and added with a default: no row was touched.
    CHECK(compare_forms(kBefore, {500, "1:11:23:-1,3:-22:25:-1", 79}) == FormChange::rewritten);
}

}  // namespace
}  // namespace walvault::wal
