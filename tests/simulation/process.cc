#include "tests/simulation/process.h"

namespace walvault::simulation {

Result<std::unique_ptr<Process>> Process::start(FileSystem& files, const storage::MasterKey& master,
                                                const VirtualTime& time, Random& random,
                                                Network& network, const ProcessOptions& options) {
    storage::RepositoryOptions opening;
    opening.host = "simulated";
    opening.version = "simulated";
    opening.wal_level = options.repo.wal_level;
    opening.index_home = options.index_home;
    WV_TRY(auto repository, storage::Repository::open(files, options.root, master, time, opening));
    std::unique_ptr<Process> process(
        new Process(std::move(repository), time, random, network, options));
    auto known = process->repository_->current_history(options.server.name);
    if (known && *known) process->progress_->reset(**known, (*known)->end_lsn);
    return process;
}

Process::Process(std::unique_ptr<storage::Repository> repository, const VirtualTime& time,
                 Random& random, Network& network, const ProcessOptions& options)
    : work_(loop_.get_executor()),
      cpu_(loop_, time, random, 2),
      tail_(loop_, time, random, 1),
      store_(loop_, time, random, 1),
      backup_(loop_, time, random, 1),
      pools_{.waited_for = Pool(tail_.executor()),
             .cpu = Pool(cpu_.executor()),
             .tail = Pool(tail_.executor()),
             .store = Pool(store_.executor()),
             .backup = Pool(backup_.executor())},
      repository_(std::move(repository)),
      metrics_(registry_, options.server, "primary"),
      progress_(std::make_unique<agent::Progress>(loop_.get_executor())) {
    // No draw: the seeds of seeds.txt stay what they were.
    pools_.flushes_here = time.now().time_since_epoch().count() % 2 == 0;
    for (JobQueue* queue : {&cpu_, &tail_, &store_})
        queue->set_slowest(options.slowest_job);
    auto attach = [this, &network](wal::Receiver::Options wanted, const Clock&) {
        return attach_simulated(network, loop_.get_executor(), std::move(wanted));
    };
    capture_ =
        std::make_unique<agent::Capture>(loop_.get_executor(), pools_, *repository_, *progress_,
                                         metrics_, time, options.server, options.repo, attach);
    capture_->set_synchronous(options.is_synchronous);
    asio::co_spawn(loop_, capture_->run(false), [this](std::exception_ptr failed, Result<> result) {
        if (failed) std::rethrow_exception(failed);  // a crash where a job ran on the loop
        ended_ = std::move(result);
    });
}

Process::~Process() {
    // Coroutines end with what holds them: jobs, and then the loop's timers and handlers.
    for (JobQueue* queue : {&cpu_, &tail_, &store_, &backup_})
        queue->clear();
    capture_.reset();
    progress_.reset();
    for (JobQueue* queue : {&cpu_, &tail_, &store_, &backup_})
        queue->clear();
    repository_.reset();
}

bool Process::step(Random& random) {
    std::array<JobQueue*, 4> ready{};
    std::size_t count = 0;
    for (JobQueue* queue : {&cpu_, &tail_, &store_, &backup_})
        if (queue->is_ready()) ready[count++] = queue;
    const std::uint64_t choice = random.below(count + 2);
    if (choice < count) {
        ready[choice]->run_one();
        return true;
    }
    if (loop_.poll_one() > 0) return true;
    if (count == 0) return false;
    ready[random.below(count)]->run_one();
    return true;
}

std::optional<SteadyTime> Process::ready_at() const {
    std::optional<SteadyTime> first;
    for (const JobQueue* queue : {&cpu_, &tail_, &store_, &backup_})
        if (auto at = queue->ready_at(); at && (!first || *at < *first)) first = at;
    return first;
}

}  // namespace walvault::simulation
