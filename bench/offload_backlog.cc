// offload_backlog DIRECTORY URL GIB: offloads so much that waits in a repository, and tells what
// memory that took.
//
// The packs are files of zeros without blocks, so that they cost no disk; the ledger names them,
// and the offloader reads and puts them as any other.

#include <sys/resource.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <string>

#include "storage/offloader.h"
#include "storage/repository.h"
#include "storage/repository_files.h"
#include "storage/sealer.h"
#include "storage/tier_store.h"

namespace {

using namespace walvault;
using namespace walvault::storage;
using std::chrono::steady_clock;

constexpr std::uint64_t kWalPackBytes = 23_MiB;
constexpr std::uint64_t kBasePackBytes = 256_MiB;

// Every fourth GiB is of base packs.
Result<> add_pack(Ledger& ledger, const std::string& root, std::uint64_t number, bool is_base) {
    pb::LedgerEntry entry;
    pb::PackInfo& pack = *entry.mutable_pack_closed()->mutable_pack();
    pack.set_kind(is_base ? pb::PACK_KIND_BASE : pb::PACK_KIND_WAL);
    pack.set_cluster("main");
    pack.set_path(std::string(is_base ? "main/base/" : "main/wal/") + std::to_string(number) +
                  ".pack");
    pack.set_file_id(text_of(random_id16()));
    pack.set_stored_bytes(is_base ? kBasePackBytes : kWalPackBytes);
    FileSystem& files = posix_file_system();
    const std::string path = root + "/" + pack.path();
    WV_CHECK(files.make_directories(path.substr(0, path.find_last_of('/'))));
    WV_TRY(auto file, files.create(path));
    WV_CHECK(file->truncate(pack.stored_bytes()));
    WV_CHECK(ledger.append(std::move(entry)));
    return {};
}

Result<std::uint64_t> make_backlog(Ledger& ledger, const std::string& root, std::uint64_t bytes) {
    std::uint64_t made = 0;
    for (std::uint64_t number = 1; made < bytes; ++number) {
        const bool is_base = made / 1_GiB % 4 == 3;
        WV_CHECK(add_pack(ledger, root, number, is_base));
        made += is_base ? kBasePackBytes : kWalPackBytes;
    }
    return made;
}

double peak_mib() {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    return static_cast<double>(used.ru_maxrss) / 1024;
}

Result<> run(const std::string& directory, const std::string& url, std::uint64_t gib) {
    const std::string root = directory + "/repo";
    const MasterKey master = MasterKey::generate();
    WV_CHECK(Repository::create(posix_file_system(), root, master, system_clock()));
    auto here = make_directory_store(posix_file_system(), root);
    WV_TRY(OpenedRepository opened, open_repository_files(*here, master));
    const DataKey* key = opened.keyring.current(pb::KEY_PURPOSE_LEDGER);
    if (key == nullptr) return fail(Errc::corrupt, "the keyring has no key for the ledger");
    // Past the index, which nobody asks here.
    WV_TRY(auto ledger, Ledger::open(posix_file_system(), root, opened.id, LedgerKeys::derive(*key),
                                     system_clock()));
    WV_TRY(const std::uint64_t bytes, make_backlog(*ledger, root, gib * 1_GiB));
    WV_TRY(TierPlace place, parse_tier_url(url));
    WV_TRY(auto tier, open_tier_objects(posix_file_system(), place));
    WV_CHECK(initialize_tier(*here, *tier, master, "bucket"));
    const unsigned at_once = objects_at_once(place);
    auto lanes = [at_once](ObjectLanes::Put put) {
        return make_object_lanes(std::move(put), at_once);
    };
    WV_TRY(auto offloader,
           Offloader::open(*here, *tier, master, {.name = "bucket", .lanes = lanes}));
    const double before = peak_mib();
    const auto began = steady_clock::now();
    const OffloadSnapshot snapshot{.ledger_sequence = ledger->head().sequence, .tails = {}};
    WV_TRY(auto round, offloader->offload(snapshot, [] { return true; }));
    if (round.failure) return fail(*round.failure);
    if (!round.is_complete) return fail(Errc::io, "the backlog is not on the tier");
    const double seconds = std::chrono::duration<double>(steady_clock::now() - began).count();
    std::printf(
        "%.1f GiB in %.0f s, %u packs at once: %.0f MiB of memory at most, %.0f MiB before it "
        "began\n",
        static_cast<double>(bytes) / static_cast<double>(1_GiB), seconds, at_once, peak_mib(),
        before);
    return {};
}

}  // namespace

int main(int count, char** arguments) {
    std::uint64_t gib = 0;
    if (count == 4) {
        const std::string text = arguments[3];
        std::from_chars(text.data(), text.data() + text.size(), gib);
    }
    if (gib == 0) {
        std::fprintf(stderr, "usage: %s DIRECTORY URL GIB\n", arguments[0]);
        return 2;
    }
    require_sodium();
    auto done = run(arguments[1], arguments[2], gib);
    if (done) return 0;
    std::fprintf(stderr, "%s\n", done.error().message.c_str());
    return 1;
}
