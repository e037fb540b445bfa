#include "storage/rewrite_plan.h"

#include <algorithm>
#include <numeric>

#include "proto/frame_format.h"
#include "storage/repository_files.h"

namespace walvault::storage {
namespace {

std::string dead_text(std::uint64_t live, std::uint64_t all) {
    const double dead = 100.0 * static_cast<double>(all - live) / static_cast<double>(all);
    return std::to_string(static_cast<int>(dead)) + " % of it is dead";
}

bool is_mostly_dead(const RewriteCandidate& candidate, std::size_t place_count) {
    const std::uint64_t all = frame_bytes_of(candidate.pack);
    const std::uint64_t copies = std::max<std::uint64_t>(place_count, 2);
    return candidate.live_bytes > 0 && candidate.live_bytes < all / copies;
}

class RewritePlanner {
public:
    RewritePlanner(const RewriteRules& rules, const RewriteFacts& facts)
        : rules_(rules),
          facts_(facts),
          young_(backup_id_at(facts.now - rules.grace)),
          left_(std::min(rules.most_bytes, rules.room_bytes)) {}

    RewriteVerdict verdict_of(const RewriteCandidate& candidate) {
        const std::uint64_t all = frame_bytes_of(candidate.pack);
        if (!is_mostly_dead(candidate, facts_.place_count)) return {};
        const std::string dead = dead_text(candidate.live_bytes, all);
        const std::string wait = why_it_waits(candidate);
        if (!wait.empty()) return {.waits = true, .reason = dead + ", and it waits: " + wait};
        if (rules_.only_from_directory && !candidate.is_in_directory)
            return {.reason = dead + ", but to read it from there costs more than it wins"};
        // The first one whatever its size, so that it is ever done.
        if (candidate.live_bytes > left_ && (any_ || candidate.live_bytes > rules_.room_bytes))
            return {
                .waits = true,
                .reason = dead + ", and it waits: " +
                          (any_ ? "others come first" : "the directory has no room for a copy")};
        any_ = true;
        left_ -= std::min(left_, candidate.live_bytes);
        return {.rewrite = true,
                .reason = dead + ": the rest is copied into a new pack",
                .won_bytes = all - candidate.live_bytes};
    }

private:
    std::string why_it_waits(const RewriteCandidate& candidate) const {
        if (!rules_.reader.empty()) return rules_.reader + " reads";
        if (candidate.pack.backup_id() >= young_) return "it is younger than expire_grace";
        if (candidate.pack.backup_id() > facts_.newest_base)
            return "the next base backup may share it";
        return "";
    }

    const RewriteRules& rules_;
    const RewriteFacts& facts_;
    std::string young_;  // an id of a base backup from then on
    std::uint64_t left_;
    bool any_ = false;
};

}  // namespace

std::uint64_t frame_bytes_of(const pb::PackInfo& pack) {
    return pack.footer_offset() > kFileHeaderBytes ? pack.footer_offset() - kFileHeaderBytes : 0;
}

std::vector<RewriteVerdict> plan_rewrites(const RewriteRules& rules, const RewriteFacts& facts) {
    std::vector<RewriteVerdict> verdicts(facts.candidates.size());
    if (!rules.is_on) return verdicts;
    std::vector<std::size_t> order(facts.candidates.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto dead_bytes = [&](std::size_t i) {
        return frame_bytes_of(facts.candidates[i].pack) - facts.candidates[i].live_bytes;
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return dead_bytes(a) > dead_bytes(b); });
    RewritePlanner planner(rules, facts);
    for (std::size_t i : order)
        verdicts[i] = planner.verdict_of(facts.candidates[i]);
    return verdicts;
}

}  // namespace walvault::storage
