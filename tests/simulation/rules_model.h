// RulesModel: what retention, movement and rewriting leave at a place by their rules, worked out
// from a diary of what was written and from nothing that the code under test says. Plain loops over
// everything; dates by the C library.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "proto/lsn.h"

namespace walvault::simulation {

struct DiaryBase {
    std::string id;
    WallTime stopped_at;
    Lsn start;
    Lsn stop;
    std::vector<unsigned> contents;
};

struct DiaryPack {
    enum class Kind { wal, chunks, manifest } kind = Kind::wal;
    std::uint64_t bytes = 0;                   // of the file
    Lsn start, end;                            // WAL
    std::string base_id;                       // of its manifest
    std::map<unsigned, std::uint64_t> chunks;  // sealed bytes, by content
};

struct DiaryHold {
    std::string base_id;  // empty: moments
    WallTime from{}, to{};
    Lsn end;  // where the first transaction behind `to` starts
};
inline constexpr Lsn kNoEnd{~std::uint64_t{0}};

struct DiaryRules {
    std::chrono::hours window{};
    unsigned days = 0, weeks = 0, months = 0;
    unsigned newest = 2;
};

class RulesModel {
public:
    explicit RulesModel(std::uint64_t segment_bytes) : segment_bytes_(segment_bytes) {}

    void add_place(const std::string& name, const DiaryRules& rules) {
        places_[name].rules = rules;
    }
    void add_base(const DiaryBase& base);
    // Its chunks lie there from now on, also where they lay elsewhere before.
    void add_pack(const std::string& path, DiaryPack pack);
    // Those there are from now on, at all places.
    void set_holds(std::vector<DiaryHold> holds) { holds_ = std::move(holds); }
    // A pass at the place; `seen` is the latest moment that is stored.
    void expire(const std::string& place, WallTime now, WallTime seen);
    // Packs that stay there and of which less than half lives.
    std::set<std::string> mostly_dead(const std::string& place) const;
    // What of a pack lives there.
    std::set<unsigned> living(const std::string& place, const std::string& path) const;

    const std::set<std::string>& packs(const std::string& place) const {
        return places_.at(place).packs;
    }
    const std::vector<DiaryBase>& bases(const std::string& place) const {
        return places_.at(place).bases;
    }
    WallTime window_from(const std::string& place) const { return places_.at(place).window_from; }
    std::uint64_t bytes(const std::string& place) const;

private:
    struct Place {
        DiaryRules rules;
        std::vector<DiaryBase> bases;  // in the order in which they were taken
        std::set<std::string> packs;
        WallTime window_from{};
        std::vector<std::pair<Lsn, Lsn>> held_wal;
    };
    std::set<std::string> staying(const Place& place, std::size_t& anchor) const;
    bool is_needed(const Place& place, const DiaryPack& pack, std::size_t anchor) const;
    // What a hold keeps there.
    struct Held {
        std::set<std::string> bases;
        Lsn wal_from, wal_to;
    };
    Held held_at(const Place& place, const DiaryHold& hold) const;
    bool lacks_wal_before(const Place& place, Lsn lsn) const;
    std::set<unsigned> contents_of(const Place& place) const;

    std::uint64_t segment_bytes_;
    std::vector<DiaryHold> holds_;
    std::map<std::string, Place> places_;
    std::map<std::string, DiaryPack> packs_;
    std::map<unsigned, std::string> lies_in_;  // content -> the pack it was stored in last
};

}  // namespace walvault::simulation
