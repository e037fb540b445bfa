#include <doctest/doctest.h>

#include "storage/archive_store.h"
#include "storage/s3_store.h"
#include "tests/rgw/ceph_gateway.h"

namespace walvault::storage {

// Its classes are names: what is in GLACIER is served at once, and RestoreObject is not known to
// it.
TEST_CASE("a gateway that archives by name only has nothing to thaw" *
          doctest::test_suite("ceph_rgw")) {
    S3Options options = gateway().new_bucket();
    options.storage_class = "GLACIER";  // of packs
    const std::string name = "main/wal/a.pack";
    auto store = make_s3_store(posix_file_system(), options).value();
    REQUIRE(store->put(name, as_bytes("0123456789")).has_value());
    CHECK(store->list("").value().front().storage_class == "GLACIER");
    ArchiveStore& archive = *store->archive();
    CHECK(archive.request_thaw(name, {1}).value() == ThawAnswer::ready);
    const ArchiveState state = archive.archive_state(name).value();
    CHECK(state.storage_class == "GLACIER");
    CHECK(state.kind == ArchiveState::Kind::ready);
    CHECK(state.size_bytes == 10);
    CHECK(as_text(store->get(name, 2, 3).value()) == "234");
    CHECK(archive.archive_state("b").error().code == Errc::not_found);
    CHECK(archive.request_thaw("b", {1}).error().code == Errc::not_found);
}

}  // namespace walvault::storage
