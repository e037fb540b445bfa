#include "agent/journal_answer.h"

#include <cstdio>

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

}  // namespace

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

std::string record_row_text(const ChangeRecord& record) {
    if (record.kind == JournalRecordKind::truncated) return "";
    if (record.kind == JournalRecordKind::message) return printable(record.prefix);
    if (!has_key(record.relation)) return "";
    return key_text(record.relation,
                    record.change.now.empty() ? record.change.before : record.change.now);
}

std::string record_change_text(const ChangeRecord& record) {
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
    WV_TRY(hints.windows_, restore_windows(*opened.view, opened.cluster.name));
    hints.source_ = source_options(globals);
    return hints;
}

std::optional<std::string> RestoreHints::before(
    const storage::JournalTransaction& transaction) const {
    for (const Window& window : windows_)
        if (!window.bases.empty() &&
            transaction.commit_lsn >= Lsn{window.bases.front().stop_lsn()} &&
            transaction.commit_lsn < window.history.end_lsn)
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
