// ChunkStore: plain chunks in, content ids out: hashed and sealed in parallel, only new ones
// written.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_set>

#include "agent/metrics_catalogue.h"
#include "agent/pools.h"
#include "base/task_group.h"
#include "storage/repository.h"

namespace walvault::agent {

// For one backup at a time, on the loop. Memory: kInFlightBytes of plain chunks and their
// ciphertext.
class ChunkStore {
public:
    static constexpr std::uint64_t kInFlightBytes = 12 << 20;
    static constexpr std::uint64_t kPackBytes = 256
                                                << 20;  // of ciphertext, then the next pack begins

    ChunkStore(asio::any_io_executor executor, Pools& pools, storage::Repository& repository,
               AgentMetrics& metrics, const storage::ClusterRecord& cluster, std::string backup_id,
               int level);
    ~ChunkStore();

    // `on_id` is called later, on the loop, with the name of `plain`. Waits while too much is in
    // flight. Errors: what broke the store.
    Task<Result<>> put(ByteBuffer plain, std::function<void(const Id32&)> on_id);
    // Waits for everything put, closes the last pack: all chunks are durable and in the index.
    Task<Result<>> finish();
    // After an error elsewhere: ends the tasks, drops the unfinished pack.
    Task<> abandon();

    std::uint64_t new_chunk_bytes() const { return new_chunk_bytes_; }
    std::uint64_t stored_bytes() const { return stored_bytes_; }

private:
    struct IdHash {
        std::size_t operator()(const Id32& id) const { return load_le<std::size_t>(id.data()); }
    };
    struct Pack;
    Task<> store_chunk(std::shared_ptr<ByteBuffer> plain, std::function<void(const Id32&)> on_id);
    Task<Result<>> write_new(const Id32& id, std::shared_ptr<ByteBuffer> plain);
    Task<Result<std::shared_ptr<Pack>>> pack_to_write();
    void end_pack(const std::shared_ptr<Pack>& pack);
    Task<Result<>> commit(std::shared_ptr<Pack> pack);

    Pools& pools_;
    storage::Repository& repository_;
    AgentMetrics& metrics_;
    storage::ClusterRecord cluster_;
    std::string backup_id_;
    int level_;
    std::shared_ptr<Pack> current_;  // the pack that new chunks go to
    bool beginning_ = false;         // a pack is being begun
    unsigned packs_ = 0;
    std::unordered_set<Id32, IdHash> in_pack_;  // new chunks that the index does not know yet
    std::uint64_t in_flight_bytes_ = 0;
    std::uint64_t new_chunk_bytes_ = 0;
    std::uint64_t stored_bytes_ = 0;
    std::optional<Error> error_;
    Event room_;
    Event begun_;
    TaskGroup tasks_;
};

}  // namespace walvault::agent
