#include "storage/index.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>

#include "tests/unit/storage/stage.h"

namespace walvault::storage {
namespace {

pb::LedgerEntry cluster_entry(std::uint64_t sequence, const std::string& name) {
    pb::LedgerEntry entry;
    entry.set_sequence(sequence);
    entry.mutable_cluster_added()->set_cluster(name);
    return entry;
}

TEST_CASE("an index takes no entry of the ledger but the next one") {
    ScratchDirectory directory;
    auto index = must(Index::open(directory / "index"));
    must(index->apply(cluster_entry(1, "one"), {1, {}}, {}));
    for (std::uint64_t sequence : {0u, 1u, 3u}) {
        auto applied = index->apply(cluster_entry(sequence, "other"), {sequence, {}}, {});
        REQUIRE(!applied);
        CHECK(applied.error().code == Errc::invalid_argument);
    }
    CHECK(must(index->watermark()).sequence == 1);
    CHECK(must(index->clusters()).size() == 1);
    must(index->apply(cluster_entry(2, "two"), {2, {}}, {}));
    CHECK(must(index->clusters()).size() == 2);
}

// While it lives, no file grows beyond `bytes`.
class SmallFiles {
public:
    explicit SmallFiles(rlim_t bytes) {
        ::getrlimit(RLIMIT_FSIZE, &before_);
        rlimit limit = before_;
        limit.rlim_cur = bytes;
        handler_ = ::signal(SIGXFSZ, SIG_IGN);
        ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    ~SmallFiles() {
        ::setrlimit(RLIMIT_FSIZE, &before_);
        ::signal(SIGXFSZ, handler_);
    }

private:
    rlimit before_{};
    void (*handler_)(int) = SIG_DFL;
};

TEST_CASE("an entry that the index could not take is not passed over by later ones") {
    Stage stage;
    stage.create();
    {
        auto repository = must(stage.open());
        // The index gets larger than the ledger will be, and then finds no space.
        for (std::uint32_t n = 0; n < 3000; ++n)
            must(repository->note_synced("main/wal/" + std::string(100, 'x') + ".tail", n));
        must(repository->sync());
        std::uint64_t largest = 0;
        for (const auto& entry : std::filesystem::directory_iterator(stage.root + "/index"))
            largest = std::max<std::uint64_t>(largest, entry.file_size());
        REQUIRE(largest > 100'000);
        ClusterRecord cluster{"main", WalBuilder::kSystem, WalBuilder::kSegmentBytes, 150020};
        {
            SmallFiles limit(largest);
            CHECK(!repository->ensure_cluster(cluster));
        }
        // Now there is space again. Whatever is entered from here on, the first one is not lost.
        cluster.name = "other";
        (void)repository->ensure_cluster(cluster);
    }
    auto repository = must(stage.open());
    CHECK(repository->cluster("main"));
}

}  // namespace
}  // namespace walvault::storage
