#include "agent/repo_copy.h"

#include <optional>
#include <set>

#include "proto/frame_format.h"
#include "storage/journal_end.h"
#include "storage/offloader.h"
#include "storage/pack_reader.h"
#include "storage/repository_files.h"
#include "storage/tier_store.h"

namespace walvault::agent {
namespace {

using storage::ObjectStore;
using storage::OffloadSnapshot;

constexpr int kSnapshotTries = 5;
constexpr int kIdleRoundsMax = 10;

// Paths of the tails that are open after the last entry, and of the packs that the place which is
// copied has let go.
struct LedgerEnd {
    std::uint64_t sequence = 0;
    std::set<std::string> tails;
    std::set<std::string> let_go;
};

Result<LedgerEnd> read_to_end(ObjectStore& store, const Id16& id, const storage::LedgerKeys& keys,
                              const std::string& place) {
    LedgerEnd end;
    std::set<std::string> by_directory;
    auto take = [&](const pb::LedgerEntry& entry) -> Result<> {
        for (const pb::CondemnedPack& pack : entry.condemned().packs()) {
            if (entry.condemned().place() == place) end.let_go.insert(pack.pack().path());
            if (entry.condemned().place().empty()) by_directory.insert(pack.pack().path());
        }
        // What the directory had let go by then never went there.
        if (entry.has_place_added() && entry.place_added().place() == place)
            end.let_go.insert(by_directory.begin(), by_directory.end());
        if (entry.has_tail_opened()) end.tails.insert(entry.tail_opened().path());
        if (entry.has_pack_closed()) end.tails.erase(entry.pack_closed().replaces_tail());
        if (entry.has_tail_abandoned()) end.tails.erase(entry.tail_abandoned().path());
        return {};
    };
    WV_TRY(storage::LedgerHead head, storage::read_ledger(store, id, keys, {}, true, take));
    end.sequence = head.sequence;
    return end;
}

// Where the frame at `at` ends; nothing where there is no whole one, but a torn one, space written
// ahead, or the footer of a tail that is becoming a pack. What counts is that it opens.
Result<std::optional<std::uint64_t>> end_of_frame(ByteSpan bytes, std::uint64_t at,
                                                  const storage::FileCipher& cipher,
                                                  FramePlace& place, ByteBuffer& plain) {
    const ByteSpan rest = bytes.subspan(at);
    if (rest.size() < kFrameHeaderBytes) return std::optional<std::uint64_t>();
    auto header = decode_frame_header(rest.first(kFrameHeaderBytes));
    if (!header || header->kind == FrameKind::footer) return std::optional<std::uint64_t>();
    const std::uint64_t stored = kFrameHeaderBytes + header->sealed_bytes;
    if (stored > rest.size()) return std::optional<std::uint64_t>();
    place.kind = header->kind;
    const bool journal = cipher.header().stream == StreamKind::journal;
    const bool moves = !journal && header->kind != FrameKind::quiet;
    place.end = place.start + (moves ? header->plain_bytes : 0);
    auto opened = cipher.unseal_into(place, rest.first(stored), plain);
    if (!opened && opened.error().code == Errc::corrupt) return std::optional<std::uint64_t>();
    if (!opened) return fail(opened.error());
    if (journal) {
        WV_TRY(Lsn end, storage::journal_end_behind(place.kind, plain, Lsn{place.start}));
        place.end = end.value;
    }
    ++place.frame_number;
    place.start = place.end;
    return std::optional(at + stored);
}

// Where the last whole frame of a tail ends; 0: it has none, or is not there any more.
Result<std::uint64_t> end_of_frames(ObjectStore& store, const std::string& path,
                                    const storage::Keyring& keyring) {
    auto info = store.info(path);
    if (!info && info.error().code == Errc::not_found) return 0;
    if (!info) return fail(info.error());
    auto bytes = store.get(path, 0, info->size_bytes);
    if (!bytes && bytes.error().code == Errc::not_found) return 0;
    if (!bytes) return fail(bytes.error());
    if (bytes->size() < kFileHeaderBytes) return 0;
    auto cipher = storage::open_cipher(store, path, keyring);
    if (!cipher && cipher.error().code == Errc::not_found) return 0;
    if (!cipher) return fail(cipher.error());
    FramePlace place{.start = cipher->header().start_lsn.value};
    ByteBuffer plain;
    std::uint64_t end = 0;
    for (std::uint64_t at = kFileHeaderBytes;;) {
        WV_TRY(auto next, end_of_frame(*bytes, at, *cipher, place, plain));
        if (!next) return end;
        at = end = *next;
    }
}

class Copy {
public:
    Copy(ObjectStore& from, ObjectStore& to, unsigned at_once, storage::OpenedRepository opened,
         storage::LedgerKeys keys, std::string place)
        : from_(from),
          to_(to),
          at_once_(at_once),
          opened_(std::move(opened)),
          keys_(std::move(keys)),
          place_(std::move(place)) {}

    Result<RepoCopied> run(const storage::MasterKey& master, ProgressLine& progress) {
        auto keeps = [this](const pb::PackInfo& pack) -> Result<bool> {
            return !let_go_.contains(pack.path());
        };
        auto lanes = [this](storage::ObjectLanes::Put put) {
            return storage::make_object_lanes(std::move(put), at_once_);
        };
        WV_TRY(auto offloader,
               storage::Offloader::open(from_, to_, master,
                                        {.name = place_, .keeps = keeps, .lanes = lanes}));
        RepoCopied copied{.repository = to_hex(opened_.id)};
        for (int idle = 0; idle < kIdleRoundsMax; ++idle) {
            WV_TRY(OffloadSnapshot snapshot, take_snapshot());
            auto goes_on = [&] { return true; };
            WV_TRY(auto round, offloader->offload(snapshot, goes_on));
            if (round.failure) return fail(std::move(*round.failure));
            copied.put_bytes += round.put_bytes;
            copied.ledger_sequence = snapshot.ledger_sequence;
            progress.update(copied.put_bytes);
            if (round.is_complete) return copied;
            if (round.put_bytes > 0) idle = 0;
        }
        return fail(Errc::busy, from_.url() + " changes faster than it is copied",
                    "repeat the command: it goes on where it was");
    }

private:
    // The ledger is the same before and after the tails were looked at: they are of one moment.
    Result<OffloadSnapshot> take_snapshot() {
        OffloadSnapshot snapshot;
        for (int tries = 0; tries < kSnapshotTries; ++tries) {
            WV_TRY(LedgerEnd before, read_to_end(from_, opened_.id, keys_, place_));
            snapshot = {.ledger_sequence = before.sequence, .tails = {}};
            let_go_ = before.let_go;
            for (const std::string& path : before.tails) {
                WV_TRY(snapshot.tails[path], end_of_frames(from_, path, opened_.keyring));
            }
            WV_TRY(LedgerEnd after, read_to_end(from_, opened_.id, keys_, place_));
            if (after.sequence == before.sequence) break;
        }
        return snapshot;
    }

    ObjectStore& from_;
    ObjectStore& to_;
    unsigned at_once_;
    storage::OpenedRepository opened_;
    storage::LedgerKeys keys_;
    std::string place_;
    std::set<std::string> let_go_;
};

}  // namespace

Result<RepoCopied> copy_repository(ObjectStore& from, ObjectStore& to, unsigned at_once,
                                   const storage::MasterKey& master, ProgressLine& progress) {
    WV_TRY(storage::OpenedRepository opened, storage::open_repository_files(from, master));
    const storage::DataKey* key = opened.keyring.current(pb::KEY_PURPOSE_LEDGER);
    if (key == nullptr) return fail(Errc::corrupt, "the keyring has no key for the ledger");
    storage::LedgerKeys keys = storage::LedgerKeys::derive(*key);
    // A copy is of one place: it has what that has, and its name.
    WV_TRY(auto name, storage::read_tier_name(from));
    const std::string place = name.value_or("");
    WV_CHECK(storage::initialize_tier(from, to, master, place));
    progress.begin("copy", 0);
    WV_TRY(RepoCopied copied,
           Copy(from, to, from.is_near() ? at_once : 1, std::move(opened), std::move(keys), place)
               .run(master, progress));
    progress.finish();
    return copied;
}

}  // namespace walvault::agent
