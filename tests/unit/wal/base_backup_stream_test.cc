#include "wal/base_backup_stream.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <deque>

#include "base/crc32c.h"
#include "base/sha256.h"
#include "base/task_group.h"

namespace walvault::wal {
namespace {

QueryResult rows(std::vector<std::vector<std::optional<std::string>>> values) {
    QueryResult result;
    result.kind = QueryResult::Kind::rows;
    result.rows = std::move(values);
    return result;
}

// What a server sends for one BASE_BACKUP, played back; every part can be changed by a test.
class ScriptedServer final : public Connection {
public:
    std::vector<QueryResult> begin;
    std::deque<std::string> copy;
    std::deque<std::deque<std::string>> more_copies;  // before 15
    int version_num = 150000;
    std::vector<QueryResult> end;
    std::optional<Error> end_error;
    std::string command;

    Task<Result<std::vector<QueryResult>>> query(std::string sql) override {
        command = std::move(sql);
        co_return begin;
    }
    Task<Result<QueryResult>> query_one(std::string) override {
        co_return fail(Errc::unsupported, "not in the script");
    }
    Task<Result<std::optional<CopyMessage>>> next_copy_data() override { co_return poll_copy_data(); }
    Result<std::optional<CopyMessage>> poll_copy_data() override {
        if (copy.empty()) return std::nullopt;
        std::string message = std::move(copy.front());
        copy.pop_front();
        char* buffer = static_cast<char*>(std::malloc(message.size()));
        std::memcpy(buffer, message.data(), message.size());
        return CopyMessage(buffer, message.size());
    }
    Task<Result<CopyWait>> wait_copy_data(std::chrono::steady_clock::duration) override {
        co_return CopyWait::ended;
    }
    Task<> gather(std::chrono::steady_clock::duration) override { co_return; }
    Task<Result<>> put_copy_data(ByteSpan) override { co_return Result<>(); }
    Result<bool> try_put_copy_data(ByteSpan) override { return true; }
    Task<Result<>> put_copy_end() override { co_return Result<>(); }
    Task<Result<std::vector<QueryResult>>> results_after_copy() override {
        if (end_error) co_return fail(*end_error);
        if (more_copies.empty()) co_return end;
        copy = std::move(more_copies.front());
        more_copies.pop_front();
        std::vector<QueryResult> next(1);
        next.front().kind = QueryResult::Kind::copy_out;
        co_return next;
    }
    int server_version_num() const override { return version_num; }
    ServerAddress address() const override { return {}; }
    std::string sqlstate() const override { return {}; }
    void close() override {}
};

class Collector final : public BackupConsumer {
public:
    Task<Result<>> on_entry(const Entry& entry) override {
        names.push_back(entry.path);
        co_return Result<>();
    }
    Task<Result<>> on_data(ByteSpan bytes) override {
        content += as_text(bytes);
        co_return Result<>();
    }
    Task<Result<>> on_file_end() override {
        content += '|';
        co_return Result<>();
    }
    Task<Result<>> on_manifest(ByteSpan bytes) override {
        manifest += as_text(bytes);
        co_return Result<>();
    }
    void on_progress(std::uint64_t done_bytes) override { progress = done_bytes; }

    std::vector<std::string> names;
    std::string manifest;
    std::string content;
    std::uint64_t progress = 0;
};

std::string tar_member(const std::string& path, const std::string& content, char type = '0',
                       const std::string& target = "") {
    std::string header(512, '\0');
    header.replace(0, path.size(), path);
    header.replace(100, 7, "0000600");
    header.replace(124, 11, fmt::format("{:011o}", content.size()));
    header.replace(136, 11, "00000000000");
    header.replace(148, 8, "        ");
    header[156] = type;
    header.replace(157, target.size(), target);
    header.replace(257, 8, std::string("ustar\00000", 8));
    unsigned sum = 0;
    for (char c : header) sum += static_cast<unsigned char>(c);
    header.replace(148, 7, fmt::format("{:06o}\0", sum).substr(0, 6) + std::string(1, '\0'));
    std::string member = header + content;
    member.resize((member.size() + 511) / 512 * 512);
    return member;
}

std::string manifest_file(const std::string& path, const std::string& content) {
    std::array<std::byte, 4> crc{};
    store_le(crc.data(), crc32c(as_bytes(content)));
    return fmt::format(R"({{ "Path": "{}", "Size": {}, "Last-Modified": "2026-08-22 12:02:57 GMT", )"
                       R"("Checksum-Algorithm": "CRC32C", "Checksum": "{}" }})",
                       path, content.size(), to_hex(crc));
}

// `head` is the version and, from version 2 on, the system.
std::string manifest_of(const std::vector<std::string>& files, const std::string& head = "1") {
    const std::string end_lsn = "0/2000100";
    std::string text =
        "{ \"PostgreSQL-Backup-Manifest-Version\": " + head + ",\n\"Files\": [\n";
    for (std::size_t i = 0; i < files.size(); ++i) text += files[i] + (i + 1 < files.size() ? ",\n" : "\n");
    text += "],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"" +
            end_lsn + "\" }\n],\n";
    Sha256 hash;
    hash.update(as_bytes(text));
    return text + "\"Manifest-Checksum\": \"" + to_hex(hash.finish()) + "\"}\n";
}

std::string archive(const std::string& name, const std::string& location) {
    return "n" + name + std::string(1, '\0') + location + std::string(1, '\0');
}

constexpr char kLabel[] = "START WAL LOCATION: 0/2000028\n";

// A whole backup: a tablespace, the base, the manifest.
ScriptedServer whole_backup() {
    ScriptedServer server;
    QueryResult copy_out;
    copy_out.kind = QueryResult::Kind::copy_out;
    server.begin = {rows({{"0/2000028", "1"}}),
                    rows({{"16384", "/srv/fast", "8"}, {std::nullopt, std::nullopt, "100"}}), copy_out};
    std::string base = tar_member("backup_label", kLabel) + tar_member("empty", "") +
                       tar_member("pg_wal", "", '5') + tar_member("global/pg_control", "control");
    server.copy = {archive("16384.tar", "/srv/fast"),
                   "d" + tar_member("PG_15_202209061/5/1", "table"),
                   archive("base.tar", ""),
                   "d" + base.substr(0, 700),
                   std::string("p\0\0\0\0\0\0\0\x07", 9),
                   "d" + base.substr(700),
                   "m",
                   "d" + manifest_of({manifest_file("backup_label", kLabel), manifest_file("empty", ""),
                                      manifest_file("global/pg_control", "control"),
                                      manifest_file("pg_tblspc/16384/PG_15_202209061/5/1", "table")})};
    server.end = {rows({{"0/2000100", "1"}}), QueryResult{}};
    return server;
}

Task<> run_into(ScriptedServer& server, Collector& collector, BackupOptions options,
                std::optional<Result<BackupStop>>& out) {
    std::function<Task<Result<>>(BackupStart)> on_start = [](BackupStart) -> Task<Result<>> {
        co_return Result<>();
    };
    out = co_await run_base_backup(server, options, on_start, collector);
}

Result<BackupStop> run(ScriptedServer& server, Collector& collector, BackupOptions options = {}) {
    asio::io_context loop(1);
    TaskGroup tasks(loop.get_executor());
    std::optional<Result<BackupStop>> out;
    tasks.spawn(run_into(server, collector, options, out));
    loop.run();
    REQUIRE(out);
    return std::move(*out);
}

void check_refused(ScriptedServer server, Errc code = Errc::corrupt) {
    Collector collector;
    auto stop = run(server, collector);
    REQUIRE_FALSE(stop);
    CHECK(stop.error().code == code);
}

TEST_CASE("a whole backup gives its files, its progress and its end") {
    ScriptedServer server = whole_backup();
    Collector collector;
    BackupOptions options;
    options.label = "it's";
    options.max_rate_bytes = 1;
    auto stop = run(server, collector, options);
    REQUIRE_MESSAGE(stop, (stop ? "" : stop.error().message));
    CHECK(stop->stop_lsn == Lsn{0x2000100});
    CHECK(stop->timeline == 1);
    CHECK(stop->manifest.file_count == 4);
    CHECK(collector.names == std::vector<std::string>{"pg_tblspc/16384/PG_15_202209061/5/1", "backup_label",
                                                      "empty", "pg_wal", "global/pg_control"});
    CHECK(collector.content == "table|" + std::string(kLabel) + "||control|");
    CHECK(collector.manifest.starts_with("{ \"PostgreSQL-Backup-Manifest-Version\": 1"));
    CHECK(collector.manifest.ends_with("}\n"));
    CHECK(collector.progress == 7);
    CHECK(server.command.find("LABEL 'it''s'") != std::string::npos);
    CHECK(server.command.find("MAX_RATE 32)") != std::string::npos);
}

// The same from a server before 15: a copy for each archive and one for the manifest.
ScriptedServer whole_backup_of_14() {
    ScriptedServer server = whole_backup();
    server.version_num = 140023;
    auto content = [&](std::size_t message) { return server.copy[message].substr(1); };
    server.more_copies = {{content(3), content(5)}, {content(7)}};
    server.copy = {content(1)};
    return server;
}

// The same from 17 and later, whose manifest names its system.
ScriptedServer whole_backup_of_17(const std::string& head) {
    ScriptedServer server = whole_backup();
    server.version_num = 170010;
    const std::string old_manifest = server.copy.back();
    const std::size_t from = old_manifest.find("{ \"Path\"");
    std::string files = old_manifest.substr(from, old_manifest.find("\n],\n\"WAL") - from);
    server.copy.back() = "d" + manifest_of({files}, head);
    return server;
}

TEST_CASE("a server before 15 is asked in its grammar and understood in its protocol") {
    ScriptedServer server = whole_backup_of_14();
    Collector collector;
    BackupOptions options;
    options.label = "it's";
    options.fast_checkpoint = true;
    options.max_rate_bytes = 64 << 10;
    auto stop = run(server, collector, options);
    REQUIRE_MESSAGE(stop, (stop ? "" : stop.error().message));
    CHECK(server.command ==
          "BASE_BACKUP LABEL 'it''s' PROGRESS FAST NOWAIT MAX_RATE 64 TABLESPACE_MAP MANIFEST 'yes' "
          "MANIFEST_CHECKSUMS 'CRC32C'");
    CHECK(stop->stop_lsn == Lsn{0x2000100});
    CHECK(collector.names == std::vector<std::string>{"pg_tblspc/16384/PG_15_202209061/5/1", "backup_label",
                                                      "empty", "pg_wal", "global/pg_control"});
    CHECK(collector.content == "table|" + std::string(kLabel) + "||control|");
    CHECK(collector.manifest.ends_with("}\n"));
    CHECK(collector.progress == 2 * 512 + 4 * 512 + 2 * 512);
}

TEST_CASE("a backup of a server before 15 that lacks a copy, or its order, is no backup") {
    ScriptedServer server = whole_backup_of_14();
    server.more_copies.pop_back();
    check_refused(std::move(server));
    server = whole_backup_of_14();
    server.more_copies.clear();
    check_refused(std::move(server));
    server = whole_backup_of_14();
    std::swap(server.copy, server.more_copies.front());
    check_refused(std::move(server));
    server = whole_backup_of_14();
    server.more_copies.front().pop_back();
    check_refused(std::move(server));
    server = whole_backup_of_14();
    std::swap(server.begin[1].rows[0], server.begin[1].rows[1]);
    check_refused(std::move(server));
    server = whole_backup_of_14();
    server.begin[1].rows.pop_back();
    check_refused(std::move(server));
}

TEST_CASE("a manifest that names another system, or none where it must, is refused") {
    Collector collector;
    BackupOptions options;
    options.system_identifier = 7'000'000'000'000'000'001;
    ScriptedServer server =
        whole_backup_of_17("2,\n\"System-Identifier\": 7000000000000000001");
    auto right = run(server, collector, options);
    REQUIRE_MESSAGE(right, (right ? "" : right.error().message));
    CHECK(right->manifest.version == 2);
    for (const char* head : {"2,\n\"System-Identifier\": 7000000000000000002", "2", "1", "3"}) {
        CAPTURE(head);
        server = whole_backup_of_17(head);
        auto stop = run(server, collector, options);
        REQUIRE_FALSE(stop);
        CHECK(stop.error().code == (head == std::string("3") ? Errc::unsupported : Errc::corrupt));
    }
}

TEST_CASE("a server of a major that is not known is not asked for a backup") {
    for (int version_num : {130023, 190000}) {
        ScriptedServer server = whole_backup();
        server.version_num = version_num;
        Collector collector;
        auto stop = run(server, collector);
        REQUIRE_FALSE(stop);
        CHECK(stop.error().code == Errc::unsupported);
        CHECK(server.command.empty());
    }
}

TEST_CASE("an error after the end position fails the backup though all its files came") {
    ScriptedServer server = whole_backup();
    server.end_error = Error{Errc::corrupt, "checksum verification failure during base backup"};
    check_refused(std::move(server));
}

TEST_CASE("an end position without a completed command is no success") {
    ScriptedServer server = whole_backup();
    server.end.pop_back();
    check_refused(std::move(server));
    server = whole_backup();
    server.end.erase(server.end.begin());
    check_refused(std::move(server));
}

TEST_CASE("a stream that breaks off anywhere is no backup") {
    std::size_t messages = whole_backup().copy.size();
    for (std::size_t kept = 0; kept < messages; ++kept) {
        CAPTURE(kept);
        ScriptedServer server = whole_backup();
        server.copy.resize(kept);
        check_refused(std::move(server));
    }
}

TEST_CASE("one changed byte of any file is found") {
    ScriptedServer server = whole_backup();
    server.copy[1][1 + 512] = 'T';
    check_refused(std::move(server));
}

TEST_CASE("one changed byte of the manifest is found") {
    ScriptedServer server = whole_backup();
    auto at = server.copy.back().find("2026");
    server.copy.back()[at] = '3';
    check_refused(std::move(server));
}

TEST_CASE("a file that the manifest does not name is refused") {
    ScriptedServer server = whole_backup();
    server.copy[1] += tar_member("PG_15_202209061/5/2", "more");
    check_refused(std::move(server));
}

TEST_CASE("a manifest for another WAL range is refused") {
    ScriptedServer server = whole_backup();
    server.end.front() = rows({{"0/2000200", "1"}});
    check_refused(std::move(server));
}

TEST_CASE("archives that were not announced, or come twice or after the manifest, are refused") {
    ScriptedServer server = whole_backup();
    server.copy.push_front(archive("999.tar", "/x"));
    check_refused(std::move(server));
    server = whole_backup();
    server.copy.insert(server.copy.begin() + 2, archive("16384.tar", "/srv/fast"));
    check_refused(std::move(server));
    server = whole_backup();
    server.copy.push_back(archive("base.tar", ""));
    check_refused(std::move(server));
    server = whole_backup();
    server.copy.push_front("m");
    check_refused(std::move(server));
    server = whole_backup();
    server.copy.push_front("dxyz");
    check_refused(std::move(server));
}

TEST_CASE("symbolic links are taken only where PostgreSQL keeps its tablespaces") {
    ScriptedServer server = whole_backup();
    server.copy.insert(server.copy.begin() + 3, "d" + tar_member("pg_tblspc/16384", "", '2', "/srv/fast"));
    Collector collector;
    CHECK(run(server, collector));
    for (const char* path : {"pg_wal", "base/5", "pg_tblspc/x", "pg_tblspc/1/2"}) {
        CAPTURE(path);
        server = whole_backup();
        server.copy.insert(server.copy.begin() + 3, "d" + tar_member(path, "", '2', "/etc"));
        check_refused(std::move(server));
    }
}

TEST_CASE("a label that would forge a line of backup_label is refused before anything is sent") {
    ScriptedServer server = whole_backup();
    Collector collector;
    BackupOptions options;
    options.label = "a\nSTART TIMELINE: 9";
    auto stop = run(server, collector, options);
    REQUIRE_FALSE(stop);
    CHECK(stop.error().code == Errc::invalid_argument);
    CHECK(server.command.empty());
}

TEST_CASE("damaged pages are counted as the server tells of them") {
    const std::string one =
        "checksum verification failed in file \"./base/5/16384\", block 0: calculated 1A5B but "
        "expected 3C2D";
    const std::string error = "checksum verification failure during base backup";
    CHECK(page_checksum_failures(error + "; " + one) == 1);
    CHECK(page_checksum_failures(error + "; " + one + "; " + one) == 2);
    CHECK(page_checksum_failures(error + "; " + one + "; " + one +
                                 "; 12 total checksum verification failures") == 12);
    CHECK(page_checksum_failures("x total checksum verification failures") == 0);
    CHECK(page_checksum_failures("base/1 came with CRC-32C 1, the manifest says 2") == 0);
}

}  // namespace
}  // namespace walvault::wal
