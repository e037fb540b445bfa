// IndexStore: column families behind get, put and iterate: RocksDB's; a read-only one keeps its
// writes in memory.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"

namespace rocksdb {
class Iterator;
}  // namespace rocksdb

namespace walvault::storage {

enum class Family : std::size_t {
    state,
    wal,
    clock,
    marks,
    chunks,
    packs,
    backups,
    journal,
    count
};

class IndexStore {
public:
    virtual ~IndexStore() = default;

    // nullopt: proven absent. Errors: corrupt, io.
    virtual Result<std::optional<std::string>> get(Family family, const std::string& key) const = 0;

    // Puts and removals since begin() happen together at commit(), or are in memory from then on.
    virtual void begin() = 0;
    virtual void put(Family family, const std::string& key, const std::string& value) = 0;
    virtual void remove(Family family, const std::string& key) = 0;
    // A value of this batch, else the stored one.
    virtual Result<std::optional<std::string>> get_in_batch(Family family,
                                                            const std::string& key) const = 0;
    virtual Result<> commit() = 0;
    virtual Result<> sync() = 0;

    // Positioned by the caller; check() afterwards tells an end from an error.
    virtual std::unique_ptr<rocksdb::Iterator> iterate(Family family) const = 0;
    static Result<> check(const rocksdb::Iterator& iterator);
};

// Where indexes are kept.
class IndexHome {
public:
    virtual ~IndexHome() = default;
    // Errors: not_found (read only), corrupt, busy, io.
    virtual Result<std::unique_ptr<IndexStore>> open(const std::string& directory,
                                                     bool read_only) = 0;
    // A new one that goes with the store, in a directory of its own in `parent` that only this user
    // can look into.
    virtual Result<std::unique_ptr<IndexStore>> open_scratch(const std::string& parent) = 0;
    // Removes an index and everything in it. It is a view: nothing is lost.
    virtual Result<> remove(const std::string& directory) = 0;
};

// RocksDB in directories of the machine.
IndexHome& rocksdb_home();

}  // namespace walvault::storage
