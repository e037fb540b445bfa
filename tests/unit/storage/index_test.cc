#include "storage/index.h"

#include <doctest/doctest.h>
#include <rocksdb/iterator.h>

#include "storage/index_catch_up.h"
#include "tests/support/forwarding_store.h"
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

// RocksDB's indexes, of which each commit is told of before it is done.
class WatchedIndexes final : public IndexHome {
public:
    std::function<void()> before_commit = [] {};

    Result<std::unique_ptr<IndexStore>> open(const std::string& directory,
                                             bool read_only) override {
        WV_TRY(auto store, rocksdb_home().open(directory, read_only));
        return std::make_unique<Store>(*this, std::move(store));
    }
    Result<std::unique_ptr<IndexStore>> open_scratch(const std::string& parent) override {
        return rocksdb_home().open_scratch(parent);
    }
    Result<> remove(const std::string& directory) override {
        return rocksdb_home().remove(directory);
    }

private:
    class Store final : public IndexStore {
    public:
        Store(WatchedIndexes& home, std::unique_ptr<IndexStore> store)
            : home_(home), store_(std::move(store)) {}
        Result<std::optional<std::string>> get(Family family,
                                               const std::string& key) const override {
            return store_->get(family, key);
        }
        void begin() override { store_->begin(); }
        void put(Family family, const std::string& key, const std::string& value) override {
            store_->put(family, key, value);
        }
        void remove(Family family, const std::string& key) override { store_->remove(family, key); }
        Result<std::optional<std::string>> get_in_batch(Family family,
                                                        const std::string& key) const override {
            return store_->get_in_batch(family, key);
        }
        Result<> commit() override {
            home_.before_commit();
            return store_->commit();
        }
        Result<> sync() override { return store_->sync(); }
        std::unique_ptr<rocksdb::Iterator> iterate(Family family) const override {
            return store_->iterate(family);
        }

    private:
        WatchedIndexes& home_;
        std::unique_ptr<IndexStore> store_;
    };
};

TEST_CASE("an entry counts as entered when the index has it: who reads the ledger asks the index") {
    Stage stage;
    stage.create();
    WatchedIndexes indexes;
    RepositoryOptions options;
    options.host = options.version = "test";
    options.index_home = &indexes;
    auto repository = must(
        Repository::open(posix_file_system(), stage.root, stage.master, system_clock(), options));
    const std::uint64_t before = repository->ledger_sequence();
    CHECK(before > 0);
    int commits = 0;
    indexes.before_commit = [&] {
        ++commits;
        CHECK(repository->ledger_sequence() == before);
    };
    must(repository->append_to_ledger(cluster_entry(0, "one")));
    CHECK(commits == 1);
    CHECK(repository->ledger_sequence() == before + 1);
    indexes.before_commit = [] {};
}

// A directory in which the sectors of one pack cannot be read.
class BadSectors final : public ForwardingStore {
public:
    BadSectors(ObjectStore& whole, std::string bad)
        : ForwardingStore(whole), bad_(std::move(bad)) {}
    Result<ByteBuffer> get(const std::string& name, std::uint64_t offset,
                           std::uint64_t length) override {
        if (name == bad_) return fail(Errc::io, "read " + name + ": Input/output error");
        return ForwardingStore::get(name, offset, length);
    }

private:
    std::string bad_;
};

TEST_CASE(
    "a pack that the disk cannot read does not end the making of an index, and is tried again") {
    Stage stage;
    stage.create();
    MadeWal wal;
    wal.grow(61, 100'000);
    wal.builder.add({.rmgr = 0, .info = 0x10, .body = WalBuilder::main_data(ByteBuffer(88))});
    wal.grow(62, 100'000);
    {
        auto repository = must(stage.open());
        HistoryWriter writer(*repository, wal);
        must(writer.begin());
        must(writer.store(20'000, 120'000));
        must(writer.close());
    }
    auto store = make_directory_store(posix_file_system(), stage.root);
    OpenedRepository opened = must(open_repository_files(*store, stage.master));
    auto keys = [&] { return LedgerKeys::derive(*opened.keyring.current(pb::KEY_PURPOSE_LEDGER)); };
    std::vector<std::string> packs = stage.paths_of(".pack");
    REQUIRE(packs.size() > 1);
    BadSectors bad(*store, packs.front().substr(stage.root.size() + 1));
    auto index = must(Index::open(stage.directory / "index"));
    LedgerHead head = must(catch_up(*index, bad, bad, opened.id, keys(), opened.keyring));
    CHECK(must(index->watermark()).sequence == head.sequence);
    const Id16 history = must(index->current_history("main")).value();
    CHECK(must(index->last_wal_pack(history))->end_lsn() == wal.builder.end().value);
    CHECK(must(index->unread_packs()).size() == 1);
    const std::size_t marks_before = must(index->marks(history, 0, 0)).size();
    must(catch_up(*index, *store, *store, opened.id, keys(), opened.keyring));
    CHECK(must(index->unread_packs()).empty());
    CHECK(must(index->marks(history, 0, 0)).size() == marks_before + 1);
}

}  // namespace
}  // namespace walvault::storage
