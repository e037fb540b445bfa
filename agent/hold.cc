#include "agent/hold.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/open_view.h"
#include "agent/render.h"
#include "agent/restore_window.h"

namespace walvault::agent {
namespace {

WallTime stopped_at(const pb::BackupInfo& base) { return WallTime(Micros(base.stopped_at_us())); }
std::int64_t micros_of(const std::optional<WallTime>& at) {
    return at ? at->time_since_epoch().count() : 0;
}
std::optional<WallTime> time_in(const nlohmann::json& body, const char* key) {
    const auto micros = body.value(key, std::int64_t{0});
    return micros == 0 ? std::nullopt : std::optional(WallTime(Micros(micros)));
}

tl::unexpected<Error> usage(const std::string& message, const std::string& hint = {}) {
    return fail(Errc::invalid_argument, message, hint);
}

Result<> require_base(storage::RepositoryView& view, const std::string& cluster,
                      const std::string& backup_id) {
    WV_TRY(auto backups, view.backups(cluster));
    if (std::ranges::any_of(backups,
                            [&](const auto& each) { return each.backup_id() == backup_id; }))
        return {};
    return fail(Errc::not_found, "there is no complete base backup " + printable(backup_id),
                "walvault info --backups lists those there are");
}

// The base before the first moment is what each later one begins with. What another hold keeps ends
// with it: behind that nothing is there any more.
bool lies_in(const Window& window, bool is_last, const HoldWanted& wanted) {
    if (window.bases.empty() || stopped_at(window.bases.front()) > *wanted.from) return false;
    const bool to_the_end = window.end_lsn == window.history.end_lsn;
    if (!window.hold_id.empty()) return wanted.to && (*wanted.to <= window.until || to_the_end);
    return is_last || *wanted.from <= window.until;
}

// The ledger keeps texts that are UTF-8: others could not be read back.
bool is_utf8(const std::string& text) {
    try {
        static_cast<void>(nlohmann::json(text).dump());
    } catch (const nlohmann::json::type_error&) {
        return false;
    }
    return true;
}

Result<> require_moments(storage::RepositoryView& view, const std::string& cluster,
                         const HoldWanted& wanted, const std::string& zone) {
    const WallTime from = *wanted.from;
    WV_TRY(auto windows, restore_windows(view, cluster));
    for (const Window& window : windows)
        if (lies_in(window, &window == &windows.back(), wanted)) return {};
    if (windows.empty())
        return fail(Errc::outside_window,
                    cluster + " has no complete base backup yet, so no moment can be held",
                    "take one: walvault backup");
    std::optional<WallTime> next;
    for (const Window& window : windows)
        for (const pb::BackupInfo& base : window.bases)
            if (stopped_at(base) > from)
                next = std::min(next.value_or(WallTime::max()), stopped_at(base));
    return fail(Errc::outside_window,
                "what restores " + format_local(from, zone, 6) +
                    " is not stored (any more): no base backup that ended by then leads to it",
                next ? "the first moment behind it that can be held: --from '" +
                           format_local(*next, zone, 6) + "'"
                     : "walvault info shows what can be restored");
}

}  // namespace

Result<> check_hold(const HoldWanted& wanted, WallTime now) {
    if (wanted.backup_id.empty() == !wanted.from.has_value())
        return usage("a hold is of a base backup, or of moments",
                     "walvault hold --backup ID, or --from TIME [--to TIME]");
    if (wanted.to && !wanted.from)
        return usage("--to needs --from", "a hold of moments begins with one");
    if (wanted.to && *wanted.to < *wanted.from)
        return usage("the held moments end before they begin", "--from TIME --to a later TIME");
    if (wanted.until && *wanted.until <= now)
        return usage("the hold would be over already", "--until a TIME to come, or --for 90d");
    return check_reason(wanted.reason);
}

Result<> check_reason(const std::string& reason) {
    if (reason.empty())
        return usage("a hold and its release need a reason",
                     "--reason TEXT; it is shown wherever the hold is");
    if (reason.size() > kHoldReasonBytesMax)
        return usage("the reason is longer than " + std::to_string(kHoldReasonBytesMax) + " bytes",
                     "a shorter --reason TEXT");
    if (!is_utf8(reason)) return usage("the reason is not UTF-8", "--reason TEXT in UTF-8");
    return {};
}

Result<> require_holdable(storage::RepositoryView& view, const std::string& cluster,
                          const HoldWanted& wanted, const std::string& zone) {
    return wanted.from ? require_moments(view, cluster, wanted, zone)
                       : require_base(view, cluster, wanted.backup_id);
}

namespace {

// A repository as each of its places has it.
struct Places {
    storage::MasterKey master;
    std::unique_ptr<storage::ObjectStore> store;
    storage::RepositoryView::Options options;

    static Result<Places> open(const Config& config) {
        WV_TRY(storage::MasterKey master, read_master_key(config));
        WV_TRY(auto store, open_layered_store(config));
        return Places{std::move(master), std::move(store), view_options(config.repo.root)};
    }
    Result<std::unique_ptr<storage::RepositoryView>> view(std::optional<std::string> place = {}) {
        options.place = std::move(place);
        return storage::RepositoryView::open(*store, master, options);
    }
    Result<bool> lies_at_one(const std::vector<std::string>& names, const std::string& cluster,
                             const HoldWanted& wanted) {
        for (const std::string& name : names) {
            WV_TRY(auto there, view(name));
            auto whole = require_holdable(*there, cluster, wanted, "UTC");
            if (whole) return true;
            if (whole.error().code != Errc::not_found && whole.error().code != Errc::outside_window)
                return fail(whole.error());
        }
        return false;
    }
};

Result<std::vector<std::string>> names_of(storage::RepositoryView& view) {
    WV_TRY(std::vector<std::string> names, view.tiers());
    names.insert(names.begin(), "");
    return names;
}

}  // namespace

Result<> require_holdable(const Config& config, const std::string& cluster,
                          const HoldWanted& wanted) {
    WV_TRY(Places places, Places::open(config));
    WV_TRY(auto everywhere, places.view());
    WV_CHECK(require_holdable(*everywhere, cluster, wanted, "UTC"));
    WV_TRY(const auto names, names_of(*everywhere));
    WV_TRY(const bool whole, places.lies_at_one(names, cluster, wanted));
    if (whole) return {};
    return fail(Errc::outside_window, "what is to be held lies at no single place as a whole",
                "walvault repo ls shows what lies where");
}

Result<> require_held_without(const Config& config, const std::string& place, WallTime now) {
    WV_TRY(Places places, Places::open(config));
    WV_TRY(auto everywhere, places.view());
    WV_TRY(auto names, names_of(*everywhere));
    std::erase(names, place);
    WV_TRY(const auto clusters, everywhere->clusters());
    for (const storage::ClusterRecord& cluster : clusters) {
        WV_TRY(const auto holds, everywhere->holds(cluster.name));
        for (const storage::HoldRecord& hold : holds) {
            if (hold.is_over(now)) continue;
            const HoldWanted wanted{.backup_id = hold.backup_id, .from = hold.from, .to = hold.to};
            WV_TRY(const bool elsewhere, places.lies_at_one(names, cluster.name, wanted));
            if (elsewhere) continue;
            return fail(Errc::refused,
                        "of what the hold " + hold.id + " of " + cluster.name + " keeps (" +
                            printable(hold.reason) + "), no other place has all",
                        "if the copy is lost, say it again with --yes");
        }
    }
    return {};
}

pb::HoldPlaced placed_of(const std::string& cluster, const HoldWanted& wanted) {
    pb::HoldPlaced placed;
    placed.set_cluster(cluster);
    placed.set_backup_id(wanted.backup_id);
    placed.set_from_at_us(micros_of(wanted.from));
    placed.set_to_at_us(micros_of(wanted.to));
    placed.set_until_at_us(micros_of(wanted.until));
    placed.set_reason(wanted.reason);
    return placed;
}

nlohmann::json json_of(const HoldWanted& wanted) {
    return {{"backup_id", wanted.backup_id}, {"from_us", micros_of(wanted.from)},
            {"to_us", micros_of(wanted.to)}, {"until_us", micros_of(wanted.until)},
            {"reason", wanted.reason},       {"actor", wanted.actor}};
}

Result<HoldWanted> hold_wanted_of(const nlohmann::json& body) {
    if (!body.is_object()) return usage("the body is not a JSON object");
    HoldWanted wanted;
    try {
        wanted.backup_id = body.value("backup_id", "");
        wanted.from = time_in(body, "from_us");
        wanted.to = time_in(body, "to_us");
        wanted.until = time_in(body, "until_us");
        wanted.reason = body.value("reason", "");
        wanted.actor = body.value("actor", "");
    } catch (const nlohmann::json::exception& error) {
        return usage(std::string("the body has a field of another type: ") + error.what());
    }
    return wanted;
}

nlohmann::ordered_json json_of(const storage::HoldRecord& hold, WallTime now) {
    nlohmann::ordered_json body{{"hold_id", hold.id},
                                {"placed_at", format_utc(hold.placed_at, 6)},
                                {"placed_by", hold.placed_by},
                                {"reason", hold.reason},
                                {"over", hold.is_over(now)}};
    if (!hold.backup_id.empty()) body["backup_id"] = hold.backup_id;
    if (hold.from) body["from"] = format_utc(*hold.from, 6);
    if (hold.to) body["to"] = format_utc(*hold.to, 6);
    if (hold.until) body["until"] = format_utc(*hold.until, 6);
    return body;
}

std::string covered_text(const storage::HoldRecord& hold, const std::string& zone) {
    if (!hold.from) return "base " + printable(hold.backup_id);
    return format_local(*hold.from, zone, 0) + " " +
           (hold.to ? "to " + format_local(*hold.to, zone, 0) : std::string("on"));
}

}  // namespace walvault::agent
