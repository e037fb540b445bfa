// TierPair: a repository and a copy of it, both directories of a test.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "storage/offloader.h"
#include "storage/tier_store.h"
#include "tests/unit/storage/stage.h"

namespace walvault::storage {

struct TierPair {
    Stage stage;
    ScratchDirectory scratch, scratch_index;
    std::unique_ptr<ObjectStore> repository;
    std::unique_ptr<ObjectStore> objects =
        make_directory_store(posix_file_system(), scratch.path());
    std::unique_ptr<ObjectStore> tier =
        make_tier_store(make_directory_store(posix_file_system(), scratch.path()));
    MadeWal wal;

    // The directory of the copy is empty yet.
    TierPair() {
        stage.create();
        repository = make_directory_store(posix_file_system(), stage.root);
    }
    void initialize() { must(initialize_tier(*repository, *objects, stage.master, "second")); }

    RepositoryView::Options view_options() const {
        return {.index_directory = "", .scratch_directory = scratch_index.path(), .is_tier = true};
    }
    std::unique_ptr<RepositoryView> view() {
        return must(RepositoryView::open(*tier, stage.master, view_options()));
    }
    static std::vector<std::string> packs_in(ObjectStore& store) {
        std::vector<std::string> names;
        for (const ObjectInfo& object : must(store.list("main/")))
            if (object.name.ends_with(".pack")) names.push_back(object.name);
        return names;
    }

    // What the copy's ledger names is there whole, and its WAL is the beginning of what was
    // written. Returns its end.
    Lsn check_is_prefix() {
        if (must(objects->list("ledger/")).empty()) return {};
        auto there = view();
        auto histories = must(there->histories("main"));
        if (histories.empty()) return {};
        const HistoryRecord& history = histories.back();
        CHECK_FALSE(history.damage);
        const ByteBuffer stored = read_all(*there, history);
        const ByteSpan made = wal.builder.bytes();
        REQUIRE(stored.size() <= made.size());
        CHECK(std::equal(stored.begin(), stored.end(), made.begin()));
        for (const pb::PackInfo& pack : must(there->packs("main")))
            if (auto checked = there->verify_pack(pack, true); !checked)
                FAIL_CHECK(std::string(checked.error().message));
        return history.end_lsn;
    }

    void check_is_whole() {
        CHECK(check_is_prefix() == wal.builder.end());
        const auto here = must(repository->list("main/"));
        CHECK(must(objects->list("main/")).size() == here.size());
        for (const ObjectInfo& object : here)
            CHECK(must(objects->get(object.name, 0, ~0ull)) ==
                  must(repository->get(object.name, 0, ~0ull)));
    }
};

}  // namespace walvault::storage
