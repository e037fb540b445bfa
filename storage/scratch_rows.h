// ScratchRows: keys and values in the order of the keys, on disk, for as long as a question is
// asked: what does not fit into memory.
//
// In a directory of its own that only this user can look into, removed with the object. Nothing of
// it is durable. Memory: about 40 MiB, however much is in it. Blocking; one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace walvault::storage {

class ScratchRows {
public:
    // `parent`: where its directory is made. Errors: io, no_space.
    static Result<std::unique_ptr<ScratchRows>> open(const std::string& parent);
    ~ScratchRows();
    ScratchRows(const ScratchRows&) = delete;
    ScratchRows& operator=(const ScratchRows&) = delete;

    // Errors of all of these: corrupt, io, no_space.
    Result<> put(std::string_view key, std::string_view value);
    Result<> remove(std::string_view key);
    Result<std::optional<std::string>> get(std::string_view key) const;
    Result<bool> has(std::string_view key) const;
    // Everything whose key begins with `prefix`, which is not empty.
    Result<> clear(std::string_view prefix);
    // The same, in the order of the keys, as it is when this is called: `sink` may write. It
    // returns false to stop. Errors also: what the sink returned.
    using Sink = std::function<Result<bool>(std::string_view key, std::string_view value)>;
    Result<> each(std::string_view prefix, const Sink& sink) const;

private:
    struct State;
    explicit ScratchRows(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace walvault::storage
