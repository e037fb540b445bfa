// Whether every byte of a pack or a tail is what it should be.
#pragma once

#include "storage/journal_source.h"
#include "storage/pack_reader.h"

namespace walvault::storage {

// Reads every frame; chunks are compared with their ids. `checked` grows by the stored bytes.
// Errors: corrupt, not_found, io, naming the frame and what it holds.
Result<> check_frames(ObjectStore& store, const Keyring& keyring, const PackReader& reader,
                      std::uint64_t& checked);

// Of a pack that the repository is known to have: where it is not there, corrupt, with what to do;
// else `error` as it is.
Error pack_missing(Error error, const std::string& path);

// A pack of a journal, of a snapshot's rows, or an open tail of a journal: that each batch is one
// and holds what the footer says of it, and that each key is in the key blocks. A tail that was
// closed since it was listed counts as what stands in its place.
Result<> check_journal_file(const JournalHost& host, const pb::PackInfo& file,
                            std::uint64_t& checked);

}  // namespace walvault::storage
