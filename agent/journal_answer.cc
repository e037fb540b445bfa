#include "agent/journal_answer.h"

#include <cstdio>

#include "agent/journal_moment.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void add_row(Json& json, const std::string& name, const pb::JournalRelation& relation,
             const Row& row) {
    if (row.empty()) {
        json[name] = nullptr;
        return;
    }
    Json left_out = Json::object();
    json[name] = row_json(relation, row, &left_out);
    for (const auto& [what, columns] : left_out.items())
        json[name + "_" + what] = columns;
}

std::optional<std::string> csv_value(const Json& record, const std::string& name) {
    auto found = record.find(name);
    if (found == record.end() || found->is_null()) return std::nullopt;
    return found->is_string() ? found->get<std::string>() : dump(*found);
}

std::string names_text(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names)
        text += (text.empty() ? "" : ", ") + printable(name);
    return text;
}

// The first moment that the journal is known to have anything of; zero: none is.
Result<WallTime> known_since(OpenedJournal& journal) {
    std::optional<WallTime> first;
    storage::JournalSink sink;
    sink.on_begin = [&](const storage::JournalTransaction& transaction) {
        first = transaction.at;
        return Result<bool>(false);
    };
    WV_CHECK(read_between_gaps(journal, {}, sink));
    for (const auto& table : journal.tables) {
        WV_TRY(const auto snapshots, journal.reader->snapshots(table.oid));
        if (snapshots.empty() || snapshots.front().taken().at_us() == 0) continue;
        const WallTime taken(Micros(snapshots.front().taken().at_us()));
        first = std::min(first.value_or(taken), taken);
    }
    return first.value_or(WallTime{});
}

Result<> note_begin(OpenedJournal& journal, const JournalRange& range, const std::string& zone,
                    AnswerTail& tail) {
    const Lsn start = journal.record.start_lsn;
    WallTime known{};
    if (range.since != WallTime{}) {
        WV_TRY(known, known_since(journal));
        if (known != WallTime{} && range.since >= known) return {};
    } else if (!range.from || range.from >= start) {
        return {};
    }
    tail.notes.push_back("the journal begins at LSN " + to_string(start) +
                         (known == WallTime{}
                              ? ""
                              : ", its first snapshot or change at " + format_local(known, zone)) +
                         "; what happened before is not in it");
    return {};
}

// Of this table until its next snapshot, not all that happened to a table is known.
Result<> note_left(OpenedJournal& journal, const storage::JournalTableRecord& table,
                   const JournalRange& range, AnswerTail& tail) {
    WV_TRY(const auto left, journal.reader->table_left(table.oid));
    for (const pb::JournalTableLeft& each : left) {
        WV_TRY(const Lsn until, known_again_at(*journal.reader, each));
        if (Lsn{each.from_lsn()} < range.to && until > range.from)
            tail.notes.push_back(left_text(table_text(table.schema, table.name), each, until));
    }
    return {};
}

// Whether a commit that is stored as WAL lies behind the end of the journal.
Result<bool> is_behind_wal(OpenedView& opened, Lsn whole) {
    WV_TRY(const auto history, opened.view->current_history(opened.cluster.name));
    if (!history) return false;
    return opened.view->has_commit_behind(*history, whole);
}

void note_end(OpenedView& opened, const JournalSet& set, const JournalRange& range,
              AnswerTail& tail) {
    WallTime covered{};
    for (const OpenedJournal& journal : set.journals)
        covered = std::max(covered, journal.record.covered_until);
    const Lsn whole = set.whole_until();
    const bool ends_inside =
        range.to <= whole || (range.until != WallTime{} && range.until <= covered);
    if (ends_inside) return;
    std::string why;
    if (range.to != storage::kOpenEndLsn) {
        why = "the journal does not reach to the end of the range";
    } else if (auto behind = is_behind_wal(opened, whole); !behind) {
        why = "whether the journal is behind the WAL is not known (" + behind.error().message + ")";
    } else if (*behind) {
        why = "the journal is behind the WAL";
    } else {
        return;
    }
    tail.notes.push_back(why + ": it has everything up to LSN " + to_string(whole) +
                         (covered == WallTime{} ? "" : ", " + format_local(covered, opened.zone)));
}

}  // namespace

Result<Lsn> known_again_at(storage::JournalReader& reader, const pb::JournalTableLeft& left) {
    WV_TRY(const auto snapshots, reader.snapshots(left.table_oid()));
    for (const pb::StoredSnapshot& snapshot : snapshots)
        if (snapshot.taken().lsn() > left.to_lsn()) return Lsn{snapshot.taken().lsn()};
    return storage::kOpenEndLsn;
}

std::string left_text(const std::string& table, const pb::JournalTableLeft& left, Lsn until) {
    return "not all that happened to " + printable(table) + " behind LSN " +
           to_string(Lsn{left.from_lsn()}) +
           (until == storage::kOpenEndLsn ? "" : " and before " + to_string(until)) +
           " may be in the journal: " + printable(left.cause());
}

std::string insert_only_text(const pb::JournalRelation& relation) {
    return "only inserts of " + printable(table_text(relation.schema(), relation.table())) +
           " are journaled: its updates and deletes are not here";
}

Result<AnswerTail> tail_of(OpenedView& opened, JournalSet& set,
                           const std::vector<TablePlace>& places, const JournalRange& range) {
    AnswerTail tail;
    OpenedJournal* first = nullptr;
    for (const TablePlace& place : places) {
        OpenedJournal& journal = *place.journal;
        if (first == nullptr || journal.record.start_lsn < first->record.start_lsn)
            first = &journal;
        for (const auto& gap : gaps_within(journal.gaps, range.from, range.to)) {
            const bool is_before = range.since != WallTime{} && gap.to_at_us() != 0 &&
                                   WallTime(Micros(gap.to_at_us())) < range.since;
            const bool is_behind = range.until != WallTime{} && gap.from_at_us() != 0 &&
                                   WallTime(Micros(gap.from_at_us())) > range.until;
            if (!is_before && !is_behind) tail.gaps.push_back(gap);
        }
        for (const auto& table : place.tables) {
            WV_CHECK(note_left(journal, table, range, tail));
            auto relation = latest_relation(journal, table.oid);
            if (!relation && relation.error().code != Errc::not_found)
                return fail(std::move(relation).error());
            if (!relation || !is_insert_only(*relation)) continue;
            const std::string note = insert_only_text(*relation);
            if (std::find(tail.notes.begin(), tail.notes.end(), note) == tail.notes.end())
                tail.notes.push_back(note);
        }
    }
    if (first != nullptr) WV_CHECK(note_begin(*first, range, opened.zone, tail));
    note_end(opened, set, range, tail);
    return tail;
}

std::string reach_text(const JournalSet& set, const std::string& zone) {
    WallTime covered{};
    for (const OpenedJournal& journal : set.journals)
        covered = std::max(covered, journal.record.covered_until);
    return "The journal has everything up to LSN " + to_string(set.whole_until()) +
           (covered == WallTime{} ? "" : ", " + format_local(covered, zone)) + ".\n";
}

std::string AnswerTail::text(const std::string& zone) const {
    std::string text;
    if (more) text += "There are earlier ones; raise -L or narrow the time.\n";
    for (const auto& gap : gaps)
        text += "note: " + gap_text(gap, zone) + "\n";
    for (const std::string& note : notes)
        text += "note: " + printable(note) + "\n";
    return text;
}

Json AnswerTail::json() const {
    Json list = Json::array();
    for (const auto& gap : gaps)
        list.push_back(gap_json(gap));
    return {{"more", more}, {"gaps", list}, {"notes", notes}};
}

void AnswerTail::tell_beside_csv(const Globals& globals, const std::string& zone) const {
    if (globals.output == Output::csv) std::fputs(text(zone).c_str(), stderr);
}

Result<ChangeRecord> change_record(const storage::JournalTransaction& transaction,
                                   const storage::JournalChange& change) {
    ChangeRecord record{.transaction = transaction, .kind = change.kind};
    switch (change.kind) {
        case JournalRecordKind::inserted:
        case JournalRecordKind::updated:
        case JournalRecordKind::deleted: {
            record.relation = *change.relation;
            WV_TRY(record.change, read_change(change));
            break;
        }
        case JournalRecordKind::truncated:
            for (const auto* relation : change.truncated)
                record.truncated.push_back(table_text(relation->schema(), relation->table()));
            if (!change.truncated.empty()) record.relation = *change.truncated.front();
            record.cascade = change.cascade;
            record.restart_identity = change.restart_identity;
            break;
        default:
            record.prefix = change.name;
            record.content = as_text(change.content);
            if (record.prefix == kDdlPrefix) record.ddl = read_ddl_mark(record.content);
            break;
    }
    return record;
}

Json transaction_json(const storage::JournalTransaction& transaction) {
    return {{"at", format_utc(transaction.at, 6)},
            {"xid", transaction.xid},
            {"commit_lsn", to_string(transaction.commit_lsn)},
            {"end_lsn", to_string(transaction.end_lsn)}};
}

Json change_json(const ChangeRecord& record) {
    Json json = transaction_json(record.transaction);
    if (record.kind == JournalRecordKind::message) {
        json["table"] = nullptr;
        json["kind"] = kind_name(record.kind);
        json["prefix"] = record.prefix;
        json["content"] = record.content;
        if (record.ddl && !record.ddl->tag.empty()) json["ddl"] = ddl_json(*record.ddl);
        return json;
    }
    json["table"] = table_text(record.relation.schema(), record.relation.table());
    json["kind"] = kind_name(record.kind);
    if (record.kind == JournalRecordKind::truncated) {
        json["tables"] = record.truncated;
        json["cascade"] = record.cascade;
        json["restart_identity"] = record.restart_identity;
    } else {
        const Row& row = record.change.now.empty() ? record.change.before : record.change.now;
        json["key"] = nullptr;
        if (has_key(record.relation)) json["key"] = key_json(record.relation, row);
    }
    add_row(json, "old", record.relation, record.change.before);
    add_row(json, "new", record.relation, record.change.now);
    return json;
}

std::string record_kind_text(const ChangeRecord& record) {
    return record.ddl ? "ddl" : std::string(kind_name(record.kind));
}

std::string record_row_text(const ChangeRecord& record) {
    if (record.kind == JournalRecordKind::truncated || record.ddl) return "";
    if (record.kind == JournalRecordKind::message) return printable(record.prefix);
    if (!has_key(record.relation)) return "";
    return key_text(record.relation,
                    record.change.now.empty() ? record.change.before : record.change.now);
}

std::string record_change_text(const ChangeRecord& record) {
    if (record.ddl) return ddl_text(*record.ddl);
    if (record.kind == JournalRecordKind::message) return value_text(text_value(record.content));
    if (record.kind == JournalRecordKind::truncated)
        return names_text(record.truncated) + (record.cascade ? " CASCADE" : "") +
               (record.restart_identity ? " RESTART IDENTITY" : "");
    return change_text(record.relation, record.change);
}

AnswerList::AnswerList(const Globals& globals, Form form, Json head)
    : globals_(globals), form_(std::move(form)), head_(std::move(head)) {
    WV_ASSERT(globals.output != Output::text);
    if (globals_.output == Output::csv && !form_.columns.empty()) {
        std::vector<std::optional<std::string>> names(form_.columns.begin(), form_.columns.end());
        put(csv_line(names));
    }
    if (globals_.output != Output::json) return;
    std::string begin = head_.empty() ? "{}" : dump(head_);
    begin.pop_back();
    put(begin + (head_.empty() ? "" : ",") + dump(Json(form_.list)) + ":[");
}

bool AnswerList::put(const std::string& text) {
    if (!failed_) failed_ = std::fwrite(text.data(), 1, text.size(), stdout) != text.size();
    return !failed_;
}

bool AnswerList::add(const Json& record) {
    ++count_;
    if (globals_.output == Output::json) return put((count_ > 1 ? ",\n  " : "\n  ") + dump(record));
    if (globals_.output == Output::jsonl) {
        Json line{{"type", form_.type}};
        line.update(record);
        return put(dump(line) + '\n');
    }
    std::vector<std::optional<std::string>> fields;
    for (const std::string& column : form_.columns)
        fields.push_back(csv_value(record, column));
    return put(csv_line(fields));
}

bool AnswerList::add_csv(const std::vector<std::optional<std::string>>& fields) {
    ++count_;
    return put(csv_line(fields));
}

Result<> AnswerList::finish(const Json& tail) {
    if (globals_.output == Output::json) {
        std::string end = tail.empty() ? "}" : dump(tail);
        if (!tail.empty()) end.front() = ',';
        put((count_ > 0 ? "\n]" : "]") + end + '\n');
    } else if (globals_.output == Output::jsonl) {
        Json line{{"type", "result"}, {"count", count_}};
        if (!head_.empty()) line.update(head_);
        if (!tail.empty()) line.update(tail);
        put(dump(line) + '\n');
    }
    if (failed_ || std::fflush(stdout) != 0)
        return fail(Errc::io, "the answer could not be written whole");
    return {};
}

std::string json_line(const Json& json) { return dump(json) + '\n'; }

Result<> put_text(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size())
        return fail(Errc::io, "the answer could not be written whole");
    return {};
}

Result<RestoreHints> RestoreHints::make(const Globals& globals, OpenedView& opened) {
    RestoreHints hints;
    WV_TRY(hints.windows_, restore_lsn_windows(*opened.view, opened.cluster.name));
    hints.source_ = source_options(globals);
    return hints;
}

std::optional<std::string> RestoreHints::before(
    const storage::JournalTransaction& transaction) const {
    for (const LsnWindow& window : windows_)
        if (transaction.commit_lsn >= window.from && transaction.commit_lsn < window.end)
            return "walvault restore --before xid:" + std::to_string(transaction.xid) +
                   " --pgdata DIR" + source_;
    return std::nullopt;
}

std::string RestoreHints::line(const storage::JournalTransaction& transaction) const {
    auto command = before(transaction);
    if (!command) return "";
    return "To go back to just before " + std::to_string(transaction.xid) + ":   " + *command +
           "\n";
}

}  // namespace walvault::agent
