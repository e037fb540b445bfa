// Oracle: what the simulated servers wrote and were told, against what a repository holds.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "storage/repository_view.h"
#include "tests/simulation/files.h"
#include "tests/simulation/server.h"

namespace walvault::simulation {

// A server was told that [from, to) of its past is safe.
struct Promise {
    std::shared_ptr<const Branch> branch;
    Lsn from_lsn;
    Lsn to_lsn;
};

class Oracle {
public:
    Oracle(const storage::MasterKey& master, std::string root)
        : master_(master), root_(std::move(root)) {}

    void add_branch(std::shared_ptr<const Branch> branch);
    // Empty where it may be said, else what is wrong.
    std::string take_promise(const Session& session, Lsn flushed);
    const std::vector<Promise>& promises() const { return promises_; }

    // Opens what a power cut would leave, without an index, and reads it: the last promise, and
    // with `everything` all promises and every byte. Empty where all holds, else what is broken.
    std::string check(SimulatedFiles& image, bool everything) const;
    // Every commit stamped at or before `until` in the past that is followed is before `flushed`.
    static std::string check_covered(const Branch& branch, WallTime until, Lsn flushed);

private:
    using View = storage::RepositoryView;
    std::string check_promise(View& view, const std::vector<storage::HistoryRecord>& histories,
                              const Promise& promise) const;
    std::string check_bytes(View& view, const storage::HistoryRecord& history) const;
    std::string check_gaps(View& view, const std::vector<storage::HistoryRecord>& histories) const;
    bool holds(View& view, const storage::HistoryRecord& history, const Promise& promise) const;

    const storage::MasterKey& master_;
    std::string root_;
    std::vector<std::shared_ptr<const Branch>> branches_;
    std::vector<Promise> promises_;
    const void* last_session_ = nullptr;
};

}  // namespace walvault::simulation
