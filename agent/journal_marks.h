// What the row journals know of transactions that WAL alone only guesses at: which tables, how many
// rows of each, which TRUNCATE, and which DDL where its event trigger is installed.
//
// Reads footers, and the batches that they name. A journal that cannot be read takes nothing away
// from what WAL tells: it is noted, and asked no more.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/ddl_mark.h"
#include "agent/journal_set.h"

namespace walvault::agent {

struct MarkedTable {
    std::string name;  // as it is called last
    storage::TableChanges changes;
};

struct JournalMark {
    storage::JournalTransaction transaction;
    std::string database;
    std::vector<MarkedTable> tables;  // the ones with most rows first
    std::vector<DdlMark> ddl;         // in the order of the statements: the first kDdlMax
    std::uint64_t ddl_count = 0;
    std::size_t ddl_bytes = 0;  // that `ddl` holds
    storage::TableChanges sum() const;
};

class JournalMarks {
public:
    // Of a transaction so many statements are kept.
    static constexpr std::size_t kDdlMax = 100;  // fewer where they are large

    // All journals of the server; `opened` outlives it.
    explicit JournalMarks(OpenedView& opened);

    // Nothing is journaled, or nothing of it can be read.
    bool is_empty() const { return journals_.empty(); }

    struct Wanted {
        WallTime since{};
        WallTime until{};  // zero: no limit
        bool bulk = false;
        bool truncated = false;
        bool ddl = false;
        bool all_messages = false;   // for DDL, however many messages there are
        std::uint64_t rows_min = 0;  // that make a transaction a bulk change
        std::uint64_t limit = 0;
    };
    using Commits = std::vector<storage::JournalTransaction>;
    // The newest `limit` of each kind wanted, of each journal. `more`: there are earlier ones.
    Commits find(const Wanted& wanted, bool& more);

    // What is known of these commits, by the LSN of the commit record. One of which nothing is
    // known changed nothing that is journaled, or lies where a journal has nothing.
    std::map<Lsn, JournalMark> describe(Commits commits);
    // Notes where in this time a journal has nothing: gaps, what lies before its begin, and behind
    // its end. `until`: zero for no limit.
    void look_at_range(WallTime since, WallTime until, WallTime now);
    bool has_several_databases() const;

    // For people, each once.
    const std::vector<std::string>& notes() const { return notes_; }

private:
    void note(const std::string& text);
    Result<> open_all();
    // Without those that cannot be read.
    void each_journal(const std::function<Result<>(OpenedJournal&)>& ask);
    Result<> note_missing(const OpenedJournal& journal, WallTime since, WallTime until,
                          WallTime now);

    OpenedView& opened_;
    std::vector<OpenedJournal> journals_;
    std::vector<std::string> notes_;
};

// "truncated public.a, public.b; deleted 5 000 rows of public.orders": fit for a terminal. Empty
// where nothing is known.
std::string mark_text(const JournalMark& mark);
// {"database","tables":[{"table","inserted_rows","updated_rows","deleted_rows","truncated"}],
// "ddl":[…],"ddl_count"}.
nlohmann::ordered_json mark_json(const JournalMark& mark);

}  // namespace walvault::agent
