// ThawJob: has a store thaw what a restore needs, waits for it, and keeps it thawed meanwhile.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "agent/config.h"
#include "agent/progress_line.h"
#include "agent/thaw_needs.h"
#include "agent/thaw_record.h"
#include "storage/object_store.h"

namespace walvault::agent {

// What is asked of the store is noted in a record first and afterwards, so that another job with
// the same record neither asks for agreement nor pays for an object twice. One thread.
class ThawJob {
public:
    struct Options {
        ArchiveConfig archive;
        std::string record_path;
        FileSystem* files = &posix_file_system();
        const Clock* clock = &system_clock();
        // Returns when so much time is over; tests move their clock instead.
        std::function<void(std::chrono::milliseconds)> wait;
    };
    // The store has an archive() and outlives the job. Reads the record. Errors: refused if it is
    // of another repository; as read_thaw_record().
    static Result<std::unique_ptr<ThawJob>> open(storage::ObjectStore& store, Options options);
    ~ThawJob();

    // False: no object of the store is of a class that may be archived. Lists the store once.
    Result<bool> has_archived_objects();
    // Sizes and states of these as they are now. Errors: as the store's.
    Result<storage::ThawPlan> look(const ThawNeeds& needs);
    // Whether all that the plan would ask for was agreed to, and is not asked for a second time.
    bool is_agreed(const storage::ThawPlan& plan) const;
    // Notes that it is. `repository` in hex.
    Result<> agree(const storage::ThawPlan& plan, const std::string& repository);
    // Asks for what was agreed to and returns when all of it and all that was thawing can be read.
    // Errors: archived if a copy went before it was used; as the store's. What was asked for stays
    // asked for.
    Result<> thaw(const storage::ThawPlan& plan, ProgressLine& progress);
    // Copies that would go soon stay longer, from now on until the keeper is destroyed. By a thread
    // of its own; what fails is logged.
    class Keeper {
    public:
        virtual ~Keeper() = default;
    };
    Result<std::unique_ptr<Keeper>> keep();
    // The restore is done: the record goes.
    Result<> finish();

private:
    struct State;
    explicit ThawJob(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

// Sleeps; for ThawJob::Options::wait.
void wait_on_machine(std::chrono::milliseconds time);

}  // namespace walvault::agent
