// walvault demo: the whole story on a throw-away server: protect, destroy, find the moment,
// restore, compare.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/demo_narrator.h"
#include "agent/demo_stage.h"
#include "proto/lsn.h"
#include "storage/wal_summary.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kStepCount = 7;
constexpr unsigned kClients = 4;
constexpr seconds kPatience{60};

constexpr const char* kShopSchema =
    "create table orders (id bigint generated always as identity primary key, customer int not "
    "null,"
    " amount numeric(10,2) not null, placed_at timestamptz not null default clock_timestamp())";
constexpr const char* kShopScript =
    "\\set customer random(1, 500)\n"
    "\\set cents random(100, 99999)\n"
    "insert into orders (customer, amount) values (:customer, :cents / 100.0);\n";

// What is compared: every row, in an order that does not depend on where it lies.
struct Watched {
    const char* table;
    const char* order;
};
constexpr Watched kWatched[] = {{"orders", "id"},
                                {"pgbench_accounts", "aid"},
                                {"pgbench_branches", "bid"},
                                {"pgbench_tellers", "tid"},
                                {"pgbench_history", "t::text"}};

struct TableState {
    std::uint64_t rows = 0;
    std::string checksum;
    bool operator==(const TableState&) const = default;
};
using States = std::vector<TableState>;  // one for each of kWatched

Result<States> read_states(DemoStage& stage, const DemoServer& server) {
    States states;
    for (const Watched& watched : kWatched) {
        WV_TRY(const std::string answer,
               stage.sql(
                   server,
                   fmt::format(
                       "select count(*), md5(coalesce(string_agg(t::text, e'\\n' order by {}), ''))"
                       " from {} t",
                       watched.order, watched.table)));
        const std::size_t tab = answer.find('\t');
        if (tab == std::string::npos)
            return fail(Errc::unavailable, "psql answered \"" + answer + "\"");
        states.push_back({std::strtoull(answer.c_str(), nullptr, 10), answer.substr(tab + 1)});
    }
    return states;
}

std::string shown(const TableState& state) {
    return fmt::format("{} {}  {}", format_count(state.rows), state.rows == 1 ? "row" : "rows",
                       state.checksum.substr(0, 8));
}

Result<Json> parse_object(const std::string& text, const std::string& from) {
    Json json = Json::parse(text, nullptr, false);
    if (json.is_object()) return json;
    return fail(Errc::corrupt, from + " did not answer with a JSON object");
}

// The value of `key` wherever it is in the answer: at the top, or in the entry of the one server.
Json find_key(const Json& json, const std::string& key) {
    if (json.is_object() && json.contains(key)) return json.at(key);
    for (const Json& inner : json.is_structured() ? json : Json::array()) {
        if (Json found = find_key(inner, key); !found.is_null()) return found;
    }
    return nullptr;
}

class Story {
public:
    Story(const Globals& globals, const DemoArguments& arguments, DemoStage& stage, Narrator& say)
        : globals_(globals), arguments_(arguments), stage_(stage), say_(say) {}

    Result<> tell() {
        WV_CHECK(start_server());
        WV_CHECK(attach());
        WV_CHECK(wait_for_base());
        WV_CHECK(open_shop());
        WV_CHECK(destroy());
        WV_CHECK(find_moment());
        WV_CHECK(restore());
        return compare();
    }

    void show_commands() const;

private:
    Result<> start_server();
    Result<> attach();
    Result<> wait_for_base();
    Result<> open_shop();
    Result<> kill_and_restart_agent();
    Result<> destroy();
    Result<> find_moment();
    Result<> restore();
    Result<> compare();
    Result<Json> status() const;
    Result<std::uint64_t> order_count();
    Result<milliseconds> wait_until_flushed();
    std::string command_line(const std::string& rest) const { return "walvault " + rest; }

    const Globals& globals_;
    const DemoArguments& arguments_;
    DemoStage& stage_;
    Narrator& say_;
    std::uint64_t order_goal_ = 0;
    std::uint64_t orders_at_kill_ = 0;
    std::uint64_t orders_at_return_ = 0;
    std::string time_before_delete_;
    std::string delete_xid_;
    DemoServer restored_server_;
    std::string restored_pid_;
    States before_;
    States after_;
    States restored_;
};

Result<> Story::start_server() {
    say_.begin("start a PostgreSQL with page checksums");
    WV_CHECK(stage_.start_postgres());
    WV_TRY(std::string ignored, stage_.pg_program("pgbench", {"-i", "-q", "-s", "1"}));
    WV_TRY(ignored, stage_.sql(stage_.shop(), kShopSchema));
    say_.end("unix socket only");
    return {};
}

Result<> Story::attach() {
    say_.begin("start walvault: key, repository, slot");
    WV_CHECK(stage_.set_up_agent());
    WV_CHECK(stage_.start_agent());
    say_.end("streaming, encrypted");
    return {};
}

Result<Json> Story::status() const {
    WV_TRY(const std::string answer, stage_.ask_agent("/v1/status"));
    return parse_object(answer, "the agent");
}

Result<> Story::wait_for_base() {
    say_.begin("the first base backup, taken by itself");
    WV_CHECK(wait_for_condition("the first base backup", kPatience, [this]() -> Result<bool> {
        WV_TRY(const Json json, status());
        const Json count = find_key(json, "backup_count");
        return count.is_number_unsigned() && count.get<std::uint64_t>() > 0;
    }));
    WV_TRY(const std::string text, stage_.walvault({"-o", "json", "info", "--backups"}));
    WV_TRY(const Json info, parse_object(text, "walvault info"));
    const Json plain = find_key(info, "bytes");
    const Json stored = find_key(info, "stored_bytes");
    const bool known = plain.is_number_unsigned() && stored.is_number_unsigned();
    say_.end(known ? format_size(plain.get<std::uint64_t>()) + " → " +
                         format_size(stored.get<std::uint64_t>())
                   : std::string());
    return {};
}

Result<std::uint64_t> Story::order_count() {
    WV_TRY(const std::string answer, stage_.sql(stage_.shop(), "select count(*) from orders"));
    return std::strtoull(answer.c_str(), nullptr, 10);
}

// Between two commits: nothing warns it, and the shop goes on without it.
Result<> Story::kill_and_restart_agent() {
    auto sold = [this](std::uint64_t wanted) {
        return [this, wanted]() -> Result<bool> {
            WV_TRY(const std::uint64_t count, order_count());
            return count >= wanted;
        };
    };
    WV_CHECK(wait_for_condition("a third of the orders", kPatience, sold(order_goal_ / 3)));
    WV_CHECK(stage_.kill_agent());
    WV_TRY(orders_at_kill_, order_count());
    WV_CHECK(wait_for_condition("half of the orders", kPatience, sold(order_goal_ / 2)));
    WV_CHECK(stage_.start_agent());
    WV_TRY(orders_at_return_, order_count());
    return {};
}

Result<milliseconds> Story::wait_until_flushed() {
    WV_TRY(const std::string wanted,
           stage_.sql(stage_.shop(), "select pg_current_wal_flush_lsn()"));
    WV_TRY(const Lsn goal, parse_lsn(wanted));
    const auto began = std::chrono::steady_clock::now();
    WV_CHECK(wait_for_condition(wanted + " to be flushed", kPatience, [&]() -> Result<bool> {
        WV_TRY(const Json json, status());
        const Json flushed = find_key(json, "flushed_lsn");
        if (!flushed.is_string()) return false;
        WV_TRY(const Lsn reached, parse_lsn(flushed.get<std::string>()));
        return reached >= goal;
    }));
    return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - began);
}

Result<> Story::open_shop() {
    // The log shows a DELETE only from so many rows on. Each client takes the same number of
    // orders.
    const std::uint64_t wanted = std::max(arguments_.rows, storage::kBulkRowsMin);
    order_goal_ = (wanted + kClients - 1) / kClients * kClients;
    say_.begin(
        fmt::format("a shop opens: {} orders, and pgbench beside it", format_count(order_goal_)));
    WV_CHECK(stage_.write_file("orders.sql", kShopScript));
    const std::string clients = std::to_string(kClients);
    const std::string each = std::to_string(order_goal_ / kClients);
    const std::string rate = std::to_string(std::max<std::uint64_t>(order_goal_ / 4, 1));
    WV_TRY(DemoChild shop,
           stage_.start_pg_program("pgbench", {"-n", "-c", clients, "-t", each, "-R", rate, "-f",
                                               stage_.directory() + "/orders.sql"}));
    WV_TRY(DemoChild bench, stage_.start_pg_program("pgbench", {"-n", "-c", "2", "-T", "4"}));
    Result<> told = kill_and_restart_agent();
    auto end_both = [&] {
        shop.end(SIGTERM, seconds(5));
        bench.end(SIGTERM, seconds(5));
    };
    if (!told) end_both();
    WV_CHECK(told);
    auto shop_code = shop.wait(kPatience);
    auto bench_code = bench.wait(kPatience);
    end_both();
    WV_CHECK(shop_code.map([](int) {}));
    WV_CHECK(bench_code.map([](int) {}));
    if (*shop_code != 0 || *bench_code != 0)
        return fail(Errc::unavailable, "pgbench ended with an error:\n" +
                                           last_lines(stage_.directory() + "/pgbench.log", 10));
    WV_TRY(const milliseconds lag, wait_until_flushed());
    say_.end(fmt::format("the last commit was flushed {} ms later", lag.count()));
    say_.detail(
        fmt::format("meanwhile the agent was killed with SIGKILL at {} orders and came back at {}",
                    format_count(orders_at_kill_), format_count(orders_at_return_)));
    WV_TRY(before_, read_states(stage_, stage_.shop()));
    if (before_.front().rows == order_goal_) return {};
    return fail(Errc::unavailable, fmt::format("the shop took {} orders instead of {}",
                                               before_.front().rows, order_goal_));
}

Result<> Story::destroy() {
    say_.begin("oops:  DELETE FROM orders;");
    WV_TRY(time_before_delete_,
           stage_.sql(
               stage_.shop(),
               "select to_char(now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"));
    WV_TRY(const std::string answer, stage_.sql(stage_.shop(), "DELETE FROM orders"));
    say_.end(answer + ", committed");
    WV_TRY(std::string ignored, stage_.pg_program("pgbench", {"-n", "-c", "1", "-t", "200"}));
    say_.detail("nobody notices at once: 200 more transactions commit after it");
    WV_TRY(const milliseconds lag, wait_until_flushed());
    WV_TRY(after_, read_states(stage_, stage_.shop()));
    return {};
}

Result<> Story::find_moment() {
    say_.begin("what happened?");
    const std::vector<std::string> log{"log", "--since", time_before_delete_, "--kind", "bulk"};
    std::vector<std::string> as_json = log;
    as_json.insert(as_json.end(), {"-o", "json"});
    WV_TRY(const std::string text, stage_.walvault(as_json));
    WV_TRY(const Json answer, parse_object(text, "walvault log"));
    const Json events = find_key(answer, "events");
    for (const Json& event : events.is_array() ? events : Json::array()) {
        const Json deleted = find_key(event, "deleted_rows");
        const Json xid = find_key(event, "xid");
        if (deleted.is_number_unsigned() && deleted.get<std::uint64_t>() == order_goal_ &&
            xid.is_number_unsigned())
            delete_xid_ = std::to_string(xid.get<std::uint64_t>());
    }
    WV_TRY(const std::string people, stage_.walvault(log));
    say_.end();
    say_.typed(command_line("log --since " + time_before_delete_ + " --kind bulk"));
    say_.detail(people);
    if (!delete_xid_.empty()) return {};
    return fail(Errc::not_found,
                fmt::format("walvault log does not show the DELETE of {} rows", order_goal_));
}

Result<> Story::restore() {
    say_.begin("go back to just before it");
    WV_TRY(const std::string text, stage_.walvault({"-o", "json", "--progress", "none", "restore",
                                                    "--before", "xid:" + delete_xid_, "--pgdata",
                                                    stage_.restored_directory(), "--start"}));
    WV_TRY(const Json answer, parse_object(text, "walvault restore"));
    const Json port = find_key(answer, "port");
    const Json sockets = find_key(answer, "socket_directory");
    if (!port.is_number_unsigned() || !sockets.is_string())
        return fail(Errc::corrupt, "walvault restore does not say where the server listens");
    restored_server_ = {sockets.get<std::string>(), port.get<unsigned>()};
    const Json pid = find_key(answer, "pid");
    if (pid.is_number_integer()) restored_pid_ = std::to_string(pid.get<long>());
    WV_TRY(restored_, read_states(stage_, restored_server_));
    say_.end(fmt::format("it runs on port {}", restored_server_.port));
    say_.typed(command_line("restore --before xid:" + delete_xid_ + " --pgdata " +
                            stage_.restored_directory() + " --start"));
    return {};
}

Result<> Story::compare() {
    Table table({"", "before", "now", "restored", ""});
    std::string wrong;
    for (std::size_t i = 0; i < std::size(kWatched); ++i) {
        const bool same = restored_[i] == before_[i];
        table.add_row({kWatched[i].table, shown(before_[i]), shown(after_[i]), shown(restored_[i]),
                       same ? say_.style().good("✓ same") : say_.style().bad("DIFFERS")});
        if (!same) wrong += (wrong.empty() ? "" : ", ") + std::string(kWatched[i].table);
    }
    say_.line("");
    say_.detail(table.text());
    if (!wrong.empty())
        return fail(
            Errc::corrupt,
            "the restored cluster differs from what was there before the DELETE in: " + wrong,
            "this must never happen; please report it with the output above");
    if (after_.front().rows != 0)
        return fail(Errc::corrupt,
                    fmt::format("{} orders are left after the DELETE", after_.front().rows));
    say_.line(say_.style().good("Every row is back, and not one that came later.") +
              " Also proven just now: the agent was killed with\nSIGKILL between two commits; no "
              "acknowledged "
              "byte was lost. " +
              format_duration(say_.since_start()) + " in all.");
    return {};
}

void Story::show_commands() const {
    const std::string walvault = stage_.program() + " --config " + stage_.config_path();
    std::string text = fmt::format(
        "\nEverything is still running in {}. Go on with:\n"
        "  {} status\n"
        "  {} info --backups\n"
        "  {} log --since 5m\n"
        "  {} restore --to 1m --pgdata {}/another --start\n",
        stage_.directory(), walvault, walvault, walvault, walvault, stage_.directory());
    auto psql = [this](const DemoServer& server) {
        return fmt::format("  psql -h {} -p {} -U {} postgres ", server.socket_directory,
                           server.port, stage_.superuser());
    };
    text += psql(stage_.shop()) + "    the shop's server\n";
    if (restored_server_.port != 0) text += psql(restored_server_) + "    the restored one\n";
    text += "  kill " + stage_.process_ids() + (restored_pid_.empty() ? "" : " " + restored_pid_) +
            "     ends them\n  rm -r " + stage_.directory() + "\n";
    std::fputs(text.c_str(), stdout);
}

int run_story(const Globals& globals, const DemoArguments& arguments) {
    auto stage = DemoStage::make(globals, arguments);
    if (!stage) return report(globals, stage.error(), kExitFailed);
    Narrator say(globals, kStepCount);
    say.line(fmt::format("Everything happens in {} (PostgreSQL {}). Nothing else is touched.\n",
                         (*stage)->directory(), (*stage)->server_version()));
    Story story(globals, arguments, **stage, say);
    Result<> told = story.tell();
    if (!told) say.broken();
    if (arguments.keep) {
        (*stage)->keep();
        story.show_commands();
    }
    if (told) return kExitDone;
    if (InterruptGuard::caught() != 0) return 128 + InterruptGuard::caught();
    const std::string log = last_lines((*stage)->agent_log(), 8);
    if (!log.empty()) std::fputs(("\nthe agent's last lines:\n" + log + '\n').c_str(), stderr);
    return report(globals, told.error(), kExitFailed);
}

}  // namespace

int verb_demo(const Globals& globals, const DemoArguments& arguments) {
    if (globals.output != Output::text)
        return report(globals, Error{Errc::invalid_argument, "the demo is told for people",
                                     "leave out --output"});
    InterruptGuard guard;
    return run_story(globals, arguments);
}

}  // namespace walvault::agent
