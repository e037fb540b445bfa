#include "agent/history_choice.h"

#include <algorithm>

#include "agent/render.h"
#include "base/blocking.h"
#include "base/log.h"
#include "storage/repository_files.h"

namespace walvault::agent {
namespace {

using storage::HistoryRecord;

// A chain of promotions opens a history for each; more than this many at once is a mistake.
constexpr int kStepsMax = 64;

// A slot is made anew only where the WAL that it then holds back can be stored.
constexpr std::uint64_t kRoomBytes = 64ull << 20;

// The first byte after the WAL of `history` that its server should have and has not.
Lsn missing_up_to(const HistoryRecord& history, const ServerSide& server) {
    const Lsn reserved = server.reserved_lsn.round_down(server.segment_bytes);
    const auto ends = end_on_path(server, history.timeline);
    return ends ? std::min(reserved, *ends) : reserved;
}

// Only where nothing was ever stored is nothing missing.
bool is_untouched(const HistoryRecord& history) {
    return history.end_lsn == history.start_lsn && history.cause == pb::HistoryOpened::FIRST;
}

std::string short_id(const Id16& id) { return to_hex(id).substr(0, 8); }

}  // namespace

const HistoryRecord* HistoryChoice::find(const Id16& id) const {
    for (const HistoryRecord& record : histories_)
        if (record.id == id) return &record;
    return nullptr;
}

Task<Result<StreamStart>> HistoryChoice::choose(wal::Receiver& receiver,
                                                const storage::ClusterRecord& cluster) {
    WV_CO_TRY(ServerSide server, co_await server_side(receiver, cluster));
    for (int step = 0; step < kStepsMax; ++step) {
        auto read = [this, name = cluster.name]() -> Result<> {
            WV_TRY(histories_, repository_.histories(name));
            WV_TRY(auto current, repository_.current_history(name));
            current_.reset();
            if (current) current_ = current->id;
            return {};
        };
        WV_CO_CHECK(co_await run_on(pools_.store, std::move(read)));
        const HistoryRecord* behind = missing_ ? find(*missing_) : nullptr;
        missing_.reset();
        // The new slot may reserve more than the old one did: then nothing is missing after all.
        if (behind && missing_up_to(*behind, server) > behind->end_lsn) {
            if (auto fetching = fetching_start(*behind, server)) co_return std::move(*fetching);
            WV_CO_CHECK(co_await begin_behind_gap(*behind, server, cluster));
            continue;
        }
        Attachment attachment = choose_attachment(server, histories_, current_, differences_);
        WV_CO_TRY(auto start, co_await carry_out(std::move(attachment), receiver, cluster));
        if (start) co_return std::move(*start);
    }
    co_return fail(Errc::unsupported,
                   "the server's timelines never lead to one that can be streamed");
}

Task<Result<ServerSide>> HistoryChoice::server_side(wal::Receiver& receiver,
                                                    const storage::ClusterRecord& cluster) {
    const wal::ServerIdentity& identity = receiver.identity();
    WV_CO_TRY(wal::SlotPosition slot, co_await settle_slot(receiver, cluster));
    ServerSide server;
    server.timeline = identity.system.timeline;
    server.flushed_lsn = identity.system.flushed_lsn;
    server.in_recovery = identity.in_recovery;
    server.segment_bytes = cluster.segment_bytes;
    server.keeps_older_segments = keeps_older_segments_;
    server.reserved_lsn = slot.restart_lsn.value_or(identity.system.flushed_lsn);
    if (server.timeline >= 2) {
        WV_CO_TRY(std::string text, co_await receiver.timeline_history(server.timeline));
        WV_CO_TRY(server.ancestors, parse_timeline_history(text, server.timeline));
    }
    co_return server;
}

Result<> HistoryChoice::require_room() const {
    WV_TRY(const std::uint64_t available, repository_.available_bytes());
    if (available >= kRoomBytes) return {};
    return fail(Errc::no_space,
                "the slot is not made anew while the repository's disk has only " +
                    format_size(available) + " free",
                "free space there: at least " + format_size(kRoomBytes));
}

// A slot that is gone says nothing about WAL that is gone: only streaming shows that.
Task<Result<wal::SlotPosition>> HistoryChoice::settle_slot(wal::Receiver& receiver,
                                                           const storage::ClusterRecord& cluster) {
    const wal::ServerIdentity& identity = receiver.identity();
    std::string reason;
    // One that was made since then and reserves what comes behind the missing WAL stays: a new one
    // may reserve less.
    const bool renewed =
        missing_ && identity.slot && identity.slot->restart_lsn &&
        identity.slot->restart_lsn->round_down(cluster.segment_bytes) > missing_from_ &&
        *identity.slot->restart_lsn <= identity.system.flushed_lsn;
    if (!identity.slot)
        reason = given_up_.empty() ? "the slot was not there" : given_up_;
    else if (!renewed)
        reason = renew_slot_;
    if (!reason.empty()) {
        auto look = [this] { return require_room(); };
        WV_CO_CHECK(co_await run_on(pools_.store, look));
        WV_CO_CHECK(co_await receiver.drop_slot());
    }
    WV_CO_TRY(wal::SlotPosition slot, co_await receiver.ensure_slot());
    renew_slot_.clear();
    if (reason.empty()) co_return slot;
    auto note = [this, name = cluster.name, slot, reason]() -> Result<bool> {
        WV_TRY(auto current, repository_.current_history(name));
        pb::LedgerEntry entry;
        entry.mutable_slot_made()->set_cluster(name);
        entry.mutable_slot_made()->set_slot(slot_);
        entry.mutable_slot_made()->set_restart_lsn(slot.restart_lsn.value_or(Lsn{}).value);
        entry.mutable_slot_made()->set_reason(current ? reason : "the first attachment");
        WV_CHECK(repository_.append_to_ledger(std::move(entry)));
        return current.has_value();
    };
    auto noted = co_await run_on(pools_.store, std::move(note));
    if (!noted) {
        // It would hold back WAL that nobody can store.
        (void)co_await receiver.drop_slot();
        co_return fail(noted.error());
    }
    slot_was_made_ = *noted;
    if (*noted) log::warn("slot.made", "the slot was made anew: " + reason, {{"slot", slot_}});
    co_return slot;
}

Task<Result<std::optional<StreamStart>>> HistoryChoice::carry_out(
    Attachment attachment, wal::Receiver& receiver, const storage::ClusterRecord& cluster) {
    if (auto* wait = std::get_if<Wait>(&attachment))
        co_return fail(Errc::unavailable, wait->reason, "the agent waits until it has caught up");
    if (auto* branch = std::get_if<Branch>(&attachment)) {
        WV_CO_CHECK(co_await open_branch(std::move(*branch), receiver, cluster));
        co_return std::optional<StreamStart>{};
    }
    if (auto* beginning = std::get_if<Begin>(&attachment)) {
        WV_CO_CHECK(co_await open_beginning(std::move(*beginning), cluster));
        co_return std::optional<StreamStart>{};
    }
    const Follow follow = std::get<Follow>(attachment);
    StreamStart start;
    start.history = *find(follow.history);
    start.timeline = follow.timeline;
    start.from_lsn = follow.from_lsn;
    start.segment_bytes = cluster.segment_bytes;
    start.behind = follow.behind;
    if (follow.timeline >= 2) {
        auto kept =
            co_await keep_timeline_history(follow.history, follow.timeline, receiver, cluster);
        // Two servers were promoted to one number at different places: nothing of it is the same.
        if (!kept && kept.error().code == Errc::forked) {
            log::error("history.differs", kept.error().message,
                       {{"history", short_id(follow.history)}, {"timeline", follow.timeline}});
            const Lsn begins = start.history.start_lsn;
            differences_.push_back(
                {.history = follow.history, .from_lsn = begins, .at_lsn = begins});
            co_return std::optional<StreamStart>{};
        }
        if (!kept) co_return fail(kept.error());
    }
    if (follow.resumed) {
        auto resume = [this, name = cluster.name, id = follow.history] {
            return repository_.resume_history(name, id, "its bytes are the server's again");
        };
        WV_CO_CHECK(co_await run_on(pools_.store, std::move(resume)));
        log::warn("history.resumed", "a history that was left is followed again",
                  {{"history", short_id(follow.history)}, {"timeline", follow.timeline}});
    }
    co_return std::optional<StreamStart>(std::move(start));
}

Task<Result<>> HistoryChoice::open_branch(Branch branch, wal::Receiver& receiver,
                                          const storage::ClusterRecord& cluster) {
    pb::HistoryOpened opened;
    opened.set_cluster(cluster.name);
    opened.set_timeline(branch.timeline);
    opened.set_start_lsn(branch.start_lsn.value);
    opened.set_fork_lsn(branch.fork_lsn.value);
    opened.set_parent_id(storage::text_of(branch.parent));
    opened.set_cause(branch.cause);
    opened.set_reason(branch.reason);
    const HistoryRecord parent = *find(branch.parent);
    auto open = [this, opened, parent, branch]() -> Result<std::pair<Id16, std::uint64_t>> {
        std::uint64_t orphans = 0;
        if (branch.fork_lsn < parent.end_lsn) {
            WV_TRY(orphans,
                   repository_.wal().count_commits(parent.id, branch.fork_lsn, parent.end_lsn));
        }
        WV_TRY(Id16 id, repository_.open_history(opened));
        return std::pair(id, orphans);
    };
    WV_CO_TRY(auto result, co_await run_on(pools_.store, std::move(open)));
    const auto [id, orphans] = result;
    const bool fork = branch.cause == pb::HistoryOpened::FORK;
    log::write(fork ? log::Level::error : log::Level::warn,
               fork ? "history.forked" : "history.promoted", branch.reason,
               {{"history", short_id(id)},
                {"parent", short_id(branch.parent)},
                {"timeline", branch.timeline},
                {"fork_lsn", to_string(branch.fork_lsn)},
                {"left_behind_bytes",
                 parent.end_lsn > branch.fork_lsn ? parent.end_lsn - branch.fork_lsn : 0},
                {"left_behind_commits", orphans}});
    if (branch.timeline >= 2)
        WV_CO_CHECK(co_await keep_timeline_history(id, branch.timeline, receiver, cluster));
    co_return Result<>();
}

Task<Result<>> HistoryChoice::open_beginning(Begin beginning,
                                             const storage::ClusterRecord& cluster) {
    pb::HistoryOpened opened;
    opened.set_cluster(cluster.name);
    opened.set_timeline(beginning.timeline);
    opened.set_start_lsn(beginning.start_lsn.value);
    opened.set_cause(beginning.cause);
    opened.set_reason(beginning.reason);
    auto open = [this, opened] { return repository_.open_history(opened); };
    WV_CO_TRY(Id16 id, co_await run_on(pools_.store, std::move(open)));
    const bool first = beginning.cause == pb::HistoryOpened::FIRST;
    log::write(first ? log::Level::info : log::Level::error, "history.opened",
               "a new history begins: " + beginning.reason,
               {{"history", short_id(id)},
                {"timeline", beginning.timeline},
                {"start_lsn", to_string(beginning.start_lsn)}});
    differences_.clear();
    co_return Result<>();
}

// There is a gap only where no other place has the bytes.
std::optional<StreamStart> HistoryChoice::fetching_start(const HistoryRecord& history,
                                                         const ServerSide& server) const {
    const auto ends = end_on_path(server, history.timeline);
    if (!can_fetch_ || !ends || is_untouched(history) || fetch_ended_ == history.id)
        return std::nullopt;
    StreamStart start;
    start.history = history;
    start.timeline = history.timeline;
    start.segment_bytes = server.segment_bytes;
    start.from_lsn = history.end_lsn.round_down(server.segment_bytes);
    if (history.end_lsn - start.from_lsn < kProofBytes &&
        start.from_lsn >= history.start_lsn + server.segment_bytes)
        start.from_lsn = Lsn{start.from_lsn.value - server.segment_bytes};
    start.fetch.emplace();
    start.fetch->to = missing_up_to(history, server);
    if (start.fetch->to == *ends)
        start.fetch->next_timeline = successor_of(server, history.timeline);
    return start;
}

Task<Result<>> HistoryChoice::begin_behind_gap(const HistoryRecord& history,
                                               const ServerSide& server,
                                               const storage::ClusterRecord& cluster) {
    const Lsn start = first_streamable(server);
    pb::HistoryOpened opened;
    opened.set_cluster(cluster.name);
    opened.set_timeline(server.timeline);
    opened.set_start_lsn(start.value);
    opened.set_cause(pb::HistoryOpened::GAP);
    opened.set_reason("WAL from " + to_string(history.end_lsn) + " to " + to_string(start) +
                      " was never received");
    std::string cause = missing_message_;
    if (!given_up_.empty()) cause += "; " + given_up_;
    if (fetch_ended_ == history.id) cause += "; " + fetch_message_;
    std::optional<pb::GapFound> gap;
    if (!is_untouched(history)) {
        gap.emplace();
        gap->set_cluster(cluster.name);
        gap->set_history_id(storage::text_of(history.id));
        gap->set_timeline(history.timeline);
        gap->set_from_lsn(history.end_lsn.value);
        gap->set_to_lsn(start.value);
        gap->set_from_at_us(history.covered_until.time_since_epoch().count());
        gap->set_to_at_us(clock_.now().time_since_epoch().count());
        gap->set_cause(cause);
    }
    log::error("gap.found", opened.reason(),
               {{"history", short_id(history.id)},
                {"from_lsn", to_string(history.end_lsn)},
                {"to_lsn", to_string(start)},
                {"cause", cause}});
    auto open = [this, opened, gap]() -> Result<> {
        WV_TRY(Id16 id, repository_.open_history(opened, gap));
        (void)id;
        return {};
    };
    differences_.clear();
    slot_was_made_ = false;
    WV_CO_CHECK(co_await run_on(pools_.store, std::move(open)));
    given_up_.clear();
    fetch_ended_.reset();
    co_return Result<>();
}

// No byte of a timeline is streamed before its history file is stored and was understood.
Task<Result<>> HistoryChoice::keep_timeline_history(const Id16& history, TimelineId timeline,
                                                    wal::Receiver& receiver,
                                                    const storage::ClusterRecord& cluster) {
    WV_CO_TRY(std::string content, co_await receiver.timeline_history(timeline));
    WV_CO_TRY(auto switches, parse_timeline_history(content, timeline));
    (void)switches;
    auto record = [this, name = cluster.name, history, timeline, content] {
        return repository_.record_timeline_history(name, history, timeline, content);
    };
    co_return co_await run_on(pools_.store, std::move(record));
}

void HistoryChoice::note_difference(const StreamStart& start, Lsn at) {
    auto note = [this](const Id16& id, Lsn from, Lsn differs) {
        std::erase_if(differences_, [&](const Difference& each) { return each.history == id; });
        differences_.push_back({.history = id, .from_lsn = from, .at_lsn = differs});
    };
    note(start.history.id, start.from_lsn, at);
    // Up to where a branch leaves its parent, what it holds is the parent's.
    if (start.history.parent && at < start.history.fork_lsn)
        note(*start.history.parent, start.from_lsn, at);
    log::error("history.differs", "the server's WAL is not the WAL that is stored",
               {{"history", short_id(start.history.id)},
                {"compared_from", to_string(start.from_lsn)},
                {"at_lsn", to_string(at)}});
}

void HistoryChoice::note_missing_wal(const StreamStart& start, const std::string& server_message) {
    const Lsn end = start.history.end_lsn;
    // Only what was looked back for is gone: the position of the first record must do as proof.
    if (keeps_older_segments_ && start.from_lsn < end.round_down(start.segment_bytes)) {
        keeps_older_segments_ = false;
        return;
    }
    missing_ = start.history.id;
    missing_from_ = end;
    missing_message_ = server_message;
    renew_slot_ = "the server has removed WAL that was needed next";
}

bool HistoryChoice::note_fetched(const StreamStart& start, const Result<>& fetched) {
    missing_ = start.history.id;
    if (fetched) {
        fetch_fails_since_.reset();
        return true;
    }
    const Error& error = fetched.error();
    bool is_settled = error.code == Errc::not_found || error.code == Errc::refused;
    if (error.code == Errc::unavailable) {
        const SteadyTime now = clock_.steady_now();
        // What came in between shows that the other place works.
        if (!fetch_fails_since_ || fetch_fails_at_ != start.history.end_lsn)
            fetch_fails_since_ = now;
        fetch_fails_at_ = start.history.end_lsn;
        is_settled = now - *fetch_fails_since_ >= fetch_patience_;
    }
    if (!is_settled) return false;
    fetch_fails_since_.reset();
    fetch_ended_ = start.history.id;
    fetch_message_ = error.message;
    return true;
}

void HistoryChoice::note_followed() {
    differences_.clear();
    keeps_older_segments_ = true;
    if (slot_was_made_)
        log::info("slot.nothing_lost",
                  "the stream goes on where it ended, although the slot was new",
                  {{"slot", slot_}});
    slot_was_made_ = false;
    given_up_.clear();
    fetch_ended_.reset();
}

}  // namespace walvault::agent
