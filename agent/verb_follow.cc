#include <poll.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "agent/journal_answer.h"
#include "agent/journal_set.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;
using storage::JournalChange;
using storage::JournalTransaction;

// The repository is looked at again after this, while nothing new comes.
constexpr int kFirstPauseMs = 200;
constexpr int kLongestPauseMs = 2000;

Result<> flush() {
    if (std::ferror(stdout) != 0 || std::fflush(stdout) != 0)
        return fail(Errc::io, "the answer could not be written: nobody reads it any more");
    return {};
}

class Follower {
public:
    Follower(const Globals& globals, const FollowArguments& arguments)
        : globals_(globals), arguments_(arguments) {}

    Result<> run() {
        WV_CHECK(begin());
        for (int pause = kFirstPauseMs;;) {
            WV_TRY(const bool moved, look());
            if (moved) {
                pause = kFirstPauseMs;
                continue;
            }
            if (arguments_.until_idle) return {};
            ::poll(nullptr, 0, pause);
            pause = std::min(2 * pause, kLongestPauseMs);
        }
    }

private:
    Result<> begin() {
        if (arguments_.from_lsn.empty()) {
            WV_TRY(OpenedView opened, open_view(globals_));
            WV_TRY(JournalSet set, open_journals(opened, arguments_.database));
            at_ = set.whole_until();
            return {};
        }
        auto lsn = parse_lsn(arguments_.from_lsn);
        if (!lsn) return fail_while("--from-lsn", lsn.error());
        at_ = *lsn;
        return {};
    }

    // Prints what is there behind at_. False: nothing was.
    Result<bool> look() {
        WV_TRY(OpenedView opened, open_view(globals_));
        WV_TRY(JournalSet set, open_journals(opened, arguments_.database));
        WV_CHECK(go_back(set));
        std::vector<OpenedJournal*> journals;
        storage::JournalQuery query{.from = at_, .to = set.whole_until()};
        WV_CHECK(choose(set, journals, query));
        if (query.from >= query.to) return false;
        for (const OpenedJournal* journal : journals)
            WV_CHECK(tell_gaps(*journal, query));
        storage::JournalSink sink;
        sink.on_begin = [this](const JournalTransaction& transaction) -> Result<bool> {
            if (begun_ && begun_->end_lsn != transaction.end_lsn) WV_CHECK(print_commit());
            begun_ = transaction;
            return true;
        };
        sink.on_change = [this](const JournalTransaction& transaction,
                                const JournalChange& change) { return print(transaction, change); };
        WV_CHECK(read_merged(journals, query, sink));
        WV_CHECK(print_commit());
        at_ = query.to;
        return true;
    }

    // Where the server went another way, what was printed of the one it left is no part of the
    // journal any more: from where they part on it is told again.
    Result<> go_back(const JournalSet& set) {
        const bool is_first = !known_ways_;
        const bool is_given = is_first && !arguments_.from_lsn.empty();
        std::set<std::pair<Lsn, Lsn>> ways;
        Lsn from = at_;
        for (const OpenedJournal& journal : set.journals)
            for (const auto& gap : journal.gaps) {
                if (gap.left_end_lsn() == 0) continue;
                const Lsn left{gap.from_lsn()}, goes_on{gap.to_lsn()}, end{gap.left_end_lsn()};
                if (is_given && goes_on < at_ && at_ <= end)
                    return fail(Errc::ambiguous,
                                "LSN " + to_string(at_) +
                                    " was on two ways: the server left one at " + to_string(left) +
                                    " and went on with another",
                                "--from-lsn " + to_string(left) +
                                    " for all of the one that it is on, told again where it was");
                ways.emplace(left, goes_on);
                if (!is_first && !known_ways_->contains({left, goes_on}))
                    from = std::min(from, left);
            }
        known_ways_ = std::move(ways);
        at_ = from;
        return {};
    }

    Result<> choose(JournalSet& set, std::vector<OpenedJournal*>& journals,
                    storage::JournalQuery& query) {
        if (arguments_.table.empty()) {
            for (OpenedJournal& journal : set.journals)
                journals.push_back(&journal);
            return {};
        }
        WV_TRY(auto places, find_table(set, arguments_.table));
        for (TablePlace& place : places) {
            journals.push_back(place.journal);
            for (const auto& table : place.tables)
                query.tables.insert(table.oid);
        }
        return {};
    }

    Result<> tell_gaps(const OpenedJournal& journal, const storage::JournalQuery& query) {
        for (const auto& gap : gaps_within(journal.gaps, query.from, query.to)) {
            Json json{{"type", "gap"}};
            json.update(gap_json(gap));
            WV_CHECK(put_text(json_line(json)));
        }
        return flush();
    }

    Result<bool> print(const JournalTransaction& transaction, const JournalChange& change) {
        WV_TRY(const ChangeRecord record, change_record(transaction, change));
        Json json{{"type", "change"}};
        json.update(change_json(record));
        WV_CHECK(put_text(json_line(json)));
        return true;
    }

    // Behind the last change of a transaction, whichever journals have a part of it: whoever read
    // this line goes on behind its end_lsn.
    Result<> print_commit() {
        if (!begun_) return {};
        Json json{{"type", "commit"}};
        json.update(transaction_json(*begun_));
        begun_.reset();
        WV_CHECK(put_text(json_line(json)));
        return flush();
    }

    const Globals& globals_;
    const FollowArguments& arguments_;
    std::optional<JournalTransaction> begun_;
    Lsn at_;  // everything up to it was printed
    // Where the server was seen to go another way; nothing before the first look.
    std::optional<std::set<std::pair<Lsn, Lsn>>> known_ways_;
};

}  // namespace

int verb_follow(const Globals& globals, const FollowArguments& arguments) {
    if (auto done = Follower(globals, arguments).run(); !done) return report(globals, done.error());
    return kExitDone;
}

}  // namespace walvault::agent
