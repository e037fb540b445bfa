#include "storage/scratch_rows.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>

#include "base/invariant.h"
#include "storage/private_directory.h"

namespace walvault::storage {
namespace {

Error error_of(const rocksdb::Status& status, std::string_view doing) {
    Errc code = Errc::io;
    if (status.IsCorruption()) code = Errc::corrupt;
    if (status.IsNoSpace()) code = Errc::no_space;
    return Error{code, "scratch rows: " + std::string(doing) + ": " + status.ToString(),
                 code == Errc::no_space ? "set TMPDIR to a directory with more space" : ""};
}

rocksdb::Options scratch_options() {
    rocksdb::Options options;
    options.create_if_missing = true;
    options.error_if_exists = true;
    options.write_buffer_size = 8 << 20;
    options.max_write_buffer_number = 2;
    options.max_open_files = 128;
    options.max_background_jobs = 1;
    options.max_file_opening_threads = 1;
    options.compression = rocksdb::kNoCompression;
    options.keep_log_file_num = 1;
    options.info_log_level = rocksdb::InfoLogLevel::FATAL_LEVEL;
    rocksdb::BlockBasedTableOptions table;
    table.block_cache = rocksdb::NewLRUCache(8 << 20);
    table.cache_index_and_filter_blocks = true;
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    return options;
}

rocksdb::WriteOptions without_log() {
    rocksdb::WriteOptions options;
    options.disableWAL = true;
    return options;
}

rocksdb::Slice slice_of(std::string_view text) { return {text.data(), text.size()}; }

// The first key behind all that begin with `prefix`; empty: there is none.
std::string behind(std::string_view prefix) {
    std::string end(prefix);
    while (!end.empty() && end.back() == '\xFF')
        end.pop_back();
    if (!end.empty()) end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
    return end;
}

}  // namespace

struct ScratchRows::State {
    std::unique_ptr<PrivateDirectory> directory;  // goes after the database in it
    std::unique_ptr<rocksdb::DB> database;
};

ScratchRows::ScratchRows(std::unique_ptr<State> state) : state_(std::move(state)) {}
ScratchRows::~ScratchRows() = default;

Result<std::unique_ptr<ScratchRows>> ScratchRows::open(const std::string& parent) {
    auto state = std::make_unique<State>();
    WV_TRY(state->directory, PrivateDirectory::make(parent, "walvault-rows"));
    rocksdb::DB* database = nullptr;
    rocksdb::Status status =
        rocksdb::DB::Open(scratch_options(), state->directory->path(), &database);
    if (!status.ok()) return fail(error_of(status, "open " + state->directory->path()));
    state->database.reset(database);
    return std::unique_ptr<ScratchRows>(new ScratchRows(std::move(state)));
}

Result<> ScratchRows::put(std::string_view key, std::string_view value) {
    auto status = state_->database->Put(without_log(), slice_of(key), slice_of(value));
    if (!status.ok()) return fail(error_of(status, "put"));
    return {};
}

Result<> ScratchRows::remove(std::string_view key) {
    auto status = state_->database->Delete(without_log(), slice_of(key));
    if (!status.ok()) return fail(error_of(status, "remove"));
    return {};
}

Result<std::optional<std::string>> ScratchRows::get(std::string_view key) const {
    std::string value;
    auto status = state_->database->Get(rocksdb::ReadOptions(), slice_of(key), &value);
    if (status.IsNotFound()) return std::optional<std::string>{};
    if (!status.ok()) return fail(error_of(status, "get"));
    return std::optional<std::string>(std::move(value));
}

Result<bool> ScratchRows::has(std::string_view key) const {
    WV_TRY(auto value, get(key));
    return value.has_value();
}

Result<> ScratchRows::clear(std::string_view prefix) {
    WV_ASSERT(!prefix.empty());
    const std::string end = behind(prefix);
    WV_ASSERT(!end.empty());
    auto status = state_->database->DeleteRange(
        without_log(), state_->database->DefaultColumnFamily(), slice_of(prefix), slice_of(end));
    if (!status.ok()) return fail(error_of(status, "clear"));
    return {};
}

Result<> ScratchRows::each(std::string_view prefix, const Sink& sink) const {
    std::unique_ptr<rocksdb::Iterator> iterator(
        state_->database->NewIterator(rocksdb::ReadOptions()));
    for (iterator->Seek(slice_of(prefix));
         iterator->Valid() && iterator->key().starts_with(slice_of(prefix)); iterator->Next()) {
        WV_TRY(const bool goes_on, sink({iterator->key().data(), iterator->key().size()},
                                        {iterator->value().data(), iterator->value().size()}));
        if (!goes_on) return {};
    }
    if (!iterator->status().ok()) return fail(error_of(iterator->status(), "iterate"));
    return {};
}

}  // namespace walvault::storage
