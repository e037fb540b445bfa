// DDL as the event trigger of deploy/postgres-ddl-trigger.sql tells it: the content of its messages
// in the journal, for people and for programs.
//
// Anyone who may connect can send such a message: its content is looked at as what it may be, and
// what the trigger would not write is text. Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace walvault::agent {

inline constexpr std::string_view kDdlPrefix = "walvault.ddl";  // of its messages

struct DdlObject {
    std::string type;  // "table", "table column", "index"
    std::string name;  // as PostgreSQL writes identities; empty: it has none that is told
    bool operator==(const DdlObject&) const = default;
};

struct DdlMark {
    std::string tag;                  // "ALTER TABLE"; empty: `content` is all there is
    bool is_drop = false;             // the objects are gone
    std::vector<DdlObject> objects;   // the first ones
    std::uint64_t object_count = 0;   // of all
    std::string user;                 // session_user; empty: not told
    std::string content;              // where it is not as the trigger writes it: its first bytes
    std::uint64_t content_bytes = 0;  // of all of it

    std::size_t held_bytes() const;
};

// Holds less than 100 KiB, whatever the content is.
DdlMark read_ddl_mark(std::string_view content);

// "ALTER TABLE public.items by app": fit for a terminal.
std::string ddl_text(const DdlMark& mark);
// Of several, one after another; who is named once where it is the same.
std::string ddl_text(const std::vector<DdlMark>& marks);
// {"tag","dropped","objects":[{"type","name"}],"object_count","user"}, or
// {"content","content_bytes"}.
nlohmann::ordered_json ddl_json(const DdlMark& mark);

}  // namespace walvault::agent
