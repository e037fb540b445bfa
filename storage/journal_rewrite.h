// What JournalRewrite and SnapshotWriter work on, between Repository's first and last step.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "storage/journal_pack.h"
#include "storage/journal_writer.h"

namespace walvault::storage {

// "main/journal/<journal>-<lsn>-<suffix>", without what follows the last point.
std::string journal_file_name(const std::string& cluster, const Id16& journal, Lsn lsn,
                              const std::string& suffix);

struct WrittenJournalPack {
    pb::PackInfo info;
    pb::PackFooter footer;
};

// Packs that were written and are not entered go with it.
struct JournalRewrite::Plan {
    using Written = WrittenJournalPack;
    FileSystem& files;
    ObjectStore& store;
    std::string root;
    std::string cluster;
    pb::TailOpened opened;
    std::shared_ptr<const PackReader> reader;  // of the tail
    Lsn start_lsn;
    Lsn end_lsn;
    std::int64_t covered_until_us = 0;
    const DataKey* key = nullptr;
    FileHeader header;
    std::string name_suffix;  // of packs
    int level = 0;
    bool keep_tail = false;  // as ".damaged"

    std::unique_ptr<JournalPackWriter> pack = nullptr;
    Lsn pack_start = {};
    std::vector<Written> packs = {};
    bool is_done = false;
    bool is_entered = false;

    ~Plan();
    Result<> append(const JournalBatch& batch, Lsn start);
    Result<> finish_pack(Lsn end);
};

struct SnapshotWriter::Plan {
    using Written = WrittenJournalPack;
    FileSystem& files;
    std::string root;
    pb::SnapshotTaken taken;
    const DataKey* key = nullptr;
    FileHeader header;
    std::string path_prefix;
    int level = 0;

    std::unique_ptr<JournalPackWriter> pack = nullptr;
    std::vector<Written> packs = {};
    std::uint64_t finished_bytes = 0;
    std::uint64_t finished_rows = 0;
    bool is_entered = false;

    ~Plan();
    std::uint64_t row_count() const;
    Result<> finish_pack();
};

}  // namespace walvault::storage
