#include "wal/walsender.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "wal/walsender_text.h"

namespace walvault::wal {
namespace {

template <class T>
Result<T> parse_number(std::string_view text, std::string_view what) {
    T value{};
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || text.empty())
        return fail(Errc::corrupt, fmt::format("the server's {} \"{}\" is not a number", what, text));
    return value;
}

// The values of a result's only row; every one must be there.
Result<std::vector<std::string>> only_row(const QueryResult& result, std::size_t columns,
                                          std::string_view command) {
    bool shaped = result.kind == QueryResult::Kind::rows && result.rows.size() == 1 &&
                  result.rows.front().size() >= columns;
    if (!shaped)
        return fail(Errc::corrupt, fmt::format("{} gave {} rows, not one of {} columns", command,
                                               result.rows.size(), columns));
    std::vector<std::string> values;
    for (std::size_t i = 0; i < columns; ++i) {
        const auto& value = result.rows.front()[i];
        if (!value) return fail(Errc::corrupt, fmt::format("{} gave a null in column {}", command, i + 1));
        values.push_back(*value);
    }
    return values;
}

Result<TimelineEnd> parse_timeline_end(const QueryResult& result) {
    WV_TRY(auto row, only_row(result, 2, "the end of the timeline"));
    WV_TRY(auto next, parse_number<TimelineId>(row[0], "next timeline"));
    WV_TRY(Lsn start, parse_lsn(row[1]));
    if (next == 0 || !start)
        return fail(Errc::corrupt, fmt::format("the server names timeline {} at {} as the next one", next,
                                               to_string(start)));
    return TimelineEnd{next, start};
}

}  // namespace

Result<std::optional<TimelineEnd>> timeline_end_of(const std::vector<QueryResult>& results) {
    for (const QueryResult& result : results) {
        if (result.kind != QueryResult::Kind::rows) continue;
        WV_TRY(auto end, parse_timeline_end(result));
        return end;
    }
    return std::nullopt;
}

Result<const ServerVersion*> server_version_of(const Connection& connection) {
    return find_server_version(server_major_of(static_cast<unsigned>(connection.server_version_num())),
                               "the server");
}

Task<Result<SystemIdentity>> identify_system(Connection& connection) {
    WV_CO_TRY(auto result, co_await connection.query_one("IDENTIFY_SYSTEM"));
    WV_CO_TRY(auto row, only_row(result, 3, "IDENTIFY_SYSTEM"));
    SystemIdentity identity;
    WV_CO_TRY(identity.system_identifier, parse_number<std::uint64_t>(row[0], "system identifier"));
    WV_CO_TRY(identity.timeline, parse_number<TimelineId>(row[1], "timeline"));
    WV_CO_TRY(identity.flushed_lsn, parse_lsn(row[2]));
    co_return identity;
}

Task<Result<std::string>> show(Connection& connection, std::string setting) {
    std::string command = "SHOW " + setting;
    WV_CO_TRY(auto result, co_await connection.query_one(command));
    WV_CO_TRY(auto row, only_row(result, 1, command));
    co_return std::move(row.front());
}

Result<std::uint64_t> parse_size_bytes(std::string_view text) {
    std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    WV_TRY(std::uint64_t number, parse_number<std::uint64_t>(text.substr(0, digits), "size"));
    std::string_view unit = text.substr(digits);
    unsigned shift = 0;
    if (unit == "kB") shift = 10;
    else if (unit == "MB") shift = 20;
    else if (unit == "GB") shift = 30;
    else if (unit == "TB") shift = 40;
    else if (unit != "B" && !unit.empty())
        return fail(Errc::corrupt, fmt::format("the server's size \"{}\" has an unknown unit", text));
    if (number > (~std::uint64_t{0} >> shift))
        return fail(Errc::corrupt, fmt::format("the server's size \"{}\" is too large", text));
    return number << shift;
}

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
    std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    WV_TRY(std::uint32_t number, parse_number<std::uint32_t>(text.substr(0, digits), "duration"));
    std::string_view unit = text.substr(digits);
    std::int64_t unit_ms = 1;
    if (unit == "s") unit_ms = 1000;
    else if (unit == "min") unit_ms = 60 * 1000;
    else if (unit == "h") unit_ms = 3600 * 1000;
    else if (unit == "d") unit_ms = 24 * 3600 * 1000;
    else if (unit != "ms" && !unit.empty())
        return fail(Errc::corrupt, fmt::format("the server's duration \"{}\" has an unknown unit", text));
    return std::chrono::milliseconds(number * unit_ms);
}

Task<Result<std::uint64_t>> wal_segment_bytes(Connection& connection) {
    WV_CO_TRY(auto text, co_await show(connection, "wal_segment_size"));
    WV_CO_TRY(std::uint64_t bytes, parse_size_bytes(text));
    bool power_of_two = bytes != 0 && (bytes & (bytes - 1)) == 0;
    if (!power_of_two || bytes < 1_MiB || bytes > 1_GiB)
        co_return fail(Errc::unsupported,
                       fmt::format("wal_segment_size is {} bytes, not a power of two from {} to {}", bytes,
                                   1_MiB, 1_GiB));
    co_return bytes;
}

Task<Result<std::optional<SlotPosition>>> read_slot(Connection& connection, std::string slot) {
    WV_CO_TRY(auto result,
              co_await connection.query_one("READ_REPLICATION_SLOT " + quote_identifier(slot)));
    if (result.rows.size() != 1 || result.rows.front().size() < 3)
        co_return fail(Errc::corrupt, "READ_REPLICATION_SLOT did not give one row of three columns");
    const auto& row = result.rows.front();
    if (!row[0]) co_return std::nullopt;
    SlotPosition position;
    if (row[1]) {
        WV_CO_TRY(Lsn restart, parse_lsn(*row[1]));
        position.restart_lsn = restart;
    }
    if (row[2]) {
        WV_CO_TRY(position.restart_timeline, parse_number<TimelineId>(*row[2], "restart timeline"));
    }
    co_return position;
}

Task<Result<std::optional<SlotPosition>>> read_slot_in_view(Connection& sql, std::string slot) {
    WV_CO_TRY(auto result,
              co_await sql.query_one("SELECT slot_type, restart_lsn FROM pg_catalog.pg_replication_slots "
                                     "WHERE slot_name = " +
                                     quote_literal(slot)));
    if (result.rows.empty()) co_return std::nullopt;
    const auto& row = result.rows.front();
    if (row.size() < 2) co_return fail(Errc::corrupt, "pg_replication_slots gave too few columns");
    if (row[0] != "physical")
        co_return fail(Errc::invalid_argument,
                       fmt::format("the slot \"{}\" is {}, not physical", slot, row[0].value_or("?")),
                       "name another slot in the configuration");
    SlotPosition position;
    if (row[1]) {
        WV_CO_TRY(Lsn restart, parse_lsn(*row[1]));
        position.restart_lsn = restart;
    }
    co_return position;
}

Task<Result<>> create_physical_slot(Connection& connection, std::string slot) {
    auto result = co_await connection.query("CREATE_REPLICATION_SLOT " + quote_identifier(slot) +
                                            " PHYSICAL RESERVE_WAL");
    if (result) co_return Result<>();
    Error error = std::move(result).error();
    if (connection.sqlstate() == "42710") error.code = Errc::refused;
    co_return fail_while("create the slot \"" + slot + "\"", std::move(error));
}

Task<Result<>> drop_slot(Connection& connection, std::string slot) {
    auto result = co_await connection.query("DROP_REPLICATION_SLOT " + quote_identifier(slot));
    if (!result) co_return fail_while("drop the slot \"" + slot + "\"", std::move(result).error());
    co_return Result<>();
}

Task<Result<std::string>> timeline_history(Connection& connection, TimelineId timeline) {
    WV_ASSERT(timeline >= 2);
    auto result = co_await connection.query_one(fmt::format("TIMELINE_HISTORY {}", timeline));
    if (!result) {
        Error error = std::move(result).error();
        // 58P01 here is a missing history file, not missing WAL.
        if (error.code == Errc::gap) error.code = Errc::not_found;
        co_return fail(std::move(error));
    }
    WV_CO_TRY(auto row, only_row(*result, 2, "TIMELINE_HISTORY"));
    co_return std::move(row[1]);
}

Task<Result<std::optional<TimelineEnd>>> start_replication(Connection& connection, std::string slot,
                                                           Lsn start, TimelineId timeline) {
    std::string command = fmt::format("START_REPLICATION {}PHYSICAL {} TIMELINE {}",
                                      slot.empty() ? "" : "SLOT " + quote_identifier(slot) + " ",
                                      to_string(start), timeline);
    auto results = co_await connection.query(command);
    if (!results) {
        Error error = std::move(results).error();
        // Before the copy begins, PostgreSQL gives XX000 only when the start or its timeline is not in the
        // server's history (walsender.c, StartReplication).
        if (connection.sqlstate() == "XX000") error.code = Errc::forked;
        // 18 refuses an invalidated slot; before, the stream begins and meets WAL that is gone.
        if (connection.sqlstate() == "55000") error.code = Errc::unusable;
        co_return fail(std::move(error));
    }
    if (!results->empty() && results->back().kind == QueryResult::Kind::copy_both) co_return std::nullopt;
    WV_CO_TRY(auto end, timeline_end_of(*results));
    if (!end) co_return fail(Errc::corrupt, "START_REPLICATION neither streams nor names a timeline");
    co_return end;
}

}  // namespace walvault::wal
