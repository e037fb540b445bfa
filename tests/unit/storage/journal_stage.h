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

// Of the newest view's journal of that class.
inline JournalReader reader_of(RepositoryView& view, const std::string& data_class = {}) {
    for (const JournalRecord& journal : must(view.journals("main")))
        if (journal.data_class == data_class) return must(JournalReader::open(view, journal));
    FAIL("no such journal");
    std::abort();
}

}  // namespace walvault::storage
