#include "agent/restore_plan.h"

#include <doctest/doctest.h>

#include "agent/restore_files.h"
#include "agent/restore_settings.h"
#include "agent/restore_start.h"
#include "tests/support/segment_bytes.h"

namespace walvault::agent {
namespace {

using State = DirectoryFacts::State;

DirectoryFacts directory(const std::string& path, State state = State::empty,
                         std::uint64_t free_bytes = 1_GiB) {
    return DirectoryFacts{
        .path = path, .state = state, .detail = "", .free_bytes = free_bytes, .device = 1};
}

RestoreInputs inputs() {
    RestoreInputs inputs;
    inputs.stop.history.timeline = 1;
    inputs.stop.base.set_backup_id("base1");
    inputs.stop.base.set_plain_bytes(100_MiB);
    inputs.stop.base.set_stop_lsn(0x2000100);
    inputs.stop.wal_from_lsn = Lsn{0x2000000};
    inputs.stop.wal_to_lsn = Lsn{0x4000123};
    inputs.stop.recovery_lsn = Lsn{0x40000E0};
    inputs.cluster = {"main", 7, kSegmentBytes, 150020};
    inputs.directory = directory("/srv/restored");
    inputs.repository_root = "/var/lib/walvault";
    return inputs;
}

SettingsInputs settings(const RestorePlan& plan, const pb::ManifestHead& head) {
    SettingsInputs made;
    made.plan = &plan;
    made.head = &head;
    made.control.max_connections = 200;
    made.restore_command = "/bin/false";
    made.is_readable = [](const std::string&) { return false; };
    return made;
}
bool has_line(const std::string& text, const std::string& line) {
    return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST_CASE("segments run from the base's start to the end of the last record") {
    auto plan = plan_restore(inputs());
    REQUIRE(plan);
    REQUIRE(plan->segments.size() == 3);
    CHECK(plan->segments[0].name == "000000010000000000000002");
    CHECK(plan->segments[2].name == "000000010000000000000004");
    CHECK(plan->segments[1].to_lsn.value == 0x4000000);
    CHECK(plan->segments[2].to_lsn.value == 0x4000123);
    CHECK(plan->wal_in_place);
    RestoreInputs exact = inputs();
    exact.stop.wal_to_lsn = Lsn{0x4000000};
    CHECK(plan_restore(exact)->segments.size() == 2);
}

TEST_CASE("a directory that is used or running is refused, an interrupted restore is not") {
    RestoreInputs used = inputs();
    used.directory.state = State::occupied;
    CHECK(plan_restore(used).error().code == Errc::refused);
    used.directory.state = State::running;
    used.directory.detail = "pid 912";
    CHECK(plan_restore(used).error().message.find("pid 912") != std::string::npos);
    used.directory.state = State::incomplete;
    CHECK(plan_restore(used));
    used.directory.state = State::absent;
    CHECK(plan_restore(used));
}

TEST_CASE("the repository and what is restored stay apart") {
    for (const char* path : {"/var/lib/walvault", "/var/lib/walvault/x", "/var/lib", "/"}) {
        RestoreInputs overlapping = inputs();
        overlapping.directory.path = path;
        CHECK_MESSAGE(plan_restore(overlapping).error().code == Errc::refused, path);
    }
    RestoreInputs beside = inputs();
    beside.directory.path = "/var/lib/walvault2";
    CHECK(plan_restore(beside));
}

TEST_CASE(
    "too little space is refused with both numbers, and less WAL is copied where that helps") {
    RestoreInputs small = inputs();
    small.directory.free_bytes = 120_MiB;
    auto refused = plan_restore(small);
    REQUIRE(!refused);
    CHECK(refused.error().code == Errc::no_space);
    CHECK(refused.error().message.find("120 MiB") != std::string::npos);
    // What PostgreSQL keeps of fetched WAL has to fit, not all of it.
    small.stop.wal_to_lsn = Lsn{4_GiB};
    small.directory.free_bytes = 100_MiB + 1_GiB + 256_MiB;
    auto fetched = plan_restore(small);
    REQUIRE(fetched);
    CHECK_FALSE(fetched->wal_in_place);
    small.wal_place = WalPlace::copied;
    CHECK(plan_restore(small).error().code == Errc::no_space);
    small.wal_place = WalPlace::fetched;
    small.directory.free_bytes = 10_GiB;
    CHECK_FALSE(plan_restore(small)->wal_in_place);
    small.wal_place = WalPlace::automatic;
    CHECK(plan_restore(small)->wal_in_place);
    small.stop.wal_to_lsn = Lsn{40_GiB};
    small.directory.free_bytes = 100_GiB;
    CHECK_FALSE(plan_restore(small)->wal_in_place);
    small.wal_place = WalPlace::copied;
    CHECK(plan_restore(small)->wal_in_place);
}

TEST_CASE("a tablespace goes where it was unless it is told otherwise") {
    pb::BackupInfo base;
    auto* tablespace = base.add_tablespaces();
    tablespace->set_oid(16384);
    tablespace->set_location("/mnt/fast");
    CHECK(place_tablespaces(base, {})->at(0).location == "/mnt/fast");
    CHECK(place_tablespaces(base, {"/mnt/fast=/srv/fast/"})->at(0).location == "/srv/fast");
    for (const char* wrong : {"/mnt/fast", "/mnt/fast=", "/mnt/fast=relative", "=/srv/fast",
                              "/other=/srv/fast", "/mnt/fast=/srv/../fast"})
        CHECK_MESSAGE(place_tablespaces(base, {wrong}).error().code == Errc::invalid_argument,
                      wrong);
    RestoreInputs with = inputs();
    with.tablespaces = {{16384, "/mnt/fast", "/mnt/fast"}};
    with.tablespace_facts = {directory("/mnt/fast", State::occupied)};
    CHECK(plan_restore(with).error().hint ==
          "say where it goes: --tablespace /mnt/fast=/NEW/PLACE");
    with.tablespace_facts = {directory("/srv/restored/fast")};
    CHECK(plan_restore(with).error().code == Errc::refused);
}

TEST_CASE("tablespace_map escapes what would end a line") {
    CHECK(tablespace_map({{16384, "", "/a b"}, {16385, "", "/x\ny\\z"}}) ==
          "16384 /a b\n16385 /x\\\ny\\\\z\n");
}

TEST_CASE("the segment of a timeline switch is the newer timeline's") {
    const std::vector<TimelineSwitch> switches{{1, Lsn{3 * kSegmentBytes + 100}},
                                               {2, Lsn{5 * kSegmentBytes}}};
    CHECK(timeline_of_segment(switches, 3, 2, kSegmentBytes) == 1);
    CHECK(timeline_of_segment(switches, 3, 3, kSegmentBytes) == 2);
    CHECK(timeline_of_segment(switches, 3, 4, kSegmentBytes) == 2);
    CHECK(timeline_of_segment(switches, 3, 5, kSegmentBytes) == 3);
    CHECK(timeline_of_segment(switches, 3, 9, kSegmentBytes) == 3);
}

TEST_CASE("replay is told an LSN and a numeric timeline, and the real target comes last") {
    auto plan = plan_restore(inputs());
    REQUIRE(plan);
    pb::ManifestHead head;
    const std::string text = recovery_settings(settings(*plan, head));
    CHECK(has_line(text, "recovery_target_lsn = '0/40000E0'"));
    CHECK(has_line(text, "recovery_target_inclusive = 'on'"));
    CHECK(has_line(text, "recovery_target_timeline = '1'"));
    CHECK(has_line(text, "recovery_target_time = ''"));
    CHECK(text.find("recovery_target = ''") < text.find("recovery_target_lsn = '0/"));
    plan->stop.recovery_lsn.reset();
    const std::string immediate = recovery_settings(settings(*plan, head));
    CHECK(has_line(immediate, "recovery_target = 'immediate'"));
    CHECK(immediate.find("recovery_target_lsn = ''") <
          immediate.find("recovery_target = 'immediate'"));
}

TEST_CASE("a copy touches nothing of production") {
    auto plan = plan_restore(inputs());
    pb::ManifestHead head;
    (*head.mutable_settings())["shared_preload_libraries"] = "pg_stat_statements, pg_cron";
    (*head.mutable_settings())["ssl"] = "on";
    (*head.mutable_settings())["max_connections"] = "300";
    const std::string text = recovery_settings(settings(*plan, head));
    for (const char* line :
         {"archive_mode = 'off'", "archive_command = ''", "primary_conninfo = ''",
          "primary_slot_name = ''", "synchronous_standby_names = ''", "recovery_end_command = ''",
          "max_logical_replication_workers = '0'", "cron.launch_active_jobs = 'off'", "ssl = 'off'",
          "listen_addresses = ''", "max_connections = '300'", "log_destination = 'stderr'",
          "log_directory = 'log'", "external_pid_file = ''"})
        CHECK_MESSAGE(has_line(text, line), line);
    CHECK(recovery_settings(settings(*plan, pb::ManifestHead())).find("cron.") ==
          std::string::npos);
    CHECK(has_line(recovery_settings(settings(*plan, pb::ManifestHead())),
                   "max_connections = '200'"));
}

TEST_CASE("a copy is given no setting that its major does not have") {
    auto plan = plan_restore(inputs());
    struct Row {
        const char* name;
        unsigned first_major;
    };
    for (unsigned major = 14; major <= 18; ++major) {
        CAPTURE(major);
        pb::ManifestHead head;
        head.mutable_backup()->set_server_version_num(major * 10'000 + 3);
        const std::string text = recovery_settings(settings(*plan, head));
        for (const Row& row :
             {Row{"archive_mode", 14}, Row{"archive_library", 15},
              Row{"sync_replication_slots", 17}, Row{"synchronized_standby_slots", 17}}) {
            const bool written = text.find("\n" + std::string(row.name) + " = ") != text.npos;
            CHECK_MESSAGE(written == (major >= row.first_major), row.name);
        }
    }
}

TEST_CASE("a configuration kept outside PGDATA is written anew without the original's paths") {
    pb::ManifestHead head;
    auto& settings_of_head = *head.mutable_settings();
    settings_of_head["data_directory"] = "/var/lib/postgresql/15/main";
    settings_of_head["log_directory"] = "/var/log/postgresql";
    settings_of_head["cluster_name"] = "15/main";
    settings_of_head["log_line_prefix"] = "%m it's \\ ";
    settings_of_head["bad\nname"] = "x";
    const std::string text =
        synthesized_configuration(head, [](const std::string&) { return false; });
    CHECK(has_line(text, "cluster_name = '15/main'"));
    CHECK(has_line(text, "log_line_prefix = '%m it''s \\\\ '"));
    CHECK(has_line(text, "logging_collector = 'off'"));
    CHECK(text.find("/var/") == std::string::npos);
    CHECK(text.find("bad") == std::string::npos);
    CHECK(
        without_outside_paths("a = 1\n data_directory = '/x'\nhba_file='/y'\n#z\nhba_filex = 1") ==
        "a = 1\n# left out by walvault restore:  data_directory = '/x'\n# left out by walvault "
        "restore: "
        "hba_file='/y'\n#z\nhba_filex = 1");
}

TEST_CASE("restore_command survives the shell and PostgreSQL's percent signs") {
    CHECK(
        fetch_command("/usr/bin/walvault", {"--config", "/etc/50% o'clock.toml"}, "main") ==
        "'/usr/bin/walvault' --config '/etc/50%% o'\\''clock.toml' --server 'main' wal-get %f %p");
}

TEST_CASE("replay has reached the plan when the planned record was replayed") {
    StopPoint stop = inputs().stop;
    CHECK_FALSE(has_reached(stop, Lsn{0x40000E0}));
    CHECK(has_reached(stop, Lsn{0x4000110}));
    stop.recovery_lsn.reset();
    CHECK(has_reached(stop, Lsn{0x2000100}));
    CHECK_FALSE(has_reached(stop, Lsn{0x20000FF}));
}

TEST_CASE("paths that lead out of the tree are not safe") {
    for (const char* path :
         {"", "/etc/passwd", "../x", "base/../../x", "base//x", "base/.", "base/", "./x"})
        CHECK_MESSAGE(!is_safe_relative_path(path), path);
    CHECK_FALSE(is_safe_relative_path(std::string_view("a\0b", 3)));
    CHECK(is_safe_relative_path("pg_tblspc/16384/PG_15_202209061/5/16385"));
}

TEST_CASE("only zeros are all zeros") {
    ByteBuffer bytes(8192);
    CHECK(is_all_zeros(bytes));
    bytes[8191] = std::byte{1};
    CHECK_FALSE(is_all_zeros(bytes));
    bytes[8191] = std::byte{0};
    bytes[0] = std::byte{1};
    CHECK_FALSE(is_all_zeros(bytes));
    CHECK(is_all_zeros({}));
}

}  // namespace
}  // namespace walvault::agent
