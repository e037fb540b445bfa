#include "agent/journal_set.h"

#include <algorithm>
#include <cstdio>

#include "agent/config_keys.h"
#include "agent/journal_moment.h"
#include "agent/journal_text.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

using storage::JournalQuery;
using storage::JournalSink;
using storage::JournalSummary;
using storage::JournalTransaction;

// Of one journal so many transactions are looked ahead at where several are merged.
constexpr std::size_t kLookAhead = 4096;

Result<std::string> choose_database(const std::vector<storage::JournalRecord>& journals,
                                    const std::string& wanted, const std::string& server) {
    std::vector<std::string> names;
    for (const auto& journal : journals)
        if (std::find(names.begin(), names.end(), journal.database) == names.end())
            names.push_back(journal.database);
    if (names.empty())
        return fail(Errc::not_found, "nothing of " + server + " is journaled",
                    "name databases in [server." + server + ".journal] and restart the agent");
    std::string list;
    for (const std::string& name : names)
        list += (list.empty() ? "" : ", ") + printable(name);
    if (wanted.empty() && names.size() == 1) return names.front();
    if (wanted.empty())
        return fail(Errc::ambiguous, "several databases are journaled: " + list,
                    "say which: --database NAME");
    if (std::find(names.begin(), names.end(), wanted) != names.end()) return wanted;
    return fail(Errc::not_found,
                "database " + printable(wanted) + " is not journaled" +
                    printable(did_you_mean(wanted, names)),
                "journaled are: " + list);
}

// The LSN that a target of a range means: of its begin the last one not in it, of its end the last
// one in it.
Result<Lsn> range_edge(OpenedView& opened, const Target& target, bool is_begin) {
    if (target.kind == Target::Kind::lsn) return target.lsn;
    WV_TRY(auto history, opened.view->current_history(opened.cluster.name));
    if (!history) return fail(Errc::not_found, "no WAL of " + opened.cluster.name + " is stored");
    if (target.kind == Target::Kind::xid) {
        WV_TRY(auto found, opened.view->find_xid(*history, target.xid));
        std::erase_if(found,
                      [](const WalFinding& each) { return each.kind != WalFinding::Kind::commit; });
        const std::string what = "transaction " + std::to_string(target.xid);
        if (found.empty())
            return fail(Errc::not_found, what + " is not in the WAL stored",
                        "give its LSN or time");
        if (found.size() > 1)
            return fail(Errc::ambiguous, what + " committed more than once",
                        "give the LSN: lsn:" + to_string(found.back().start_lsn));
        return is_begin ? found.front().start_lsn : journal_end_of(found.front());
    }
    WV_TRY(auto marks,
           opened.view->lineage_marks(*history, {}, {}, {pb::MarkEntry::RESTORE_POINT}));
    std::erase_if(marks, [&](const auto& mark) { return mark.mark.name() != target.name; });
    const std::string what = "restore point '" + printable(target.name) + "'";
    if (marks.empty()) return fail(Errc::not_found, "there is no " + what, "walvault point --list");
    if (marks.size() > 1)
        return fail(Errc::ambiguous,
                    "there are several restore points of the name " + printable(target.name),
                    "give the LSN: lsn:" + to_string(Lsn{marks.back().mark.start_lsn()}));
    return Lsn{marks.front().mark.start_lsn()};
}

Result<> apply_edge(OpenedView& opened, const std::string& text, const TimeContext& times,
                    bool is_begin, JournalRange& range) {
    WV_TRY(const Target target, parse_target(text, false, times));
    switch (target.kind) {
        case Target::Kind::time:
            (is_begin ? range.since : range.until) = target.at;
            return {};
        case Target::Kind::earliest:
            if (is_begin) return {};
            break;
        case Target::Kind::latest:
            if (!is_begin) return {};
            break;
        case Target::Kind::lsn:
        case Target::Kind::xid:
        case Target::Kind::name: {
            WV_TRY((is_begin ? range.from : range.to), range_edge(opened, target, is_begin));
            return {};
        }
        default:
            break;
    }
    return fail(Errc::invalid_argument,
                "'" + printable(text) + "' says nothing as " + (is_begin ? "--since" : "--until"),
                "a time, lsn:…, xid:… or name:…");
}

struct Upcoming {
    Lsn end_lsn;
    std::size_t journal = 0;
};

// The next transactions of all journals, and up to which LSN these are all there are.
Result<Lsn> look_ahead(const std::vector<OpenedJournal*>& journals, JournalQuery query,
                       std::vector<Upcoming>& upcoming) {
    Lsn until = query.to;
    for (std::size_t i = 0; i < journals.size(); ++i) {
        std::size_t count = 0;
        for (const auto& stretch : stretches_between(journals[i]->gaps, query.from, query.to)) {
            if (count >= kLookAhead) break;
            JournalQuery part = query;
            part.from = stretch.from;
            part.to = stretch.to;
            WV_CHECK(journals[i]->reader->summarize(part, 0, [&](const JournalSummary& each) {
                upcoming.push_back({each.transaction.end_lsn, i});
                if (++count < kLookAhead) return Result<bool>(true);
                until = std::min(until, each.transaction.end_lsn);
                return Result<bool>(false);
            }));
        }
    }
    std::erase_if(upcoming, [&](const Upcoming& each) { return each.end_lsn > until; });
    std::stable_sort(upcoming.begin(), upcoming.end(),
                     [](const Upcoming& a, const Upcoming& b) { return a.end_lsn < b.end_lsn; });
    return until;
}

// A sink that remembers whether it was told to stop.
JournalSink stoppable(const JournalSink& sink, bool& stopped) {
    auto remember = [&stopped](Result<bool> goes_on) {
        if (goes_on && !*goes_on) stopped = true;
        return goes_on;
    };
    JournalSink wrapped;
    if (sink.on_begin)
        wrapped.on_begin = [&sink, remember](const JournalTransaction& transaction) {
            return remember(sink.on_begin(transaction));
        };
    if (sink.on_change)
        wrapped.on_change = [&sink, remember](const JournalTransaction& transaction,
                                              const storage::JournalChange& change) {
            return remember(sink.on_change(transaction, change));
        };
    if (sink.on_end)
        wrapped.on_end = [&sink, remember](const JournalTransaction& transaction) {
            return remember(sink.on_end(transaction));
        };
    return wrapped;
}

}  // namespace

Lsn JournalSet::whole_until() const {
    Lsn until = storage::kOpenEndLsn;
    for (const OpenedJournal& journal : journals)
        until = std::min(until, journal.record.whole_until_lsn);
    return until;
}

Result<JournalSet> open_journals(OpenedView& opened, const std::string& database) {
    WV_TRY(auto records, opened.view->journals(opened.cluster.name));
    JournalSet set;
    WV_TRY(set.database, choose_database(records, database, opened.cluster.name));
    for (const auto& record : records) {
        if (record.database != set.database) continue;
        // It is whole up to there, and says so by its end.
        if (record.damage)
            std::fprintf(stderr, "warning: %s\n", printable(record.damage->message).c_str());
        WV_TRY(auto reader, storage::JournalReader::open(*opened.view, record));
        OpenedJournal journal{record, std::make_unique<storage::JournalReader>(std::move(reader))};
        WV_TRY(journal.tables, journal.reader->tables());
        WV_TRY(journal.gaps, journal.reader->gaps());
        set.journals.push_back(std::move(journal));
    }
    return set;
}

std::string TablePlace::text() const {
    return table_text(tables.back().schema, tables.back().name);
}

std::set<std::uint32_t> TablePlace::oids() const {
    std::set<std::uint32_t> oids;
    for (const auto& table : tables)
        oids.insert(table.oid);
    return oids;
}

Result<std::vector<TablePlace>> find_table(JournalSet& set, const std::string& text) {
    std::vector<storage::JournalTableRecord> all;
    for (const OpenedJournal& journal : set.journals)
        all.insert(all.end(), journal.tables.begin(), journal.tables.end());
    WV_TRY(const auto found, matching_tables(text, all));
    std::set<std::uint32_t> oids;
    for (const auto& table : found)
        oids.insert(table.oid);
    std::vector<TablePlace> places;
    for (OpenedJournal& journal : set.journals) {
        TablePlace place{&journal, {}};
        for (const auto& table : journal.tables)
            if (oids.count(table.oid) > 0) place.tables.push_back(table);
        if (!place.tables.empty()) places.push_back(std::move(place));
    }
    return places;
}

namespace {

Result<pb::JournalRelation> find_latest_relation(OpenedJournal& journal, std::uint32_t oid) {
    std::optional<pb::JournalRelation> found;
    JournalQuery query{.from = Lsn{},
                       .order = storage::JournalOrder::backward,
                       .tables = {oid},
                       .kinds = {JournalRecordKind::inserted, JournalRecordKind::updated,
                                 JournalRecordKind::deleted}};
    auto stretches = stretches_between(journal.gaps, query.from, journal.record.whole_until_lsn);
    for (auto stretch = stretches.rbegin(); stretch != stretches.rend() && !found; ++stretch) {
        query.from = stretch->from;
        query.to = stretch->to;
        JournalSink sink;
        sink.on_change = [&](const JournalTransaction&, const storage::JournalChange& change) {
            found = *change.relation;
            return Result<bool>(false);
        };
        WV_CHECK(journal.reader->read(query, sink));
    }
    if (found) return *found;
    WV_TRY(auto snapshots, journal.reader->snapshots(oid));
    if (!snapshots.empty())
        WV_CHECK(journal.reader->read_rows(snapshots.back(),
                                           [&](const pb::JournalRelation& relation, ByteSpan) {
                                               found = relation;
                                               return Result<bool>(false);
                                           }));
    if (found) return *found;
    return fail(Errc::not_found,
                "the journal has neither a row nor a change of table " + std::to_string(oid));
}

}  // namespace

Result<pb::JournalRelation> latest_relation(OpenedJournal& journal, std::uint32_t oid) {
    auto known = journal.latest.find(oid);
    if (known == journal.latest.end()) {
        WV_TRY(pb::JournalRelation found, find_latest_relation(journal, oid));
        known = journal.latest.emplace(oid, std::move(found)).first;
    }
    return known->second;
}

JournalQuery JournalRange::query() const {
    JournalQuery query;
    query.from = from;
    query.to = to;
    query.since = since;
    query.until = until;
    return query;
}

bool JournalRange::is_before(const JournalTransaction& transaction) const {
    return (since != WallTime{} && transaction.at < since) || (from && transaction.end_lsn <= from);
}

Result<JournalRange> parse_range(OpenedView& opened, const std::string& since,
                                 const std::string& until, WallTime fallback) {
    const TimeContext times{system_clock().now(), opened.zone};
    JournalRange range;
    range.since = since.empty() ? fallback : WallTime{};
    if (!since.empty()) WV_CHECK(apply_edge(opened, since, times, true, range));
    if (!until.empty()) WV_CHECK(apply_edge(opened, until, times, false, range));
    if (range.from > range.to ||
        (range.until != WallTime{} && range.since > range.until && !since.empty()))
        return fail(Errc::invalid_argument,
                    "--until " + printable(until) + " is before --since " + printable(since));
    return range;
}

Result<> read_between_gaps(OpenedJournal& journal, const JournalQuery& query,
                           const JournalSink& sink) {
    bool stopped = false;
    const JournalSink inner = stoppable(sink, stopped);
    auto stretches = stretches_between(journal.gaps, query.from,
                                       std::min(query.to, journal.record.whole_until_lsn));
    if (query.order == storage::JournalOrder::backward)
        std::reverse(stretches.begin(), stretches.end());
    for (const auto& stretch : stretches) {
        JournalQuery part = query;
        part.from = stretch.from;
        part.to = stretch.to;
        WV_CHECK(journal.reader->read(part, inner));
        if (stopped) break;
    }
    return {};
}

Result<> read_merged(const std::vector<OpenedJournal*>& journals, const JournalQuery& query,
                     const JournalSink& sink) {
    WV_ASSERT(query.order == storage::JournalOrder::forward);
    if (journals.size() == 1) return read_between_gaps(*journals.front(), query, sink);
    bool stopped = false;
    const JournalSink inner = stoppable(sink, stopped);
    JournalQuery rest = query;
    for (const OpenedJournal* journal : journals)
        rest.to = std::min(rest.to, journal->record.whole_until_lsn);
    while (rest.from < rest.to && !stopped) {
        std::vector<Upcoming> upcoming;
        WV_TRY(const Lsn until, look_ahead(journals, rest, upcoming));
        for (std::size_t i = 0; i < upcoming.size() && !stopped;) {
            std::size_t last = i;
            while (last + 1 < upcoming.size() && upcoming[last + 1].journal == upcoming[i].journal)
                ++last;
            JournalQuery part = rest;
            part.from = Lsn{upcoming[i].end_lsn.value - 1};
            part.to = upcoming[last].end_lsn;
            WV_CHECK(read_between_gaps(*journals[upcoming[i].journal], part, inner));
            i = last + 1;
        }
        rest.from = until;
    }
    return {};
}

}  // namespace walvault::agent
