// SimulatedIndexes: indexes as maps in memory, with what a crash may do to RocksDB's.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "storage/index_store.h"
#include "tests/simulation/random.h"

namespace walvault::simulation {

// Commits since the last sync are lost from the end at a power cut, as many as the seed says; or
// all of the index is. After a commit that failed a store takes no more of them until it is opened
// anew.
class SimulatedIndexes final : public storage::IndexHome {
public:
    std::uint64_t fail_commit_in = 0;

    Result<std::unique_ptr<storage::IndexStore>> open(const std::string& directory,
                                                      bool read_only) override;
    Result<std::unique_ptr<storage::IndexStore>> open_scratch(const std::string& parent) override;
    Result<> remove(const std::string& directory) override;

    void cut_power(Random& random);
    void lose_all() { indexes_.clear(); }

private:
    struct Change {
        storage::Family family{};
        std::string key;
        std::optional<std::string> value;
    };
    using Batch = std::vector<Change>;
    using Rows = std::array<std::map<std::string, std::string>,
                            static_cast<std::size_t>(storage::Family::count)>;
    struct Content {
        Rows rows;
        Rows synced;
        std::vector<Batch> since;  // from synced to rows
        bool is_open = false;
    };
    class Store;
    class Iterator;
    static void apply(const Batch& batch, Rows& rows);

    std::map<std::string, std::shared_ptr<Content>> indexes_;
};

}  // namespace walvault::simulation
