#include "tests/simulation/rules_model.h"

#include <algorithm>
#include <ctime>

namespace walvault::simulation {
namespace {

std::tm parts_of(WallTime at) {
    const std::time_t seconds =
        std::chrono::duration_cast<std::chrono::seconds>(at.time_since_epoch()).count();
    std::tm parts{};
    gmtime_r(&seconds, &parts);
    return parts;
}

std::string formatted(WallTime at, const char* format) {
    const std::tm parts = parts_of(at);
    char text[64];
    std::strftime(text, sizeof text, format, &parts);
    return text;
}

// The names of the last `count` days, ISO weeks or months, that of `at` being the first of them.
std::set<std::string> last_periods(WallTime at, const char* format, unsigned count) {
    std::set<std::string> names;
    for (WallTime day = at; names.size() < count; day -= std::chrono::hours(12))
        names.insert(formatted(day, format));
    return names;
}

}  // namespace

void RulesModel::add_base(const DiaryBase& base) {
    for (auto& [name, place] : places_)
        place.bases.push_back(base);
}

void RulesModel::add_pack(const std::string& path, DiaryPack pack) {
    for (const auto& [content, bytes] : pack.chunks)
        lies_in_[content] = path;
    packs_[path] = std::move(pack);
    for (auto& [name, place] : places_)
        place.packs.insert(path);
}

std::set<std::string> RulesModel::staying(const Place& place, std::size_t& anchor) const {
    std::set<std::string> ids;
    anchor = 0;
    for (std::size_t i = 0; i < place.bases.size(); ++i)
        if (place.bases[i].stopped_at <= place.window_from) anchor = i;
    for (std::size_t i = anchor; i < place.bases.size(); ++i)
        ids.insert(place.bases[i].id);
    const std::vector<std::pair<const char*, unsigned>> periods{{"%Y-%m-%d", place.rules.days},
                                                                {"%G-%V", place.rules.weeks},
                                                                {"%Y-%m", place.rules.months}};
    for (const auto& [format, count] : periods) {
        if (count == 0) continue;
        std::map<std::string, std::string> newest;
        for (const DiaryBase& base : place.bases)
            if (base.stopped_at <= place.window_from)
                newest[formatted(base.stopped_at, format)] = base.id;
        for (const std::string& name : last_periods(place.window_from, format, count))
            if (newest.contains(name)) ids.insert(newest[name]);
    }
    for (std::size_t i = 0; i < place.rules.newest && i < place.bases.size(); ++i)
        ids.insert(place.bases[place.bases.size() - 1 - i].id);
    return ids;
}

bool RulesModel::lacks_wal_before(const Place& place, Lsn lsn) const {
    return std::ranges::none_of(place.packs, [&](const std::string& path) {
        const DiaryPack& pack = packs_.at(path);
        return pack.kind == DiaryPack::Kind::wal && pack.end == lsn;
    });
}

RulesModel::Held RulesModel::held_at(const Place& place, const DiaryHold& hold) const {
    Held held;
    if (!hold.base_id.empty()) {
        for (const DiaryBase& base : place.bases)
            if (base.id == hold.base_id) held.bases.insert(base.id);
        return held;
    }
    const DiaryBase* anchor = nullptr;
    for (const DiaryBase& base : place.bases)
        if (base.stopped_at <= hold.from) anchor = &base;
    Lsn first;
    for (const DiaryBase& base : place.bases) {
        if (base.stopped_at > hold.to || (anchor != nullptr && base.start < anchor->start))
            continue;
        if (held.bases.empty()) first = base.start;
        held.bases.insert(base.id);
    }
    held.wal_from = first.round_down(segment_bytes_);
    held.wal_to = hold.end;
    if (held.bases.empty() || hold.end == kNoEnd) return held;
    held.wal_to = (hold.end + (2 * segment_bytes_ - 1)).round_down(segment_bytes_);
    // Behind a hole the first transaction that is left says nothing about what was in it.
    const DiaryPack* next = nullptr;
    for (const std::string& path : place.packs) {
        const DiaryPack& pack = packs_.at(path);
        if (pack.kind == DiaryPack::Kind::wal && pack.end > hold.end &&
            (next == nullptr || pack.start < next->start))
            next = &pack;
    }
    if (next != nullptr && next->start > first && lacks_wal_before(place, next->start))
        held.wal_to = next->start;
    return held;
}

std::set<unsigned> RulesModel::contents_of(const Place& place) const {
    std::set<unsigned> all;
    for (const DiaryBase& base : place.bases)
        all.insert(base.contents.begin(), base.contents.end());
    return all;
}

bool RulesModel::is_needed(const Place& place, const DiaryPack& pack, std::size_t anchor) const {
    if (pack.kind == DiaryPack::Kind::manifest)
        return std::ranges::any_of(place.bases,
                                   [&](const DiaryBase& base) { return base.id == pack.base_id; });
    for (const auto& [from, to] : place.held_wal)
        if (from < pack.end && pack.start < to) return true;
    const auto floor = [&](Lsn lsn) { return lsn.round_down(segment_bytes_); };
    for (std::size_t i = 0; i < place.bases.size(); ++i) {
        const DiaryBase& base = place.bases[i];
        const Lsn until = floor(base.stop + (segment_bytes_ - 1));
        const bool before_end = i >= anchor || pack.start < until;
        if (floor(base.start) < pack.end && before_end) return true;
    }
    return false;
}

void RulesModel::expire(const std::string& name, WallTime now, WallTime seen) {
    Place& place = places_.at(name);
    place.window_from = std::min(now, seen) - place.rules.window;
    std::size_t anchor = 0;
    std::set<std::string> ids = staying(place, anchor);
    const std::string anchor_id = place.bases.empty() ? "" : place.bases[anchor].id;
    place.held_wal.clear();
    for (const DiaryHold& hold : holds_) {
        Held held = held_at(place, hold);
        if (held.wal_from < held.wal_to) place.held_wal.emplace_back(held.wal_from, held.wal_to);
        ids.merge(held.bases);
    }
    std::erase_if(place.bases, [&](const DiaryBase& base) { return !ids.contains(base.id); });
    anchor = 0;
    for (std::size_t i = 0; i < place.bases.size(); ++i)
        if (place.bases[i].id == anchor_id) anchor = i;
    const std::set<unsigned> live = contents_of(place);
    std::set<std::string> holding;
    for (unsigned content : live)
        holding.insert(lies_in_.at(content));
    std::erase_if(place.packs, [&](const std::string& path) {
        const DiaryPack& pack = packs_.at(path);
        if (pack.kind == DiaryPack::Kind::chunks) return !holding.contains(path);
        return !is_needed(place, pack, anchor);
    });
}

std::set<unsigned> RulesModel::living(const std::string& name, const std::string& path) const {
    const std::set<unsigned> live = contents_of(places_.at(name));
    std::set<unsigned> found;
    for (const auto& [content, bytes] : packs_.at(path).chunks)
        if (live.contains(content) && lies_in_.at(content) == path) found.insert(content);
    return found;
}

std::set<std::string> RulesModel::mostly_dead(const std::string& name) const {
    const std::set<unsigned> live = contents_of(places_.at(name));
    std::set<std::string> found;
    for (const std::string& path : places_.at(name).packs) {
        std::uint64_t all = 0, lives = 0;
        for (const auto& [content, bytes] : packs_.at(path).chunks) {
            all += bytes;
            if (live.contains(content) && lies_in_.at(content) == path) lives += bytes;
        }
        if (lives > 0 && lives < all / std::max<std::size_t>(places_.size(), 2)) found.insert(path);
    }
    return found;
}

std::uint64_t RulesModel::bytes(const std::string& place) const {
    std::uint64_t sum = 0;
    for (const std::string& path : places_.at(place).packs)
        sum += packs_.at(path).bytes;
    return sum;
}

}  // namespace walvault::simulation
