#include "agent/restore_job.h"

#include <unistd.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "agent/restore_directory.h"
#include "agent/restore_files.h"
#include "agent/restore_settings.h"
#include "agent/restore_wal.h"
#include "proto/server_version.h"

namespace walvault::agent {
namespace {

constexpr std::uint64_t kConfigurationBytesMax = 4_MiB;
constexpr const char* kAutoConf = "postgresql.auto.conf";

std::string root_of(const TablespacePlace& place) {
    return "pg_tblspc/" + std::to_string(place.oid);
}

class RestoreJob {
public:
    RestoreJob(storage::RepositoryView& view, const RestorePlan& plan,
               const RestoreOptions& options, ProgressLine& progress)
        : view_(view), plan_(plan), options_(options), progress_(progress) {}

    Result<RestoreOutcome> run() {
        const SteadyTime began = std::chrono::steady_clock::now();
        WV_CHECK(claim_all());
        std::map<std::string, std::string> roots{{"", plan_.directory.path}};
        for (const auto& place : plan_.tablespaces)
            roots[root_of(place)] = place.location;
        WV_TRY(RestoreTree tree, RestoreTree::open(roots, options_.owner));
        progress_.begin("copy", plan_.base_bytes + (plan_.wal_in_place ? plan_.wal_bytes : 0));
        WV_TRY(ByteBuffer control, copy(tree));
        WV_CHECK(configure(tree, control));
        WV_CHECK(tree.sync_file_systems());
        // From here on PostgreSQL could start it: all else is on disk.
        WV_CHECK(tree.write_file("global/pg_control.walvault", control));
        WV_CHECK(tree.rename("global/pg_control.walvault", "global/pg_control"));
        WV_CHECK(remove_markers(tree));
        progress_.finish();
        const auto took = std::chrono::steady_clock::now() - began;
        return RestoreOutcome{written_bytes_,
                              std::chrono::duration_cast<std::chrono::microseconds>(took)};
    }

private:
    Result<> claim_all() {
        WV_TRY(auto lock, claim_directory(plan_.directory, options_.owner));
        locks_.push_back(std::move(lock));
        for (const auto& facts : plan_.tablespace_facts) {
            WV_TRY(auto tablespace_lock, claim_directory(facts, options_.owner));
            locks_.push_back(std::move(tablespace_lock));
        }
        return {};
    }

    Result<ByteBuffer> copy(const RestoreTree& tree) {
        WV_CHECK(prepare_tablespaces(tree));
        const unsigned processors = std::max(1U, std::thread::hardware_concurrency());
        RestoreFiles files(view_, tree, options_.jobs == 0 ? processors : options_.jobs);
        WV_CHECK(view_.read_manifest(
            plan_.stop.base,
            [&](const pb::ManifestHead& head) -> Result<> {
                head_ = head;
                return {};
            },
            [&](pb::ManifestFile& file) -> Result<> {
                progress_.update(files.done_bytes());
                return files.add(file);
            }));
        std::uint64_t wal_bytes = 0;
        const auto on_wal = [&](std::uint64_t bytes) {
            wal_bytes += bytes;
            progress_.update(files.done_bytes() + wal_bytes);
        };
        WV_CHECK(write_wal(view_, plan_, tree, on_wal));
        WV_CHECK(files.finish([&] { progress_.update(files.done_bytes() + wal_bytes); }));
        if (!files.has_backup_label())
            return fail(
                Errc::corrupt,
                "the base " + plan_.stop.base.backup_id() +
                    " has no backup_label; started without it, it would be silently corrupt");
        WV_TRY(ByteBuffer control, files.control_file());
        written_bytes_ = files.done_bytes() + wal_bytes;
        return control;
    }

    Result<> prepare_tablespaces(const RestoreTree& tree) {
        if (plan_.tablespaces.empty()) return {};
        WV_CHECK(tree.make_directory("pg_tblspc", 0700));
        for (const auto& place : plan_.tablespaces)
            WV_CHECK(tree.make_symlink(root_of(place), place.location));
        return tree.write_file("tablespace_map", as_bytes(tablespace_map(plan_.tablespaces)));
    }

    bool is_readable(const std::string& path) const {
        const std::string whole = path.starts_with('/') ? path : plan_.directory.path + "/" + path;
        return ::access(whole.c_str(), R_OK) == 0;
    }

    // The text of a restored file; empty if there is none.
    Result<std::string> existing_text(const std::string& name) const {
        auto bytes = read_file(posix_file_system(), plan_.directory.path + "/" + name,
                               kConfigurationBytesMax);
        if (bytes) return std::string(as_text(*bytes));
        if (bytes.error().code == Errc::not_found) return std::string();
        return fail(bytes.error());
    }

    Result<> replace(const RestoreTree& tree, const std::string& name,
                     const std::string& text) const {
        WV_CHECK(tree.remove(name));
        return tree.write_file(name, as_bytes(text));
    }

    Result<> configure(const RestoreTree& tree, const ByteBuffer& control_bytes) {
        WV_TRY(PgControl control, parse_pg_control(control_bytes));
        if (control.system_identifier != plan_.cluster.system_identifier)
            return fail(Errc::corrupt, "pg_control of the base is of system " +
                                           std::to_string(control.system_identifier) +
                                           ", the cluster is " +
                                           std::to_string(plan_.cluster.system_identifier));
        WV_CHECK(check_version(control));
        const auto readable = [this](const std::string& path) { return is_readable(path); };
        WV_CHECK(write_main_configuration(tree, readable));
        SettingsInputs inputs;
        inputs.plan = &plan_;
        inputs.head = &head_;
        inputs.control = control;
        inputs.restore_command = plan_.wal_in_place ? "/bin/false" : options_.restore_command;
        inputs.action = options_.action;
        inputs.port = options_.port;
        inputs.socket_directory = options_.socket_directory;
        inputs.is_readable = readable;
        WV_TRY(std::string automatic, existing_text(kAutoConf));
        WV_CHECK(replace(tree, kAutoConf, automatic + recovery_settings(inputs)));
        WV_CHECK(tree.write_file("recovery.signal", {}));
        return replace(tree, kRestoreRecord, record());
    }

    Result<> check_version(const PgControl& control) const {
        WV_TRY(const ServerVersion* version,
               find_server_version(server_major_of(plan_.cluster.server_version_num), "the base"));
        if (control.control_version == version->control_version) return {};
        return fail(Errc::corrupt, "pg_control of the base has version " +
                                       std::to_string(control.control_version) + ", PostgreSQL " +
                                       std::to_string(version->major) + " writes " +
                                       std::to_string(version->control_version));
    }

    Result<> write_main_configuration(
        const RestoreTree& tree, const std::function<bool(const std::string&)>& readable) const {
        WV_TRY(std::string main, existing_text("postgresql.conf"));
        if (main.empty()) main = synthesized_configuration(head_, readable);
        WV_CHECK(replace(tree, "postgresql.conf", without_outside_paths(main)));
        if (!is_readable("pg_hba.conf"))
            WV_CHECK(tree.write_file("pg_hba.conf",
                                     as_bytes(head_.hba().empty() ? default_hba() : head_.hba())));
        if (!is_readable("pg_ident.conf"))
            WV_CHECK(tree.write_file("pg_ident.conf", as_bytes(head_.ident())));
        return {};
    }

    std::string record() const {
        const StopPoint& stop = plan_.stop;
        nlohmann::ordered_json json{
            {"cluster", plan_.cluster.name},
            {"target", (stop.target.before ? "before " : "") + stop.target.text},
            {"backup_id", stop.base.backup_id()},
            {"history_id", to_hex(stop.history.id)},
            {"timeline", stop.timeline()},
            {"wal_from_lsn", to_string(stop.wal_from_lsn)},
            {"wal_to_lsn", to_string(stop.wal_to_lsn)}};
        return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
    }

    Result<> remove_markers(const RestoreTree& tree) const {
        for (const auto& place : plan_.tablespaces)
            WV_CHECK(tree.remove(root_of(place) + "/" + kIncompleteMarker));
        return tree.remove(kIncompleteMarker);
    }

    storage::RepositoryView& view_;
    const RestorePlan& plan_;
    const RestoreOptions& options_;
    ProgressLine& progress_;
    pb::ManifestHead head_;
    std::vector<std::unique_ptr<FileLock>> locks_;
    std::uint64_t written_bytes_ = 0;
};

}  // namespace

Result<RestoreOutcome> run_restore(storage::RepositoryView& view, const RestorePlan& plan,
                                   const RestoreOptions& options, ProgressLine& progress) {
    auto outcome = RestoreJob(view, plan, options, progress).run();
    if (!outcome) progress.abandon();
    return outcome;
}

}  // namespace walvault::agent
