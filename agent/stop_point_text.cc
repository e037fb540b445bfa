#include "agent/stop_point_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/render.h"
#include "wal/server_facts.h"

namespace walvault::agent {
namespace {

std::string line(const std::string& label, const std::string& text) {
    return "  " + label + std::string(11 - std::min<std::size_t>(10, label.size()), ' ') + text +
           "\n";
}

std::string target_text(const StopPoint& stop, const std::string& zone) {
    std::string text = stop.target.before ? "just before " : "";
    switch (stop.target.kind) {
        case Target::Kind::time:
            return text + format_both(stop.target.at, zone, 6);
        case Target::Kind::lsn:
            return text + "LSN " + to_string(stop.target.lsn);
        case Target::Kind::xid:
            return text + "transaction " + std::to_string(stop.target.xid);
        case Target::Kind::name:
            return text + "restore point " + printable(stop.target.name);
        case Target::Kind::backup:
            return text + "the base backup " + printable(stop.target.name);
        case Target::Kind::latest:
            return text + "everything stored";
        case Target::Kind::immediate:
            return text + "the newest base backup";
        case Target::Kind::earliest:
            return text + "the oldest base backup";
    }
    return text;
}

std::string transaction_text(const WalFinding& finding, const std::string& zone,
                             const RelationNames& names) {
    std::string text = "xid " + std::to_string(finding.xid) + "  " +
                       format_both(finding.at, zone, 6) + "  LSN " + to_string(finding.start_lsn);
    if (finding.kind == WalFinding::Kind::abort) text += "  rolled back";
    const std::string what = describe_transaction(finding, names);
    return what.empty() ? text : text + "  " + what;
}

nlohmann::ordered_json transaction_json(const std::optional<WalFinding>& finding) {
    if (!finding) return nullptr;
    return {{"xid", finding->xid},
            {"at", format_utc(finding->at, 6)},
            {"lsn", to_string(finding->start_lsn)},
            {"end_lsn", to_string(finding->end_lsn)},
            {"committed", finding->kind == WalFinding::Kind::commit}};
}

Task<> ask_names(const std::string& conninfo, const std::vector<std::string>& files,
                 RelationNames& names) {
    wal::Connection::Options options;
    options.conninfo = conninfo;
    options.connect_timeout = std::chrono::seconds(1);
    auto connected = co_await wal::Connection::connect(std::move(options));
    if (!connected) co_return;
    auto found = co_await wal::relation_names(**connected, files);
    if (found) names = std::move(*found);
}

}  // namespace

std::string relation_text(const std::string& file, const RelationNames& names) {
    auto found = names.find(file);
    return found == names.end() ? file : printable(found->second);
}

std::string describe_transaction(const WalFinding& finding, const RelationNames& names) {
    std::string text;
    auto add = [&](std::uint64_t rows, const char* what) {
        if (rows == 0) return;
        if (!text.empty()) text += ", ";
        text += format_count(rows) + (rows == 1 ? " row " : " rows ") + what;
    };
    add(finding.inserted_rows, "inserted");
    add(finding.updated_rows, "updated");
    add(finding.deleted_rows, "deleted");
    if (!text.empty() && finding.most_changed.relation != 0)
        text += ", most in " + relation_text(to_string(finding.most_changed), names);
    if (!finding.dropped.empty()) {
        if (!text.empty()) text += ", ";
        text += std::string(finding.created.empty() ? "removes " : "replaces ") +
                format_count(finding.dropped.size()) +
                (finding.dropped.size() == 1 ? " relation file" : " relation files");
    }
    return text;
}

std::string stop_point_text(const StopPoint& stop, const std::string& zone,
                            const RelationNames& names) {
    std::string text = line("target", target_text(stop, zone));
    text += line("", "= WAL records that start before " + to_string(stop.cut_lsn) +
                         " on timeline " + std::to_string(stop.timeline()));
    text += line("kept", stop.last_kept
                             ? transaction_text(*stop.last_kept, zone, names) + "  (the last)"
                             : "no transaction after the base");
    if (!stop.left_out_is_known) {
        text += line("left out", "not known: the WAL behind it is archived");
    } else if (stop.first_left_out) {
        text += line("left out", transaction_text(*stop.first_left_out, zone, names));
        if (stop.left_out_commits > 1)
            text += line(
                "", "and about " + format_count(stop.left_out_commits - 1) + " more transactions");
    } else {
        text += line("left out", "nothing that is stored");
    }
    text +=
        line("base", stop.base.backup_id() + ", timeline " + std::to_string(stop.base.timeline()) +
                         ", " + format_size(stop.base.plain_bytes()) + "     + " +
                         format_size(stop.wal_to_lsn - stop.wal_from_lsn) + " of WAL");
    return text;
}

nlohmann::ordered_json stop_point_json(const StopPoint& stop) {
    nlohmann::ordered_json json{{"target", stop.target.text},
                                {"before", stop.target.before},
                                {"cut_lsn", to_string(stop.cut_lsn)},
                                {"history_id", to_hex(stop.history.id)},
                                {"timeline", stop.timeline()}};
    json["last_kept"] = transaction_json(stop.last_kept);
    json["first_left_out"] = transaction_json(stop.first_left_out);
    json["left_out_transactions"] = stop.left_out_commits;
    if (!stop.left_out_is_known) json["left_out_known"] = false;
    json["recovery_target_lsn"] = nullptr;
    if (stop.recovery_lsn) json["recovery_target_lsn"] = to_string(*stop.recovery_lsn);
    json["base"] = {{"backup_id", stop.base.backup_id()},
                    {"start_lsn", to_string(Lsn{stop.base.start_lsn()})},
                    {"stop_lsn", to_string(Lsn{stop.base.stop_lsn()})},
                    {"bytes", stop.base.plain_bytes()},
                    {"file_count", stop.base.file_count()}};
    json["wal"] = {{"from_lsn", to_string(stop.wal_from_lsn)},
                   {"to_lsn", to_string(stop.wal_to_lsn)},
                   {"bytes", stop.wal_to_lsn - stop.wal_from_lsn}};
    return json;
}

RelationNames ask_relation_names(const std::string& conninfo,
                                 const std::vector<std::string>& files) {
    RelationNames names;
    if (files.empty()) return names;
    asio::io_context loop;
    asio::co_spawn(loop, ask_names(conninfo, files, names), [](std::exception_ptr) {});
    loop.run_for(std::chrono::seconds(1));
    return names;
}

}  // namespace walvault::agent
