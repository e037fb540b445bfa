#include "agent/restore_settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include "proto/server_version.h"

namespace walvault::agent {
namespace {

std::string setting_of(const pb::ManifestHead& head, const std::string& name) {
    auto found = head.settings().find(name);
    return found == head.settings().end() ? std::string() : found->second;
}

unsigned number_of(const pb::ManifestHead& head, const std::string& name) {
    const std::string text = setting_of(head, name);
    unsigned value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
}

void line(std::string& out, const std::string& name, const std::string& value) {
    out += name + " = " + quote_setting(value) + "\n";
}

bool has_library(const pb::ManifestHead& head, const std::string& library) {
    return setting_of(head, "shared_preload_libraries").find(library) != std::string::npos;
}

// A target left behind by an earlier recovery of the original would be a second one, which is
// fatal. Their order matters: an empty one also unsets the kind, so the real one comes last.
void append_target(std::string& out, const SettingsInputs& inputs) {
    for (const char* name : {"recovery_target_name", "recovery_target_time", "recovery_target_xid"})
        line(out, name, "");
    if (inputs.plan->stop.recovery_lsn) {
        line(out, "recovery_target", "");
        line(out, "recovery_target_lsn", to_string(*inputs.plan->stop.recovery_lsn));
    } else {
        line(out, "recovery_target_lsn", "");
        line(out, "recovery_target", "immediate");
    }
    line(out, "recovery_target_inclusive", "on");
    line(out, "recovery_target_timeline", std::to_string(inputs.plan->stop.timeline()));
    line(out, "recovery_target_action", inputs.action);
    line(out, "restore_command", inputs.restore_command);
    line(out, "hot_standby", "on");
}

// A server does not start with a setting that its major does not have.
struct IsolationSetting {
    const char* name;
    const char* value;
    unsigned first_major;  // 0: in all that are known
};
constexpr std::array kIsolation{
    IsolationSetting{"archive_mode", "off", 0},
    IsolationSetting{"archive_command", "", 0},
    IsolationSetting{"archive_library", "", 15},
    IsolationSetting{"archive_cleanup_command", "", 0},
    IsolationSetting{"recovery_end_command", "", 0},
    IsolationSetting{"primary_conninfo", "", 0},
    IsolationSetting{"primary_slot_name", "", 0},
    IsolationSetting{"synchronous_standby_names", "", 0},
    IsolationSetting{"synchronized_standby_slots", "", 17},
    IsolationSetting{"sync_replication_slots", "off", 17},
    IsolationSetting{"max_logical_replication_workers", "0", 0},
    // The original's own log and pid file may be named by absolute paths.
    IsolationSetting{"log_destination", "stderr", 0},
    IsolationSetting{"log_directory", "log", 0},
    IsolationSetting{"external_pid_file", "", 0},
};

// Nothing of these may act from a copy: archives, standbys, subscriptions, scheduled jobs, hooks.
void append_isolation(std::string& out, const SettingsInputs& inputs) {
    const unsigned major = server_major_of(inputs.head->backup().server_version_num());
    for (const IsolationSetting& setting : kIsolation)
        if (major >= setting.first_major) line(out, setting.name, setting.value);
    if (has_library(*inputs.head, "pg_cron")) line(out, "cron.launch_active_jobs", "off");
    if (has_library(*inputs.head, "timescaledb"))
        line(out, "timescaledb.max_background_workers", "0");
}

// Replay stops where the copy has fewer of these than the original had.
void append_minima(std::string& out, const SettingsInputs& inputs) {
    const PgControl& control = inputs.control;
    const std::array<std::pair<const char*, unsigned>, 5> minima{
        {{"max_connections", control.max_connections},
         {"max_worker_processes", control.max_worker_processes},
         {"max_wal_senders", control.max_wal_senders},
         {"max_prepared_transactions", control.max_prepared_transactions},
         {"max_locks_per_transaction", control.max_locks_per_transaction}}};
    for (const auto& [name, least] : minima)
        line(out, name, std::to_string(std::max(least, number_of(*inputs.head, name))));
}

bool has_ssl_files(const pb::ManifestHead& head,
                   const std::function<bool(const std::string&)>& is_readable) {
    std::string key = setting_of(head, "ssl_key_file");
    std::string certificate = setting_of(head, "ssl_cert_file");
    if (key.empty()) key = "server.key";
    if (certificate.empty()) certificate = "server.crt";
    return is_readable(key) && is_readable(certificate);
}

// Set by the synthesized file itself, by recovery_settings, or only meaningful where the original
// was.
bool is_left_out(const std::string& name) {
    static const std::set<std::string> kLeftOut{"config_file",
                                                "data_directory",
                                                "hba_file",
                                                "ident_file",
                                                "external_pid_file",
                                                "log_directory",
                                                "log_filename",
                                                "logging_collector",
                                                "log_destination",
                                                "stats_temp_directory",
                                                "ssl",
                                                "port",
                                                "listen_addresses",
                                                "unix_socket_directories",
                                                "archive_mode",
                                                "archive_command",
                                                "archive_library",
                                                "restore_command",
                                                "primary_conninfo",
                                                "primary_slot_name",
                                                "synchronous_standby_names",
                                                "promote_trigger_file",
                                                "wal_consistency_checking",
                                                "transaction_isolation",
                                                "transaction_read_only",
                                                "transaction_deferrable"};
    return kLeftOut.contains(name) || name.starts_with("recovery_");
}

bool is_setting_name(const std::string& name) {
    if (name.empty() || name.size() > 128) return false;
    return std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '.';
    });
}

std::string quote_for_shell(const std::string& text) {
    std::string out = "'";
    for (char c : text) {
        if (c == '\'')
            out += "'\\''";
        else if (c == '%')
            out += "%%";
        else
            out += c;
    }
    return out + "'";
}

}  // namespace

std::string quote_setting(const std::string& value) {
    std::string out = "'";
    for (char c : value) {
        if (c == '\n') {
            out += "\\n";
            continue;
        }
        if (c == '\'' || c == '\\') out += c;
        out += c;
    }
    return out + "'";
}

std::string recovery_settings(const SettingsInputs& inputs) {
    std::string out =
        "\n# Written by walvault restore. Replay stops at the planned record, and this copy "
        "archives,\n"
        "# replicates and runs jobs for nobody. Remove these lines when it becomes the real "
        "server.\n";
    append_isolation(out, inputs);
    append_minima(out, inputs);
    if (setting_of(*inputs.head, "ssl") == "on" && !has_ssl_files(*inputs.head, inputs.is_readable))
        line(out, "ssl", "off");
    line(out, "listen_addresses", inputs.port != 0 ? "localhost" : "");
    if (inputs.port != 0) line(out, "port", std::to_string(inputs.port));
    if (!inputs.socket_directory.empty())
        line(out, "unix_socket_directories", inputs.socket_directory);
    append_target(out, inputs);
    return out;
}

std::string synthesized_configuration(const pb::ManifestHead& head,
                                      const std::function<bool(const std::string&)>& is_readable) {
    std::string out =
        "# Written by walvault restore: the original keeps its configuration outside the data "
        "directory.\n"
        "# These are the settings it ran with; numbers without a unit are in PostgreSQL's own "
        "units.\n";
    std::map<std::string, std::string> sorted(head.settings().begin(), head.settings().end());
    for (const auto& [name, value] : sorted)
        if (is_setting_name(name) && !is_left_out(name)) line(out, name, value);
    line(out, "logging_collector", "off");
    line(out, "log_destination", "stderr");
    if (setting_of(head, "ssl") == "on" && has_ssl_files(head, is_readable)) line(out, "ssl", "on");
    return out;
}

std::string without_outside_paths(const std::string& configuration) {
    std::string out;
    std::size_t at = 0;
    while (at < configuration.size()) {
        std::size_t end = configuration.find('\n', at);
        end = end == std::string::npos ? configuration.size() : end + 1;
        const std::string whole = configuration.substr(at, end - at);
        const std::size_t first = whole.find_first_not_of(" \t");
        const std::string rest = first == std::string::npos ? "" : whole.substr(first);
        for (const char* name : {"data_directory", "hba_file", "ident_file", "external_pid_file"}) {
            const std::size_t length = std::char_traits<char>::length(name);
            if (rest.size() <= length || rest.compare(0, length, name) != 0) continue;
            if (rest[length] != ' ' && rest[length] != '\t' && rest[length] != '=') continue;
            out += "# left out by walvault restore: ";
        }
        out += whole;
        at = end;
    }
    return out;
}

std::string default_hba() {
    return "# Written by walvault restore: the original's pg_hba.conf could not be read.\n"
           "# Only a local user may connect, as the role of the same name.\n"
           "local all all peer\n";
}

std::string fetch_command(const std::string& program, const std::vector<std::string>& source,
                          const std::string& server) {
    std::string command = quote_for_shell(program);
    for (const std::string& word : source)
        command += " " + (word.starts_with("--") ? word : quote_for_shell(word));
    return command + " --server " + quote_for_shell(server) + " wal-get %f %p";
}

}  // namespace walvault::agent
