#include "storage/ledger.h"

#include <algorithm>
#include <limits>
#include <mutex>

#include "storage/blake2b.h"
#include "storage/ledger_file.h"

namespace walvault::storage {
namespace {

tl::unexpected<Error> not_in_ledger(const LedgerHead& from, const std::string& why) {
    return fail(
        Errc::invalid_argument,
        "entry " + std::to_string(from.sequence) + " with hash " + to_hex(from.hash) +
            " is not in the ledger: " + why,
        "The ledger was rolled back or replaced, or what remembers this entry belongs to another "
        "repository.");
}

// The file that holds entry `sequence`, or the first one.
std::size_t file_holding(const std::vector<LedgerFileInfo>& files, std::uint64_t sequence) {
    std::size_t at = 0;
    while (at + 1 < files.size() && files[at + 1].first_sequence <= sequence)
        ++at;
    return at;
}

Result<std::unique_ptr<File>> create_durable(FileSystem& files, const std::string& root,
                                             const std::string& path, ByteSpan bytes) {
    std::string directory = root + "/ledger";
    WV_CHECK(files.make_directories(directory));
    WV_CHECK(files.sync_directory(root));
    WV_TRY(auto file, files.create(path));
    WV_CHECK(file->write(bytes));
    WV_CHECK(file->sync_data());
    WV_CHECK(files.sync_directory(directory));
    return file;
}

class DiskLedger final : public Ledger {
public:
    DiskLedger(FileSystem& files, std::string root, const Id16& repository_id, LedgerKeys keys,
               const Clock& clock)
        : files_(files),
          root_(std::move(root)),
          repository_id_(repository_id),
          keys_(std::move(keys)),
          clock_(clock) {}

    Result<> reload() override {
        std::lock_guard lock(mutex_);
        auto store = make_directory_store(files_, root_);
        WV_TRY(auto infos, list_ledger_files(*store));
        if (infos.empty() && head_.sequence == 0) return {};
        if (infos.empty()) return not_in_ledger(head_, "the ledger is empty");
        const std::size_t first = file_holding(infos, head_.sequence);
        if (head_.sequence == 0 ? infos[first].first_sequence != 1
                                : infos[first].first_sequence > head_.sequence)
            return fail(Errc::corrupt, "the ledger begins with " + infos[first].name +
                                           ": the entries before it are missing");
        LedgerWalk walk(repository_id_, keys_);
        walk.set_trusted_sequence(std::numeric_limits<std::uint64_t>::max());
        auto keeps_head = [&](const pb::LedgerEntry&, const LedgerHead& head) -> Result<> {
            if (head.sequence != head_.sequence || head.hash == head_.hash) return {};
            return not_in_ledger(head_, "its entry has hash " + to_hex(head.hash));
        };
        for (std::size_t i = first; i < infos.size(); ++i) {
            bool last = i + 1 == infos.size();
            WV_TRY(ByteBuffer bytes, read_ledger_file(*store, infos[i]));
            WV_TRY(std::uint64_t whole_bytes, walk.walk(infos[i], bytes, last, keeps_head));
            if (!last) continue;
            WV_CHECK(walk.require_signed_head());
            WV_CHECK(take_over(infos[i].name, bytes, whole_bytes, walk.last_record_offset()));
        }
        if (walk.head().sequence < head_.sequence)
            return not_in_ledger(head_,
                                 "its last entry is " + std::to_string(walk.head().sequence));
        head_ = walk.head();
        return {};
    }

    Result<pb::LedgerEntry> append(pb::LedgerEntry entry) override {
        std::lock_guard lock(mutex_);
        if (broken_)
            return fail(Errc::io, "the ledger is not written any more after an earlier error",
                        "Restart the agent once the cause is gone.");
        entry.set_sequence(head_.sequence + 1);
        entry.set_previous_hash(std::string(as_text(head_.hash)));
        entry.set_generation(generation_);
        entry.set_at_us(clock_.now().time_since_epoch().count());
        std::string payload = entry.SerializeAsString();
        if (payload.size() > kLedgerPayloadBytesMax)
            return fail(Errc::invalid_argument,
                        "a ledger entry would have " + std::to_string(payload.size()) +
                            " bytes, more than the " + std::to_string(kLedgerPayloadBytesMax) +
                            " it can have");
        // Text that is not UTF-8 is written by protobuf and then refused by it for ever.
        if (!pb::LedgerEntry().ParseFromString(payload))
            return fail(Errc::invalid_argument, "a ledger entry holds text that is not UTF-8");
        ByteBuffer record = encode_ledger_record(repository_id_, keys_, as_bytes(payload));
        if (auto written = write_durably(record); !written) {
            broken_ = true;
            return fail_while("append to the ledger", std::move(written).error());
        }
        head_ = LedgerHead{entry.sequence(), ledger_record_hash(record)};
        return entry;
    }

    LedgerHead head() const override {
        std::lock_guard lock(mutex_);
        return head_;
    }
    void set_generation(std::uint64_t generation) override {
        std::lock_guard lock(mutex_);
        generation_ = generation;
    }

private:
    // Goes on with the last file. What a killed process wrote but did not sync was just read, and
    // is built upon: so it is synced first. Where its sync failed, the kernel holds the last entry
    // for written although it is not: so that one is written again, over itself. All before it were
    // synced before it was begun. A file without a whole entry is as if never made.
    Result<> take_over(const std::string& name, ByteSpan bytes, std::uint64_t whole_bytes,
                       std::uint64_t last_offset) {
        std::string path = root_ + "/" + name;
        if (whole_bytes <= kLedgerHeaderBytes) {
            WV_CHECK(files_.remove(path));
            return files_.sync_directory(root_ + "/ledger");
        }
        WV_TRY(auto file, files_.open_append(path));
        if (whole_bytes < bytes.size()) WV_CHECK(file->truncate(whole_bytes));
        const std::uint64_t from = last_offset <= kLedgerHeaderBytes ? 0 : last_offset;
        WV_CHECK(file->write_at(from, bytes.subspan(from, whole_bytes - from)));
        WV_CHECK(file->sync_data());
        WV_CHECK(files_.sync_directory(root_ + "/ledger"));
        file_ = std::move(file);
        file_bytes_ = whole_bytes;
        return {};
    }

    Result<> write_durably(ByteSpan record) {
        if (file_ && file_bytes_ + record.size() <= kLedgerFileBytesMax) {
            WV_CHECK(file_->write(record));
            WV_CHECK(file_->sync_data());
            file_bytes_ += record.size();
            return {};
        }
        std::uint64_t first_sequence = head_.sequence + 1;
        ByteBuffer bytes = encode_ledger_header(repository_id_, first_sequence, head_.hash);
        walvault::append(bytes, record);
        WV_TRY(file_, create_durable(files_, root_, root_ + "/" + ledger_file_name(first_sequence),
                                     bytes));
        file_bytes_ = bytes.size();
        return {};
    }

    FileSystem& files_;
    std::string root_;
    Id16 repository_id_;
    LedgerKeys keys_;
    const Clock& clock_;
    mutable std::mutex mutex_;
    std::unique_ptr<File> file_;
    std::uint64_t file_bytes_ = 0;
    LedgerHead head_;
    std::uint64_t generation_ = 0;
    bool broken_ = false;
};

}  // namespace

LedgerKeys LedgerKeys::derive(const DataKey& ledger_key) {
    SecretBytes seed(crypto_sign_SEEDBYTES);
    blake2b(seed.mutable_view(), ledger_key.secret.view(), {as_bytes("walvault ledger signing 1")});
    LedgerKeys keys;
    static_assert(sizeof keys.public_key == crypto_sign_PUBLICKEYBYTES);
    keys.secret_key = SecretBytes(crypto_sign_SECRETKEYBYTES);
    crypto_sign_seed_keypair(raw(keys.public_key.data()),
                             raw(keys.secret_key.mutable_view().data()), raw(seed.view().data()));
    return keys;
}

namespace {

// Walks the files from the one that holds `from` on, and proves that it is in them.
Result<LedgerHead> walk_from(ObjectStore& store, LedgerWalk& walk, const LedgerHead& from,
                             bool tolerate_torn_end, const LedgerWalk::OnEntry& on_entry) {
    WV_TRY(auto files, list_ledger_files(store));
    if (files.empty() && from.sequence == 0) return LedgerHead{};
    if (files.empty()) return not_in_ledger(from, "the ledger is empty");
    std::size_t first = file_holding(files, from.sequence);
    if (from.sequence == 0 ? files[first].first_sequence != 1
                           : files[first].first_sequence > from.sequence)
        return fail(Errc::corrupt, "the ledger begins with " + files[first].name +
                                       ": the entries before it are missing");
    auto pass_on = [&](const pb::LedgerEntry& entry, const LedgerHead& head) -> Result<> {
        if (head.sequence == from.sequence && head.hash != from.hash)
            return not_in_ledger(from, "its entry " + std::to_string(head.sequence) + " has hash " +
                                           to_hex(head.hash));
        return head.sequence > from.sequence ? on_entry(entry, head) : Result<>{};
    };
    for (std::size_t i = first; i < files.size(); ++i) {
        bool last = i + 1 == files.size();
        WV_TRY(ByteBuffer bytes, read_ledger_file(store, files[i]));
        WV_CHECK(walk.walk(files[i], bytes, last && tolerate_torn_end, pass_on));
    }
    if (walk.head().sequence < from.sequence)
        return not_in_ledger(from, "its last entry is " + std::to_string(walk.head().sequence));
    return walk.head();
}

}  // namespace

Result<LedgerHead> read_ledger(ObjectStore& store, const Id16& repository_id,
                               const LedgerKeys& keys, const LedgerHead& from,
                               bool tolerate_torn_end,
                               const std::function<Result<>(const pb::LedgerEntry&)>& on_entry) {
    LedgerWalk walk(repository_id, keys);
    walk.set_trusted_sequence(from.sequence);
    return walk_from(
        store, walk, from, tolerate_torn_end,
        [&](const pb::LedgerEntry& entry, const LedgerHead&) { return on_entry(entry); });
}

Result<LedgerHead> read_ledger_records(ObjectStore& store, const Id16& repository_id,
                                       const LedgerKeys& keys, const LedgerHead& from,
                                       std::uint64_t trusted,
                                       const std::function<bool(const LedgerRecord&)>& on_record) {
    LedgerWalk walk(repository_id, keys);
    walk.set_trusted_sequence(std::max(trusted, from.sequence));
    bool enough = false;
    auto read = walk_from(store, walk, from, true,
                          [&](const pb::LedgerEntry& entry, const LedgerHead& head) -> Result<> {
                              enough = !on_record({head, entry, walk.last_record()});
                              if (enough) return fail(Errc::cancelled, "enough was read");
                              return {};
                          });
    if (enough) return walk.head();
    return read;
}

Result<std::unique_ptr<Ledger>> Ledger::open(FileSystem& files, const std::string& root,
                                             const Id16& repository_id, LedgerKeys keys,
                                             const Clock& clock) {
    auto ledger = std::make_unique<DiskLedger>(files, root, repository_id, std::move(keys), clock);
    WV_CHECK(ledger->reload());
    return ledger;
}

}  // namespace walvault::storage
