// CutStore: an ObjectStore that goes away at the N-th call, before or after it was carried out.
#pragma once

#include <memory>

#include "storage/object_store.h"

namespace walvault::storage {

class CutStore final : public ObjectStore {
public:
    explicit CutStore(ObjectStore& objects) : objects_(objects) {}

    // The `call`-th from now on fails, and all after it; 0: none.
    void cut_at(std::uint64_t call, bool carried_out) {
        calls_ = 0;
        cut_at_ = call;
        carried_out_ = carried_out;
    }
    bool was_cut() const { return cut_at_ != 0 && calls_ >= cut_at_; }
    std::uint64_t calls() const { return calls_; }

    Result<> put(const std::string& name, ByteSpan bytes) override {
        return call<Result<>>([&] { return objects_.put(name, bytes); });
    }
    Result<> put_from(const std::string& name, std::uint64_t size_bytes,
                      const ObjectSource& source) override {
        return call<Result<>>([&] { return objects_.put_from(name, size_bytes, source); });
    }
    Result<ByteBuffer> get(const std::string& name, std::uint64_t offset,
                           std::uint64_t length) override {
        return call<Result<ByteBuffer>>([&] { return objects_.get(name, offset, length); });
    }
    Result<ObjectInfo> info(const std::string& name) override {
        return call<Result<ObjectInfo>>([&] { return objects_.info(name); });
    }
    Result<std::vector<ObjectInfo>> list(const std::string& prefix) override {
        return call<Result<std::vector<ObjectInfo>>>([&] { return objects_.list(prefix); });
    }
    Result<> remove(const std::string& name) override {
        return call<Result<>>([&] { return objects_.remove(name); });
    }
    std::string url() const override { return objects_.url(); }

private:
    template <class Answer, class Call>
    Answer call(Call carry_out) {
        ++calls_;
        if (cut_at_ == 0 || calls_ < cut_at_) return carry_out();
        if (calls_ == cut_at_ && carried_out_) static_cast<void>(carry_out());
        return fail(Errc::unavailable, "the store has gone away");
    }

    ObjectStore& objects_;
    std::uint64_t calls_ = 0;
    std::uint64_t cut_at_ = 0;
    bool carried_out_ = false;
};

}  // namespace walvault::storage
