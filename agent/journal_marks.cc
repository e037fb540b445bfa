#include "agent/journal_marks.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/journal_moment.h"
#include "agent/journal_text.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;
using storage::JournalQuery;
using storage::JournalTransaction;
using storage::TableChanges;
using Kind = JournalRecordKind;

// Commits that lie nearer to one another than this are asked for together.
constexpr std::uint64_t kNearBytes = 4_MiB;
constexpr std::size_t kShownPhrases = 4;
// An agent that runs stores the end of an idle journal every 10 s: so much behind is nothing to
// tell.
constexpr std::chrono::seconds kFollowsWithin{15};
constexpr std::size_t kDdlBytesMax = 64_KiB;  // of the statements that are kept of a transaction
// Messages are looked through for DDL in so many stretches of WAL with some; a stretch is about a
// batch.
constexpr std::uint64_t kWindowBytes = 1_MiB;
constexpr std::uint64_t kWindowsMax = 256;

// Zero where nothing can be read at its end.
WallTime last_commit_in(const OpenedJournal& journal) {
    WallTime at{};
    storage::JournalSink sink;
    sink.on_begin = [&at](const JournalTransaction& transaction) {
        at = transaction.at;
        return Result<bool>(false);
    };
    const JournalQuery query{.order = storage::JournalOrder::backward};
    return journal.reader->read(query, sink) ? at : WallTime{};
}

// Takes the newest transactions of a range; says when there are enough.
class Newest {
public:
    Newest(JournalMarks::Commits& found, std::uint64_t limit) : found_(found), limit_(limit) {}
    // False: there was one more than that.
    bool take(const JournalTransaction& transaction) {
        is_full_ = taken_ == limit_;
        if (is_full_) return false;
        ++taken_;
        found_.push_back(transaction);
        return true;
    }
    bool is_full() const { return is_full_; }

private:
    JournalMarks::Commits& found_;
    std::uint64_t limit_;
    std::uint64_t taken_ = 0;
    bool is_full_ = false;
};

// Calls `ask` for each part of the range that no gap lies in, the last one first, until it has
// enough.
Result<> each_stretch_backward(const OpenedJournal& journal, JournalQuery query,
                               const Newest& newest,
                               const std::function<Result<>(const JournalQuery&)>& ask) {
    query.order = storage::JournalOrder::backward;
    auto stretches = stretches_between(journal.gaps, query.from, journal.record.whole_until_lsn);
    std::reverse(stretches.begin(), stretches.end());
    for (const auto& stretch : stretches) {
        if (newest.is_full()) break;
        query.from = stretch.from;
        query.to = stretch.to;
        WV_CHECK(ask(query));
    }
    return {};
}

Result<> find_counted(OpenedJournal& journal, const JournalMarks::Wanted& wanted, bool truncated,
                      JournalMarks::Commits& found, bool& more) {
    JournalQuery query{.from = Lsn{}, .since = wanted.since, .until = wanted.until};
    query.kinds = truncated ? std::set{Kind::truncated}
                            : std::set{Kind::inserted, Kind::updated, Kind::deleted};
    Newest newest(found, wanted.limit);
    WV_CHECK(each_stretch_backward(journal, query, newest, [&](const JournalQuery& part) {
        return journal.reader->summarize(part, truncated ? 0 : wanted.rows_min,
                                         [&](const storage::JournalSummary& summary) {
                                             return Result<bool>(newest.take(summary.transaction));
                                         });
    }));
    more = more || newest.is_full();
    return {};
}

// Where there are many messages of others, it stops looking unless all are asked for: false then.
Result<bool> find_ddl(OpenedJournal& journal, const JournalMarks::Wanted& wanted,
                      JournalMarks::Commits& found, bool& more) {
    JournalQuery query{.from = Lsn{}, .since = wanted.since, .until = wanted.until};
    query.kinds = {Kind::message};
    Newest newest(found, wanted.limit);
    Lsn last_end;  // of the last transaction taken
    std::uint64_t window = ~std::uint64_t{0};
    std::uint64_t windows_seen = 0;
    bool gave_up = false;
    storage::JournalSink sink;
    sink.on_change = [&](const JournalTransaction& transaction, const auto& change) {
        // Where the message is: a transaction may have any number of them.
        const std::uint64_t at = change.lsn.value / kWindowBytes;
        if (window != at) ++windows_seen;
        window = at;
        gave_up = !wanted.all_messages && windows_seen > kWindowsMax;
        if (gave_up) return Result<bool>(false);
        if (change.name != kDdlPrefix || transaction.end_lsn == last_end) return Result<bool>(true);
        last_end = transaction.end_lsn;
        return Result<bool>(newest.take(transaction));
    };
    WV_CHECK(each_stretch_backward(journal, query, newest, [&](const JournalQuery& part) {
        return gave_up ? Result<>{} : journal.reader->read(part, sink);
    }));
    more = more || newest.is_full();
    return !gave_up;
}

std::string table_name(const OpenedJournal& journal, std::uint32_t oid) {
    const auto found =
        std::ranges::lower_bound(journal.tables, oid, {}, &storage::JournalTableRecord::oid);
    if (found == journal.tables.end() || found->oid != oid) return "oid:" + std::to_string(oid);
    return table_text(found->schema, found->name);
}

// Fills in what one journal knows of the commits that it is asked for.
class Describing {
public:
    Describing(OpenedJournal& journal, std::map<Lsn, JournalMark>& known)
        : journal_(journal), known_(known) {}

    // Commits that lie near one another, in the order of their ends.
    Result<> ask(std::span<const JournalTransaction> commits) {
        wanted_ = commits;
        JournalQuery query{.from = Lsn{commits.front().end_lsn.value - 1}};
        if (commits.size() == 1) query.xid = commits.front().xid;
        const Lsn to = std::min(commits.back().end_lsn, journal_.record.whole_until_lsn);
        for (const auto& stretch : stretches_between(journal_.gaps, query.from, to)) {
            query.from = stretch.from;
            query.to = stretch.to;
            query.kinds = {Kind::inserted, Kind::updated, Kind::deleted, Kind::truncated};
            WV_CHECK(journal_.reader->summarize(query, 0, [this](const auto& summary) {
                if (JournalMark* mark = mark_of(summary.transaction)) add_tables(*mark, summary);
                return Result<bool>(true);
            }));
        }
        for (const JournalTransaction& commit : commits)
            WV_CHECK(ask_for_ddl(commit, to));
        return {};
    }

    // It looked no further than so many stretches of WAL with messages of one transaction.
    bool gave_up() const { return gave_up_; }

private:
    Result<> ask_for_ddl(const JournalTransaction& commit, Lsn to) {
        JournalQuery query{.from = Lsn{commit.end_lsn.value - 1},
                           .to = std::min(commit.end_lsn, to)};
        query.kinds = {Kind::message};
        query.xid = commit.xid;
        if (query.from >= query.to || !gaps_within(journal_.gaps, query.from, query.to).empty())
            return {};
        std::uint64_t window = ~std::uint64_t{0};
        std::uint64_t windows_seen = 0;
        storage::JournalSink sink;
        sink.on_change = [&](const auto& transaction, const auto& change) {
            if (std::exchange(window, change.lsn.value / kWindowBytes) !=
                change.lsn.value / kWindowBytes)
                ++windows_seen;
            gave_up_ = gave_up_ || windows_seen > kWindowsMax;
            if (windows_seen > kWindowsMax) return Result<bool>(false);
            if (change.name != kDdlPrefix) return Result<bool>(true);
            if (JournalMark* mark = mark_of(transaction)) add_ddl(*mark, change);
            return Result<bool>(true);
        };
        return journal_.reader->read(query, sink);
    }

    JournalMark* mark_of(const JournalTransaction& transaction) {
        const auto at = std::ranges::equal_range(wanted_, transaction.commit_lsn, {},
                                                 &JournalTransaction::commit_lsn);
        if (std::ranges::find(at, transaction.xid, &JournalTransaction::xid) == at.end())
            return nullptr;
        JournalMark& mark = known_[transaction.commit_lsn];
        mark.transaction = transaction;
        mark.database = journal_.record.database;
        return &mark;
    }

    // A table that was dropped and made again counts as one.
    void add_tables(JournalMark& mark, const storage::JournalSummary& summary) {
        std::map<std::string, TableChanges> by_name;
        for (const auto& [oid, changes] : summary.tables)
            by_name[table_name(journal_, oid)] += changes;
        for (const auto& [name, changes] : by_name)
            mark.tables.push_back({name, changes});
    }

    void add_ddl(JournalMark& mark, const storage::JournalChange& change) {
        ++mark.ddl_count;
        if (mark.ddl.size() >= JournalMarks::kDdlMax || mark.ddl_bytes >= kDdlBytesMax) return;
        mark.ddl.push_back(read_ddl_mark(as_text(change.content)));
        mark.ddl_bytes += mark.ddl.back().held_bytes();
    }

    OpenedJournal& journal_;
    std::map<Lsn, JournalMark>& known_;
    std::span<const JournalTransaction> wanted_;
    bool gave_up_ = false;
};

void add_phrase(std::vector<std::pair<std::uint64_t, std::string>>& phrases, const char* done,
                std::uint64_t rows, const std::string& table) {
    if (rows == 0) return;
    phrases.emplace_back(rows, std::string(done) + " " + format_count(rows) +
                                   (rows == 1 ? " row of " : " rows of ") + printable(table));
}

// The first ones, joined by commas, and how many more there are.
std::string list_text(const std::vector<std::string>& all) {
    std::string text;
    for (std::size_t i = 0; i < all.size() && i < kShownPhrases; ++i)
        text += (i > 0 ? ", " : "") + all[i];
    if (all.size() > kShownPhrases)
        text += " and " + format_count(all.size() - kShownPhrases) + " more";
    return text;
}

std::string rows_text(const JournalMark& mark) {
    std::vector<std::pair<std::uint64_t, std::string>> phrases;
    for (const MarkedTable& table : mark.tables) {
        add_phrase(phrases, "deleted", table.changes.deleted, table.name);
        add_phrase(phrases, "updated", table.changes.updated, table.name);
        add_phrase(phrases, "inserted", table.changes.inserted, table.name);
    }
    std::ranges::stable_sort(phrases, std::greater(), &decltype(phrases)::value_type::first);
    std::vector<std::string> texts;
    for (auto& [rows, text] : phrases)
        texts.push_back(std::move(text));
    return list_text(texts);
}

}  // namespace

TableChanges JournalMark::sum() const {
    TableChanges all;
    for (const MarkedTable& table : tables)
        all += table.changes;
    return all;
}

JournalMarks::JournalMarks(OpenedView& opened) : opened_(opened) {
    if (auto done = open_all(); !done)
        note("which journals there are is not known (" + done.error().message +
             "): what is shown is told by WAL alone");
}

Result<> JournalMarks::open_all() {
    WV_TRY(const auto records, opened_.view->journals(opened_.cluster.name));
    for (const auto& record : records)
        journals_.push_back({.record = record, .reader = nullptr});
    each_journal([&](OpenedJournal& journal) -> Result<> {
        if (journal.record.damage) note(journal.record.damage->message);
        WV_TRY(auto reader, storage::JournalReader::open(*opened_.view, journal.record));
        journal.reader = std::make_unique<storage::JournalReader>(std::move(reader));
        WV_TRY(journal.tables, journal.reader->tables());
        WV_TRY(journal.gaps, journal.reader->gaps());
        return {};
    });
    return {};
}

void JournalMarks::note(const std::string& text) {
    if (std::ranges::find(notes_, text) == notes_.end()) notes_.push_back(text);
}

void JournalMarks::each_journal(const std::function<Result<>(OpenedJournal&)>& ask) {
    std::vector<OpenedJournal> readable;
    for (OpenedJournal& journal : journals_) {
        if (auto done = ask(journal); done)
            readable.push_back(std::move(journal));
        else
            note("the journal of database " + journal.record.database + " cannot be read (" +
                 done.error().message + "): WAL alone tells what it would know");
    }
    journals_ = std::move(readable);
}

JournalMarks::Commits JournalMarks::find(const Wanted& wanted, bool& more) {
    Commits found;
    each_journal([&](OpenedJournal& journal) -> Result<> {
        if (wanted.bulk) WV_CHECK(find_counted(journal, wanted, false, found, more));
        if (wanted.truncated) WV_CHECK(find_counted(journal, wanted, true, found, more));
        if (!wanted.ddl) return {};
        WV_TRY(const bool is_whole, find_ddl(journal, wanted, found, more));
        if (!is_whole)
            note("the journal of database " + journal.record.database +
                 " has many messages: DDL was looked for in the newest of them; --kind ddl looks "
                 "at all");
        return {};
    });
    return found;
}

bool JournalMarks::has_several_databases() const {
    return std::ranges::any_of(journals_, [&](const OpenedJournal& journal) {
        return journal.record.database != journals_.front().record.database;
    });
}

// What of the time asked for is in no journal: what lies there is told by WAL alone.
Result<> JournalMarks::note_missing(const OpenedJournal& journal, WallTime since, WallTime until,
                                    WallTime now) {
    const storage::JournalRecord& record = journal.record;
    if (!record.data_class.empty()) return {};  // the main journal says it for all
    const std::string which = "the journal of database " + record.database;
    for (const auto& gap : journal.gaps) {
        const bool is_before = gap.to_at_us() != 0 && WallTime(Micros(gap.to_at_us())) < since;
        const bool is_behind = until != WallTime{} && gap.from_at_us() != 0 &&
                               WallTime(Micros(gap.from_at_us())) > until;
        if (!is_before && !is_behind) note(which + ": " + gap_text(gap, opened_.zone));
    }
    WV_TRY(const auto history, opened_.view->current_history(opened_.cluster.name));
    if (!history) return {};
    WV_TRY(const auto first, opened_.view->first_transaction_after(*history, since - Micros(1)));
    if (first && first->end_lsn <= record.start_lsn)
        note(which + " begins at LSN " + to_string(record.start_lsn) +
             ": of what is before it WAL alone tells");
    const WallTime known_until = std::max(record.covered_until, last_commit_in(journal));
    const bool ends_inside = until != WallTime{} && until <= known_until;
    if (ends_inside || known_until >= now - kFollowsWithin) return {};
    WV_TRY(const bool behind, opened_.view->has_commit_behind(*history, record.whole_until_lsn));
    if (behind)
        note(which + " has everything up to LSN " + to_string(record.whole_until_lsn) +
             ": of what is behind it WAL alone tells");
    return {};
}

void JournalMarks::look_at_range(WallTime since, WallTime until, WallTime now) {
    each_journal([&](OpenedJournal& journal) { return note_missing(journal, since, until, now); });
}

std::map<Lsn, JournalMark> JournalMarks::describe(Commits commits) {
    std::map<Lsn, JournalMark> known;
    const auto key = [](const JournalTransaction& each) {
        return std::pair{each.commit_lsn, each.xid};
    };
    std::ranges::sort(commits, {}, key);
    const auto same = std::ranges::unique(commits, {}, key);
    commits.erase(same.begin(), same.end());
    each_journal([&](OpenedJournal& journal) -> Result<> {
        // What one tells before it cannot be read any more does not count.
        std::map<Lsn, JournalMark> told = known;
        Describing describing(journal, told);
        for (std::size_t first = 0, last; first < commits.size(); first = last) {
            for (last = first + 1; last < commits.size() &&
                                   commits[last].end_lsn - commits[last - 1].end_lsn < kNearBytes;)
                ++last;
            WV_CHECK(describing.ask(std::span(commits).subspan(first, last - first)));
        }
        if (describing.gave_up())
            note("a transaction in the journal of database " + journal.record.database +
                 " has very many messages: DDL was looked for in the first of them");
        known = std::move(told);
        return {};
    });
    for (auto& [lsn, mark] : known)
        std::ranges::stable_sort(mark.tables, std::greater(),
                                 [](const MarkedTable& table) { return table.changes.rows(); });
    return known;
}

std::string mark_text(const JournalMark& mark) {
    std::string text;
    const auto add_part = [&](const std::string& part) {
        if (!part.empty()) text += (text.empty() ? "" : "; ") + part;
    };
    const auto shown = static_cast<std::ptrdiff_t>(std::min(kShownPhrases, mark.ddl.size()));
    add_part(ddl_text(std::vector(mark.ddl.begin(), mark.ddl.begin() + shown)));
    if (mark.ddl_count > kShownPhrases)
        add_part(format_count(mark.ddl_count - kShownPhrases) + " more statements of DDL");
    std::vector<std::string> truncated;
    for (const MarkedTable& table : mark.tables)
        if (table.changes.truncated > 0) truncated.push_back(printable(table.name));
    if (!truncated.empty()) add_part("truncated " + list_text(truncated));
    add_part(rows_text(mark));
    return text;
}

Json mark_json(const JournalMark& mark) {
    Json json{{"database", mark.database},
              {"tables", Json::array()},
              {"ddl", Json::array()},
              {"ddl_count", mark.ddl_count}};
    for (const MarkedTable& table : mark.tables)
        json["tables"].push_back({{"table", table.name},
                                  {"inserted_rows", table.changes.inserted},
                                  {"updated_rows", table.changes.updated},
                                  {"deleted_rows", table.changes.deleted},
                                  {"truncated", table.changes.truncated > 0}});
    for (const DdlMark& statement : mark.ddl)
        json["ddl"].push_back(ddl_json(statement));
    return json;
}

}  // namespace walvault::agent
