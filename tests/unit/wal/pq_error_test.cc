#include "wal/pq_error.h"

#include <doctest/doctest.h>

#include "wal/conninfo.h"

namespace walvault::wal {
namespace {

std::string value_of(const ConnectSettings& settings, const std::string& name) {
    for (const auto& [key, value] : settings)
        if (key == name) return value;
    return "(not set)";
}

Result<ConnectSettings> settings_of(std::string conninfo,
                                    Connection::Mode mode = Connection::Mode::physical_replication) {
    Connection::Options options;
    options.conninfo = std::move(conninfo);
    options.mode = mode;
    options.application_name = "walvault-main";
    return connect_settings(options);
}

TEST_CASE("SQLSTATEs become what the caller can do about them") {
    CHECK(errc_of_sqlstate("") == Errc::unavailable);
    CHECK(errc_of_sqlstate("42501") == Errc::refused);
    CHECK(errc_of_sqlstate("28000") == Errc::refused);
    CHECK(errc_of_sqlstate("28P01") == Errc::refused);
    CHECK(errc_of_sqlstate("53300") == Errc::unavailable);
    CHECK(errc_of_sqlstate("57P03") == Errc::unavailable);
    CHECK(errc_of_sqlstate("57P01") == Errc::unavailable);
    CHECK(errc_of_sqlstate("08006") == Errc::unavailable);
    CHECK(errc_of_sqlstate("55006") == Errc::busy);
    CHECK(errc_of_sqlstate("58P01") == Errc::gap);
    CHECK(errc_of_sqlstate("42704") == Errc::not_found);
    CHECK(errc_of_sqlstate("XX001") == Errc::corrupt);
    CHECK(errc_of_sqlstate("42601") == Errc::invalid_argument);
    CHECK(errc_of_sqlstate("0A000") == Errc::invalid_argument);
    CHECK(errc_of_sqlstate("3D000") == Errc::invalid_argument);
    CHECK(errc_of_sqlstate("22023") == Errc::invalid_argument);
    CHECK(errc_of_sqlstate("XX002") == Errc::corrupt);
}

TEST_CASE("the server's own trouble, and a code that nobody knows, are worth another try") {
    for (const char* state : {"XX000", "58000", "58030", "58P02", "40001", "54000", "55000", "57014",
                              "F0000", "P0001", "ZZ123"})
        CHECK_MESSAGE(errc_of_sqlstate(state) == Errc::unavailable, state);
}

TEST_CASE("the SQLSTATE is found in a verbose message whatever language its words are in") {
    CHECK(sqlstate_of_connect_message("connection to server on socket \"/run/.s.PGSQL.5432\" failed: "
                                      "FATAL:  28000: no pg_hba.conf entry\nLOCATION:  f, auth.c:1\n") ==
          "28000");
    CHECK(sqlstate_of_connect_message("Verbindung … fehlgeschlagen: FATAL:  53300: zu viele\n") == "53300");
    CHECK(sqlstate_of_connect_message("a failed: Connection refused\nb failed: FATAL:  57P03: starting\n") ==
          "57P03");
    CHECK(sqlstate_of_connect_message("connection refused").empty());
    CHECK(sqlstate_of_connect_message("FATAL:  2800").empty());
    CHECK(sqlstate_of_connect_message("FATAL:  role \"x\" does not exist: ").empty());
}

TEST_CASE("a connect message becomes one line without codes and places in source") {
    CHECK(readable_connect_message("connection failed: FATAL:  28000: role \"x\" does not exist\n"
                                   "LOCATION:  InitializeSessionUserId, miscinit.c:700\n") ==
          "connection failed: FATAL: role \"x\" does not exist");
    CHECK(readable_connect_message("one\n\ttwo\n") == "one; two");
}

TEST_CASE("a password is replaced wherever it stands") {
    CHECK(without_password("a hunter2 b hunter2", "hunter2") == "a *** b ***");
    CHECK(without_password("nothing here", "hunter2") == "nothing here");
    CHECK(without_password("text", "") == "text");
}

TEST_CASE("what the program demands overrides the conninfo, what the user tunes stays") {
    auto settings = settings_of("host=h application_name=x replication=database client_encoding=LATIN1 "
                                "tcp_user_timeout=5 connect_timeout=3");
    REQUIRE(settings);
    CHECK(value_of(*settings, "replication") == "true");
    CHECK(value_of(*settings, "application_name") == "walvault-main");
    CHECK(value_of(*settings, "client_encoding") == "UTF8");
    CHECK(value_of(*settings, "tcp_user_timeout") == "5");
    CHECK(value_of(*settings, "keepalives") == "1");
    CHECK(value_of(*settings, "host") == "h");
    CHECK(connect_timeout_of(*settings, std::chrono::seconds(10)) == std::chrono::seconds(3));
}

TEST_CASE("an SQL connection is none of replication even if the conninfo says so") {
    auto settings = settings_of("postgresql://u@h/db?replication=true", Connection::Mode::sql);
    REQUIRE(settings);
    CHECK(value_of(*settings, "replication") == "(not set)");
    CHECK(value_of(*settings, "dbname") == "db");
    CHECK(value_of(*settings, "tcp_user_timeout") == "60000");
    CHECK(connect_timeout_of(*settings, std::chrono::seconds(10)) == std::chrono::seconds(10));
}

TEST_CASE("an unreadable conninfo is refused without a word of its password") {
    for (const char* conninfo : {"host=h password=my hunter2", "postgresql://u:hunter2@h/db?nonsense=1",
                                 "postgresql://u:%zzhunter2@h/"}) {
        CAPTURE(conninfo);
        auto settings = settings_of(conninfo);
        REQUIRE_FALSE(settings);
        CHECK(settings.error().code == Errc::invalid_argument);
        CHECK(settings.error().message.find("hunter2") == std::string::npos);
    }
    CHECK_FALSE(settings_of(std::string("host=h\0x", 8)));
}

}  // namespace
}  // namespace walvault::wal
