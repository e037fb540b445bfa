// Drives the PostgreSQL side of the row journal against a real server for
// tests/integration/test_logical.py: prints what it found and received as JSON lines.
#include <cstdio>
#include <fstream>
#include <iostream>

#include "proto/pgoutput.h"
#include "tests/support/json_lines.h"
#include "wal/logical_receiver.h"
#include "wal/logical_setup.h"
#include "wal/server_facts.h"
#include "wal/table_snapshot.h"

namespace walvault {
namespace {

json texts(const std::vector<std::string>& all) {
    json array = json::array();
    for (const std::string& one : all)
        array.push_back(text(one));
    return array;
}

// A null is null, an unchanged value is {"unchanged": true}.
json row(pgoutput::Tuple tuple) {
    json values = json::array();
    for (const pgoutput::Value& value : tuple) {
        if (value.kind == pgoutput::ValueKind::null) values.push_back(nullptr);
        if (value.kind == pgoutput::ValueKind::unchanged) values.push_back({{"unchanged", true}});
        if (value.kind == pgoutput::ValueKind::text) values.push_back(text(value.bytes));
        if (value.kind == pgoutput::ValueKind::binary)
            values.push_back({{"binary", to_hex(as_bytes(value.bytes))}});
    }
    return values;
}

struct Printer {
    json operator()(const pgoutput::Begin& m) const {
        return {{"kind", "begin"},
                {"lsn", to_string(m.commit_lsn)},
                {"at", to_utc_text(m.committed_at)},
                {"xid", m.xid}};
    }
    json operator()(const pgoutput::Commit& m) const {
        return {
            {"kind", "commit"}, {"end", to_string(m.end_lsn)}, {"at", to_utc_text(m.committed_at)}};
    }
    json operator()(const pgoutput::ReplicationOrigin& m) const {
        return {{"kind", "origin"}, {"name", text(m.name)}, {"lsn", to_string(m.commit_lsn)}};
    }
    json operator()(const pgoutput::Relation& m) const {
        json columns = json::array();
        for (const pgoutput::Column& column : m.columns)
            columns.push_back(
                {{"name", text(column.name)}, {"key", column.in_key}, {"type", column.type}});
        return {{"kind", "relation"},   {"xid", m.xid},
                {"oid", m.oid},         {"schema", text(m.schema)},
                {"name", text(m.name)}, {"identity", std::string(1, static_cast<char>(m.identity))},
                {"columns", columns}};
    }
    json operator()(const pgoutput::Type& m) const {
        return {{"kind", "type"}, {"xid", m.xid}, {"oid", m.oid}, {"name", text(m.name)}};
    }
    json operator()(const pgoutput::Insert& m) const {
        return {{"kind", "insert"}, {"xid", m.xid}, {"relation", m.relation}, {"row", row(m.row)}};
    }
    json operator()(const pgoutput::Update& m) const {
        return {{"kind", "update"},
                {"xid", m.xid},
                {"relation", m.relation},
                {"old_kind", m.old_kind == pgoutput::OldRow::none  ? "none"
                             : m.old_kind == pgoutput::OldRow::key ? "key"
                                                                   : "full"},
                {"old", row(m.old_row)},
                {"row", row(m.row)}};
    }
    json operator()(const pgoutput::Delete& m) const {
        return {{"kind", "delete"},
                {"xid", m.xid},
                {"relation", m.relation},
                {"old_kind", m.old_kind == pgoutput::OldRow::key ? "key" : "full"},
                {"old", row(m.old_row)}};
    }
    json operator()(const pgoutput::Truncate& m) const {
        return {{"kind", "truncate"},
                {"xid", m.xid},
                {"relations", std::vector<pgoutput::Oid>(m.relations.begin(), m.relations.end())},
                {"cascade", m.cascade},
                {"restart_identity", m.restart_identity}};
    }
    json operator()(const pgoutput::Message& m) const {
        return {{"kind", "message"},
                {"xid", m.xid},
                {"transactional", m.transactional},
                {"prefix", text(m.prefix)},
                {"content", text(m.content)}};
    }
    json operator()(const pgoutput::StreamStart& m) const {
        return {{"kind", "stream_start"}, {"xid", m.xid}, {"first", m.first}};
    }
    json operator()(const pgoutput::StreamStop&) const { return {{"kind", "stream_stop"}}; }
    json operator()(const pgoutput::StreamCommit& m) const {
        return {{"kind", "stream_commit"},
                {"xid", m.xid},
                {"end", to_string(m.end_lsn)},
                {"at", to_utc_text(m.committed_at)}};
    }
    json operator()(const pgoutput::StreamAbort& m) const {
        return {{"kind", "stream_abort"},
                {"xid", m.xid},
                {"subxid", m.subxid},
                {"lsn", m.abort_lsn ? json(to_string(*m.abort_lsn)) : json()}};
    }
    json operator()(const pgoutput::BeginPrepare& m) const {
        return prepared("begin_prepare", m.xid, m.gid, m.end_lsn);
    }
    json operator()(const pgoutput::Prepare& m) const {
        return prepared("prepare", m.xid, m.gid, m.end_lsn);
    }
    json operator()(const pgoutput::CommitPrepared& m) const {
        return prepared("commit_prepared", m.xid, m.gid, m.end_lsn);
    }
    json operator()(const pgoutput::RollbackPrepared& m) const {
        return prepared("rollback_prepared", m.xid, m.gid, m.end_lsn);
    }
    json operator()(const pgoutput::StreamPrepare& m) const {
        return prepared("stream_prepare", m.xid, m.gid, m.end_lsn);
    }

private:
    static json prepared(const char* kind, Xid xid, std::string_view gid, Lsn end) {
        return {{"kind", kind}, {"xid", xid}, {"gid", text(gid)}, {"end", to_string(end)}};
    }
};

std::vector<std::string> list(const std::string& joined) {
    std::vector<std::string> parts;
    for (std::size_t begin = 0; begin < joined.size();) {
        const std::size_t comma = std::min(joined.find(',', begin), joined.size());
        parts.push_back(joined.substr(begin, comma - begin));
        begin = comma + 1;
    }
    return parts;
}

wal::DatabaseOptions database_of(Arguments& arguments) {
    wal::DatabaseOptions options;
    options.conninfo = arguments["conninfo"];
    options.database = arguments["database"];
    options.application_name = "journal_client";
    return options;
}

// What one stream receives: every message is printed.
struct StreamSink {
    pgoutput::Decoder decoder;
    bool acknowledges = false;
    Lsn until;  // of a position that is named behind it
    bool done = false;
    bool open = false;  // a streamed transaction waits for its end

    Result<Lsn> take(const wal::DecodedChange& change) {
        WV_TRY(auto message, decoder.decode(change.data));
        json line = std::visit(Printer{}, message);
        line["event"] = "change";
        line["at_lsn"] = to_string(change.lsn);
        print(line);
        if (std::holds_alternative<pgoutput::StreamStart>(message)) open = true;
        if (std::holds_alternative<pgoutput::StreamCommit>(message)) open = false;
        if (const auto* abort = std::get_if<pgoutput::StreamAbort>(&message);
            abort && abort->xid == abort->subxid)
            open = false;
        if (!decoder.in_transaction() && until && change.lsn >= until) done = true;
        return decoder.in_transaction() || open ? Lsn() : change.lsn;
    }
};

Task<Result<>> stream_events(wal::LogicalReceiver& receiver, StreamSink& sink) {
    while (!sink.done) {
        WV_CO_TRY(auto event, co_await receiver.next());
        if (std::holds_alternative<wal::DecodingEnded>(event)) {
            print({{"event", "ended"}});
            co_return Result<>();
        }
        Lsn stored;
        if (auto* change = std::get_if<wal::DecodedChange>(&event)) {
            WV_CO_TRY(stored, sink.take(*change));
        } else {
            const auto& position = std::get<wal::DecodedPosition>(event);
            if (!sink.open) stored = position.decoded_lsn;
            if (sink.until && position.decoded_lsn >= sink.until) sink.done = true;
        }
        if (sink.acknowledges && stored) WV_CO_CHECK(co_await receiver.acknowledge(stored, true));
    }
    co_return Result<>();
}

Task<Result<>> stream(Arguments arguments) {
    wal::LogicalReceiver::Options options;
    options.database = database_of(arguments);
    options.slot = arguments["slot"];
    options.publications = list(arguments["publications"]);
    options.streaming = !arguments.contains("no_streaming");
    options.two_phase = arguments.contains("two_phase");
    options.ask_interval = std::chrono::milliseconds(200);
    WV_CO_TRY(auto receiver, co_await wal::LogicalReceiver::attach(options, system_clock()));
    const wal::LogicalIdentity& identity = receiver->identity();
    print({{"event", "attached"},
           {"database", text(identity.database)},
           {"encoding", identity.server_encoding},
           {"protocol", identity.protocol}});
    StreamSink sink;
    sink.acknowledges = arguments.contains("ack");
    Lsn start;
    if (arguments.contains("start")) {
        WV_CO_TRY(start, parse_lsn(arguments["start"]));
    }
    if (arguments.contains("until")) {
        WV_CO_TRY(sink.until, parse_lsn(arguments["until"]));
    }
    auto result = co_await receiver->start(start);
    if (result) print({{"event", "started"}});
    if (result) result = co_await stream_events(*receiver, sink);
    receiver->close();
    if (!result)
        print_error(result.error(), {{"trouble", std::string(to_string(receiver->trouble()))}});
    co_return Result<>();
}

std::string name_of(wal::Journaled journaled) {
    switch (journaled) {
        case wal::Journaled::all_changes:
            return "all";
        case wal::Journaled::inserts_only:
            return "inserts";
        case wal::Journaled::left_out:
            return "out";
    }
    return "?";
}

void print_plan(const wal::AppliedPublication& applied) {
    json verdicts = json::array();
    for (const wal::TableVerdict& verdict : applied.plan.verdicts)
        verdicts.push_back({{"table", text(verdict.table)},
                            {"schema", text(verdict.schema)},
                            {"name", text(verdict.name)},
                            {"oid", verdict.oid},
                            {"journaled", name_of(verdict.journaled)},
                            {"root", verdict.root},
                            {"reason", text(verdict.reason)},
                            {"mend", text(verdict.mend)}});
    print({{"event", "published"},
           {"changed", applied.changed},
           {"statements", texts(applied.statements)},
           {"joined", applied.joined},
           {"left", applied.left},
           {"waiting", applied.waiting},
           {"all_changes", applied.plan.all_changes},
           {"in_danger", texts(applied.plan.in_danger)},
           {"verdicts", verdicts}});
}

Task<Result<wal::AppliedPublication>> publish(wal::Connection& sql, Arguments arguments) {
    WV_CO_TRY(auto patterns, wal::TablePatterns::parse(list(arguments["tables"])));
    const std::chrono::milliseconds patience(
        arguments.contains("lock_ms") ? std::stoi(arguments["lock_ms"]) : 10'000);
    auto applied =
        co_await wal::apply_publication(sql, arguments["publication"], patterns, patience);
    if (applied) print_plan(*applied);
    co_return applied;
}

Task<Result<>> apply(Arguments arguments) {
    WV_CO_TRY(auto session, co_await wal::connect_to_database(database_of(arguments),
                                                              wal::Connection::Mode::sql));
    WV_CO_CHECK(co_await publish(*session.connection, arguments));
    co_return Result<>();
}

Task<Result<>> drop(Arguments arguments) {
    WV_CO_TRY(auto session, co_await wal::connect_to_database(database_of(arguments),
                                                              wal::Connection::Mode::sql));
    if (arguments.contains("slot"))
        WV_CO_CHECK(co_await wal::drop_logical_slot_by_sql(*session.connection, arguments["slot"]));
    if (arguments.contains("publication"))
        WV_CO_CHECK(co_await wal::drop_publication(*session.connection, arguments["publication"]));
    co_return Result<>();
}

Task<Result<>> facts(Arguments arguments) {
    WV_CO_TRY(auto session, co_await wal::connect_to_database(database_of(arguments),
                                                              wal::Connection::Mode::sql));
    WV_CO_TRY(auto facts, co_await wal::database_facts(*session.connection));
    json slots = json::array();
    for (const wal::LogicalSlot& slot : facts.slots)
        slots.push_back(
            {{"name", slot.name},
             {"two_phase", slot.two_phase},
             {"active", slot.active},
             {"confirmed", slot.confirmed_flush_lsn ? to_string(*slot.confirmed_flush_lsn) : ""},
             {"lost", slot.lost()},
             {"catalog_xmin", slot.catalog_xmin.value_or(0)},
             {"catalog_xmin_age", slot.catalog_xmin_age},
             {"retained_bytes", slot.retained_bytes}});
    print({{"event", "facts"},
           {"database", text(facts.database)},
           {"role", text(facts.role)},
           {"wal_level", facts.wal_level},
           {"encoding", facts.server_encoding},
           {"slots", slots}});
    auto possible = wal::check_journal_possible(facts);
    if (!possible) print_error(possible.error());
    co_return Result<>();
}

Task<Result<>> print_table(wal::TableSnapshot& snapshot, pgoutput::Oid table) {
    WV_CO_TRY(auto relation, co_await snapshot.begin(table));
    json line = Printer()(relation);
    line["event"] = "snapshot";
    print(line);
    for (;;) {
        WV_CO_TRY(auto tuple, co_await snapshot.next());
        if (!tuple) break;
        print({{"event", "row"}, {"relation", table}, {"row", row(*tuple)}});
    }
    co_return Result<>();
}

Task<Result<>> print_snapshot(Arguments arguments, const wal::PublicationPlan& plan,
                              std::string name) {
    wal::TableSnapshot::Options options;
    options.database = database_of(arguments);
    options.snapshot_name = std::move(name);
    WV_CO_TRY(auto snapshot, co_await wal::TableSnapshot::open(options));
    if (arguments.contains("before_copy")) {
        print({{"event", "waiting"}});
        std::string line;
        std::getline(std::cin, line);
    }
    for (const wal::TableVerdict& verdict : plan.verdicts) {
        if (verdict.journaled == wal::Journaled::left_out || verdict.partitioned) continue;
        WV_CO_CHECK(co_await print_table(*snapshot, verdict.oid));
    }
    co_return Result<>();
}

// Publication, slot and snapshot, as a journal begins.
Task<Result<>> begin(Arguments arguments) {
    WV_CO_TRY(auto session, co_await wal::connect_to_database(database_of(arguments),
                                                              wal::Connection::Mode::sql));
    WV_CO_TRY(auto applied, co_await publish(*session.connection, arguments));
    WV_CO_TRY(auto walsender,
              co_await wal::connect_to_database(database_of(arguments),
                                                wal::Connection::Mode::database_replication));
    wal::LogicalSlotOptions options;
    options.slot = arguments["slot"];
    options.two_phase = arguments.contains("two_phase");
    if (arguments.contains("wait_ms"))
        options.wait_timeout = std::chrono::milliseconds(std::stoi(arguments["wait_ms"]));
    WV_CO_TRY(auto created, co_await wal::create_logical_slot(*walsender.connection, options));
    print({{"event", "created"},
           {"consistent", to_string(created.consistent_lsn)},
           {"snapshot", created.snapshot_name}});
    WV_CO_CHECK(co_await print_snapshot(arguments, applied.plan, created.snapshot_name));
    print({{"event", "done"}});
    co_return Result<>();
}

}  // namespace
}  // namespace walvault

int main(int argc, char** argv) {
    using namespace walvault;
    return run_client(
        argc, argv,
        {{"stream", stream}, {"begin", begin}, {"apply", apply}, {"drop", drop}, {"facts", facts}});
}
