#include "agent/fetch_command.h"

#include <doctest/doctest.h>

#include <thread>

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

using Words = std::vector<std::string>;
const std::atomic<bool> kNotCancelled{false};

Words words_of(std::string_view text) {
    auto words = parse_fetch_command(text);
    REQUIRE_MESSAGE(words, words.error().message);
    return *words;
}

Error error_of(std::string_view text) {
    auto words = parse_fetch_command(text);
    REQUIRE_FALSE(words);
    CHECK(words.error().code == Errc::invalid_argument);
    return words.error();
}

// What `script` ends with, run by a shell that the test asks for.
Result<> run_script(const std::string& script, std::chrono::milliseconds timeout = 60s) {
    return run_fetch({"sh", "-c", script}, timeout, kNotCancelled);
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a command is split at spaces, and quotes and backslashes keep words together") {
    CHECK(words_of("cp /a/%f %p") == Words{"cp", "/a/%f", "%p"});
    CHECK(words_of("  cp\t'/a b/%f'  \"%p\" ") == Words{"cp", "/a b/%f", "%p"});
    CHECK(words_of("get --from=\"x \\\" y\" a\\ b %f%p ''") ==
          Words{"get", "--from=x \" y", "a b", "%f%p", ""});
    CHECK(words_of("get 'a\\b' %%x %f %p") == Words{"get", "a\\b", "%%x", "%f", "%p"});
}

TEST_CASE("a command that cannot work is refused") {
    CHECK(contains(error_of("").message, "empty"));
    CHECK(contains(error_of("   ").message, "empty"));
    CHECK(contains(error_of("'' %f %p").message, "empty"));
    CHECK(contains(error_of("cp '/a/%f %p").message, "quote"));
    CHECK(contains(error_of("cp \"/a/%f %p").message, "quote"));
    CHECK(contains(error_of("cp /a/%f").message, "%p"));
    CHECK(contains(error_of("cp /a %p").message, "%f"));
    CHECK(contains(error_of("cp %r %f %p").message, "%"));
    CHECK(contains(error_of("cp %f %p %").message, "%"));
    CHECK(contains(error_of("cp %%f %%p").message, "%f"));
}

TEST_CASE("a value stays one part of its word, whatever is in it") {
    CHECK(fetch_arguments(words_of("cp /a/%f %p 100%%"), "0001", "/tmp/x; rm -rf '$HOME' %f") ==
          Words{"cp", "/a/0001", "/tmp/x; rm -rf '$HOME' %f", "100%"});
    CHECK(fetch_arguments(words_of("%p%f%%f"), "F", "P") == Words{"PF%f"});
}

TEST_CASE("exit 0 is success, 1 is absence, everything else is an error") {
    CHECK(run_script("exit 0"));
    CHECK(run_script("exit 1").error().code == Errc::not_found);
    for (const char* code : {"2", "125", "126", "127", "255"})
        CHECK(run_script(std::string("exit ") + code).error().code == Errc::unavailable);
    auto killed = run_script("kill -9 $$");
    CHECK(killed.error().code == Errc::unavailable);
    CHECK(contains(killed.error().message, "signal 9"));
    auto missing = run_fetch({"/nowhere/program"}, 60s, kNotCancelled);
    CHECK(missing.error().code == Errc::unavailable);
    CHECK(contains(missing.error().message, "/nowhere/program"));
}

TEST_CASE("what the command says is in the message, its end, and without control characters") {
    auto failed = run_script("echo one >&2; echo two; printf 'a\\033[2J' >&2; exit 3");
    CHECK(contains(failed.error().message, "ended with 3: one two a"));
    CHECK_FALSE(contains(failed.error().message, "\033"));
    auto much = run_script("seq 1 20000 >&2; echo the end >&2; exit 3");
    CHECK(contains(much.error().message, "the end"));
    CHECK(much.error().message.size() < 2000);
}

TEST_CASE("a command that does not end is killed with its children when its time is over") {
    auto late = run_script("sleep 600 & sleep 600", 100ms);
    CHECK(late.error().code == Errc::unavailable);
    CHECK(contains(late.error().message, "did not end within"));
}

TEST_CASE("a child that outlives the command and keeps its output open holds nothing up") {
    const auto begin = std::chrono::steady_clock::now();
    CHECK(run_script("sleep 20 & exit 0"));
    CHECK(std::chrono::steady_clock::now() - begin < 15s);
}

TEST_CASE("a command is stopped when its owner ends") {
    std::atomic<bool> cancelled{false};
    std::thread owner([&] { cancelled = true; });
    auto stopped = run_fetch({"sleep", "600"}, 600s, cancelled);
    owner.join();
    CHECK(stopped.error().code == Errc::cancelled);
}

TEST_CASE("a command reads nothing and finds no shell") {
    CHECK(run_fetch({"cat"}, 60s, kNotCancelled));
    CHECK(run_fetch({"test", "$HOME; exit 1", "=", "$HOME; exit 1"}, 60s, kNotCancelled));
}

}  // namespace walvault::agent
