#include "storage/ledger.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "base/crc32c.h"
#include "storage/ledger_file.h"
#include "tests/support/scratch_directory.h"
#include "tests/unit/storage/fixtures.h"

namespace walvault::storage {
namespace {

namespace fs = std::filesystem;
const Id16 kRepository = id16(0x11);
LedgerKeys test_keys(unsigned char value = 5) {
    return LedgerKeys::derive(test_data_key(value, pb::KEY_PURPOSE_LEDGER));
}

pb::LedgerEntry pack_deleted(const std::string& path) {
    pb::LedgerEntry entry;
    entry.set_actor("test");
    entry.mutable_pack_deleted()->set_path(path);
    return entry;
}

// A ledger of `count` entries in a directory of its own.
struct TestLedger {
    ScratchDirectory scratch;
    std::unique_ptr<ObjectStore> store = make_directory_store(posix_file_system(), scratch.path());
    std::vector<LedgerHead> heads{LedgerHead{}};

    explicit TestLedger(std::size_t count, const std::string& filler = {}) {
        extend(count, filler);
    }
    void extend(std::size_t count, const std::string& filler = {}) {
        auto ledger = Ledger::open(posix_file_system(), scratch.path(), kRepository, test_keys(),
                                   system_clock());
        REQUIRE(ledger.has_value());
        for (std::size_t i = 0; i < count; ++i) {
            REQUIRE(
                (*ledger)->append(pack_deleted("pack-" + std::to_string(heads.size()) + filler)));
            heads.push_back((*ledger)->head());
        }
    }
    std::string first_path() const { return scratch / ledger_file_name(1); }

    struct Read {
        Result<LedgerHead> head;
        std::vector<std::string> paths;
    };
    Read read(const LedgerHead& from = {}, bool tolerate_torn_end = true) const {
        Read read{LedgerHead{}, {}};
        read.head = read_ledger(*store, kRepository, test_keys(), from, tolerate_torn_end,
                                [&](const pb::LedgerEntry& entry) -> Result<> {
                                    read.paths.push_back(entry.pack_deleted().path());
                                    return {};
                                });
        return read;
    }
    Errc read_error(const LedgerHead& from = {}, bool tolerate_torn_end = true) const {
        auto result = read(from, tolerate_torn_end).head;
        REQUIRE_FALSE(result.has_value());
        return result.error().code;
    }
    Errc open_error() const {
        auto ledger = Ledger::open(posix_file_system(), scratch.path(), kRepository, test_keys(),
                                   system_clock());
        REQUIRE_FALSE(ledger.has_value());
        return ledger.error().code;
    }
};

// Offsets of the records of a file and, last, its end.
std::vector<std::size_t> record_offsets(ByteSpan file) {
    std::vector<std::size_t> offsets{kLedgerHeaderBytes};
    while (offsets.back() < file.size())
        offsets.push_back(offsets.back() + kLedgerRecordOverheadBytes +
                          load_le<std::uint32_t>(file.data() + offsets.back()));
    return offsets;
}

}  // namespace

TEST_CASE("entries are read back in order, from any place in the chain") {
    TestLedger ledger(5);
    auto all = ledger.read();
    REQUIRE(all.head.has_value());
    CHECK(all.head->sequence == 5);
    CHECK(all.head->hash == ledger.heads[5].hash);
    CHECK(all.paths == std::vector<std::string>{"pack-1", "pack-2", "pack-3", "pack-4", "pack-5"});
    for (std::size_t from = 1; from <= 5; ++from) {
        auto rest = ledger.read(ledger.heads[from]);
        REQUIRE(rest.head.has_value());
        CHECK(rest.paths.size() == 5 - from);
        CHECK(rest.head->hash == ledger.heads[5].hash);
    }
}

TEST_CASE("an empty ledger has no entries and no head") {
    TestLedger ledger(0);
    auto read = ledger.read();
    REQUIRE(read.head.has_value());
    CHECK(read.head->sequence == 0);
    CHECK(ledger.read_error(LedgerHead{1, {}}) == Errc::invalid_argument);
}

TEST_CASE("append fills in sequence, chain, generation and time") {
    ScratchDirectory scratch;
    auto ledger =
        Ledger::open(posix_file_system(), scratch.path(), kRepository, test_keys(), system_clock())
            .value();
    ledger->set_generation(7);
    auto first = ledger->append(pack_deleted("a")).value();
    LedgerHead head = ledger->head();
    auto second = ledger->append(pack_deleted("b")).value();
    CHECK(first.sequence() == 1);
    CHECK(first.previous_hash() == std::string(32, '\0'));
    CHECK(first.generation() == 7);
    CHECK(second.sequence() == 2);
    CHECK(second.previous_hash() == as_text(head.hash));
    CHECK(second.at_us() >= first.at_us());
    CHECK(first.at_us() > 1'600'000'000'000'000);
}

TEST_CASE("a ledger opened again goes on where it ended") {
    TestLedger ledger(2);
    ledger.extend(2);
    CHECK(ledger.heads[4].sequence == 4);
    CHECK(ledger.read().paths.size() == 4);
    CHECK(fs::exists(ledger.first_path()));
}

TEST_CASE("a full file is followed by another, and old files are not read") {
    TestLedger ledger(13, std::string(900'000, 'x'));
    auto infos = list_ledger_files(*ledger.store).value();
    REQUIRE(infos.size() == 4);
    CHECK(infos[1].first_sequence == 5);
    for (const auto& info : infos)
        CHECK(info.size_bytes <= kLedgerFileBytesMax);
    CHECK(ledger.read().paths.size() == 13);
    ledger.extend(1);
    CHECK(ledger.read(ledger.heads[12]).paths.size() == 2);

    // Entry 9 begins the third file: reading on from 9 needs no byte of the first two.
    write_raw_file(ledger.scratch / infos[0].name, as_bytes("damaged"));
    CHECK(ledger.read(ledger.heads[9]).paths.size() == 5);
    CHECK(ledger.read(ledger.heads[5]).paths.size() == 9);
    CHECK(ledger.read_error(ledger.heads[4]) == Errc::corrupt);
    CHECK(ledger.open_error() == Errc::corrupt);
    fs::remove(ledger.scratch / infos[0].name);
    CHECK(ledger.read_error() == Errc::corrupt);
    CHECK(ledger.open_error() == Errc::corrupt);
}

TEST_CASE("a missing, swapped or cut middle file is corrupt") {
    TestLedger ledger(13, std::string(900'000, 'x'));
    auto infos = list_ledger_files(*ledger.store).value();
    std::string second = ledger.scratch / infos[1].name, third = ledger.scratch / infos[2].name;
    ByteBuffer second_bytes = raw_file(second), third_bytes = raw_file(third);
    fs::remove(second);
    CHECK(ledger.read_error() == Errc::corrupt);
    CHECK(ledger.open_error() == Errc::corrupt);
    write_raw_file(second, third_bytes);
    write_raw_file(third, second_bytes);
    CHECK(ledger.read_error() == Errc::corrupt);
    write_raw_file(third, third_bytes);
    // A torn end is only believed of the last file, also where whole records are missing.
    for (std::size_t size :
         {second_bytes.size() - 1, record_offsets(second_bytes)[2], std::size_t{0}}) {
        write_raw_file(second, ByteSpan(second_bytes).first(size));
        CHECK(ledger.read_error() == Errc::corrupt);
        CHECK(ledger.open_error() == Errc::corrupt);
    }
    write_raw_file(second, second_bytes);
    CHECK(ledger.read().paths.size() == 13);
}

TEST_CASE("every flipped bit of a ledger file is detected") {
    TestLedger ledger(3);
    ByteBuffer file = raw_file(ledger.first_path());
    for (std::size_t bit = 0; bit < file.size() * 8; ++bit) {
        ByteBuffer damaged = file;
        damaged[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
        write_raw_file(ledger.first_path(), damaged);
        INFO("bit " << bit);
        auto read = ledger.read();
        // A last byte that reads as zero may never have been written: then its entry is not there.
        if (read.head && bit / 8 == file.size() - 1 && damaged.back() == std::byte{0}) {
            CHECK(read.paths.size() == 2);
            continue;
        }
        CHECK_FALSE(read.head.has_value());
        if (!read.head)
            CHECK(read.head.error().message.find(ledger_file_name(1)) != std::string::npos);
        if (bit % 64 == 0) CHECK(ledger.open_error() == Errc::corrupt);
    }
}

TEST_CASE(
    "a ledger cut at any byte is refused, or ends with the last whole entry where a torn end is "
    "allowed") {
    TestLedger ledger(3);
    ByteBuffer file = raw_file(ledger.first_path());
    std::vector<std::size_t> offsets = record_offsets(file);
    REQUIRE(offsets.back() == file.size());
    for (std::size_t size = 0; size < file.size(); ++size) {
        write_raw_file(ledger.first_path(), ByteSpan(file).first(size));
        INFO("size " << size);
        auto whole = static_cast<std::uint64_t>(std::max<std::ptrdiff_t>(
            0, std::ranges::upper_bound(offsets, size) - offsets.begin() - 1));
        bool at_boundary = std::ranges::binary_search(offsets, size);
        auto read = ledger.read();
        REQUIRE(read.head.has_value());
        CHECK(read.head->sequence == whole);
        CHECK(read.head->hash == ledger.heads[whole].hash);
        if (!at_boundary) CHECK(ledger.read_error({}, false) == Errc::corrupt);
        // Who remembers the head knows that entries are missing, at every size.
        CHECK(ledger.read_error(ledger.heads[3]) == Errc::invalid_argument);
    }
}

TEST_CASE("opening cuts a torn end off and goes on after the last whole entry") {
    for (std::size_t cut_bytes : {1u, 64u, 70u}) {
        TestLedger ledger(3);
        ByteBuffer file = raw_file(ledger.first_path());
        write_raw_file(ledger.first_path(), ByteSpan(file).first(file.size() - cut_bytes));
        ledger.heads.pop_back();
        ledger.extend(2);
        CHECK(ledger.heads.back().sequence == 4);
        CHECK(ledger.read({}, false).paths.size() == 4);
    }
}

TEST_CASE("a file that was begun and holds no whole entry is made anew") {
    for (std::size_t size : {0u, 10u, 68u, 90u}) {
        TestLedger ledger(1);
        ByteBuffer file = raw_file(ledger.first_path());
        write_raw_file(ledger.first_path(), ByteSpan(file).first(size));
        ledger.heads.pop_back();
        ledger.extend(2);
        CHECK(ledger.read({}, false).paths == std::vector<std::string>{"pack-1", "pack-2"});
    }
}

TEST_CASE("a record whose last sectors were never written is torn, one damaged elsewhere is not") {
    TestLedger ledger(1);
    ledger.extend(1, std::string(2'000, 'y'));
    ByteBuffer file = raw_file(ledger.first_path());
    std::size_t record = record_offsets(file)[1];
    for (std::size_t sector = 512; sector < file.size(); sector += 512) {
        ByteBuffer torn = file;
        std::fill(torn.begin() + static_cast<std::ptrdiff_t>(std::max(sector, record)), torn.end(),
                  std::byte{0});
        write_raw_file(ledger.first_path(), torn);
        auto read = ledger.read();
        REQUIRE(read.head.has_value());
        CHECK(read.paths.size() == 1);
        CHECK(ledger.read_error({}, false) == Errc::corrupt);
    }
    ByteBuffer hole = file;
    std::fill(hole.begin() + 512, hole.begin() + 1'024, std::byte{0});
    write_raw_file(ledger.first_path(), hole);
    CHECK(ledger.read_error() == Errc::corrupt);
    write_raw_file(ledger.first_path(), file);
    ByteBuffer extended = file;
    extended.resize(file.size() + 4'096);
    write_raw_file(ledger.first_path(), extended);
    CHECK(ledger.read().paths.size() == 2);
}

TEST_CASE("a record of which only the last bytes were never written is torn") {
    unsigned tried = 0;
    for (std::size_t padding = 0; padding < 512; ++padding) {
        TestLedger ledger(1);
        ledger.extend(1, std::string(600 + padding, 'y'));
        ByteBuffer file = raw_file(ledger.first_path());
        const std::size_t behind_sector = file.size() % 512;
        if (behind_sector == 0 || behind_sector >= 16) continue;
        ++tried;
        ByteBuffer torn = file;
        std::fill(torn.end() - static_cast<std::ptrdiff_t>(behind_sector), torn.end(),
                  std::byte{0});
        write_raw_file(ledger.first_path(), torn);
        // The last byte of one signature in sixteen is zero anyway: then nothing is missing.
        CHECK(ledger.read().paths.size() == (torn == file ? 2 : 1));
        torn[record_offsets(file)[1] + 40] ^= std::byte{1};
        write_raw_file(ledger.first_path(), torn);
        CHECK(ledger.read_error() == Errc::corrupt);
    }
    CHECK(tried == 15);
}

TEST_CASE("entries deleted, exchanged or repeated inside a file are detected") {
    TestLedger ledger(4);
    ByteBuffer file = raw_file(ledger.first_path());
    std::vector<std::size_t> at = record_offsets(file);
    auto written = [&](std::initializer_list<std::size_t> records) {
        ByteBuffer changed(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(at[0]));
        for (std::size_t i : records)
            append(changed, ByteSpan(file).subspan(at[i], at[i + 1] - at[i]));
        write_raw_file(ledger.first_path(), changed);
    };
    written({1, 2, 3});
    CHECK(ledger.read_error() == Errc::corrupt);
    written({0, 2, 3});
    CHECK(ledger.read_error() == Errc::corrupt);
    written({0, 2, 1, 3});
    CHECK(ledger.read_error() == Errc::corrupt);
    written({0, 0, 1, 2, 3});
    CHECK(ledger.read_error() == Errc::corrupt);
    written({0, 1});
    CHECK(ledger.read().paths.size() == 2);
    CHECK(ledger.read_error(ledger.heads[4]) == Errc::invalid_argument);
    CHECK(ledger.read_error(LedgerHead{2, ledger.heads[1].hash}) == Errc::invalid_argument);
}

TEST_CASE("a ledger rewritten with right hashes but another key is detected") {
    TestLedger ledger(2);
    ScratchDirectory forged;
    auto forger =
        Ledger::open(posix_file_system(), forged.path(), kRepository, test_keys(6), system_clock())
            .value();
    REQUIRE(forger->append(pack_deleted("pack-1")));
    REQUIRE(forger->append(pack_deleted("other")));
    write_raw_file(ledger.first_path(), raw_file(forged / ledger_file_name(1)));
    auto read = ledger.read().head;
    CHECK(read.error().code == Errc::corrupt);
    CHECK(read.error().message.find("not signed") != std::string::npos);
    CHECK(ledger.open_error() == Errc::corrupt);
    CHECK(ledger.read_error(ledger.heads[2]) == Errc::invalid_argument);
}

TEST_CASE("a ledger of another repository is refused") {
    TestLedger ledger(2);
    auto ignore = [](const pb::LedgerEntry&) -> Result<> { return {}; };
    CHECK(read_ledger(*ledger.store, id16(0x12), test_keys(), {}, true, ignore).error().code ==
          Errc::corrupt);
    ByteBuffer file = raw_file(ledger.first_path());
    ByteBuffer header = encode_ledger_header(id16(0x12), 1, Id32{});
    std::ranges::copy(header, file.begin());
    write_raw_file(ledger.first_path(), file);
    // The signature binds the repository too, so a new header does not help.
    auto moved = read_ledger(*ledger.store, id16(0x12), test_keys(), {}, true, ignore);
    CHECK(moved.error().message.find("not signed") != std::string::npos);
}

TEST_CASE("two histories of one ledger cannot be read on from each other") {
    TestLedger ledger(2);
    ByteBuffer file = raw_file(ledger.first_path());
    LedgerHead common = ledger.heads[2];
    ledger.extend(1, "-here");
    LedgerHead here = ledger.heads[3];
    write_raw_file(ledger.first_path(), file);
    ledger.heads.pop_back();
    ledger.extend(1, "-there");
    CHECK(ledger.read(common).paths == std::vector<std::string>{"pack-3-there"});
    CHECK(ledger.read_error(here) == Errc::invalid_argument);
}

TEST_CASE("what the reader's callback returns ends the read") {
    TestLedger ledger(3);
    int calls = 0;
    auto read = read_ledger(*ledger.store, kRepository, test_keys(), {}, true,
                            [&](const pb::LedgerEntry&) -> Result<> {
                                ++calls;
                                return fail(Errc::cancelled, "enough");
                            });
    CHECK(read.error().code == Errc::cancelled);
    CHECK(calls == 1);
}

TEST_CASE("other files beside the ledger's are passed over") {
    TestLedger ledger(2);
    for (const char* name : {"notes.txt", "00000000000000000000.log", "0000000000000000000a.log",
                             "1.log", "99999999999999999999.log"})
        write_raw_file(ledger.scratch / (std::string("ledger/") + name), as_bytes("x"));
    CHECK(ledger.read().paths.size() == 2);
}

TEST_CASE("an entry too large is refused and the ledger goes on") {
    ScratchDirectory scratch;
    auto ledger =
        Ledger::open(posix_file_system(), scratch.path(), kRepository, test_keys(), system_clock())
            .value();
    CHECK(ledger->append(pack_deleted(std::string(2 << 20, 'x'))).error().code ==
          Errc::invalid_argument);
    CHECK(ledger->append(pack_deleted("small")).has_value());
}

TEST_CASE("an entry that could not be read back is refused and the ledger goes on") {
    TestLedger ledger(1);
    auto writer = Ledger::open(posix_file_system(), ledger.scratch.path(), kRepository, test_keys(),
                               system_clock())
                      .value();
    CHECK(writer->append(pack_deleted("not\xFFtext")).error().code == Errc::invalid_argument);
    CHECK(writer->append(pack_deleted("text")).has_value());
    CHECK(ledger.read().paths == std::vector<std::string>{"pack-1", "text"});
}

TEST_CASE("after an error of the disk every later append is refused") {
    ScratchDirectory scratch;
    auto ledger =
        Ledger::open(posix_file_system(), scratch.path(), kRepository, test_keys(), system_clock())
            .value();
    // The name of the first file is taken by a directory.
    fs::create_directories(scratch / ledger_file_name(1));
    CHECK_FALSE(ledger->append(pack_deleted("a")).has_value());
    fs::remove(scratch / ledger_file_name(1));
    CHECK(ledger->append(pack_deleted("b")).error().code == Errc::io);
    CHECK(ledger->head().sequence == 0);
}

}  // namespace walvault::storage
