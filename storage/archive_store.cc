#include "storage/archive_store.h"

namespace walvault::storage {

std::string_view to_string(ArchiveState::Kind kind) {
    switch (kind) {
        case ArchiveState::Kind::ready:
            return "ready";
        case ArchiveState::Kind::archived:
            return "archived";
        case ArchiveState::Kind::thawing:
            return "thawing";
        case ArchiveState::Kind::thawed:
            return "thawed";
    }
    return "unknown";
}

std::string_view to_string(ThawSpeed speed) {
    switch (speed) {
        case ThawSpeed::standard:
            return "standard";
        case ThawSpeed::bulk:
            return "bulk";
        case ThawSpeed::expedited:
            return "expedited";
    }
    return "unknown";
}

Result<ThawSpeed> parse_thaw_speed(std::string_view text) {
    for (ThawSpeed speed : {ThawSpeed::standard, ThawSpeed::bulk, ThawSpeed::expedited})
        if (text == to_string(speed)) return speed;
    return fail(Errc::invalid_argument, "it is none of standard, bulk and expedited");
}

bool may_be_archived(std::string_view storage_class) {
    return storage_class == "GLACIER" || storage_class == "DEEP_ARCHIVE" ||
           storage_class == "INTELLIGENT_TIERING";
}

}  // namespace walvault::storage
