// Writes the golden files of the current format into an empty directory. Run by hand when a format
// version is added; never in CI: a golden file that is made anew proves nothing.
#include <cstdio>

#include "base/clock.h"
#include "storage/ledger.h"
#include "storage/sealer.h"
#include "tests/support/golden.h"

namespace walvault::storage {
namespace {

Result<> write_golden(FileSystem& files, const std::string& directory) {
    WV_CHECK(files.make_directories(directory));
    MasterKey master = MasterKey::generate();
    WV_CHECK(master.write_file(files, directory + "/key"));
    Keyring ring = Keyring::create(golden::kRepositoryId, master);
    WallTime made_at(std::chrono::seconds(1'790'000'000));
    const DataKey& wal_key = ring.add(pb::KEY_PURPOSE_WAL, "", made_at);
    const DataKey& ledger_key = ring.add(pb::KEY_PURPOSE_LEDGER, "", made_at);
    ring.add(pb::KEY_PURPOSE_JOURNAL, "sensitive", made_at);
    WV_CHECK(write_file_atomically(files, directory + "/keyring", ring.encode(master)));

    WV_TRY(auto ledger, Ledger::open(files, directory, golden::kRepositoryId, LedgerKeys::derive(ledger_key),
                                     system_clock()));
    for (std::string_view cluster : golden::kClusters) {
        pb::LedgerEntry entry;
        entry.set_actor("golden");
        entry.mutable_cluster_added()->set_cluster(std::string(cluster));
        entry.mutable_cluster_added()->set_segment_bytes(16_MiB);
        WV_CHECK(ledger->append(entry));
    }

    FileHeader header = golden::wal_header();
    FileCipher cipher = FileCipher::for_new_file(wal_key, header);
    ByteBuffer tail(kFileHeaderBytes);
    encode_file_header(header, std::span(tail).first<kFileHeaderBytes>());
    for (std::uint32_t number = 0; number < 3; ++number)
        append(tail, cipher.seal(golden::place_of(number), golden::plain_of(number), 3));
    return write_file_atomically(files, directory + "/wal.tail", tail);
}

}  // namespace
}  // namespace walvault::storage

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: make_golden EMPTY-DIRECTORY\n");
        return 2;
    }
    auto written = walvault::storage::write_golden(walvault::posix_file_system(), argv[1]);
    if (!written) std::fprintf(stderr, "%s\n", written.error().message.c_str());
    return written ? 0 : 1;
}
