#include "tests/simulation/server.h"

namespace walvault::simulation {

Branch::Branch(const Branch& parent, std::size_t last, unsigned own_number)
    : number(own_number),
      timeline(parent.timeline),
      switches(parent.switches),
      history_file(parent.history_file),
      builder_(parent.builder_),
      records_(parent.records_),
      commits_(parent.commits_),
      next_xid_(parent.next_xid_ + own_number * 1000) {
    const Record& kept = records_[last];
    builder_.cut(kept.end_lsn, kept.start_lsn);
    cut_records(kept.end_lsn);
    // Before its promotion it was on the timeline before.
    while (!switches.empty() && switches.back().end_lsn > kept.end_lsn) {
        timeline = switches.back().timeline;
        switches.pop_back();
        history_file.resize(history_file.rfind('\n', history_file.size() - 2) + 1);
        builder_.set_timeline(timeline);
    }
}

void Branch::cut_records(Lsn end) {
    while (!records_.empty() && records_.back().end_lsn > end)
        records_.pop_back();
    while (!commits_.empty() && commits_.back().end_lsn > end)
        commits_.pop_back();
}

void Branch::note(Lsn start) {
    builder_.align();
    records_.push_back({start, builder_.end()});
}

void Branch::add_rows(Random& random) {
    ByteBuffer body(random.between(16, 400));
    if (random.one_in(6)) body.resize(random.between(2000, 30'000));
    // Two pasts differ in this.
    for (std::size_t i = 0; i < std::min<std::size_t>(body.size(), 64); ++i)
        body[i] = static_cast<std::byte>(random.number());
    note(builder_.add(
        {.rmgr = 12, .info = 0, .xid = next_xid_, .body = WalBuilder::main_data(body)}));
}

void Branch::add_commit(WallTime at) {
    if (!commits_.empty()) at = std::max(at, commits_.back().at + Micros(1));
    const Lsn start = builder_.add(WalBuilder::commit(next_xid_, to_postgres_micros(at)));
    commits_.push_back({start, builder_.end(), next_xid_++, at});
    note(start);
}

void Branch::add_switch() { note(builder_.add_switch()); }

void Branch::recover(Lsn flushed) {
    std::optional<Record> broken;
    for (const Record& record : records_)
        if (record.start_lsn < flushed && flushed < record.end_lsn) broken = record;
    cut_records(flushed);
    const Lsn previous = records_.empty() ? Lsn{} : records_.back().start_lsn;
    if (!broken) return builder_.cut(flushed, previous);
    // Flushed in the middle of a record means: to the end of a page.
    builder_.cut(flushed, previous);
    note(builder_.add_overwrite(broken->start_lsn));
}

void Branch::begin_timeline(TimelineId next) {
    switches.push_back({timeline, end()});
    history_file +=
        std::to_string(timeline) + "\t" + to_string(end()) + "\tno recovery target specified\n";
    timeline = next;
    builder_.set_timeline(next);
}

ByteSpan Branch::bytes(Lsn from, Lsn to) const {
    const ByteSpan all = builder_.bytes();
    return all.subspan(from - start(), to - from);
}

std::optional<std::size_t> Branch::record_before(Lsn lsn) const {
    std::optional<std::size_t> found;
    for (std::size_t i = 0; i < records_.size() && records_[i].end_lsn <= lsn; ++i)
        found = i;
    return found;
}

void Server::flush(Random& random, bool whole) {
    if (!is_up || in_recovery) return;
    Lsn to = branch->end();
    const Lsn page = to.round_down(kWalPageBytes);
    const bool is_switch = segment_of(to) == to;
    if (!whole && !is_switch && page > flushed_lsn && random.one_in(3)) to = page;
    flushed_lsn = std::max(flushed_lsn, to);
    wake_sessions();
}

void Server::checkpoint(Random& random) {
    if (auto last = branch->record_before(flushed_lsn)) redo_lsn = branch->records()[*last].end_lsn;
    Lsn keep = redo_lsn;
    if (slot && slot->restart_lsn) {
        slot->saved_lsn = slot->restart_lsn;
        keep = std::min(keep, *slot->restart_lsn);
    }
    // wal_keep_size, or segments that were not recycled yet.
    if (random.one_in(2)) kept_from_lsn = std::max(kept_from_lsn, segment_of(keep));
}

void Server::lose_slot() {
    if (!slot || !slot->restart_lsn) return;
    slot->restart_lsn = slot->saved_lsn = std::nullopt;
    slot->is_lost = true;
    kept_from_lsn = std::max(kept_from_lsn, segment_of(redo_lsn));
    break_sessions();
}

void Server::crash() {
    break_sessions();
    if (!in_recovery) {
        branch->recover(flushed_lsn);
        flushed_lsn = branch->end();
    }
    if (slot && slot->restart_lsn) slot->restart_lsn = slot->saved_lsn;
    is_up = false;
}

void Server::shut_down() {
    for (const auto& each : sessions)
        if (auto session = each.lock()) session->ends_cleanly = true;
    wake_sessions();
    sessions.clear();
    is_up = false;
}

void Server::follow(std::shared_ptr<Branch> next) {
    if (next->timeline != branch->timeline && !next->switches.empty())
        for (const auto& each : sessions)
            if (auto session = each.lock(); session && session->is_streaming && !session->ends)
                for (std::size_t i = 0; i < next->switches.size(); ++i)
                    if (next->switches[i].timeline == session->timeline) {
                        const bool is_last = i + 1 == next->switches.size();
                        session->ends = wal::TimelineEnd{
                            is_last ? next->timeline : next->switches[i + 1].timeline,
                            next->switches[i].end_lsn};
                    }
    branch = std::move(next);
    wake_sessions();
}

void Server::promote(unsigned own_number, TimelineId timeline) {
    auto last = branch->record_before(flushed_lsn);
    if (!last) return;
    auto next = std::make_shared<Branch>(*branch, *last, own_number);
    next->begin_timeline(timeline);
    flushed_lsn = next->end();
    in_recovery = false;
    follow(std::move(next));
}

void Server::roll_back(std::size_t last, unsigned own_number) {
    break_sessions();
    branch = std::make_shared<Branch>(*branch, last, own_number);
    flushed_lsn = branch->end();
    redo_lsn = std::min(redo_lsn, flushed_lsn);
    // A copy of the disk has the segments of its time.
    if (kept_from_lsn > flushed_lsn) kept_from_lsn = segment_of(flushed_lsn);
    if (slot && slot->restart_lsn)
        slot->restart_lsn = slot->saved_lsn = std::min(*slot->restart_lsn, redo_lsn);
}

void Server::break_sessions() {
    for (const auto& each : sessions)
        if (auto session = each.lock()) session->is_broken = true;
    wake_sessions();
    sessions.clear();
}

void Server::wake_sessions() {
    std::erase_if(sessions, [](const auto& each) { return each.expired(); });
    for (const auto& each : sessions)
        each.lock()->changed.notify();
}

Lsn Server::oldest_lsn(TimelineId of_timeline) const {
    // The segment in which a timeline begins is the first that carries its number.
    if (of_timeline != branch->timeline || branch->switches.empty()) return kept_from_lsn;
    return std::max(kept_from_lsn, segment_of(branch->switches.back().end_lsn));
}

}  // namespace walvault::simulation
