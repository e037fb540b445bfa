// Stage: a repository in a directory of its own, opened by a writer and by readers.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>

#include "base/clock.h"
#include "storage/repository.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/stored_history.h"

namespace walvault::storage {

struct Stage {
    ScratchDirectory directory;
    std::string root = directory / "repo";
    MasterKey master = MasterKey::generate();

    void create() { must(Repository::create(posix_file_system(), root, master, system_clock())); }
    Result<std::unique_ptr<Repository>> open(FileSystem& files = posix_file_system(),
                                             bool rebuild = false) {
        RepositoryOptions options;
        options.host = "test";
        options.version = "test";
        options.rebuild_index = rebuild;
        return Repository::open(files, root, master, system_clock(), options);
    }
    std::unique_ptr<RepositoryView> view(bool with_index = true) {
        view_stores.push_back(make_directory_store(posix_file_system(), root));
        return must(RepositoryView::open(*view_stores.back(), master, view_options(with_index)));
    }
    RepositoryView::Options view_options(bool with_index = true) const {
        return {.index_directory = with_index ? root + "/index" : "",
                .scratch_directory = directory.path()};
    }
    // Every file of the repository whose name ends in `extension`, sorted.
    std::vector<std::string> paths_of(const std::string& extension) const {
        std::vector<std::string> paths;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(root))
            if (entry.path().extension() == extension) paths.push_back(entry.path());
        std::sort(paths.begin(), paths.end());
        return paths;
    }
    std::unique_ptr<ObjectStore> store;
    std::vector<std::unique_ptr<ObjectStore>> view_stores;  // each view needs its own to the end
};

inline ByteBuffer read_all(RepositoryView& view, const HistoryRecord& history) {
    ByteBuffer bytes;
    must(view.read_wal(history.id, history.start_lsn, history.end_lsn,
                       [&](ByteSpan piece) -> Result<> {
                           append(bytes, piece);
                           return {};
                       }));
    return bytes;
}

// For an offloader that nobody stops.
inline bool always() { return true; }

}  // namespace walvault::storage
