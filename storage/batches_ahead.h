// BatchesAhead: reads batches of a journal's packs on threads of its own before whoever walks
// through them asks for them.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "base/workers.h"
#include "storage/pack_reader.h"

namespace walvault::storage {

// Used by one thread. Behind the first batch none is read: many a walk ends with it. With each
// further one more are read ahead, up to kBatchesAheadMax. Where no thread can be started, none is.
// Memory: the batches read ahead, and what each thread needs to read one: some 20 MiB where they
// have 256 KiB to 1 MiB, ten times that where they are as large as a frame can be.
class BatchesAhead {
public:
    static constexpr std::size_t kBatchesAheadMax = 4;

    // The place in the footer of the batch that will be asked for behind `index`; nothing: none.
    using Next = std::function<std::optional<int>(int index)>;

    // `store` and `sought` outlive it; null: whole batches.
    BatchesAhead(ObjectStore& store, const RowSought* sought, Next next);
    // Waits for those that are being read.
    ~BatchesAhead() = default;
    BatchesAhead(const BatchesAhead&) = delete;
    BatchesAhead& operator=(const BatchesAhead&) = delete;

    // From here on batches are those of `pack`; what was read ahead is forgotten.
    void begin(std::shared_ptr<const PackReader> pack);
    // The batch at `index`, whether it was read ahead or not; one that was not shows that what was
    // is not wanted, and it is forgotten. Blocks while it is read. Errors, and exceptions, are
    // those of its own reading, as PackReader::read_batch() has them.
    Result<> take(int index, ByteBuffer& batch);

private:
    struct Reading {
        std::shared_ptr<const PackReader> pack;
        int index = 0;
        bool is_forgotten = false;
        bool is_done = false;
        Result<> read = {};
        std::exception_ptr thrown = {};
        ByteBuffer batch = {};
    };

    std::shared_ptr<Reading> find(int index);
    void forget(std::size_t count);
    void read_ahead(int index);
    void read(Reading& reading);

    ObjectStore& store_;
    const RowSought* sought_;
    Next next_;
    std::shared_ptr<const PackReader> pack_;
    std::deque<std::shared_ptr<Reading>> ahead_;  // in the order in which they are asked for
    std::size_t taken_ = 0;
    std::mutex mutex_;  // of what becomes of a reading
    std::condition_variable ended_;
    Workers workers_;  // the first to end: they use what is above
};

}  // namespace walvault::storage
