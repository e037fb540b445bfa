#include "storage/index_store.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/write_batch_with_index.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <vector>

#include "base/invariant.h"
#include "storage/private_directory.h"

namespace walvault::storage {
namespace {

constexpr std::array<const char*, static_cast<std::size_t>(Family::count)> kNames{
    "default", "wal", "clock", "marks", "chunks", "packs", "backups", "journal"};

Error error_of(const rocksdb::Status& status, std::string_view doing) {
    Errc code = Errc::io;
    if (status.IsCorruption()) code = Errc::corrupt;
    if (status.IsNoSpace()) code = Errc::no_space;
    if (status.IsPathNotFound()) code = Errc::not_found;
    return Error{code, "index: " + std::string(doing) + ": " + status.ToString()};
}

// RocksDB would try by itself to go on after a full disk, in a thread of its own, and writes to the
// log whose write failed: it dies of an assertion. This index takes nothing more once a write
// failed.
class NoRecovery final : public rocksdb::EventListener {
    void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                              bool* auto_recovery) override {
        *auto_recovery = false;
    }
};

// All options of all families go to RocksDB's log at each open: a command does not need one.
class NoLog final : public rocksdb::Logger {
public:
    using rocksdb::Logger::Logv;
    void Logv(const char*, va_list) override {}
};

// RocksDB starts so many threads for each family, however few tables there are: of a small index
// that is most of the time it takes to open it.
int opening_threads(const std::string& directory) {
    constexpr std::ptrdiff_t kTablesOfThread = 16;
    constexpr std::ptrdiff_t kThreadsMax = 16;
    std::error_code error;
    std::ptrdiff_t tables = 0;
    for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end;
         at.increment(error))
        tables += at->path().extension() == ".sst" ? 1 : 0;
    return static_cast<int>(std::clamp<std::ptrdiff_t>(tables / kTablesOfThread, 1, kThreadsMax));
}

rocksdb::Options database_options(const std::string& directory, bool read_only, bool is_scratch) {
    rocksdb::Options options;
    if (read_only || is_scratch) options.info_log = std::make_shared<NoLog>();
    options.max_file_opening_threads = opening_threads(directory);
    options.listeners.push_back(std::make_shared<NoRecovery>());
    options.max_bgerror_resume_count = 0;
    options.create_if_missing = !read_only;
    options.create_missing_column_families = !read_only;
    // The default mode opens with synced writes missing after a flipped bit; this one refuses.
    options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
    options.track_and_verify_wals_in_manifest = true;
    options.paranoid_checks = true;
    options.db_write_buffer_size = 16 << 20;
    options.max_total_wal_size = 32 << 20;
    // A reader keeps every table open, so that the writer's compaction cannot take one away.
    options.max_open_files = read_only ? -1 : 256;
    // Statistics are what compaction decides by: a reader has none.
    options.skip_stats_update_on_db_open = read_only;
    options.max_background_jobs = 2;
    options.keep_log_file_num = 2;
    options.max_log_file_size = 1 << 20;
    options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
    return options;
}

rocksdb::ColumnFamilyOptions family_options(const std::shared_ptr<rocksdb::Cache>& cache) {
    rocksdb::ColumnFamilyOptions options;
    options.write_buffer_size = 8 << 20;
    options.compression = rocksdb::kNoCompression;
    rocksdb::BlockBasedTableOptions table;
    table.block_cache = cache;
    table.cache_index_and_filter_blocks = true;
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    return options;
}

tl::unexpected<Error> broken_earlier() {
    return fail(Errc::io, "the index is not written any more after an earlier error",
                "Restart the agent once the cause is gone.");
}

struct Database {
    std::unique_ptr<rocksdb::DB> database;
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    std::unique_ptr<rocksdb::WriteBatchWithIndex> batch;
    bool read_only = false;
    bool broken = false;
    ~Database() {
        batch.reset();
        if (broken) {
            abandon();
            return;
        }
        for (rocksdb::ColumnFamilyHandle* handle : handles)
            if (database) (void)database->DestroyColumnFamilyHandle(handle);
        if (database) (void)database->Close();
    }

    using Families = std::vector<rocksdb::ColumnFamilyDescriptor>;

    rocksdb::Status open(const rocksdb::Options& options, const std::string& directory,
                         const Families& families) {
        rocksdb::DB* opened = nullptr;
        const auto status = rocksdb::DB::Open(options, directory, families, &handles, &opened);
        database.reset(opened);
        return status;
    }
    rocksdb::Status open_to_read(const rocksdb::Options& options, const std::string& directory,
                                 const Families& families) {
        rocksdb::DB* opened = nullptr;
        const auto status =
            rocksdb::DB::OpenForReadOnly(options, directory, families, &handles, &opened);
        database.reset(opened);
        return status;
    }
    // All families at once: open() writes, syncs and checks the file of options again for each one
    // that is missing.
    rocksdb::Status make(const rocksdb::Options& options, const std::string& directory,
                         const Families& families) {
        auto status = open(options, directory, {families.front()});
        if (!status.ok()) return status;
        std::vector<rocksdb::ColumnFamilyHandle*> made;
        status = database->CreateColumnFamilies({families.begin() + 1, families.end()}, &made);
        handles.insert(handles.end(), made.begin(), made.end());
        return status;
    }

    // Closing writes what is left of the log, and RocksDB asserts that nobody writes to a log whose
    // write has failed: the process would die of it. It ends soon, for a new start to open the
    // index again; until then the database stays as it is.
    void abandon() {
        using Open = std::pair<std::unique_ptr<rocksdb::DB>, decltype(handles)>;
        static auto& abandoned = *new std::vector<Open>();
        abandoned.emplace_back(std::move(database), std::move(handles));
    }
};

class RocksStore final : public IndexStore {
public:
    static Result<std::unique_ptr<RocksStore>> open(const std::string& directory, bool read_only,
                                                    bool is_scratch = false);
    void keep(std::unique_ptr<PrivateDirectory> scratch) { scratch_ = std::move(scratch); }

    Result<std::optional<std::string>> get(Family family, const std::string& key) const override;
    void begin() override;
    void put(Family family, const std::string& key, const std::string& value) override;
    void remove(Family family, const std::string& key) override;
    Result<std::optional<std::string>> get_in_batch(Family family,
                                                    const std::string& key) const override;
    Result<> commit() override;
    Result<> sync() override;
    std::unique_ptr<rocksdb::Iterator> iterate(Family family) const override;

private:
    rocksdb::ColumnFamilyHandle* handle(Family family) const;
    std::unique_ptr<PrivateDirectory> scratch_;  // goes after the database in it
    std::unique_ptr<Database> state_ = std::make_unique<Database>();
};

Result<std::unique_ptr<RocksStore>> RocksStore::open(const std::string& directory, bool read_only,
                                                     bool is_scratch) {
    auto cache = rocksdb::NewLRUCache(16 << 20);
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const char* name : kNames)
        families.emplace_back(name, family_options(cache));
    auto store = std::make_unique<RocksStore>();
    Database& state = *store->state_;
    state.read_only = read_only;
    const rocksdb::Options options = database_options(directory, read_only, is_scratch);
    std::error_code error;
    const bool is_new = !read_only && !std::filesystem::exists(directory + "/CURRENT", error);
    const rocksdb::Status status = is_new      ? state.make(options, directory, families)
                                   : read_only ? state.open_to_read(options, directory, families)
                                               : state.open(options, directory, families);
    if (!status.ok()) return fail(error_of(status, "open " + directory));
    state.batch =
        std::make_unique<rocksdb::WriteBatchWithIndex>(rocksdb::BytewiseComparator(), 0, true);
    return store;
}

rocksdb::ColumnFamilyHandle* RocksStore::handle(Family family) const {
    return state_->handles[static_cast<std::size_t>(family)];
}

Result<std::optional<std::string>> RocksStore::get(Family family, const std::string& key) const {
    std::string value;
    rocksdb::Status status;
    if (state_->read_only)
        status = state_->batch->GetFromBatchAndDB(state_->database.get(), rocksdb::ReadOptions(),
                                                  handle(family), key, &value);
    else
        status = state_->database->Get(rocksdb::ReadOptions(), handle(family), key, &value);
    if (status.IsNotFound()) return std::optional<std::string>{};
    if (!status.ok()) return fail(error_of(status, "get"));
    return std::optional<std::string>(std::move(value));
}

Result<std::optional<std::string>> RocksStore::get_in_batch(Family family,
                                                            const std::string& key) const {
    std::string value;
    rocksdb::Status status = state_->batch->GetFromBatchAndDB(
        state_->database.get(), rocksdb::ReadOptions(), handle(family), key, &value);
    if (status.IsNotFound()) return std::optional<std::string>{};
    if (!status.ok()) return fail(error_of(status, "get"));
    return std::optional<std::string>(std::move(value));
}

void RocksStore::begin() {
    if (!state_->read_only) state_->batch->Clear();
}

void RocksStore::put(Family family, const std::string& key, const std::string& value) {
    rocksdb::Status status = state_->batch->Put(handle(family), key, value);
    WV_ASSERT(status.ok());
}

void RocksStore::remove(Family family, const std::string& key) {
    rocksdb::Status status = state_->batch->Delete(handle(family), key);
    WV_ASSERT(status.ok());
}

Result<> RocksStore::commit() {
    if (state_->read_only) return {};
    if (state_->broken) return broken_earlier();
    rocksdb::Status status =
        state_->database->Write(rocksdb::WriteOptions(), state_->batch->GetWriteBatch());
    state_->batch->Clear();
    if (status.ok()) return {};
    state_->broken = true;
    return fail(error_of(status, "write"));
}

Result<> RocksStore::sync() {
    if (state_->read_only) return {};
    if (state_->broken) return broken_earlier();
    rocksdb::Status status = state_->database->FlushWAL(true);
    if (status.ok()) return {};
    state_->broken = true;
    return fail(error_of(status, "sync"));
}

std::unique_ptr<rocksdb::Iterator> RocksStore::iterate(Family family) const {
    rocksdb::Iterator* base = state_->database->NewIterator(rocksdb::ReadOptions(), handle(family));
    if (!state_->read_only) return std::unique_ptr<rocksdb::Iterator>(base);
    return std::unique_ptr<rocksdb::Iterator>(
        state_->batch->NewIteratorWithBase(handle(family), base));
}

class RocksHome final : public IndexHome {
public:
    Result<std::unique_ptr<IndexStore>> open(const std::string& directory,
                                             bool read_only) override {
        return RocksStore::open(directory, read_only);
    }
    Result<std::unique_ptr<IndexStore>> open_scratch(const std::string& parent) override {
        WV_TRY(auto scratch, PrivateDirectory::make(parent, "walvault-index"));
        WV_TRY(auto store, RocksStore::open(scratch->path(), false, true));
        store->keep(std::move(scratch));
        return store;
    }
    Result<> remove(const std::string& directory) override {
        std::error_code error;
        std::filesystem::remove_all(directory, error);
        if (error) return fail(Errc::io, "remove index " + directory + ": " + error.message());
        return {};
    }
};

}  // namespace

Result<> IndexStore::check(const rocksdb::Iterator& iterator) {
    if (iterator.status().ok()) return {};
    return fail(error_of(iterator.status(), "iterate"));
}

IndexHome& rocksdb_home() {
    static RocksHome home;
    return home;
}

}  // namespace walvault::storage
