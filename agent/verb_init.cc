// walvault init: key, repository, role and configuration, each made if it is not there.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "agent/config_keys.h"
#include "agent/init_server.h"
#include "agent/operating_user.h"
#include "agent/render.h"
#include "agent/verbs.h"
#include "storage/keyring.h"
#include "storage/repository.h"

namespace walvault::agent {
namespace {

std::string toml_text(const std::string& value) {
    std::string out = "\"";
    for (char c : value) {
        if (c == '"' || c == '\\') out += '\\';
        out += c;
    }
    return out + '"';
}

std::string directory_of(const std::string& path) {
    std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

// The example with the values of this host put in; every other key keeps its explanation and
// default.
std::string config_text(const InitArguments& arguments, const std::string& conninfo,
                        const std::string& repo_url, const std::string& key) {
    std::string text = example_config();
    auto put = [&](const std::string& name, const std::string& value) {
        std::size_t at = text.find("\n" + name + " = ") + 1;
        std::size_t end = text.find('\n', at);
        text.replace(at, end - at, name + " = " + toml_text(value));
    };
    put("conninfo", conninfo);
    put("url", repo_url);
    put("key", key);
    if (arguments.no_backup) put("every", "off");
    for (std::string table : {"[server.main]", "[server.main.backup]", "[server.main.journal]"}) {
        std::string named = table;
        named.replace(named.find("main"), 4, arguments.name);
        text.replace(text.find(table), table.size(), named);
    }
    return text;
}

class Init {
public:
    Init(const Globals& globals, const InitArguments& arguments)
        : globals_(globals), arguments_(arguments), files_(posix_file_system()) {}

    Result<ExitCode> run() {
        WV_CHECK(decide());
        WV_CHECK(prepare_server());
        WV_CHECK(prepare_key());
        WV_CHECK(prepare_repository());
        WV_CHECK(prepare_config());
        finish();
        return role_ready_ ? kExitDone : kExitPostgres;
    }

private:
    // Fixes every place before anything is made; an existing configuration decides.
    Result<> decide() {
        auto there = files_.info(globals_.config_path);
        if (!there && there.error().code != Errc::not_found) return fail(std::move(there).error());
        config_exists_ = there.has_value();
        bool good_name = arguments_.name.find_first_not_of(
                             "abcdefghijklmnopqrstuvwxyz0123456789_-") == std::string::npos;
        if (arguments_.name.empty() || arguments_.name.size() > 63 ||
            arguments_.name.front() == '-' || !good_name)
            return fail(Errc::invalid_argument,
                        fmt::format("\"{}\" is not a server's name: 1 to 63 of a-z, 0-9, _ and -",
                                    printable(arguments_.name)));
        admin_conninfo_ = arguments_.conninfo.empty() ? "dbname=postgres" : arguments_.conninfo;
        WV_CHECK(agent_conninfo(admin_conninfo_, "walvault"));  // refuses a password early
        if (config_exists_) return follow_config();
        repo_url_ = arguments_.repo.empty() ? "file:///var/lib/walvault" : arguments_.repo;
        Config checked;
        WV_CHECK(find_config_key("repo.primary.url")->set(checked, nullptr, repo_url_));
        root_ = checked.repo.root;
        std::string directory = directory_of(globals_.config_path);
        key_path_ = arguments_.key_path.empty() ? directory + "/repo.key" : arguments_.key_path;
        bool beside = directory_of(key_path_) == directory;
        if (!beside && key_path_.front() != '/')
            return fail(Errc::invalid_argument,
                        fmt::format("{} is not an absolute path", printable(key_path_)));
        key_value_ = beside ? "credential:" + key_path_.substr(key_path_.rfind('/') + 1)
                            : "file:" + key_path_;
        return {};
    }

    Result<> follow_config() {
        WV_TRY(Config config, load_config(globals_));
        WV_TRY(const ServerConfig* server, config.server(arguments_.name));
        root_ = config.repo.root;
        key_path_ = config.key_path;
        if (!arguments_.repo.empty() && arguments_.repo != "file://" + root_)
            return differs("--repo", arguments_.repo, "file://" + root_);
        if (!arguments_.key_path.empty() && arguments_.key_path != key_path_)
            return differs("--key", arguments_.key_path, key_path_);
        if (arguments_.conninfo.empty()) admin_conninfo_ = server->conninfo;
        WV_TRY(agent_role_, role_of_conninfo(server->conninfo));
        return {};
    }

    tl::unexpected<Error> differs(const std::string& flag, const std::string& given,
                                  const std::string& there) {
        return fail(Errc::refused,
                    fmt::format("{} says {} {}, not {}", globals_.config_path, flag.substr(2),
                                there, printable(given)),
                    "leave out the flag, or change the configuration");
    }

    Result<> prepare_server() {
        auto found =
            set_up_server({admin_conninfo_, agent_role_, globals_.dry_run, service_owner_});
        if (!found) {
            Error error = std::move(found).error();
            if (error.code == Errc::invalid_argument || error.code == Errc::unsupported)
                return fail(std::move(error));
            server_failed_ = true;
            error.hint += error.hint.empty() ? "" : "\n";
            error.hint +=
                "give --conninfo, as in --conninfo \"host=/run/postgresql user=postgres\"; nothing "
                "was changed";
            return fail(std::move(error));
        }
        if (found->wal_level == "minimal") {
            server_failed_ = true;
            return fail(Errc::refused,
                        "the server's wal_level is minimal, which cannot be restored from",
                        "ALTER SYSTEM SET wal_level = 'replica'; then restart PostgreSQL and "
                        "repeat the command");
        }
        step("server",
             fmt::format("PostgreSQL {}, wal_level {}, as {}", found->version, found->wal_level,
                         printable(found->connected_as)),
             "found");
        WV_CHECK(tell_role(*found));
        if (found->slot_size_limit == "-1")
            notes_.push_back(
                "max_slot_wal_keep_size is -1: a stopped agent can fill the server's disk.\n"
                "  to bound it   ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'; SELECT "
                "pg_reload_conf();");
        return {};
    }

    Result<> tell_role(const ServerSetup& found) {
        WV_TRY(agent_conninfo_, agent_conninfo(admin_conninfo_, found.agent_role));
        role_ready_ = found.role_is_ready || globals_.dry_run;
        const std::string name = printable(found.agent_role);
        const std::string role = "role " + name;
        const bool ours = found.agent_role == "walvault";
        if (found.role_was_ready)
            step("role", ours ? role : role + ", as which pg_hba.conf lets this user in",
                 "there already");
        else if (globals_.dry_run)
            step("role", role + " (LOGIN REPLICATION, member of pg_monitor)", "would be made");
        else if (found.role_is_ready)
            step("role", role + " (LOGIN REPLICATION, member of pg_monitor)", "made");
        else
            step("role", role + ": " + printable(found.role_problem), "NOT ready");
        return {};
    }

    Result<> prepare_key() {
        auto there = files_.info(key_path_);
        if (there) {
            WV_TRY(master_, storage::MasterKey::read_file(files_, key_path_));
            // One that root made for this purpose: the agent has to read it.
            if (there->owner == 0) hand_over(key_path_);
            step("key", key_path_, "there already");
            return {};
        }
        if (there.error().code != Errc::not_found) return fail(std::move(there).error());
        // A new key for an old repository would open nothing in it.
        if (files_.info(root_ + "/repository"))
            return fail(
                Errc::wrong_key,
                fmt::format("{} is a repository, but its key {} is not there", root_, key_path_),
                "bring back the copy of the key, or name it with --key");
        if (globals_.dry_run) {
            step("key", key_path_, "would be made");
            return {};
        }
        WV_CHECK(make_private_directory(directory_of(key_path_)));
        storage::MasterKey made = storage::MasterKey::generate();
        WV_CHECK(made.write_file(files_, key_path_));
        master_ = std::move(made);
        hand_over(key_path_);
        step("key", key_path_, "made");
        notes_.push_back("Keep a copy of " + key_path_ +
                         " elsewhere: without it nothing can be restored, by anyone.");
        return {};
    }

    Result<> prepare_repository() {
        bool existed = files_.info(root_ + "/repository").has_value();
        if (globals_.dry_run) {
            step("repository", root_, existed ? "there already" : "would be made");
            return {};
        }
        WV_CHECK(storage::Repository::create(files_, root_, *master_, system_clock()));
        // A whole repository that someone gave to another user is left alone.
        if (!existed) hand_over(root_);
        auto free = files_.available_bytes(root_);
        std::string space = free ? fmt::format(" ({} free)", format_size(*free)) : "";
        step("repository", root_ + space, existed ? "there already" : "made");
        return {};
    }

    // To the agent's user, with all that is in it.
    void hand_over(const std::string& path) {
        if (!service_owner_ || globals_.dry_run) return;
        std::error_code error;
        bool handed = lchown(path.c_str(), service_owner_->user, service_owner_->group) == 0;
        if (std::filesystem::is_directory(path, error))
            for (const auto& entry : std::filesystem::recursive_directory_iterator(path, error))
                handed = lchown(entry.path().c_str(), service_owner_->user,
                                service_owner_->group) == 0 &&
                         handed;
        if (!handed || error)
            notes_.push_back(
                fmt::format("{} could not be given to the user {}", path, service_owner_->name));
    }

    // Root's, and the agent's group may look into it. One that is there is left as it is.
    Result<> make_private_directory(const std::string& path) {
        if (files_.info(path)) return {};
        WV_CHECK(files_.make_directories(path, 0750));
        give_group(path);
        return {};
    }

    void give_group(const std::string& path) {
        if (service_owner_ && lchown(path.c_str(), 0, service_owner_->group) != 0)
            notes_.push_back(fmt::format("{} could not be given to the group of {}", path,
                                         service_owner_->name));
    }

    Result<> prepare_config() {
        if (config_exists_ || globals_.dry_run) {
            step("configuration", globals_.config_path,
                 config_exists_ ? "there already" : "would be written");
            return {};
        }
        std::string text = config_text(arguments_, agent_conninfo_, repo_url_, key_value_);
        WV_CHECK(make_private_directory(directory_of(globals_.config_path)));
        WV_CHECK(write_file_atomically(files_, globals_.config_path, as_bytes(text), 0640));
        give_group(globals_.config_path);
        auto check = load_config(globals_);
        if (!check) return fail_while("read back the configuration", std::move(check).error());
        step("configuration", globals_.config_path, "written");
        return {};
    }

    void step(const std::string& what, const std::string& detail, const std::string& outcome) {
        steps_.push_back({{"step", what}, {"detail", detail}, {"outcome", outcome}});
        if (globals_.output != Output::text || globals_.quiet) return;
        std::string line = fmt::format("  {} {:<14} {}", steps_.size(), what, printable(detail));
        std::string blanks(display_width(line) < 76 ? 76 - display_width(line) : 1, ' ');
        std::printf("%s%s%s\n", line.c_str(), blanks.c_str(), outcome.c_str());
    }

    void finish() {
        const bool is_default = globals_.config_path == "/etc/walvault/walvault.toml";
        std::string next = "walvault run" + (is_default ? "" : " --config " + globals_.config_path);
        if (is_default && service_owner_)
            next = "systemctl enable --now walvault@" + arguments_.name;
        if (!role_ready_)
            next =
                "walvault init --print-sql | psql -U postgres -d postgres   (as a superuser), "
                "then " +
                next;
        if (globals_.output != Output::text) {
            nlohmann::ordered_json all{{"steps", steps_},
                                       {"notes", notes_},
                                       {"next", next},
                                       {"dry_run", globals_.dry_run}};
            print_answer(globals_, all);
            return;
        }
        for (const std::string& note : notes_)
            std::printf("note: %s\n", note.c_str());
        if (globals_.dry_run)
            std::puts("Nothing was changed (--dry-run).");
        else
            std::printf("next: %s\n", next.c_str());
    }

public:
    bool server_failed() const { return server_failed_; }

private:
    const Globals& globals_;
    const InitArguments& arguments_;
    FileSystem& files_;
    const std::optional<FileOwner> service_owner_ = service_owner();
    std::string admin_conninfo_;
    std::string agent_role_;  // of an existing configuration
    std::string agent_conninfo_;
    std::string repo_url_;
    std::string root_;
    std::string key_path_;
    std::string key_value_;
    std::optional<storage::MasterKey> master_;
    bool config_exists_ = false;
    bool role_ready_ = false;
    bool server_failed_ = false;
    nlohmann::ordered_json steps_ = nlohmann::ordered_json::array();
    std::vector<std::string> notes_;
};

}  // namespace

int verb_init(const Globals& globals, const InitArguments& arguments) {
    if (arguments.print_sql && globals.output != Output::text) {
        print_answer(globals, nlohmann::json{{"sql", role_sql()}});
        return kExitDone;
    }
    if (arguments.print_sql)
        return std::fputs(role_sql().c_str(), stdout) < 0 ? kExitFailed : kExitDone;
    Init init(globals, arguments);
    auto done = init.run();
    if (!done)
        return report(globals, done.error(),
                      init.server_failed() ? std::optional(kExitPostgres) : std::nullopt);
    return *done;
}

}  // namespace walvault::agent
