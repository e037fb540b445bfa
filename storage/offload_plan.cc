#include "storage/offload_plan.h"

#include <algorithm>
#include <optional>

#include "proto/frame_format.h"

namespace walvault::storage {
namespace {

// A piece of the ledger ends when so much was put for it, so that a long backlog counts bit by bit.
constexpr std::uint64_t kObjectBytesOfPiece = 256 << 20;
constexpr std::uint64_t kLedgerPieceBytes = 1 << 20;

using Kind = OffloadStep::Kind;

// Where the entries that `path` has to wait for end: at the next tail of its history, which begins
// where all of its own are durable.
bool waits_for_gap(const OffloadState& state, const OffloadedTail& tail) {
    for (const PendingEntry& entry : state.pending) {
        if (entry.is_gap) return true;
        if (!entry.opens_tail.empty() && entry.history == tail.history) return false;
    }
    return false;
}

std::optional<OffloadStep> next_tail_step(const OffloadState& state,
                                          const OffloadSnapshot& snapshot) {
    for (const auto& [path, tail] : state.tails) {
        auto synced = snapshot.tails.find(path);
        if (synced == snapshot.tails.end() || synced->second <= tail.end_offset ||
            synced->second <= kFileHeaderBytes || waits_for_gap(state, tail))
            continue;
        return OffloadStep{Kind::tail, path, tail.end_offset, synced->second};
    }
    return {};
}

// The entries of one piece, as they are looked at one by one.
class Piece {
public:
    Piece(const OffloadState& state, const OffloadSnapshot& snapshot)
        : state_(state), snapshot_(snapshot), open_(state.tails) {}

    OffloadStep step() {
        for (; count_ < state_.pending.size(); ++count_) {
            const PendingEntry& entry = state_.pending[count_];
            if (auto before = step_before(entry)) return *before;
            record_bytes_ += entry.record_bytes;
            for (const NeededObject& object : entry.needs)
                object_bytes_ += object.size_bytes;
            if (!entry.opens_tail.empty()) {
                open_[entry.opens_tail] = {entry.history, 0};
                opens_ = opens_ || snapshot_.tails.contains(entry.opens_tail);
            }
            if (!entry.ends_tail.empty()) open_.erase(entry.ends_tail);
        }
        return end_here(state_.pending_is_all ? Kind::nothing : Kind::read_on);
    }

private:
    bool may_end() const { return count_ > 0 && count_ > last_; }

    OffloadStep end_here(Kind otherwise) const {
        if (!may_end()) return {count_ == 0 ? otherwise : blocked()};
        return {Kind::ledger, {}, 0, 0, count_};
    }

    Kind blocked() const { return state_.pending_is_all ? Kind::wait : Kind::read_on; }

    std::optional<OffloadStep> step_before(const PendingEntry& entry) {
        const bool full = object_bytes_ >= kObjectBytesOfPiece ||
                          record_bytes_ + entry.record_bytes > kLedgerPieceBytes;
        if (full && may_end()) return end_here(Kind::nothing);
        if (!entry.opens_tail.empty()) {
            for (const auto& [path, tail] : open_) {
                if (tail.history != entry.history || is_whole(path, tail)) continue;
                const std::optional<std::size_t> end = end_of(path);
                if (end) {
                    last_ = std::max(last_, *end);
                    continue;
                }
                // Its pieces come first; or, where it is being closed, the entry that says so.
                return may_end() ? end_here(Kind::nothing) : OffloadStep{blocked()};
            }
        }
        for (const NeededObject& object : entry.needs) {
            if (state_.present.contains(object.name)) continue;
            // The newest WAL does not wait for a pack behind it.
            if ((opens_ || state_.is_held_up) && may_end()) return end_here(Kind::nothing);
            return next_object();
        }
        return {};
    }

    // From the entry on that waits for one.
    OffloadStep next_object() const {
        if (!state_.has_room) return {Kind::under_way};
        // What is put ahead of its entry is compared by the next process, and lies there for
        // nothing while the entry is held up: so it is not put without limit.
        std::uint64_t ahead_bytes = 0;
        for (std::size_t i = count_; i < state_.pending.size(); ++i) {
            if (i > count_ && ahead_bytes >= kObjectBytesOfPiece) break;
            for (const NeededObject& object : state_.pending[i].needs) {
                if (!state_.present.contains(object.name) &&
                    !state_.under_way.contains(object.name))
                    return {Kind::object, object.name};
                ahead_bytes += object.size_bytes;
            }
        }
        return {Kind::under_way};
    }

    bool is_whole(const std::string& path, const OffloadedTail& tail) const {
        auto synced = snapshot_.tails.find(path);
        if (synced == snapshot_.tails.end()) return false;
        return synced->second <= std::max<std::uint64_t>(tail.end_offset, kFileHeaderBytes);
    }

    std::optional<std::size_t> end_of(const std::string& path) const {
        for (std::size_t i = count_; i < state_.pending.size(); ++i)
            if (state_.pending[i].ends_tail == path) return i;
        return {};
    }

    const OffloadState& state_;
    const OffloadSnapshot& snapshot_;
    std::map<std::string, OffloadedTail> open_;
    bool opens_ = false;  // a tail that is open
    std::size_t count_ = 0;
    std::size_t last_ = 0;  // the entry that must be in the piece if any after the first is
    std::uint64_t record_bytes_ = 0;
    std::uint64_t object_bytes_ = 0;
};

}  // namespace

OffloadStep next_offload_step(const OffloadState& state, const OffloadSnapshot& snapshot) {
    if (auto tail = next_tail_step(state, snapshot)) return *tail;
    OffloadStep step = Piece(state, snapshot).step();
    if (step.kind != Kind::nothing && step.kind != Kind::wait && step.kind != Kind::under_way)
        return step;
    if (!state.superseded_tails.empty()) return {Kind::remove, *state.superseded_tails.begin()};
    if (!state.deleted.empty()) return {Kind::erase, *state.deleted.begin()};
    return step;
}

std::uint64_t pending_bytes(const OffloadState& state, const OffloadSnapshot& snapshot) {
    std::uint64_t bytes = 0;
    for (const PendingEntry& entry : state.pending) {
        bytes += entry.record_bytes;
        for (const NeededObject& object : entry.needs)
            if (!state.present.contains(object.name)) bytes += object.size_bytes;
    }
    for (const auto& [path, synced] : snapshot.tails) {
        if (synced <= kFileHeaderBytes) continue;
        auto tail = state.tails.find(path);
        bytes +=
            synced - (tail == state.tails.end() ? 0 : std::min(synced, tail->second.end_offset));
    }
    return bytes;
}

}  // namespace walvault::storage
