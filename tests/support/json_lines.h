// What the clients that drive the wal room share: verbs with KEY=VALUE arguments, and JSON lines.
#pragma once

#include <functional>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "base/bytes.h"
#include "base/task_group.h"

namespace walvault {

using nlohmann::json;
using Arguments = std::map<std::string, std::string>;
using Verbs = std::map<std::string, std::function<Task<Result<>>(Arguments)>>;

// Bytes that are no UTF-8 would not fit in JSON: they are printed as hexadecimal digits.
inline json text(std::string_view bytes) {
    try {
        const std::string copy(bytes);
        (void)json(copy).dump();
        return copy;
    } catch (const json::exception&) {
        return {{"hex", to_hex(as_bytes(bytes))}};
    }
}

inline void print(const json& line) { std::cout << line.dump() << std::endl; }

// `more` goes into the same line.
inline void print_error(const Error& error, const json& more = json::object()) {
    json line{{"event", "error"},
              {"code", std::string(to_string(error.code))},
              {"message", text(error.message)},
              {"hint", text(error.hint)}};
    line.update(more);
    print(line);
}

inline Task<> run_verb(const Verbs& verbs, std::string verb, Arguments arguments, int& exit_code) {
    auto found = verbs.find(verb);
    if (found == verbs.end()) {
        std::string known;
        for (const auto& [name, function] : verbs)
            known += (known.empty() ? "verbs: " : ", ") + name;
        print_error({Errc::invalid_argument, known, ""});
        exit_code = 1;
        co_return;
    }
    auto result = co_await found->second(std::move(arguments));
    if (result) co_return;
    print_error(result.error());
    exit_code = 1;
}

// PROGRAM VERB [KEY=VALUE ...]
inline int run_client(int argc, char** argv, const Verbs& verbs) {
    std::string verb = argc > 1 ? argv[1] : "";
    Arguments arguments;
    for (int i = 2; i < argc; ++i) {
        std::string text = argv[i];
        std::size_t at = text.find('=');
        arguments[text.substr(0, at)] = at == std::string::npos ? "" : text.substr(at + 1);
    }
    int exit_code = 0;
    {
        boost::asio::io_context loop(1);
        TaskGroup tasks(loop.get_executor());
        tasks.spawn(run_verb(verbs, verb, std::move(arguments), exit_code));
        loop.run();
    }
    return exit_code;
}

}  // namespace walvault
