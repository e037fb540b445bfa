#include "tests/simulation/world.h"

#include <algorithm>

#include "base/log.h"

namespace walvault::simulation {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kStepsMax = 400'000;

std::uint64_t hash_of(std::uint64_t hash, const std::string& text) {
    for (char c : text)
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
    return hash;
}

}  // namespace

World::World(std::uint64_t seed, bool keeps_log)
    : seed_(seed),
      keeps_log_(keeps_log),
      random_(seed),
      secrets_(seed),
      network_{.time = time_,
               .random = random_,
               .target =
                   [this] {
                       followed_.reset();
                       return target_;
                   },
               .on_status = [this](Session& s, Lsn flushed) { take_status(s, flushed); },
               .breaks = [this] { return loses_connections_ && random_.one_in(400); }} {
    log::take_lines([this](const std::string& line) { note("    " + line); });
}

World::~World() {
    agents_.clear();
    log::take_lines({});
}

void World::note(const std::string& what) {
    const auto since = std::chrono::duration_cast<Micros>(time_.steady_now() - began_).count();
    std::string line = std::to_string(since) + " " + what + "\n";
    outcome_.log_hash = hash_of(outcome_.log_hash, line);
    if (keeps_log_) outcome_.log += line;
}

void World::fail_if(const std::string& broken) {
    if (broken.empty() || !outcome_.broken.empty()) return;
    outcome_.broken = broken;
    note("BROKEN: " + broken);
}

void World::later(std::uint64_t least_ms, std::uint64_t most_ms, std::function<void()> call) {
    time_.call_after(std::chrono::milliseconds(random_.between(least_ms, most_ms)),
                     std::move(call));
}

void World::set_up() {
    master_ = storage::MasterKey::generate();
    options_.root = "/srv/repository";
    options_.server.name = "main";
    options_.server.flush_interval = std::chrono::milliseconds(random_.between(10, 300));
    options_.repo.root = options_.root;
    options_.repo.wal_level = 1;
    options_.repo.pack_bytes = random_.between(8, 600) << 10;
    options_.index_home = &indexes_;
    if (random_.one_in(2)) options_.slowest_job = std::chrono::milliseconds(random_.between(1, 80));
    options_.is_synchronous = random_.one_in(3);
    network_.keepalives_are_doubled = random_.one_in(4);
    files_.locks_are_seen = !random_.one_in(4);
    oracle_.emplace(*master_, options_.root);
    (void)files_.make_directories("/srv", 0700);
    (void)files_.sync_directory("/");
    auto made = storage::Repository::create(files_, options_.root, *master_, time_);
    if (!made) fail_if("the repository cannot be made: " + made.error().message);
    const bool is_18 = random_.one_in(2);
    network_.server_version_num = is_18 ? 180001 : 150020;
    servers_.push_back(std::make_unique<Server>());
    target_ = servers_.back().get();
    target_->branch = std::make_shared<Branch>(std::uint16_t(is_18 ? 0xD118 : 0xD110), 0);
    target_->refuses_lost_slots = is_18;
    target_->kept_from_lsn = target_->branch->start();
    oracle_->add_branch(target_->branch);
    for (int i = 0; i < 3; ++i)
        target_->branch->add_rows(random_);
    target_->branch->add_commit(time_.now());
    target_->flush(random_, true);
    target_->redo_lsn = target_->flushed_lsn;
    // Each seed draws what may befall it: few things often, or many.
    const std::uint64_t share = random_.between(1, 4);
    for (const Action& action : actions())
        if (!action.is_fault || random_.below(4) < share) story_.push_back(&action);
    loses_connections_ = random_.one_in(2);
    agents_.push_back(std::make_unique<Agent>());
    agents_.back()->name = "agent";
    agents_.push_back(std::make_unique<Agent>());
    agents_.back()->name = "rival";
    agents_.back()->is_rival = true;
}

Outcome World::run() {
    set_up();
    start(*agents_.front());
    act_and_plan_next();
    run_until(time_.steady_now() + std::chrono::seconds(random_.between(10, 60)));
    if (outcome_.broken.empty()) settle();
    if (outcome_.broken.empty()) finish();
    return std::move(outcome_);
}

void World::act_and_plan_next() {
    if (is_told_) return;
    std::uint64_t sum = 0;
    for (const Action* action : story_)
        sum += action->weight;
    for (int tries = 0; tries < 4; ++tries) {
        std::uint64_t at = random_.below(sum);
        auto chosen = story_.begin();
        while (at >= (*chosen)->weight)
            at -= (*chosen++)->weight;
        if (((*this).*(*chosen)->act)()) break;
    }
    later(1, random_.one_in(4) ? 2500 : 250, [this] { act_and_plan_next(); });
}

bool World::step() {
    const std::size_t first = random_.below(agents_.size());
    for (std::size_t i = 0; i < agents_.size(); ++i) {
        Agent& agent = *agents_[(first + i) % agents_.size()];
        if (!agent.process) continue;
        try {
            if (!agent.process->step(random_)) continue;
            if (files_.is_frozen) throw Crash();
        } catch (const Crash&) {
            crash(agent);
            return true;
        }
        look_at(agent);
        return true;
    }
    return false;
}

void World::run_until(SteadyTime until) {
    while (outcome_.broken.empty()) {
        if (++outcome_.steps > kStepsMax) return fail_if("it never rests");
        if (step()) continue;
        std::optional<SteadyTime> next = time_.next_at();
        for (const auto& agent : agents_)
            if (agent->process)
                if (auto at = agent->process->ready_at(); at && (!next || *at < *next)) next = at;
        if (!next || *next > until) break;
        time_.advance_to(*next);
        time_.run_due();
    }
    time_.advance_to(until);
}

// What is asserted inside holds here too, and how a run ended decides what comes next.
void World::look_at(Agent& agent) {
    const agent::Progress& at = agent.process->progress();
    if (at.acknowledged_lsn() > at.flushed_lsn() || at.flushed_lsn() > at.written_lsn() ||
        at.written_lsn() > at.received_lsn() || at.closed_lsn() > at.flushed_lsn())
        fail_if("the positions of " + agent.name + " are out of order");
    look_at_coverage(agent);
    const auto& ended = agent.process->ended();
    if (!ended) return;
    if (*ended) return end(agent, "it ended");
    const Error& error = ended->error();
    // Where no lock is seen, a later writer has taken over.
    const bool is_taken_over = error.code == Errc::busy && !files_.locks_are_seen;
    if (error.code != Errc::io && error.code != Errc::no_space && !is_taken_over)
        fail_if(agent.name + " gave up: " + error.message);
    end(agent, "it gave up: " + error.message);
}

// "Restorable until" is true of the server that is followed, also of commits that it has not sent.
void World::look_at_coverage(Agent& agent) {
    const agent::Progress& at = agent.process->progress();
    if (at.recoverable_until() == agent.covered_until) return;
    agent.covered_until = at.recoverable_until();
    const bool is_alone = !agents_.front()->process || !agents_.back()->process;
    if (followed_ && is_alone && agent.process->capture().connected())
        fail_if(Oracle::check_covered(*followed_, agent.covered_until, at.flushed_lsn()));
}

void World::start(Agent& agent) {
    agent.start_is_due = false;
    if (agent.process || !outcome_.broken.empty()) return;
    if (agent.is_rival && is_told_) return;
    ++outcome_.restarts;
    try {
        auto started = Process::start(files_, *master_, time_, random_, network_, options_);
        if (files_.is_frozen) throw Crash();
        if (started) {
            note(agent.name + " starts");
            agent.process = std::move(*started);
            return;
        }
        const Error& error = started.error();
        note(agent.name + " cannot start: " + error.message);
        const bool passes = error.code == Errc::busy || error.code == Errc::io ||
                            error.code == Errc::no_space || error.code == Errc::unavailable;
        if (!passes) fail_if(agent.name + " cannot start: " + error.message);
        if (!agent.is_rival) start_later(agent);
    } catch (const Crash&) {
        crash(agent);
    }
}

void World::start_later(Agent& agent) {
    if (agent.start_is_due) return;
    agent.start_is_due = true;
    later(50, 3000, [this, &agent] { start(agent); });
}

void World::end(Agent& agent, const std::string& why) {
    note(agent.name + ": " + why);
    agent.process.reset();
    if (agent.is_rival)
        start_later(*agents_.front());
    else
        start_later(agent);
}

// kill -9, or the machine with it.
void World::crash(Agent& agent) {
    note(agent.name + " crashes");
    files_.crash_in = 0;
    if (power_goes_with_crash_) return cut_power();
    agent.process.reset();
    files_.is_frozen = false;
    if (index_goes_with_crash_) indexes_.lose_all();
    start_later(agent);
}

void World::cut_power() {
    note("the power is cut");
    for (const auto& agent : agents_)
        agent->process.reset();
    files_.is_frozen = false;
    files_.cut_power(random_);
    indexes_.cut_power(random_);
    start_later(*agents_.front());
}

void World::take_status(Session& session, Lsn flushed) {
    if (session.server->slot && !session.server->slot->is_lost)
        session.server->slot->restart_lsn = flushed;
    if (flushed == session.acknowledged_lsn) return;
    note("server " + std::to_string(session.server->number) + " is told " + to_string(flushed));
    fail_if(oracle_->take_promise(session, flushed));
    session.acknowledged_lsn = flushed;
    followed_ = session.branch;
    if (random_.one_in(12))
        check_image(
            random_.one_in(2) ? SimulatedFiles::Cut::everything_lost : SimulatedFiles::Cut::drawn,
            false);
}

void World::check_image(SimulatedFiles::Cut cut, bool everything) {
    ++outcome_.checks;
    auto image = files_.after_power_cut(cut, random_);
    const std::string broken = oracle_->check(*image, everything);
    fail_if(broken.empty() ? "" : "after a power cut now: " + broken);
}

World::Agent* World::running_agent() {
    for (const auto& agent : agents_)
        if (agent->process) return agent.get();
    return nullptr;
}

// Nothing befalls them any more: then the agent follows the server to its end.
void World::settle() {
    note("the story is told");
    is_told_ = true;
    loses_connections_ = false;
    files_.crash_in = files_.fail_sync_in = files_.fail_directory_in = files_.fail_write_in = 0;
    files_.capacity_bytes = ~std::uint64_t{0};
    indexes_.fail_commit_in = 0;
    check_image(SimulatedFiles::Cut::drawn, true);
    if (!target_->is_up || target_->in_recovery) {
        Server* primary = some_server(false);
        target_->break_sessions();
        if (primary != nullptr) target_ = primary;
    }
    if (target_->in_recovery) {
        target_->promote(next_branch_++, target_->branch->timeline + 1);
        oracle_->add_branch(target_->branch);
    }
    target_->is_up = true;
    for (int i = 0; i < 3; ++i)
        target_->branch->add_rows(random_);
    target_->branch->add_commit(time_.now());
    target_->flush(random_, true);
    if (running_agent() == nullptr) start(*agents_.front());
    run_until(time_.steady_now() + 90s);
    if (!outcome_.broken.empty()) return;
    Agent* agent = running_agent();
    if (agent == nullptr) return fail_if("no agent runs at the end");
    const agent::Progress& progress = agent->process->progress();
    if (progress.acknowledged_lsn() != target_->flushed_lsn)
        fail_if("the server has " + to_string(target_->flushed_lsn) + " at the end, and was told " +
                to_string(progress.acknowledged_lsn()) + " (" +
                agent->process->capture().last_error() + ")");
}

void World::finish() {
    Agent* agent = running_agent();
    if (random_.one_in(2)) {
        agent->process->stop();
        for (int i = 0; i < 100'000 && agent->process; ++i) {
            if (step()) continue;
            auto next = time_.next_at();
            if (auto at = agent->process->ready_at(); at && (!next || *at < *next)) next = at;
            if (!next) break;
            time_.advance_to(*next);
            time_.run_due();
        }
    }
    for (const auto& each : agents_)
        each->process.reset();
    check_image(SimulatedFiles::Cut::everything_lost, true);
}

}  // namespace walvault::simulation
