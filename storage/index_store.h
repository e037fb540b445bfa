// IndexStore: RocksDB column families behind get, put and iterate; a read-only one keeps its writes
// in memory.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"

namespace rocksdb {
class DB;
class ColumnFamilyHandle;
class Iterator;
class WriteBatchWithIndex;
}  // namespace rocksdb

namespace walvault::storage {

enum class Family : std::size_t { state, wal, clock, marks, chunks, packs, backups, count };

class IndexStore {
public:
    static Result<std::unique_ptr<IndexStore>> open(const std::string& directory, bool read_only);
    ~IndexStore();

    // nullopt: proven absent. Errors: corrupt, io.
    Result<std::optional<std::string>> get(Family family, const std::string& key) const;

    // Puts and removals since begin() happen together at commit(), or are in memory from then on.
    void begin();
    void put(Family family, const std::string& key, const std::string& value);
    void remove(Family family, const std::string& key);
    // A value of this batch, else the stored one.
    Result<std::optional<std::string>> get_in_batch(Family family, const std::string& key) const;
    Result<> commit();
    Result<> sync();

    // Positioned by the caller; check() afterwards tells an end from an error.
    std::unique_ptr<rocksdb::Iterator> iterate(Family family) const;
    static Result<> check(const rocksdb::Iterator& iterator);

private:
    IndexStore();
    rocksdb::ColumnFamilyHandle* handle(Family family) const;
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace walvault::storage
