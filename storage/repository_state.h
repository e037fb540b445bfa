// What the parts of Repository share.
#pragma once

#include <atomic>
#include <map>
#include <optional>
#include <set>

#include "storage/index_catch_up.h"
#include "storage/journal_rewrite.h"
#include "storage/repository.h"
#include "storage/repository_files.h"

namespace walvault::storage {

struct Repository::State {
    State(FileSystem& file_system, std::string directory, const Clock& time,
          RepositoryOptions chosen, MasterKey key)
        : files(file_system),
          root(std::move(directory)),
          clock(time),
          options(std::move(chosen)),
          master(std::move(key)) {}

    FileSystem& files;
    std::string root;
    const Clock& clock;
    RepositoryOptions options;
    MasterKey master;
    std::unique_ptr<FileLock> lock;
    std::unique_ptr<ObjectStore> store;
    Id16 id{};
    Keyring keyring;
    std::unique_ptr<Ledger> ledger;
    std::unique_ptr<Index> index;
    std::unique_ptr<WalStore> wal;
    std::uint64_t generation = 0;
    std::string later_writer;  // the path of the claim that ends this one
    std::uint64_t next_serial = 1;
    std::uint64_t index_rebuilds = 0;
    std::set<std::string> held_tails;  // paths of tails that a TailWriter holds
    std::atomic<std::uint64_t> ledger_errors{0};

    bool index_is_behind = false;                  // an entry of the ledger could not be applied
    std::atomic<std::uint64_t> known_sequence{0};  // the last entry that the index has, too

    // Ledger first, synced; then the index. Where that fails, nothing is entered any more until the
    // index has caught up.
    Result<> enter(pb::LedgerEntry entry, const Footers& footers = {});
    Result<> catch_index_up();
    ObjectStore& packs_store() {
        return options.packs_store != nullptr ? *options.packs_store : *store;
    }
    Result<> open_index();
    // Takes the next generation for itself. Errors: busy if another one takes it at the same time.
    Result<> claim_generation();
    Result<> require_writer() const;
    Result<> ensure_keys();
    // New ones for those of which there is none, or only one of an earlier time; in the ledger too.
    Result<> make_keys(const std::vector<std::pair<pb::KeyPurpose, std::string>>& wanted);
    Result<bool> is_leftover_tail(const ObjectInfo& object, const std::vector<OpenTail>& open);
    Result<> remove_leftovers();
    Result<> remove_unentered_packs(const pb::BackupStarted& backup);
    Result<> remove_unentered_rewrites(const std::string& cluster);
    Result<FileCipher> new_cipher(pb::KeyPurpose purpose, FileHeader header);
    FileHeader header_for(StreamKind stream, const ClusterRecord& cluster) const;
    // One pack with this path; where one footer would be too large, several with names of their
    // own.
    Result<> close_from(const PackReader& reader, const pb::TailOpened& opened,
                        const pb::WalSummary& summary, const std::string& pack_path,
                        bool keep_tail);
    struct PackPart;
    struct WrittenPack;
    static std::vector<PackPart> cut_into_packs(const pb::PackFooter& footer);
    Result<WrittenPack> write_part(const PackReader& reader, const std::string& cluster,
                                   const PackPart& part, const std::string& path);
    struct TailRemains;
    Result<TailRemains> examine_tail(const OpenTail& tail);
    // Where what it held ends now.
    Result<Lsn> recover_tail(const OpenTail& tail);
    Result<std::optional<Lsn>> adopt_pack(const OpenTail& tail, Lsn tail_end);
    Result<> require_as_surveyed(const RetentionSurvey& survey);
    Result<bool> is_kept(const pb::PackInfo& pack, const std::string& place);
    Result<> delete_pack(const CondemnedThere& condemned, const std::string& place);
    Result<> remove_object(const std::string& path);
    Result<> finish_deletions();
    Result<> make_journal_key(const std::string& data_class);
    FileHeader journal_header(const Id16& journal, const ClusterRecord& cluster,
                              TimelineId timeline, Lsn start) const;
    Result<std::unique_ptr<JournalRewrite>> plan_rewrite(pb::TailOpened opened,
                                                         std::shared_ptr<const PackReader> reader,
                                                         Lsn end, std::int64_t covered_until_us,
                                                         int level);
    Result<> enter_rewrite(JournalRewrite::Plan& plan);
    Result<> recover_journal_tails();
    Result<> recover_journal_tail(const OpenTail& tail, std::optional<Lsn> next_start);
    Result<> enter_lost_changes(const pb::TailOpened& tail, Lsn end, std::optional<Lsn> next_start);
    Result<bool> is_leftover_journal_tail(const ObjectInfo& object);
    Result<> remove_journal_leftovers(const std::string& cluster);
    Result<> enter_lost_wal(const pb::TailOpened& tail, Lsn from, Lsn to);
};

// Whether a file is the pack of this tail: of its history, from its start on. Its name alone proves
// nothing.
bool is_pack_of_tail(const FileHeader& header, const pb::TailOpened& opened);

// What the index says of the journals of a cluster; and what follows from all of them for each.
Result<std::vector<JournalRecord>> journal_records(Index& index, const std::string& cluster);
void settle_whole_until(std::vector<JournalRecord>& records);

// What the ledger says of a WAL pack made from a tail.
pb::PackInfo wal_pack_info(const std::string& cluster, const FileHeader& header, Lsn end,
                           const pb::WalSummary& summary);

}  // namespace walvault::storage
