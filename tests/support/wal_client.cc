// Drives the wal room against a real server for tests/integration/test_wal_room.py and for
// measuring: prints what it received as JSON lines.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "tests/support/json_lines.h"
#include "wal/base_backup_stream.h"
#include "wal/receiver.h"
#include "wal/server_facts.h"

namespace walvault {
namespace {

double cpu_seconds() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    auto seconds = [](const timeval& at) {
        return static_cast<double>(at.tv_sec) + static_cast<double>(at.tv_usec) / 1e6;
    };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
}

// What one stream wrote, and where it stands.
struct StreamSink {
    std::ofstream out;
    bool acknowledges = true;
    Lsn start;
    Lsn received;
    std::uint64_t positions = 0;
    double cpu_at_start = cpu_seconds();
    SteadyTime began = std::chrono::steady_clock::now();

    json summary() const {
        std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
        return {{"event", "summary"},
                {"start", to_string(start)},
                {"received", to_string(received)},
                {"bytes", received - start},
                {"positions", positions},
                {"seconds", took.count()},
                {"cpu_seconds", cpu_seconds() - cpu_at_start}};
    }
};

Task<Result<bool>> take_event(wal::Receiver& receiver, StreamSink& sink, wal::StreamEvent event) {
    if (auto* slice = std::get_if<wal::WalSlice>(&event)) {
        WV_ASSERT(slice->start_lsn == sink.received);
        sink.received = slice->start_lsn + slice->wal.size();
        if (sink.out.is_open()) {
            sink.out.write(reinterpret_cast<const char*>(slice->wal.data()),
                           static_cast<std::streamsize>(slice->wal.size()));
            sink.out.flush();
        }
        if (sink.acknowledges) WV_CO_CHECK(co_await receiver.acknowledge(sink.received, false));
    } else if (auto* position = std::get_if<wal::ServerPosition>(&event)) {
        if (++sink.positions <= 100)
            print({{"event", "position"},
                   {"server_end", to_string(position->server_end_lsn)},
                   {"sent_at", to_utc_text(position->sent_at)},
                   {"received", to_string(sink.received)}});
    } else {
        const auto& ended = std::get<wal::StreamEnded>(event);
        json line{{"event", "ended"}};
        if (ended.next) {
            line["next_timeline"] = ended.next->next_timeline;
            line["next_start"] = to_string(ended.next->next_start_lsn);
        }
        print(line);
        co_return false;
    }
    co_return true;
}

Task<Result<>> stream_events(wal::Receiver& receiver, StreamSink& sink, Lsn until) {
    for (;;) {
        if (until && sink.received >= until) {
            co_await receiver.stop();
            co_return Result<>();
        }
        WV_CO_TRY(auto event, co_await receiver.next());
        WV_CO_TRY(bool more, co_await take_event(receiver, sink, std::move(event)));
        if (!more) co_return Result<>();
    }
}

Task<Result<>> stream(Arguments arguments) {
    wal::Receiver::Options options;
    options.conninfo = arguments["conninfo"];
    options.slot = arguments["slot"];
    options.application_name = "wal_client";
    if (arguments.contains("ask_ms"))
        options.ask_interval = std::chrono::milliseconds(std::stoi(arguments["ask_ms"]));
    WV_CO_TRY(auto receiver, co_await wal::Receiver::attach(options, system_clock()));
    const wal::ServerIdentity& identity = receiver->identity();
    WV_CO_TRY(auto slot, co_await receiver->ensure_slot());
    Lsn start = slot.restart_lsn.value_or(identity.system.flushed_lsn);
    if (arguments.contains("start")) {
        WV_CO_TRY(start, parse_lsn(arguments["start"]));
    }
    TimelineId timeline = identity.system.timeline;
    if (arguments.contains("timeline"))
        timeline = static_cast<TimelineId>(std::stoul(arguments["timeline"]));
    Lsn until;
    if (arguments.contains("until")) {
        WV_CO_TRY(until, parse_lsn(arguments["until"]));
    }
    start = start.round_down(arguments.contains("exact") ? 1 : identity.segment_bytes);
    print({{"event", "attached"},
           {"system_identifier", identity.system.system_identifier},
           {"timeline", identity.system.timeline},
           {"flushed", to_string(identity.system.flushed_lsn)},
           {"segment_bytes", identity.segment_bytes},
           {"wal_sender_timeout_ms", identity.wal_sender_timeout.count()},
           {"slot_existed", identity.slot.has_value()},
           {"restart_lsn", slot.restart_lsn ? to_string(*slot.restart_lsn) : ""}});
    WV_CO_CHECK(co_await receiver->start(start, timeline));
    StreamSink sink;
    sink.start = sink.received = start;
    sink.acknowledges = !arguments.contains("no_ack");
    if (arguments.contains("out")) sink.out.open(arguments["out"], std::ios::binary);
    print({{"event", "started"}, {"start", to_string(start)}});
    auto result = co_await stream_events(*receiver, sink, until);
    print(sink.summary());
    co_return result;
}

Task<Result<>> history(Arguments arguments) {
    wal::Receiver::Options options;
    options.conninfo = arguments["conninfo"];
    options.slot = arguments["slot"];
    WV_CO_TRY(auto receiver, co_await wal::Receiver::attach(options, system_clock()));
    auto timeline = static_cast<TimelineId>(std::stoul(arguments["timeline"]));
    WV_CO_TRY(auto text, co_await receiver->timeline_history(timeline));
    print({{"event", "history"}, {"content", text}});
    co_return Result<>();
}

// Writes files below a new directory; nothing when the directory is empty.
class DirectoryConsumer final : public wal::BackupConsumer {
public:
    explicit DirectoryConsumer(std::filesystem::path root) : root_(std::move(root)) {}

    Task<Result<>> on_entry(const Entry& entry) override {
        ++entries;
        if (entry.type == Entry::Type::symlink) ++symlinks;
        if (root_.empty() || entry.type == Entry::Type::symlink) co_return Result<>();
        auto path = root_ / entry.path;
        std::filesystem::create_directories(
            entry.type == Entry::Type::directory ? path : path.parent_path());
        if (entry.type == Entry::Type::directory) co_return Result<>();
        file_.open(path, std::ios::binary);
        WV_ASSERT(file_.good());
        co_return Result<>();
    }
    Task<Result<>> on_data(ByteSpan data) override {
        bytes += data.size();
        if (!root_.empty())
            file_.write(reinterpret_cast<const char*>(data.data()),
                        static_cast<std::streamsize>(data.size()));
        co_return Result<>();
    }
    Task<Result<>> on_file_end() override {
        ++files;
        if (!root_.empty()) file_.close();
        co_return Result<>();
    }
    Task<Result<>> on_manifest(ByteSpan) override { co_return Result<>(); }
    void on_progress(std::uint64_t done_bytes) override { progress = done_bytes; }

    std::uint64_t entries = 0;
    std::uint64_t files = 0;
    std::uint64_t symlinks = 0;
    std::uint64_t bytes = 0;
    std::uint64_t progress = 0;

private:
    std::filesystem::path root_;
    std::ofstream file_;
};

Task<Result<>> print_backup_start(wal::BackupStart start) {
    json tablespaces = json::array();
    for (const auto& tablespace : start.tablespaces)
        tablespaces.push_back({{"oid", tablespace.oid}, {"location", tablespace.location}});
    print({{"event", "backup_start"},
           {"start", to_string(start.start_lsn)},
           {"timeline", start.timeline},
           {"expected_bytes", start.expected_bytes},
           {"tablespaces", tablespaces}});
    co_return Result<>();
}

Task<Result<>> backup(Arguments arguments) {
    wal::Connection::Options wanted;
    wanted.conninfo = arguments["conninfo"];
    wanted.mode = wal::Connection::Mode::physical_replication;
    WV_CO_TRY(auto connection, co_await wal::Connection::connect(wanted));
    wal::BackupOptions options;
    options.label = arguments.contains("label") ? arguments["label"] : "it's a \"label\"";
    options.fast_checkpoint = true;
    if (arguments.contains("max_rate_bytes"))
        options.max_rate_bytes = std::stoull(arguments["max_rate_bytes"]);
    DirectoryConsumer consumer(arguments["out"]);
    std::function<Task<Result<>>(wal::BackupStart)> on_start = print_backup_start;
    double cpu_before = cpu_seconds();
    WV_CO_TRY(auto stop, co_await wal::run_base_backup(*connection, options, on_start, consumer));
    print({{"event", "backup_complete"},
           {"stop", to_string(stop.stop_lsn)},
           {"timeline", stop.timeline},
           {"manifest_files", stop.manifest.file_count},
           {"files", consumer.files},
           {"symlinks", consumer.symlinks},
           {"bytes", consumer.bytes},
           {"progress_bytes", consumer.progress},
           {"cpu_seconds", cpu_seconds() - cpu_before}});
    co_return Result<>();
}

Task<Result<>> facts(Arguments arguments) {
    wal::Connection::Options wanted;
    wanted.conninfo = arguments["conninfo"];
    WV_CO_TRY(auto connection, co_await wal::Connection::connect(wanted));
    WV_CO_TRY(auto slot, co_await wal::slot_facts(*connection, arguments["slot"]));
    print({{"event", "slot"},
           {"exists", slot.exists},
           {"active", slot.active},
           {"active_pid", slot.active_pid},
           {"restart_lsn", slot.restart_lsn ? to_string(*slot.restart_lsn) : ""},
           {"wal_status", slot.wal_status},
           {"safe_wal_bytes", slot.safe_wal_bytes ? json(*slot.safe_wal_bytes) : json()},
           {"retained_bytes", slot.retained_bytes}});
    WV_CO_TRY(auto configuration, co_await wal::configuration_facts(*connection));
    print({{"event", "configuration"},
           {"settings", configuration.settings},
           {"data_directory", configuration.data_directory},
           {"config_file", configuration.config_file},
           {"hba_bytes", configuration.hba.size()},
           {"ident_bytes", configuration.ident.size()},
           {"server_encoding", configuration.server_encoding},
           {"server_at_us", configuration.server_at.time_since_epoch().count()},
           {"data_checksums", configuration.data_checksums},
           {"configuration_outside", configuration.configuration_outside}});
    std::vector<std::string> files{arguments["file"], "1663/1/4294967295"};
    WV_CO_TRY(auto names, co_await wal::relation_names(*connection, files));
    print({{"event", "names"}, {"names", names}});
    WV_CO_TRY(auto point,
              co_await wal::create_restore_point(*connection, arguments["restore_point"]));
    print({{"event", "restore_point"}, {"lsn", to_string(point)}});
    co_return Result<>();
}

}  // namespace
}  // namespace walvault

int main(int argc, char** argv) {
    using namespace walvault;
    return run_client(
        argc, argv,
        {{"stream", stream}, {"history", history}, {"backup", backup}, {"facts", facts}});
}
