// make_large_index REPO KEYFILE CLUSTER WAL_BYTES: gives the newest history of a cluster packs before its
// start, in ledger and index only, as if WAL_BYTES had been received. Then a start can be timed.

#include <charconv>
#include <cstdio>
#include <string>

#include "storage/index.h"
#include "storage/repository_files.h"
#include "storage/sealer.h"

namespace {

using namespace walvault;
using namespace walvault::storage;

constexpr std::uint64_t kPackPlainBytes = 64_MiB;
constexpr std::uint64_t kPackStoredBytes = 23_MiB;
constexpr std::uint64_t kFirstLsn = 16_MiB;
constexpr std::int64_t kPackMicros = 8'000'000;  // 64 MiB at 8 MB/s: 10 TB take two weeks
constexpr std::uint64_t kCommitsPerPack = 12'000;

struct Target {
    std::string cluster;
    pb::HistoryOpened history;
    std::uint64_t count = 0;
    std::int64_t first_at_us = 0;
};

pb::PackInfo pack_of(const Target& target, std::uint64_t number) {
    pb::PackInfo pack;
    Lsn start{kFirstLsn + number * kPackPlainBytes};
    Id16 file_id = random_id16();
    Id32 footer_hash = plain_hash(file_id);
    Id16 history = id_from<16>(target.history.history_id());
    std::string path = tail_name(target.cluster, history, target.history.timeline(), start, 1, 1);
    pack.set_path(path.substr(0, path.size() - 4) + "pack");
    pack.set_kind(pb::PACK_KIND_WAL);
    pack.set_cluster(target.cluster);
    pack.set_file_id(text_of(file_id));
    pack.set_history_id(target.history.history_id());
    pack.set_timeline(target.history.timeline());
    pack.set_start_lsn(start.value);
    pack.set_end_lsn(start.value + kPackPlainBytes);
    pack.set_plain_bytes(kPackPlainBytes);
    pack.set_stored_bytes(kPackStoredBytes);
    pack.set_frame_count(kPackPlainBytes / 1_MiB);
    pack.set_footer_offset(kPackStoredBytes - 64_KiB);
    pack.set_footer_hash(text_of(footer_hash));
    std::int64_t from_us = target.first_at_us + static_cast<std::int64_t>(number) * kPackMicros;
    pb::WalSummary& summary = *pack.mutable_summary();
    summary.set_commit_count(kCommitsPerPack);
    summary.set_first_at_us(from_us);
    summary.set_last_at_us(from_us + kPackMicros - 1);
    summary.set_min_xid(static_cast<std::uint32_t>(number * kCommitsPerPack));
    summary.set_max_xid(static_cast<std::uint32_t>((number + 1) * kCommitsPerPack));
    return pack;
}

// Marks as a busy server makes them: a checkpoint and some bulk transactions in each pack.
pb::PackFooter footer_of(const pb::PackInfo& pack) {
    pb::PackFooter footer;
    footer.set_format_version(kFormatVersion);
    // A footer without frames is what stands for a pack that could not be read.
    for (std::uint32_t i = 0; i < pack.frame_count(); ++i) {
        pb::FrameEntry& frame = *footer.add_frames();
        frame.set_frame_number(i);
        frame.set_plain_bytes(1_MiB);
        frame.set_start_lsn(pack.start_lsn() + i * 1_MiB);
    }
    for (std::uint64_t i = 0; i < 4; ++i) {
        pb::MarkEntry& mark = *footer.add_marks();
        mark.set_kind(i == 0 ? pb::MarkEntry::CHECKPOINT : pb::MarkEntry::BULK);
        mark.set_start_lsn(pack.start_lsn() + i * 16_MiB);
        mark.set_end_lsn(mark.start_lsn() + 120);
        mark.set_at_us(pack.summary().first_at_us() + static_cast<std::int64_t>(i) * 1'000'000);
        if (i > 0) mark.set_inserted_rows(2000);
        if (i > 0) mark.add_files("1663/5/16397");
    }
    return footer;
}

// The index as far as the ledger is; a repository that an agent has closed cleanly needs nothing.
Result<> require_caught_up(Index& index, const Ledger& ledger) {
    WV_TRY(LedgerHead watermark, index.watermark());
    if (watermark.sequence == ledger.head().sequence) return {};
    return fail(Errc::refused, "the index is at entry " + std::to_string(watermark.sequence) + " of " +
                                   std::to_string(ledger.head().sequence),
                "walvault repo rebuild-index");
}

Result<Target> target_of(Index& index, const std::string& cluster, std::uint64_t wal_bytes) {
    WV_TRY(auto histories, index.histories(cluster));
    if (histories.empty()) return fail(Errc::not_found, cluster + " has no history");
    Target target{.cluster = cluster, .history = histories.back(), .count = wal_bytes / kPackPlainBytes};
    if (kFirstLsn + target.count * kPackPlainBytes > target.history.start_lsn())
        return fail(Errc::invalid_argument, "the history of " + cluster + " begins at " +
                                                to_string(Lsn{target.history.start_lsn()}) +
                                                ", before the end of that much WAL");
    target.first_at_us = system_clock().now().time_since_epoch().count() -
                         static_cast<std::int64_t>(target.count + 1) * kPackMicros;
    return target;
}

Result<> generate(const std::string& root, const std::string& key_path, const std::string& cluster,
                  std::uint64_t wal_bytes) {
    FileSystem& files = posix_file_system();
    WV_TRY(MasterKey master, MasterKey::read_file(files, key_path));
    WV_TRY(auto lock, files.lock(root + "/" + kLockName));
    auto store = make_directory_store(files, root);
    WV_TRY(OpenedRepository opened, open_repository_files(*store, master));
    const DataKey* ledger_key = opened.keyring.current(pb::KEY_PURPOSE_LEDGER);
    if (ledger_key == nullptr) return fail(Errc::wrong_key, "the keyring has no ledger key");
    WV_TRY(auto ledger,
           Ledger::open(files, root, opened.id, LedgerKeys::derive(*ledger_key), system_clock()));
    WV_TRY(auto index, Index::open(root + "/" + kIndexName));
    WV_CHECK(require_caught_up(*index, *ledger));
    WV_TRY(std::uint64_t generation, index->generation());
    ledger->set_generation(generation);
    WV_TRY(Target target, target_of(*index, cluster, wal_bytes));
    for (std::uint64_t number = 0; number < target.count; ++number) {
        pb::LedgerEntry entry;
        *entry.mutable_pack_closed()->mutable_pack() = pack_of(target, number);
        pb::PackFooter footer = footer_of(entry.pack_closed().pack());
        WV_TRY(pb::LedgerEntry appended, ledger->append(std::move(entry)));
        WV_CHECK(index->apply(appended, ledger->head(), {&footer}));
    }
    return index->sync();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 5) {
        std::fprintf(stderr, "usage: make_large_index REPO KEYFILE CLUSTER WAL_BYTES\n");
        return 2;
    }
    std::string_view bytes_text = argv[4];
    std::uint64_t wal_bytes = 0;
    auto [end, error] = std::from_chars(bytes_text.data(), bytes_text.data() + bytes_text.size(), wal_bytes);
    if (error != std::errc{} || end != bytes_text.data() + bytes_text.size()) {
        std::fprintf(stderr, "\"%s\" is not a number of bytes\n", argv[4]);
        return 2;
    }
    require_sodium();
    if (auto done = generate(argv[1], argv[2], argv[3], wal_bytes); !done) {
        std::fprintf(stderr, "error: %s\n", done.error().message.c_str());
        return 1;
    }
    return 0;
}
