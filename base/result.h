// Result<T>: a value or an Error; how every outside cause (disk, network, server, bytes) travels.
#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace walvault {

// Chosen by what the caller can do about it.
enum class Errc {
    invalid_argument,  // the input is wrong; the same call will fail again
    not_found,         // proven absent; never used for "could not look"
    corrupt,           // bytes fail their check
    io,              // a local file operation failed; the object it was done on is broken for good
    no_space,        // the store is full; worth another try when there is space
    unavailable,     // the other side does not answer now; worth another try
    archived,        // it is there, and must be thawed before it can be read
    refused,         // it could be done but must not be (not empty, running, another cluster)
    busy,            // another process holds it
    wrong_key,       // the key is missing, unreadable or another one
    unsupported,     // a version or an option this build does not know
    outside_window,  // the target is before, after or inside a gap of what can be restored
    ambiguous,       // the target has more than one meaning
    gap,             // bytes that are needed are known to be missing
    forked,          // the server's bytes are not the continuation of what is stored
    unusable,        // the server has invalidated the slot; a new one must be made
    cancelled,       // stopped on request
};

std::string_view to_string(Errc code);

// Which side an error is about. `server`: what we are connected to said it, or does not answer.
enum class Origin { here, server };

// `message` is a sentence for a person: outermost action first, both numbers in it, no secret.
// `hint` is what to do about it; empty when the message says it all.
struct [[nodiscard]] Error {
    Errc code = Errc::invalid_argument;
    std::string message;
    std::string hint = {};
    Origin origin = Origin::here;
};

template <class T = void>
using Result = tl::expected<T, Error>;

// Cold: what leads to an error stands apart from what runs for each message.
[[gnu::cold]] tl::unexpected<Error> fail(Errc code, std::string message, std::string hint = {});
[[gnu::cold]] tl::unexpected<Error> fail(Error error);

// The same error, its message led by what was being done: "read pack 17: " + message.
[[gnu::cold]] tl::unexpected<Error> fail_while(std::string_view doing, Error error);

}  // namespace walvault

#define WV_CONCAT_INNER(a, b) a##b
#define WV_CONCAT(a, b) WV_CONCAT_INNER(a, b)

// WV_TRY(auto x, expression): x is the value, or the function returns the error.
#define WV_TRY(declaration, ...) \
    WV_TRY_AS(return, WV_CONCAT(wv_result_, __LINE__), declaration, __VA_ARGS__)
#define WV_CO_TRY(declaration, ...) \
    WV_TRY_AS(co_return, WV_CONCAT(wv_result_, __LINE__), declaration, __VA_ARGS__)
#define WV_TRY_AS(leave, name, declaration, ...)                \
    auto name = (__VA_ARGS__);                                  \
    if (!name) leave ::walvault::fail(std::move(name).error()); \
    declaration = std::move(*name)

// WV_CHECK(expression): for Result<void>; the function returns the error.
#define WV_CHECK(...)                                             \
    do {                                                          \
        if (auto wv_check = (__VA_ARGS__); !wv_check)             \
            return ::walvault::fail(std::move(wv_check).error()); \
    } while (false)
#define WV_CO_CHECK(...)                                                        \
    do {                                                                        \
        auto wv_check = (__VA_ARGS__);                                          \
        if (!wv_check) co_return ::walvault::fail(std::move(wv_check).error()); \
    } while (false)
