// ThawPlan: which of the objects that a restore needs must be thawed, how long that takes and what
// it costs. Pure.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "storage/archive_store.h"

namespace walvault::storage {

struct ThawItem {
    enum class Kind { base, manifest, wal, other };
    std::string name;
    Kind kind = Kind::other;
    std::uint64_t size_bytes = 0;
    ArchiveState state;
};
std::string_view to_string(ThawItem::Kind kind);

// Of thawing objects of one class at one speed. Money is in the currency of the table.
struct ThawPrice {
    double per_gb = 0;  // of 10^9 bytes
    double per_1000_requests = 0;
    std::chrono::seconds ready_after{0};
};

struct ThawPrices {
    std::string currency = "USD";
    std::map<std::pair<std::string, ThawSpeed>, ThawPrice> thaws;
    std::optional<double> egress_per_gb;
};

struct ThawOptions {
    ThawSpeed speed = ThawSpeed::standard;
    unsigned days = 3;
};

struct ThawPlan {
    struct Class {
        std::uint64_t count = 0;
        std::uint64_t bytes = 0;
    };
    std::vector<ThawItem> to_ask;   // archived, sorted by name
    std::vector<ThawItem> waiting;  // thawing
    std::vector<ThawItem> thawed;
    std::uint64_t ready_count = 0, ready_bytes = 0;
    std::uint64_t ask_bytes = 0, needed_bytes = 0;
    std::map<std::string, Class> classes;  // of to_ask
    std::uint64_t request_count = 0;
    // The longest of the classes'. Where the table does not say it, what S3 names for it: then
    // `time_is_usual`. Nothing where neither does.
    std::optional<std::chrono::seconds> ready_after;
    bool time_is_usual = false;
    // Nothing where the table says nothing at all; else of what it has prices for.
    std::optional<double> thaw_cost, egress_cost;
    std::string currency;
    std::vector<std::string> unpriced;  // "thawing GLACIER at bulk"
    // Classes of to_ask that do not know the speed.
    std::vector<std::string> too_fast;

    bool is_ready() const { return to_ask.empty() && waiting.empty(); }
};

// Bytes go out once; the storage of the temporary copies is not in the costs. Items of one name are
// taken once.
ThawPlan plan_thaw(std::vector<ThawItem> items, const ThawPrices& prices,
                   const ThawOptions& options);

// How long S3 says that it takes at most; nothing for a class it does not name.
std::optional<std::chrono::seconds> usual_thaw_time(const std::string& storage_class,
                                                    ThawSpeed speed);

}  // namespace walvault::storage
