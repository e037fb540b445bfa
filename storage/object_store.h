// ObjectStore: named immutable objects. A directory or a bucket; readers of a repository use
// nothing else.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/file_system.h"
#include "base/result.h"

namespace walvault::storage {

class ArchiveStore;

struct ObjectInfo {
    std::string name;  // "main/wal/….pack": components separated by '/', never "..", never absolute
    std::uint64_t size_bytes = 0;
    // As the store names it; empty where it has none, and in info().
    std::string storage_class = {};
};

// Fills `into` with the bytes at `offset` of an object that is put, and gives how many there were:
// fewer only where the object ends.
// May be asked for the same bytes again, and by several threads at once.
class ObjectSource {
public:
    using Read = std::function<Result<std::size_t>(std::uint64_t offset, MutableByteSpan into)>;
    ObjectSource() = default;
    // `is_far`: reading costs so much that what is needed twice is held in memory instead.
    template <class Callable>
    requires std::constructible_from<Read, Callable> ObjectSource(Callable read,
                                                                  bool is_far = false)
        : read_(std::move(read)), is_far_(is_far) {}

    explicit operator bool() const { return static_cast<bool>(read_); }
    Result<std::size_t> operator()(std::uint64_t offset, MutableByteSpan into) const {
        return read_(offset, into);
    }
    bool is_far() const { return is_far_; }

private:
    Read read_;
    bool is_far_ = false;
};
// The same, where fewer bytes are an error: corrupt.
Result<> fill_from(const ObjectSource& source, std::uint64_t offset, MutableByteSpan into);
Result<ByteBuffer> read_source(const ObjectSource& source, std::uint64_t offset,
                               std::uint64_t length);
// Of what is in memory, which outlives it.
ObjectSource source_of(ByteSpan bytes);

// May be called from any thread. Every call blocks for disk or network time: call it from a pool.
class ObjectStore {
public:
    virtual ~ObjectStore() = default;
    // Durable when it returns. Errors: refused if `name` exists; no_space, io, unavailable.
    virtual Result<> put(const std::string& name, ByteSpan bytes) = 0;
    // The same of `size_bytes` that `source` gives piece by piece, so that an object may be larger
    // than what memory there is for it. A store that has nothing better reads the whole. Errors:
    // those of `source` too.
    virtual Result<> put_from(const std::string& name, std::uint64_t size_bytes,
                              const ObjectSource& source);
    // `length` bytes at `offset`; fewer only where the object ends. Errors: not_found (proven
    // absent), archived, io, unavailable.
    virtual Result<ByteBuffer> get(const std::string& name, std::uint64_t offset,
                                   std::uint64_t length) = 0;
    // The same, into `into`; gives how many bytes there were. After an error `into` may be written
    // in part. Errors: corrupt too, where more came than was asked for.
    virtual Result<std::size_t> get_into(const std::string& name, std::uint64_t offset,
                                         MutableByteSpan into);
    virtual Result<ObjectInfo> info(const std::string& name) = 0;
    // Everything whose name begins with `prefix`, sorted. An absent prefix is an empty list.
    virtual Result<std::vector<ObjectInfo>> list(const std::string& prefix) = 0;
    // Errors: not_found.
    virtual Result<> remove(const std::string& name) = 0;
    // Whether it may be read again for no other price than time.
    virtual bool is_near() const { return false; }
    // For messages: "file:///var/lib/walvault".
    virtual std::string url() const = 0;
    // Removes what puts that were broken off left where no list shows it, if there may be any; the
    // one writer calls it while it puts nothing. Errors: as remove.
    virtual Result<> sweep() { return {}; }
    // Calls that wait for a network end soon with cancelled, later ones at once.
    virtual void cancel() {}
    // What get() gave, and how often it failed for another reason than absence.
    struct Reads {
        std::uint64_t bytes = 0;
        std::uint64_t errors = 0;
    };
    virtual Reads reads() const { return {}; }
    // Of a store with archive classes; its own, and as long-lived. Else nullptr.
    virtual ArchiveStore* archive() { return nullptr; }
};

// Objects are files under `root`; put writes a temporary name, syncs, renames it into place, syncs
// the directory. One writer at a time: between two that put the same name at once, the later one
// wins. What a killed writer left of a put is removed when the next one first puts something there,
// and a directory goes with its last object. Where `root` itself is missing (a disk that is not
// mounted), everything is unavailable, never not_found.
std::unique_ptr<ObjectStore> make_directory_store(FileSystem& files, std::string root);

}  // namespace walvault::storage
