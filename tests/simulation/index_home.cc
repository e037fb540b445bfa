#include "tests/simulation/index_home.h"

#include <rocksdb/iterator.h>

namespace walvault::simulation {

using storage::Family;

class SimulatedIndexes::Iterator final : public rocksdb::Iterator {
public:
    explicit Iterator(const std::map<std::string, std::string>& rows)
        : rows_(rows), at_(rows_.end()) {}

    bool Valid() const override { return at_ != rows_.end(); }
    void SeekToFirst() override { at_ = rows_.begin(); }
    void SeekToLast() override { at_ = rows_.empty() ? rows_.end() : std::prev(rows_.end()); }
    void Seek(const rocksdb::Slice& key) override { at_ = rows_.lower_bound(key.ToString()); }
    void SeekForPrev(const rocksdb::Slice& key) override {
        at_ = rows_.upper_bound(key.ToString());
        Prev();
    }
    void Next() override { ++at_; }
    void Prev() override { at_ = at_ == rows_.begin() ? rows_.end() : std::prev(at_); }
    rocksdb::Slice key() const override { return at_->first; }
    rocksdb::Slice value() const override { return at_->second; }
    rocksdb::Status status() const override { return rocksdb::Status::OK(); }

private:
    const std::map<std::string, std::string>& rows_;
    std::map<std::string, std::string>::const_iterator at_;
};

class SimulatedIndexes::Store final : public storage::IndexStore {
public:
    Store(SimulatedIndexes& home, std::shared_ptr<Content> content, bool in_memory)
        : home_(home), content_(std::move(content)), in_memory_(in_memory) {
        content_->is_open = true;
    }
    ~Store() override { content_->is_open = false; }

    Result<std::optional<std::string>> get(Family family, const std::string& key) const override {
        const auto& rows = content_->rows[static_cast<std::size_t>(family)];
        auto found = rows.find(key);
        if (found == rows.end()) return std::optional<std::string>();
        return std::optional<std::string>(found->second);
    }
    void begin() override { batch_.clear(); }
    void put(Family family, const std::string& key, const std::string& value) override {
        add({family, key, value});
    }
    void remove(Family family, const std::string& key) override { add({family, key, {}}); }
    Result<std::optional<std::string>> get_in_batch(Family family,
                                                    const std::string& key) const override {
        for (auto change = batch_.rbegin(); change != batch_.rend(); ++change)
            if (change->family == family && change->key == key) return change->value;
        return get(family, key);
    }
    Result<> commit() override {
        if (in_memory_) return {};
        if (home_.fail_commit_in > 0 && --home_.fail_commit_in == 0) has_failed_ = true;
        if (has_failed_) return fail(Errc::io, "index: write: IO error: simulated");
        apply(batch_, content_->rows);
        content_->since.push_back(std::move(batch_));
        batch_.clear();
        return {};
    }
    Result<> sync() override {
        content_->synced = content_->rows;
        content_->since.clear();
        return {};
    }
    std::unique_ptr<rocksdb::Iterator> iterate(Family family) const override {
        return std::make_unique<Iterator>(content_->rows[static_cast<std::size_t>(family)]);
    }

private:
    void add(Change change) {
        if (in_memory_)
            apply({std::move(change)}, content_->rows);
        else
            batch_.push_back(std::move(change));
    }

    SimulatedIndexes& home_;
    std::shared_ptr<Content> content_;
    bool in_memory_;
    Batch batch_;
    bool has_failed_ = false;
};

void SimulatedIndexes::apply(const Batch& batch, Rows& rows) {
    for (const Change& change : batch) {
        auto& family = rows[static_cast<std::size_t>(change.family)];
        if (change.value)
            family[change.key] = *change.value;
        else
            family.erase(change.key);
    }
}

Result<std::unique_ptr<storage::IndexStore>> SimulatedIndexes::open(const std::string& directory,
                                                                    bool read_only) {
    auto found = indexes_.find(directory);
    if (read_only) {
        if (found == indexes_.end())
            return fail(Errc::not_found,
                        "index: open " + directory + ": No such file or directory");
        return std::make_unique<Store>(*this, std::make_shared<Content>(*found->second), true);
    }
    if (found == indexes_.end())
        found = indexes_.emplace(directory, std::make_shared<Content>()).first;
    if (found->second->is_open)
        return fail(Errc::io, "index: open " + directory + ": lock hold by current process");
    return std::make_unique<Store>(*this, found->second, false);
}

Result<std::unique_ptr<storage::IndexStore>> SimulatedIndexes::open_scratch(const std::string&) {
    return std::make_unique<Store>(*this, std::make_shared<Content>(), false);
}

Result<> SimulatedIndexes::remove(const std::string& directory) {
    indexes_.erase(directory);
    return {};
}

void SimulatedIndexes::cut_power(Random& random) {
    if (random.one_in(8)) return lose_all();
    for (auto& [directory, content] : indexes_) {
        auto left = std::make_shared<Content>();
        left->rows = left->synced = content->synced;
        const std::size_t kept = random.below(content->since.size() + 1);
        for (std::size_t i = 0; i < kept; ++i)
            apply(content->since[i], left->rows);
        left->synced = left->rows;
        content = std::move(left);
    }
}

}  // namespace walvault::simulation
