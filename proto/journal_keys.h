// Where keys of rows occur in a pack of the row journal: which bytes of a row are its key, and the
// blocks that name the frames of a key's hash. docs/journal.md has the format. Pure; the hash
// itself is the caller's.
#pragma once

#include <functional>
#include <span>

#include "proto/journal_format.h"

namespace walvault {

// Columns by which a row is told from others and found in a pack: those of the replica identity
// where it is an index of its own (a delete has no others), else the primary key. Empty where there
// is neither.
std::vector<std::uint32_t> key_columns(const pb::JournalRelation& relation);

// The bytes of a key that are hashed: u32 oid ‖ for each column u32 length ‖ text.
ByteBuffer encode_journal_key(std::uint32_t table_oid,
                              const std::vector<std::string_view>& columns);

// Calls `sink` with the encoded key of each row that a change names: of an update that changes it,
// both. Nothing for a row whose key is not known. `columns`: key_columns() of its relation;
// `record`: inserted, updated, deleted or row. Errors: corrupt.
Result<> each_journal_key(std::uint32_t table_oid, const std::vector<std::uint32_t>& columns,
                          const JournalRecordView& record,
                          const std::function<void(ByteSpan)>& sink);

// A key with this hash occurs in this frame.
struct KeyPlace {
    std::uint32_t hash = 0;
    std::uint32_t frame_number = 0;
    auto operator<=>(const KeyPlace&) const = default;
};
// `places` are sorted, each once. From `cut` on are the numbers of frames: other bytes than hashes.
struct EncodedKeyBlock {
    ByteBuffer plain;
    std::size_t cut = 0;
};
EncodedKeyBlock encode_key_block(std::span<const KeyPlace> places);
// Errors: corrupt.
Result<std::vector<KeyPlace>> decode_key_block(ByteSpan block);

}  // namespace walvault
