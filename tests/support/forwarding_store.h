// ForwardingStore: an ObjectStore that passes each call on; a test overrides those that it watches.
#pragma once

#include "storage/object_store.h"

namespace walvault::storage {

class ForwardingStore : public ObjectStore {
public:
    // `objects` outlives it.
    explicit ForwardingStore(ObjectStore& objects) : objects_(objects) {}

    Result<> put(const std::string& name, ByteSpan bytes) override {
        return objects_.put(name, bytes);
    }
    Result<> put_from(const std::string& name, std::uint64_t size_bytes,
                      const ObjectSource& source) override {
        return objects_.put_from(name, size_bytes, source);
    }
    Result<ByteBuffer> get(const std::string& name, std::uint64_t offset,
                           std::uint64_t length) override {
        return objects_.get(name, offset, length);
    }
    Result<ObjectInfo> info(const std::string& name) override { return objects_.info(name); }
    Result<std::vector<ObjectInfo>> list(const std::string& prefix) override {
        return objects_.list(prefix);
    }
    Result<> remove(const std::string& name) override { return objects_.remove(name); }
    std::string url() const override { return objects_.url(); }

protected:
    ObjectStore& objects_;
};

}  // namespace walvault::storage
