// World: one seed: servers, agents, a disk and a network, what befalls them, and what must hold.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/files.h"
#include "tests/simulation/index_home.h"
#include "tests/simulation/oracle.h"
#include "tests/simulation/process.h"
#include "tests/simulation/secrets.h"

namespace walvault::simulation {

struct Outcome {
    std::string broken;  // empty: all held
    std::string log;     // what happened, with virtual times; only where it was asked for
    std::uint64_t log_hash = 0;
    std::uint64_t steps = 0;
    std::uint64_t checks = 0;
    std::uint64_t restarts = 0;
    std::uint64_t histories = 0;
    std::uint64_t gaps = 0;
};

class World {
public:
    World(std::uint64_t seed, bool keeps_log);
    ~World();
    Outcome run();

private:
    struct Agent {
        std::string name;
        std::unique_ptr<Process> process;
        bool is_rival = false;  // is to be refused as long as the other one runs
        bool start_is_due = false;
        WallTime covered_until{};
    };
    struct Action {
        const char* name;
        unsigned weight;
        bool (World::*act)();  // false: there was nothing to do it to
        bool is_fault;
    };
    static const std::vector<Action>& actions();

    void note(const std::string& what);
    void set_up();
    void add_server(bool in_recovery);
    void run_until(SteadyTime until);
    bool step();
    void act_and_plan_next();
    void settle();
    void finish();

    void start(Agent& agent);
    void start_later(Agent& agent);
    void end(Agent& agent, const std::string& why);
    void look_at(Agent& agent);
    void look_at_coverage(Agent& agent);
    void crash(Agent& agent);
    void cut_power();
    void take_status(Session& session, Lsn flushed);
    void check_image(SimulatedFiles::Cut cut, bool everything);
    void fail_if(const std::string& broken);
    Agent* running_agent();
    Server* some_server(bool in_recovery);
    Lsn limit() const { return Lsn{6 * WalBuilder::kSegmentBytes}; }
    void later(std::uint64_t least_ms, std::uint64_t most_ms, std::function<void()> call);
    void replicate(Server& standby);

    // What befalls the servers.
    bool write();
    bool write_a_lot();
    bool switch_segment();
    bool take_checkpoint();
    bool lose_slot();
    bool drop_slot();
    bool crash_server();
    bool shut_server_down();
    bool cut_connection();
    bool lag();
    bool add_standby();
    bool fail_over();
    bool change_target();
    bool roll_back();
    // What befalls the agent and its machine.
    bool kill_agent();
    bool cut_machine();
    bool crash_soon();
    bool restart_agent();
    bool start_rival();
    bool fill_disk();
    bool fail_sync();
    bool fail_directory_sync();
    bool fail_write();
    bool fail_index();
    bool lose_index();

    std::uint64_t seed_;
    bool keeps_log_;
    Random random_;
    SeededSecrets secrets_;
    VirtualTime time_;
    SteadyTime began_ = time_.steady_now();
    SimulatedFiles files_;
    SimulatedIndexes indexes_;
    std::optional<storage::MasterKey> master_;
    std::optional<Oracle> oracle_;
    Network network_;
    ProcessOptions options_;
    std::vector<std::unique_ptr<Server>> servers_;
    Server* target_ = nullptr;
    std::shared_ptr<const Branch> followed_;  // of the connection that was told something last
    std::vector<std::unique_ptr<Agent>> agents_;
    std::vector<const Action*> story_;
    unsigned next_branch_ = 1;
    bool loses_connections_ = false;
    bool is_told_ = false;  // the story is over
    bool power_goes_with_crash_ = false;
    bool index_goes_with_crash_ = false;
    Outcome outcome_;
};

}  // namespace walvault::simulation
