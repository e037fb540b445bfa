// StopPointErrors: why a target cannot be restored, and the nearest commands that can.
#pragma once

#include "agent/stop_point.h"

namespace walvault::agent {

// Every function gives an Error whose message says what is wrong and whose hint names targets that
// work.
struct StopPointErrors {
    storage::RepositoryView& view;
    const Target& target;
    const ResolveContext& context;
    const std::vector<Window>& windows;

    tl::unexpected<Error> before_window() const;
    tl::unexpected<Error> in_future(const Window& window) const;
    tl::unexpected<Error> after_window(const Window& window) const;
    tl::unexpected<Error> after_history_end(const Window& window, Lsn cut) const;
    tl::unexpected<Error> latest_has_no_base(const Window& window) const;
    tl::unexpected<Error> in_gap(const Window& window, const storage::GapRecord& gap) const;
    // [from, to) is not whole; `cause` is the view's error.
    tl::unexpected<Error> missing_wal(const Window& window, Lsn from, Lsn to,
                                      const Error& cause) const;
    tl::unexpected<Error> clock_step(const Window& window, const std::vector<Lsn>& cuts) const;
    // Restore points of one name, or commits of one transaction number.
    tl::unexpected<Error> several(const std::vector<WalFinding>& found) const;
    tl::unexpected<Error> no_such_transaction(bool aborted) const;
    tl::unexpected<Error> no_such_name(const std::vector<storage::MarkRecord>& points) const;
    tl::unexpected<Error> no_such_backup() const;

    // Whether the target is older than anything that can be restored; false if it does not say.
    bool is_before_all() const;
    std::string what() const;  // the target, with its local time where it has one
    std::string when(WallTime at) const;
};

}  // namespace walvault::agent
