// JournalStage: a repository of its own in which a journal was begun.
#pragma once

#include "tests/support/stored_journal.h"
#include "tests/unit/storage/stage.h"

namespace walvault::storage {

struct JournalStage : Stage {
    std::unique_ptr<Repository> repository;
    JournalKeeper keeper;

    JournalStage() : repository(created()), keeper(*repository) { must(keeper.begin()); }

private:
    std::unique_ptr<Repository> created() {
        create();
        return must(open());
    }
};

}  // namespace walvault::storage
