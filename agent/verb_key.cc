// walvault key: generate and show-id.
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/render.h"
#include "agent/verbs.h"
#include "storage/keyring.h"

namespace walvault::agent {
namespace {

int print(const std::string& text) {
    bool written =
        std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    return written ? kExitDone : kExitFailed;
}

int print_key(const Globals& globals, const storage::MasterKey& key, const std::string& path,
              bool made) {
    std::string id = to_hex(key.id());
    if (globals.output != Output::text) {
        nlohmann::ordered_json body{{"key_id", id}, {"path", path}, {"made", made}};
        print_answer(globals, body);
        return kExitDone;
    }
    if (!made) return print(id + '\n');
    return print(fmt::format(
        "Made key {} in {}\nKeep a copy elsewhere, on paper too: without it nothing can be "
        "restored, by anyone.\n",
        id, printable(path)));
}

Result<> generate(const Globals& globals, const std::string& path, int& exit) {
    if (globals.dry_run) {
        auto there = posix_file_system().info(path);
        if (there) return fail(Errc::refused, fmt::format("{} exists", path), "name another file");
        if (globals.output != Output::text) {
            print_answer(globals, nlohmann::json{{"dry_run", true}, {"path", path}});
            return {};
        }
        exit = print(fmt::format("Would make a key in {}. Nothing was changed (--dry-run).\n",
                                 printable(path)));
        return {};
    }
    storage::MasterKey key = storage::MasterKey::generate();
    WV_CHECK(key.write_file(posix_file_system(), path));
    exit = print_key(globals, key, path, true);
    return {};
}

Result<> show_id(const Globals& globals, const std::string& named, int& exit) {
    std::string path = named;
    if (path.empty()) {
        WV_TRY(Config config, load_config(globals));
        path = config.key_path;
    }
    WV_TRY(storage::MasterKey key, storage::MasterKey::read_file(posix_file_system(), path));
    exit = print_key(globals, key, path, false);
    return {};
}

}  // namespace

int verb_key(const Globals& globals, const KeyArguments& arguments) {
    int exit = kExitDone;
    auto done = arguments.action == "generate" ? generate(globals, arguments.out, exit)
                                               : show_id(globals, arguments.out, exit);
    if (!done) return report(globals, done.error());
    return exit;
}

}  // namespace walvault::agent
