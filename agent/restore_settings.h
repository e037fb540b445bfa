// The settings of a restored server: where replay stops, and that it touches nothing of production.
// Pure.
#pragma once

#include <functional>
#include <string>

#include "agent/restore_plan.h"
#include "proto/pg_control.h"

namespace walvault::agent {

struct SettingsInputs {
    const RestorePlan* plan = nullptr;
    const pb::ManifestHead* head = nullptr;
    PgControl control;
    std::string restore_command;   // complete; fetch_command() or "/bin/false"
    std::string action = "pause";  // pause | promote | shutdown
    unsigned port = 0;             // 0: the server is not started by us
    std::string socket_directory;  // empty: as configured
    std::function<bool(const std::string&)> is_readable;  // a path, relative to PGDATA or absolute
};

// Appended to postgresql.auto.conf, whose last line for a name wins.
std::string recovery_settings(const SettingsInputs& inputs);

// postgresql.conf of a cluster that keeps its configuration outside PGDATA (Debian).
std::string synthesized_configuration(const pb::ManifestHead& head,
                                      const std::function<bool(const std::string&)>& is_readable);

// The text with data_directory, hba_file, ident_file and external_pid_file turned into comments:
// they would make the copy use the original's files.
std::string without_outside_paths(const std::string& configuration);

// For a cluster whose pg_hba.conf could not be read.
std::string default_hba();

// restore_command that calls this program's wal-get; quoted for the shell, % doubled. `source` says
// where from: {"--config", PATH}, or {"--from", URL, "--key-file", PATH}.
std::string fetch_command(const std::string& program, const std::vector<std::string>& source,
                          const std::string& server);

// 'value' as postgresql.conf writes it.
std::string quote_setting(const std::string& value);

}  // namespace walvault::agent
