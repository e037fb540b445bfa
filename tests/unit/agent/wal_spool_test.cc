#include "agent/wal_spool.h"

#include <doctest/doctest.h>

#include "agent/restore_plan.h"
#include "tests/support/scratch_directory.h"

namespace walvault::agent {
namespace {

constexpr const char* kSegmentName = "000000010000000000000007";

FileSystem& files() { return posix_file_system(); }

void write(const std::string& path, const std::string& text) {
    REQUIRE(write_file_atomically(files(), path, as_bytes(text)));
}

struct DataDirectory {
    DataDirectory() {
        REQUIRE(files().make_directories(scratch / "pg_wal"));
        record("aa11");
    }
    void record(const std::string& history) {
        write(scratch / kRestoreRecord,
              R"({"history_id": ")" + history + R"(", "wal_to_lsn": "0/9000100"})");
    }
    std::optional<WalSpool> spool(const std::string& name = "pg_wal/RECOVERYXLOG") {
        return WalSpool::open(files(), scratch.path(), scratch / name);
    }
    void put(const std::string& text) {
        auto opened = spool();
        REQUIRE(opened);
        REQUIRE(opened->put(kSegmentName,
                            [&](const WalSpool::Sink& sink) { return sink(as_bytes(text)); }));
    }
    std::vector<FileInfo> spooled() {
        auto entries = files().list(scratch / "pg_wal/walvault-spool");
        return entries ? *entries : std::vector<FileInfo>{};
    }
    ScratchDirectory scratch;
};

TEST_CASE("what was put into a spool is taken once, under the name that PostgreSQL wants") {
    DataDirectory data;
    data.put("seven");
    CHECK_FALSE(data.spool()->take("000000010000000000000008"));
    CHECK(data.spool()->take(kSegmentName));
    auto bytes = read_file(files(), data.scratch / "pg_wal/RECOVERYXLOG", 100);
    REQUIRE(bytes);
    CHECK(as_text(*bytes) == "seven");
    CHECK_FALSE(data.spool()->take(kSegmentName));
    CHECK(data.spooled().empty());
}

TEST_CASE("a spooled segment with a wrong byte, or a byte too few, is removed and not given") {
    for (const char* wrong : {"sevem", "seve", ""}) {
        DataDirectory data;
        data.put("seven");
        write(data.scratch / ("pg_wal/walvault-spool/" + data.spooled().front().name), wrong);
        CHECK_FALSE(data.spool()->take(kSegmentName));
        CHECK(data.spooled().empty());
        CHECK_FALSE(files().info(data.scratch / "pg_wal/RECOVERYXLOG"));
    }
}

TEST_CASE("a segment of another history is not given") {
    DataDirectory data;
    data.put("seven");
    data.record("bb22");
    CHECK_FALSE(data.spool()->take(kSegmentName));
    data.record("aa11");
    CHECK(data.spool()->take(kSegmentName));
}

TEST_CASE("there is a spool only for PostgreSQL's recovery in a directory that was restored") {
    DataDirectory data;
    CHECK(data.spool()->end_lsn() == Lsn{0x9000100});
    CHECK_FALSE(data.spool("pg_wal/000000010000000000000007"));
    CHECK_FALSE(data.spool("RECOVERYXLOG.tmp"));
    for (const char* record :
         {"", "[]", "{}", R"({"history_id": "aa"})", R"({"history_id": 7, "wal_to_lsn": "0/1"})",
          R"({"history_id": "aa", "wal_to_lsn": "x"})"}) {
        write(data.scratch / kRestoreRecord, record);
        CHECK_MESSAGE(!data.spool(), record);
    }
    REQUIRE(files().remove(data.scratch / kRestoreRecord));
    CHECK_FALSE(data.spool());
}

TEST_CASE("a segment that could not be written leaves nothing, and a spool has an end") {
    DataDirectory data;
    auto spool = data.spool();
    auto failed = spool->put(kSegmentName, [](const WalSpool::Sink& sink) -> Result<> {
        WV_CHECK(sink(as_bytes("half")));
        return fail(Errc::gap, "the rest is not there");
    });
    CHECK(failed.error().code == Errc::gap);
    CHECK(data.spooled().empty());
    CHECK(spool->has_room(16_MiB));
    CHECK_FALSE(spool->has_room(kSpoolBytesMax + 1));
    data.put("seven");
    spool->clear();
    CHECK(data.spooled().empty());
}

}  // namespace
}  // namespace walvault::agent
