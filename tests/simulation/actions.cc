// What befalls servers, agents and their machine in a simulation.
#include <algorithm>

#include "tests/simulation/world.h"

namespace walvault::simulation {

const std::vector<World::Action>& World::actions() {
    static const std::vector<Action> all{
        {"write", 200, &World::write, false},
        {"write a lot", 20, &World::write_a_lot, false},
        {"switch", 8, &World::switch_segment, false},
        {"checkpoint", 20, &World::take_checkpoint, false},
        {"lose slot", 4, &World::lose_slot, true},
        {"drop slot", 4, &World::drop_slot, true},
        {"crash server", 6, &World::crash_server, true},
        {"shut server down", 6, &World::shut_server_down, true},
        {"cut connection", 10, &World::cut_connection, true},
        {"lag", 30, &World::lag, false},
        {"add standby", 6, &World::add_standby, true},
        {"fail over", 8, &World::fail_over, true},
        {"change target", 6, &World::change_target, true},
        {"roll back", 5, &World::roll_back, true},
        {"kill agent", 6, &World::kill_agent, true},
        {"cut machine", 8, &World::cut_machine, true},
        {"crash soon", 10, &World::crash_soon, true},
        {"restart agent", 5, &World::restart_agent, true},
        {"start rival", 5, &World::start_rival, true},
        {"fill disk", 5, &World::fill_disk, true},
        {"fail sync", 6, &World::fail_sync, true},
        {"fail directory sync", 3, &World::fail_directory_sync, true},
        {"fail write", 4, &World::fail_write, true},
        {"fail index", 3, &World::fail_index, true},
        {"lose index", 3, &World::lose_index, true},
    };
    return all;
}

Server* World::some_server(bool in_recovery) {
    std::vector<Server*> found;
    for (const auto& server : servers_)
        if (server->is_up && server->in_recovery == in_recovery) found.push_back(server.get());
    return found.empty() ? nullptr : found[random_.below(found.size())];
}

bool World::write() {
    Server* server = some_server(false);
    if (server == nullptr || server->branch->end() > limit()) return false;
    const std::uint64_t count = random_.between(1, 5);
    for (std::uint64_t i = 0; i < count; ++i)
        server->branch->add_rows(random_);
    if (random_.one_in(2)) server->branch->add_commit(time_.now());
    const bool whole = random_.one_in(2);
    const std::uint64_t slowest = random_.one_in(10) ? 400 : 20;
    if (!whole) later(0, slowest / 2, [this, server] { server->flush(random_, false); });
    later(slowest / 2, slowest, [this, server] { server->flush(random_, true); });
    for (const auto& standby : servers_)
        if (standby->in_recovery && !random_.one_in(4))
            later(20, 60, [this, at = standby.get()] { replicate(*at); });
    return true;
}

bool World::write_a_lot() {
    Server* server = some_server(false);
    if (server == nullptr || server->branch->end() > limit()) return false;
    for (int i = 0; i < 40; ++i) {
        server->branch->add_rows(random_);
        if (random_.one_in(4)) server->branch->add_commit(time_.now());
    }
    server->flush(random_, false);
    // A commit waits for its flush: no longer than the server's disk takes.
    later(1, 20, [this, server] { server->flush(random_, true); });
    return true;
}

bool World::switch_segment() {
    Server* server = some_server(false);
    if (server == nullptr || server->branch->end() > limit()) return false;
    server->branch->add_switch();
    server->branch->add_rows(random_);
    server->flush(random_, true);
    note("server " + std::to_string(server->number) + " switches to " +
         to_string(server->flushed_lsn));
    return true;
}

bool World::take_checkpoint() {
    Server* server = some_server(false);
    if (server == nullptr) return false;
    server->checkpoint(random_);
    return true;
}

bool World::lose_slot() {
    if (!target_->is_up || !target_->slot || target_->slot->is_lost) return false;
    target_->checkpoint(random_);
    target_->lose_slot();
    note("server " + std::to_string(target_->number) + " gives up the slot and keeps WAL from " +
         to_string(target_->kept_from_lsn));
    return true;
}

bool World::drop_slot() {
    if (!target_->is_up || !target_->slot) return false;
    target_->break_sessions();
    target_->slot.reset();
    note("the slot of server " + std::to_string(target_->number) + " is dropped");
    return true;
}

bool World::crash_server() {
    if (!target_->is_up) return false;
    target_->crash();
    note("server " + std::to_string(target_->number) + " crashes; its WAL ends at " +
         to_string(target_->flushed_lsn));
    later(300, 4000, [server = target_] { server->is_up = true; });
    return true;
}

bool World::shut_server_down() {
    if (!target_->is_up) return false;
    if (!target_->in_recovery) target_->flush(random_, true);
    target_->shut_down();
    note("server " + std::to_string(target_->number) + " shuts down");
    later(300, 4000, [server = target_] { server->is_up = true; });
    return true;
}

bool World::cut_connection() {
    target_->break_sessions();
    return true;
}

// The standby's WAL becomes the primary's, as far as it is a beginning of it.
void World::replicate(Server& standby) {
    if (!standby.in_recovery || !standby.is_up) return;
    for (const auto& primary : servers_) {
        if (primary->in_recovery || !primary->is_up) continue;
        if (primary->flushed_lsn < standby.flushed_lsn) continue;
        const Branch& theirs = *primary->branch;
        const Branch& ours = *standby.branch;
        const ByteSpan mine = ours.bytes(ours.start(), standby.flushed_lsn);
        if (&theirs != &ours &&
            !std::ranges::equal(mine, theirs.bytes(theirs.start(), standby.flushed_lsn)))
            continue;
        if (theirs.timeline < ours.timeline) continue;
        standby.flushed_lsn = primary->flushed_lsn;
        standby.redo_lsn =
            std::max(standby.redo_lsn, std::min(primary->redo_lsn, standby.flushed_lsn));
        standby.follow(primary->branch);
        return;
    }
}

bool World::lag() {
    Server* standby = some_server(true);
    if (standby == nullptr) return false;
    replicate(*standby);
    return true;
}

bool World::add_standby() {
    if (servers_.size() >= 4 || !target_->is_up) return false;
    auto standby = std::make_unique<Server>(*target_);
    standby->number = static_cast<unsigned>(servers_.size());
    standby->in_recovery = true;
    standby->sessions.clear();
    standby->slot.reset();
    note("server " + std::to_string(standby->number) + " is a standby of server " +
         std::to_string(target_->number));
    servers_.push_back(std::move(standby));
    return true;
}

bool World::fail_over() {
    Server* standby = some_server(true);
    if (standby == nullptr) return false;
    // Planned, with all of the WAL; or late, and then the old one may live on.
    if (random_.one_in(3)) replicate(*standby);
    const TimelineId next = standby->branch->timeline + (random_.one_in(5) ? 2 : 1);
    standby->promote(next_branch_++, next);
    oracle_->add_branch(standby->branch);
    note("server " + std::to_string(standby->number) + " is promoted to timeline " +
         std::to_string(next) + " at " + to_string(standby->branch->switches.back().end_lsn));
    if (random_.one_in(3)) return true;
    if (target_ != standby) {
        target_->crash();
        if (random_.one_in(2)) later(300, 4000, [server = target_] { server->is_up = true; });
    }
    target_ = standby;
    return true;
}

bool World::change_target() {
    if (servers_.size() < 2) return false;
    Server* before = target_;
    target_ = servers_[random_.below(servers_.size())].get();
    if (before == target_) return false;
    before->break_sessions();
    note("the address leads to server " + std::to_string(target_->number));
    return true;
}

bool World::roll_back() {
    if (target_->in_recovery || !target_->is_up) return false;
    const auto last = target_->branch->record_before(target_->flushed_lsn);
    if (!last || *last < 4) return false;
    const std::size_t back = 1 + random_.below(std::min<std::size_t>(*last - 2, 60));
    target_->roll_back(*last - back, next_branch_++);
    oracle_->add_branch(target_->branch);
    note("the disk of server " + std::to_string(target_->number) + " is rolled back to " +
         to_string(target_->flushed_lsn));
    target_->is_up = false;
    later(50, 2000, [server = target_] { server->is_up = true; });
    return true;
}

bool World::kill_agent() {
    Agent* agent = running_agent();
    if (agent == nullptr) return false;
    power_goes_with_crash_ = index_goes_with_crash_ = false;
    crash(*agent);
    return true;
}

bool World::cut_machine() {
    cut_power();
    return true;
}

bool World::crash_soon() {
    if (files_.crash_in > 0) return false;
    files_.crash_in = random_.between(1, 40);
    power_goes_with_crash_ = random_.one_in(2);
    index_goes_with_crash_ = random_.one_in(6);
    return true;
}

bool World::restart_agent() {
    Agent* agent = running_agent();
    if (agent == nullptr) return false;
    note(agent->name + " is told to end");
    agent->process->stop();
    return true;
}

bool World::start_rival() {
    Agent& rival = *agents_.back();
    if (rival.process) return false;
    start(rival);
    return true;
}

bool World::fill_disk() {
    files_.capacity_bytes = files_.used_bytes() + random_.between(0, 20'000);
    note("the disk has room for " + std::to_string(files_.room_bytes()) + " bytes");
    later(500, 20'000, [this] { files_.capacity_bytes = ~std::uint64_t{0}; });
    return true;
}

bool World::fail_sync() {
    files_.fail_sync_in = random_.between(1, 12);
    return true;
}

bool World::fail_directory_sync() {
    files_.fail_directory_in = random_.between(1, 6);
    return true;
}

bool World::fail_write() {
    files_.fail_write_in = random_.between(1, 12);
    return true;
}

bool World::fail_index() {
    indexes_.fail_commit_in = random_.between(1, 8);
    return true;
}

bool World::lose_index() {
    if (running_agent() != nullptr) return false;
    indexes_.lose_all();
    return true;
}

}  // namespace walvault::simulation
