// Process: one run of the agent, from opening the repository to its end, by itself or by a crash.
#pragma once

#include <memory>
#include <optional>

#include "agent/capture.h"
#include "base/metrics.h"
#include "tests/simulation/receiver.h"

namespace walvault::simulation {

struct ProcessOptions {
    std::string root;
    agent::ServerConfig server;
    agent::RepoConfig repo;
    storage::IndexHome* index_home = nullptr;
    Duration slowest_job{};
    bool is_synchronous = false;
};

class Process {
public:
    // Errors: as Repository::open; what run_agent() would end with. May throw Crash.
    static Result<std::unique_ptr<Process>> start(FileSystem& files,
                                                  const storage::MasterKey& master,
                                                  const VirtualTime& time, Random& random,
                                                  Network& network, const ProcessOptions& options);
    // What was not done never is: as kill -9.
    ~Process();

    // Runs one handler or job; false where none can run now. May throw Crash.
    bool step(Random& random);
    // When a job that waits for the disk goes on.
    std::optional<SteadyTime> ready_at() const;
    // As SIGTERM: drains, and ends by itself.
    void stop() { capture_->stop(); }
    // How it ended; nothing: it runs.
    const std::optional<Result<>>& ended() const { return ended_; }

    const agent::Progress& progress() const { return *progress_; }
    agent::Capture& capture() { return *capture_; }
    storage::Repository& repository() { return *repository_; }

private:
    Process(std::unique_ptr<storage::Repository> repository, const VirtualTime& time,
            Random& random, Network& network, const ProcessOptions& options);

    asio::io_context loop_{1};
    asio::executor_work_guard<asio::io_context::executor_type> work_;
    JobQueue cpu_, tail_, store_, backup_;
    agent::Pools pools_;
    std::unique_ptr<storage::Repository> repository_;
    Metrics registry_;
    agent::AgentMetrics metrics_;
    std::unique_ptr<agent::Progress> progress_;
    std::unique_ptr<agent::Capture> capture_;
    std::optional<Result<>> ended_;
};

}  // namespace walvault::simulation
