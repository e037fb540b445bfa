// Files written by an earlier build open for ever. tests/golden/v1 was made once, by make_golden.
#include "tests/support/golden.h"

#include <doctest/doctest.h>

#include <map>

#include "storage/ledger.h"
#include "storage/repository_files.h"
#include "storage/sealer.h"
#include "tests/support/scratch_directory.h"

namespace walvault::storage {
namespace {

const std::string kDirectory = WALVAULT_GOLDEN_DIRECTORY "/v1";

MasterKey golden_master() {
    auto master = MasterKey::parse(as_text(raw_file(kDirectory + "/key")));
    REQUIRE(master.has_value());
    return std::move(*master);
}
Keyring golden_keyring() {
    auto ring =
        Keyring::decode(raw_file(kDirectory + "/keyring"), golden::kRepositoryId, golden_master());
    REQUIRE(ring.has_value());
    return std::move(*ring);
}

struct GoldenTail {
    ByteBuffer file = raw_file(kDirectory + "/wal.tail");
    Keyring ring = golden_keyring();
    FileHeader header = decode_file_header(file).value();
    FileCipher cipher = FileCipher::for_existing_file(*ring.find(header.key_id), header).value();

    std::vector<ByteSpan> frames() const {
        std::vector<ByteSpan> frames;
        for (std::size_t offset = kFileHeaderBytes; offset < file.size();) {
            auto frame = decode_frame_header(ByteSpan(file).subspan(offset)).value();
            frames.push_back(
                ByteSpan(file).subspan(offset, kFrameHeaderBytes + frame.sealed_bytes));
            offset += frames.back().size();
        }
        return frames;
    }
};

// True if the whole file opens to the golden content when its bytes are `file`.
bool opens(const GoldenTail& golden, ByteSpan file) {
    auto header = decode_file_header(file);
    if (!header) return false;
    const DataKey* key = golden.ring.find(header->key_id);
    if (key == nullptr) return false;
    auto cipher = FileCipher::for_existing_file(*key, *header);
    if (!cipher) return false;
    std::size_t offset = kFileHeaderBytes;
    for (std::uint32_t number = 0; number < 3; ++number) {
        auto frame = decode_frame_header(file.subspan(std::min(offset, file.size())));
        if (!frame || frame->sealed_bytes > file.size() - offset - kFrameHeaderBytes) return false;
        std::size_t size = kFrameHeaderBytes + frame->sealed_bytes;
        auto plain = cipher->unseal(golden::place_of(number), file.subspan(offset, size));
        if (!plain) return false;
        CHECK(*plain == golden::plain_of(number));
        offset += size;
    }
    return offset == file.size();
}

}  // namespace

TEST_CASE("the golden keyring opens and has its three keys") {
    Keyring ring = golden_keyring();
    CHECK(ring.generation() == 3);
    REQUIRE(ring.current(pb::KEY_PURPOSE_WAL) != nullptr);
    CHECK(ring.current(pb::KEY_PURPOSE_WAL)->made_at ==
          WallTime(std::chrono::seconds(1'790'000'000)));
    CHECK(ring.current(pb::KEY_PURPOSE_LEDGER) != nullptr);
    CHECK(ring.current(pb::KEY_PURPOSE_JOURNAL, "sensitive") != nullptr);
}

TEST_CASE("the golden ledger reads as it was written") {
    auto store = make_directory_store(posix_file_system(), kDirectory);
    LedgerKeys keys = LedgerKeys::derive(*golden_keyring().current(pb::KEY_PURPOSE_LEDGER));
    std::vector<std::string> clusters;
    auto head = read_ledger(*store, golden::kRepositoryId, keys, {}, false,
                            [&](const pb::LedgerEntry& entry) -> Result<> {
                                CHECK(entry.actor() == "golden");
                                clusters.push_back(entry.cluster_added().cluster());
                                return {};
                            });
    REQUIRE(head.has_value());
    CHECK(head->sequence == 3);
    CHECK(std::ranges::equal(clusters, golden::kClusters));
}

TEST_CASE("the golden tail opens to the known content") {
    GoldenTail golden;
    CHECK(golden.header.start_lsn == golden::wal_header().start_lsn);
    CHECK(golden.header.system_identifier == golden::wal_header().system_identifier);
    CHECK(golden.frames().size() == 3);
    CHECK(decode_frame_header(golden.frames()[0]).value().codec == Codec::zstd);
    CHECK(decode_frame_header(golden.frames()[2]).value().codec == Codec::stored);
    CHECK(decode_frame_header(golden.frames()[2]).value().synced_frames == 2);
    CHECK(opens(golden, golden.file));
}

TEST_CASE("every flipped bit and every missing byte of a sealed file is detected") {
    GoldenTail golden;
    for (std::size_t bit = 0; bit < golden.file.size() * 8; ++bit) {
        ByteBuffer damaged = golden.file;
        damaged[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
        INFO("bit " << bit);
        CHECK_FALSE(opens(golden, damaged));
    }
    for (std::size_t size = 0; size < golden.file.size(); ++size)
        CHECK_FALSE(opens(golden, ByteSpan(golden.file).first(size)));
}

TEST_CASE("frames exchanged inside a file do not open") {
    GoldenTail golden;
    auto frames = golden.frames();
    for (std::uint32_t at = 0; at < 3; ++at)
        for (std::uint32_t from = 0; from < 3; ++from)
            CHECK(golden.cipher.unseal(golden::place_of(at), frames[from]).has_value() ==
                  (at == from));
}

// What this version writes; a gap and a deleted pack have no writer yet.
TEST_CASE("the ledger of the golden repository has every kind of entry, and each reads") {
    using Event = pb::LedgerEntry::EventCase;
    auto store = make_directory_store(posix_file_system(), kDirectory + "/repository");
    auto master = MasterKey::parse(as_text(raw_file(kDirectory + "/repository.key")));
    REQUIRE(master.has_value());
    auto opened = open_repository_files(*store, *master);
    REQUIRE(opened.has_value());
    LedgerKeys keys = LedgerKeys::derive(*opened->keyring.current(pb::KEY_PURPOSE_LEDGER));
    std::map<Event, int> counts;
    auto head = read_ledger(*store, opened->id, keys, {}, false, [&](const pb::LedgerEntry& entry) {
        ++counts[entry.event_case()];
        return Result<>{};
    });
    REQUIRE(head.has_value());
    CHECK(head->sequence > 20);
    for (Event event :
         {Event::kRepositoryCreated, Event::kWriterClaimed, Event::kClusterAdded,
          Event::kHistoryOpened, Event::kTimelineHistory, Event::kTailOpened, Event::kPackClosed,
          Event::kBackupStarted, Event::kBackupCompleted, Event::kBackupFailed, Event::kRestoreDone,
          Event::kVerifyDone, Event::kSlotDropped}) {
        INFO("event " << event);
        CHECK(counts[event] > 0);
    }
}

TEST_CASE("another master key is told as such") {
    auto ring = Keyring::decode(raw_file(kDirectory + "/keyring"), golden::kRepositoryId,
                                MasterKey::generate());
    CHECK(ring.error().code == Errc::wrong_key);
}

}  // namespace walvault::storage
