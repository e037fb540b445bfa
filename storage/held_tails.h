// HeldTails: of tails whose pieces lie at a tier, those that have become packs which the tier was
// not to get, since retention let go of them before they came. Their WAL is in the pieces alone
// there, and somebody may be reading it: so the pieces stay until the packs are called deleted
// there, which waits for readers. Pure.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>

namespace walvault::storage {

class HeldTails {
public:
    // The tail has become these packs, which are not there.
    void hold(const std::string& tail, std::set<std::string> packs) {
        if (!packs.empty()) packs_[tail] = std::move(packs);
    }
    bool holds(const std::string& tail) const { return packs_.contains(tail); }
    // Tails that are not held any more when this pack is deleted, or is there after all.
    std::set<std::string> let_go(const std::string& pack) {
        return let_go_if([&pack](const std::string& each) { return each == pack; });
    }
    std::set<std::string> let_go_if(const std::function<bool(const std::string& pack)>& is_over) {
        std::set<std::string> freed;
        for (auto& [tail, packs] : packs_) {
            std::erase_if(packs, is_over);
            if (packs.empty()) freed.insert(tail);
        }
        for (const std::string& tail : freed)
            packs_.erase(tail);
        return freed;
    }

private:
    std::map<std::string, std::set<std::string>> packs_;  // by tail, never empty
};

}  // namespace walvault::storage
