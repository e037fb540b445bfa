#include "agent/stop_point_errors.h"

#include <algorithm>

#include "agent/nearest_transactions.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

constexpr std::size_t kListedMax = 8;

std::string join_limited(const std::vector<std::string>& parts) {
    std::string text;
    for (std::size_t i = 0; i < parts.size() && i < kListedMax; ++i)
        text += (i > 0 ? ", " : "") + parts[i];
    if (parts.size() > kListedMax)
        text += ", and " + std::to_string(parts.size() - kListedMax) + " more";
    return text;
}

}  // namespace

std::string StopPointErrors::when(WallTime at) const { return format_local(at, context.zone, 6); }

std::string StopPointErrors::what() const {
    switch (target.kind) {
        case Target::Kind::time:
            return when(target.at);
        case Target::Kind::lsn:
            return "LSN " + to_string(target.lsn);
        case Target::Kind::xid:
            return "transaction " + std::to_string(target.xid);
        case Target::Kind::name:
            return "restore point '" + printable(target.name) + "'";
        case Target::Kind::backup:
            return "backup " + printable(target.name);
        default:
            return printable(target.text);
    }
}

bool StopPointErrors::is_before_all() const {
    if (target.kind == Target::Kind::time) return target.at < windows.front().from;
    if (target.kind != Target::Kind::lsn) return false;
    return target.lsn < Lsn{windows.front().bases.front().stop_lsn()};
}

tl::unexpected<Error> StopPointErrors::before_window() const {
    const auto whole = std::ranges::find(windows, "", &Window::hold_id);
    if (whole != windows.end() && whole != windows.begin() && !is_before_all())
        return fail(Errc::outside_window,
                    what() + " has expired: of what is older than the window, which begins at " +
                        when(whole->from) + ", there is only what holds keep",
                    "walvault info lists what can be restored");
    const Window& oldest = windows.front();
    return fail(Errc::outside_window,
                what() + " is before the earliest restorable point: " + context.cluster +
                    " can go back to " + when(oldest.from) + ", the base " +
                    oldest.bases.front().backup_id() + " at LSN " +
                    to_string(Lsn{oldest.bases.front().stop_lsn()}),
                "try --to earliest");
}

tl::unexpected<Error> StopPointErrors::in_future(const Window& window) const {
    return fail(Errc::outside_window,
                what() + " is " + format_duration(target.at - context.now) +
                    " in the future; the newest restorable moment is " + when(window.until),
                "try --to latest");
}

tl::unexpected<Error> StopPointErrors::latest_has_no_base(const Window& window) const {
    return fail(
        Errc::gap,
        "the newest WAL of " + context.cluster +
            " begins a new history that has no complete base backup yet; before it, everything "
            "up to " +
            when(window.until) + " can be restored",
        "try --to lsn:" + to_string(Lsn{window.history.end_lsn.value - 1}) +
            ", or wait for the base backup: walvault status");
}

tl::unexpected<Error> StopPointErrors::after_window(const Window& window) const {
    if (window.history.damage) return fail(*window.history.damage);
    const Window* behind = &window + 1;
    while (behind != &windows.back() + 1 && !behind->hold_id.empty())
        ++behind;
    if (behind != &windows.back() + 1) {
        const Window& next = *behind;
        return fail(Errc::gap,
                    what() + " is between two histories: one ends at " + when(window.until) +
                        ", the next can be restored from " + when(next.from),
                    "try --to lsn:" + to_string(Lsn{window.history.end_lsn.value - 1}) +
                        " or --to backup:" + next.bases.front().backup_id());
    }
    return fail(Errc::outside_window,
                what() + " is after the newest restorable moment, " + when(window.until) +
                    ": the WAL stored does not reach it yet",
                "try --to latest");
}

tl::unexpected<Error> StopPointErrors::after_history_end(const Window& window, Lsn cut) const {
    if (window.history.damage) return fail(*window.history.damage);
    if (auto gaps = view.gaps(context.cluster)) {
        for (const auto& gap : *gaps)
            if (gap.history_id == window.history.id && gap.from_lsn < cut && cut <= gap.to_lsn)
                return in_gap(window, gap);
    }
    return fail(
        Errc::outside_window,
        what() + " is after the end of the WAL stored, " + to_string(window.history.end_lsn),
        "try --to latest");
}

tl::unexpected<Error> StopPointErrors::in_gap(const Window& window,
                                              const storage::GapRecord& gap) const {
    std::string hint;
    if (auto last = view.last_commit_before(window.history.id, gap.from_lsn); last && *last)
        hint = "try --to lsn:" + to_string((*last)->start_lsn);
    const pb::BackupInfo* behind = nullptr;
    for (const Window& each : windows)
        for (const auto& base : each.bases)
            if ((gap.next ? each.history.id == *gap.next : each.history.id == window.history.id) &&
                Lsn{base.start_lsn()} >= gap.to_lsn && behind == nullptr)
                behind = &base;
    if (behind != nullptr)
        hint += (hint.empty() ? "try" : " or") + std::string(" --to backup:") + behind->backup_id();
    return fail(Errc::gap,
                what() + " falls in a gap: WAL from " + to_string(gap.from_lsn) + " to " +
                    to_string(gap.to_lsn) + ", between " + when(gap.from_at) + " and " +
                    when(gap.to_at) + ", was never received" +
                    (gap.cause.empty() ? "" : " (" + printable(gap.cause) + ")"),
                hint);
}

tl::unexpected<Error> StopPointErrors::missing_wal(const Window& window, Lsn from, Lsn to,
                                                   const Error& cause) const {
    if (auto gaps = view.gaps(context.cluster)) {
        for (const auto& gap : *gaps)
            if (gap.history_id == window.history.id && gap.from_lsn < to && from < gap.to_lsn)
                return in_gap(window, gap);
    }
    return fail(Errc::gap, what() + " cannot be restored: " + cause.message,
                cause.hint.empty() ? "walvault info --gaps lists what is missing" : cause.hint);
}

tl::unexpected<Error> StopPointErrors::clock_step(const Window& window,
                                                  const std::vector<Lsn>& cuts) const {
    std::vector<std::string> commands;
    for (Lsn cut : cuts) {
        auto last = view.last_commit_before(window.history.id, cut);
        if (!last) return fail(last.error());
        if (!*last) continue;
        commands.push_back("--to lsn:" + to_string((*last)->start_lsn) +
                           " (last commit kept: xid " + std::to_string((*last)->xid) + " at " +
                           when((*last)->at) + ")");
    }
    return fail(Errc::ambiguous,
                "the server's clock was set back, so " + what() + " happened " +
                    std::to_string(cuts.size()) + " times",
                "say which: " + join_limited(commands));
}

tl::unexpected<Error> StopPointErrors::several(const std::vector<WalFinding>& found) const {
    std::vector<std::string> commands;
    for (const auto& each : found)
        commands.push_back((target.before ? "--before lsn:" : "--to lsn:") +
                           to_string(each.start_lsn) + " (" + when(each.at) + ")");
    return fail(Errc::ambiguous, what() + " exists " + std::to_string(found.size()) + " times",
                "say which: " + join_limited(commands));
}

tl::unexpected<Error> StopPointErrors::no_such_transaction(bool aborted) const {
    if (aborted)
        return fail(Errc::outside_window, what() + " was rolled back, so it changed nothing",
                    "walvault log --kind commit lists the transactions that did");
    std::vector<std::string> nearest;
    if (auto found =
            nearest_transactions(view, context.cluster, windows.back().history, target.xid)) {
        for (const auto& each : *found)
            nearest.push_back("xid:" + std::to_string(each.xid) + " (" + when(each.at) + ")");
    }
    return fail(Errc::outside_window, "no " + what() + " is in what can be restored",
                nearest.empty() ? "walvault log --kind commit lists transactions"
                                : "nearest: " + join_limited(nearest));
}

tl::unexpected<Error> StopPointErrors::no_such_name(
    const std::vector<storage::MarkRecord>& points) const {
    std::vector<std::string> names;
    for (auto point = points.rbegin(); point != points.rend(); ++point) {
        std::string name = "name:" + printable(point->mark.name());
        if (std::find(names.begin(), names.end(), name) == names.end())
            names.push_back(std::move(name));
    }
    return fail(Errc::outside_window, "no " + what() + " is in what can be restored",
                names.empty() ? "there are no restore points at all; walvault point NAME makes one"
                              : "there are " + join_limited(names));
}

tl::unexpected<Error> StopPointErrors::no_such_backup() const {
    std::vector<std::string> ids;
    for (auto window = windows.rbegin(); window != windows.rend(); ++window)
        for (auto base = window->bases.rbegin(); base != window->bases.rend(); ++base)
            ids.push_back("backup:" + base->backup_id());
    return fail(Errc::outside_window,
                "no complete " + what() + " of " + context.cluster + " is in the repository",
                "there are " + join_limited(ids));
}

}  // namespace walvault::agent
