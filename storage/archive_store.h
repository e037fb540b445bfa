// ArchiveStore: objects in archive classes: whether they can be read now, and asking that they can.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

namespace walvault::storage {

struct ArchiveState {
    enum class Kind {
        ready,     // can be read, for good
        archived,  // cannot be read, and nobody has asked
        thawing,   // was asked for
        thawed,    // can be read until the temporary copy goes
    };
    Kind kind = Kind::ready;
    std::string storage_class;  // "GLACIER"; "STANDARD" where the store names none
    std::uint64_t size_bytes = 0;
    std::optional<WallTime> until = {};  // thawed: when the copy goes

    bool is_readable() const { return kind == Kind::ready || kind == Kind::thawed; }
};
std::string_view to_string(ArchiveState::Kind kind);

// How fast, and how dear: not every class knows every speed.
enum class ThawSpeed { standard, bulk, expedited };
// "standard".
std::string_view to_string(ThawSpeed speed);
// Errors: invalid_argument.
Result<ThawSpeed> parse_thaw_speed(std::string_view text);

struct ThawRequest {
    // From when it is thawed on. Of INTELLIGENT_TIERING objects 0: these stay where they are put.
    unsigned days = 1;
    ThawSpeed speed = ThawSpeed::standard;
};

enum class ThawAnswer {
    asked,     // just now
    thawing,   // somebody asked before; its days and speed count
    extended,  // it was thawed: the copy stays `days` from now
    ready,     // there is nothing to thaw
};

// May be called from any thread; blocks for network time. What is asked for is paid for.
class ArchiveStore {
public:
    virtual ~ArchiveStore() = default;
    // Errors: not_found (proven absent), unavailable.
    virtual Result<ArchiveState> archive_state(const std::string& name) = 0;
    // Errors: not_found, unavailable (also where there is no capacity for this speed), unsupported
    // where the store cannot thaw, invalid_argument where the class does not know the speed.
    virtual Result<ThawAnswer> request_thaw(const std::string& name,
                                            const ThawRequest& request) = 0;
    // The object whose bytes were last asked of this store and refused as archived; empty: none.
    virtual std::string last_refused() const = 0;
};

// Whether an object of this class may have to be thawed; of INTELLIGENT_TIERING only some have.
bool may_be_archived(std::string_view storage_class);

}  // namespace walvault::storage
