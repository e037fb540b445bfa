#include "wal/conninfo.h"

#include <doctest/doctest.h>

namespace walvault::wal {
namespace {

ConnectSettings settings_of(const std::string& conninfo, const Connection::Options& how = {}) {
    Connection::Options options = how;
    options.conninfo = conninfo;
    auto settings = connect_settings(options);
    REQUIRE(settings);
    return *settings;
}

std::string value_of(const ConnectSettings& settings, const std::string& name) {
    for (const auto& [key, value] : settings)
        if (key == name) return value;
    return "(not set)";
}

TEST_CASE("the servers of a conninfo are found as libpq finds them") {
    using Servers = std::vector<ServerAddress>;
    CHECK(servers_of(settings_of("user=x")) == Servers{{}});
    CHECK(servers_of(settings_of("host=a,b,c port=1,2,3")) ==
          Servers{{"a", "", "1"}, {"b", "", "2"}, {"c", "", "3"}});
    CHECK(servers_of(settings_of("host=a,b port=5433")) ==
          Servers{{"a", "", "5433"}, {"b", "", "5433"}});
    CHECK(servers_of(settings_of("host=a,b port=5433,")) ==
          Servers{{"a", "", "5433"}, {"b", "", ""}});
    CHECK(servers_of(settings_of("hostaddr=10.0.0.1,10.0.0.2")) ==
          Servers{{"", "10.0.0.1", ""}, {"", "10.0.0.2", ""}});
    CHECK(servers_of(settings_of("postgresql://u@a:1,b:2/db?target_session_attrs=any")) ==
          Servers{{"a", "", "1"}, {"b", "", "2"}});
}

TEST_CASE("one of several servers is reached whatever its role, with all else of the conninfo") {
    Connection::Options options;
    options.only = ServerAddress{"b", "10.0.0.2", "2"};
    options.application_name = "walvault watch";
    auto settings = settings_of(
        "host=a,b hostaddr=10.0.0.1,10.0.0.2 port=1,2 target_session_attrs=read-write passfile=/p "
        "sslmode=require",
        options);
    CHECK(value_of(settings, "host") == "b");
    CHECK(value_of(settings, "hostaddr") == "10.0.0.2");
    CHECK(value_of(settings, "port") == "2");
    CHECK(value_of(settings, "target_session_attrs") == "any");
    CHECK(value_of(settings, "passfile") == "/p");
    CHECK(value_of(settings, "sslmode") == "require");
    CHECK(value_of(settings, "application_name") == "walvault watch");
    options.only = ServerAddress{"/run/postgresql", "", "5432"};
    settings = settings_of("host=a,/run/postgresql hostaddr=10.0.0.1,", options);
    CHECK(value_of(settings, "host") == "/run/postgresql");
    CHECK(value_of(settings, "hostaddr") == "(not set)");
}

TEST_CASE("who writes asks several servers for the one that takes it, and one as it is") {
    Connection::Options options;
    options.writable = true;
    CHECK(value_of(settings_of("host=a,b target_session_attrs=prefer-standby", options),
                   "target_session_attrs") == "read-write");
    CHECK(value_of(settings_of("host=a", options), "target_session_attrs") == "(not set)");
}

TEST_CASE("servers are put back as they were found") {
    for (const char* conninfo :
         {"host=a,b,c port=1,2,3", "host=a,b hostaddr=,10.0.0.2 port=5,", "hostaddr=10.0.0.1"}) {
        auto settings = settings_of(conninfo);
        auto servers = servers_of(settings);
        set_servers(settings, servers);
        CHECK(servers_of(settings) == servers);
    }
}

TEST_CASE("a server is known again when libpq has filled in what was left open") {
    CHECK(same_server({"b", "", ""}, {"b", "10.0.0.2", "5432"}));
    CHECK(same_server({"", "10.0.0.2", "5432"}, {"10.0.0.2", "10.0.0.2", "5432"}));
    CHECK_FALSE(same_server({"127.0.0.1", "", "1"}, {"127.0.0.1", "127.0.0.1", "2"}));
    CHECK_FALSE(same_server({"a", "", "1"}, {"b", "", "1"}));
    CHECK(to_string(ServerAddress{"b", "10.0.0.2", "5432"}) == "b:5432");
    CHECK(to_string(ServerAddress{}) == "the default host");
}

}  // namespace
}  // namespace walvault::wal
