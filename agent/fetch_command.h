// FetchCommand: the operator's command that gets one WAL segment from another place, such as an
// archive. Like PostgreSQL's restore_command, but run without a shell.
#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace walvault::agent {

// The words of a command. Spaces separate them; '…' keeps everything together, "…" too but for \,
// and \ takes the next character as it is. Errors: invalid_argument: nothing in it, a quote that
// does not end, % before anything but f, p and %, or without both %f and %p.
Result<std::vector<std::string>> parse_fetch_command(std::string_view text);
// The arguments of one call: %f is `file`, %p is `path`, %% is %. A value never becomes more than a
// part of its word, whatever is in it.
std::vector<std::string> fetch_arguments(const std::vector<std::string>& words,
                                         const std::string& file, const std::string& path);

// Runs the program, found by PATH, in a process group of its own, with nothing to read. Blocking,
// at most `timeout`; then, or soon after `cancelled`, the whole group is killed. Exit code 0:
// success. Errors: not_found for 1, the command's word that the segment is not there; unavailable
// for every other code, a signal, a program that cannot be run, the timeout; cancelled. What the
// command wrote, at most its last kilobyte, is in the message.
Result<> run_fetch(const std::vector<std::string>& arguments, std::chrono::milliseconds timeout,
                   const std::atomic<bool>& cancelled);

}  // namespace walvault::agent
