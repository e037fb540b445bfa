#include "storage/layered_store.h"

#include <optional>

#include "storage/archive_store.h"

namespace walvault::storage {
namespace {

// Tails are packs before long, and are read where they grow.
bool may_lie_elsewhere(const std::string& name) { return name.ends_with(".pack"); }

class LayeredStore final : public ObjectStore, public ArchiveStore {
public:
    LayeredStore(std::unique_ptr<ObjectStore> first,
                 std::vector<std::unique_ptr<ObjectStore>> tiers)
        : first_(std::move(first)), tiers_(std::move(tiers)) {}

    Result<> put(const std::string& name, ByteSpan bytes) override {
        return first_->put(name, bytes);
    }
    Result<ByteBuffer> get(const std::string& name, std::uint64_t offset,
                           std::uint64_t length) override {
        return find<ByteBuffer>(
            name, [&](ObjectStore& store) { return store.get(name, offset, length); });
    }
    Result<ObjectInfo> info(const std::string& name) override {
        return find<ObjectInfo>(name, [&](ObjectStore& store) { return store.info(name); });
    }
    Result<std::vector<ObjectInfo>> list(const std::string& prefix) override {
        return first_->list(prefix);
    }
    Result<> remove(const std::string& name) override { return first_->remove(name); }
    std::string url() const override { return first_->url(); }
    Reads reads() const override {
        Reads sum = first_->reads();
        for (const auto& tier : tiers_) {
            sum.bytes += tier->reads().bytes;
            sum.errors += tier->reads().errors;
        }
        return sum;
    }

    // Only tiers archive.
    ArchiveStore* archive() override {
        for (const auto& tier : tiers_)
            if (tier->archive() != nullptr) return this;
        return nullptr;
    }
    Result<ArchiveState> archive_state(const std::string& name) override {
        return find<ArchiveState>(name, [&](ObjectStore& store) -> Result<ArchiveState> {
            if (store.archive() != nullptr) return store.archive()->archive_state(name);
            WV_TRY(ObjectInfo info, store.info(name));
            return ArchiveState{.storage_class = "STANDARD", .size_bytes = info.size_bytes};
        });
    }
    Result<ThawAnswer> request_thaw(const std::string& name, const ThawRequest& request) override {
        return find<ThawAnswer>(name, [&](ObjectStore& store) -> Result<ThawAnswer> {
            if (store.archive() != nullptr) return store.archive()->request_thaw(name, request);
            WV_CHECK(store.info(name));
            return ThawAnswer::ready;
        });
    }
    std::string last_refused() const override {
        for (const auto& tier : tiers_)
            if (tier->archive() != nullptr && !tier->archive()->last_refused().empty())
                return tier->archive()->last_refused();
        return "";
    }

private:
    template <class Found, class Ask>
    Result<Found> find(const std::string& name, Ask ask) {
        auto found = ask(*first_);
        if (found || found.error().code != Errc::not_found || !may_lie_elsewhere(name))
            return found;
        std::optional<Error> unasked;
        for (const auto& tier : tiers_) {
            auto there = ask(*tier);
            if (there) return there;
            if (there.error().code != Errc::not_found && !unasked) unasked = there.error();
        }
        if (unasked) return fail(std::move(*unasked));
        return found;
    }

    std::unique_ptr<ObjectStore> first_;
    std::vector<std::unique_ptr<ObjectStore>> tiers_;
};

}  // namespace

std::unique_ptr<ObjectStore> make_layered_store(std::unique_ptr<ObjectStore> first,
                                                std::vector<std::unique_ptr<ObjectStore>> tiers) {
    if (tiers.empty()) return first;
    return std::make_unique<LayeredStore>(std::move(first), std::move(tiers));
}

}  // namespace walvault::storage
