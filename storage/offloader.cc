#include "storage/offloader.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "proto/frame_format.h"
#include "proto/repository.pb.h"
#include "storage/held_tails.h"
#include "storage/ledger_file.h"
#include "storage/repository_files.h"
#include "storage/tier_put.h"
#include "storage/tier_store.h"

namespace walvault::storage {
namespace {

constexpr std::uint64_t kTailPieceBytes = 8 << 20;
constexpr std::uint64_t kRoundsBetweenLooks = 16;
constexpr std::uint64_t kPendingRecordBytes = 4 << 20;
// How often it is asked whether to go on while objects are put.
constexpr std::chrono::milliseconds kLook{10};
constexpr std::uint64_t kSmallFileBytesMax = 64 << 20;
constexpr std::string_view kPackSuffix = ".pack";

using Kind = OffloadStep::Kind;

// What an agent writes to in place, reached under whatever name, is no tier: pieces of the ledger
// among its own would be the end of it.
constexpr std::string_view kWriters = "writer/";
Error written_in_place(const ObjectStore& tier) {
    return Error{Errc::refused,
                 tier.url() + " is a repository that an agent writes to, not a copy of one",
                 "name an empty directory or prefix in its [repo] table"};
}

Result<> put_keyrings(ObjectStore& repository, ObjectStore& tier) {
    WV_TRY(auto here, repository.list("keyring/"));
    WV_TRY(auto there, tier.list("keyring/"));
    for (const ObjectInfo& ring : here) {
        if (std::ranges::find(there, ring.name, &ObjectInfo::name) != there.end()) continue;
        WV_TRY(ByteBuffer bytes, repository.get(ring.name, 0, kSmallFileBytesMax));
        WV_CHECK(put_once(tier, ring.name, bytes));
    }
    return {};
}

Result<> put_name(ObjectStore& tier, const std::string& name) {
    WV_TRY(auto there, read_tier_name(tier));
    if (!there && name.empty()) return {};
    if (!there)
        return put_once(tier, std::string(kTierNameObject), as_bytes(encode_tier_name(name)));
    if (*there == name) return {};
    return fail(
        Errc::refused,
        tier.url() + " is the tier \"" + *there + "\" of this repository, not \"" + name + "\"",
        "call it so in the configuration, or name an empty place");
}

// Where the whole frames of a piece of a tail end.
std::size_t whole_frames(ByteSpan bytes, std::uint64_t offset) {
    std::size_t at = offset == 0 ? kFileHeaderBytes : 0;
    std::size_t end = at;
    while (at + kFrameHeaderBytes <= bytes.size()) {
        auto header = decode_frame_header(bytes.subspan(at, kFrameHeaderBytes));
        if (!header || header->sealed_bytes > bytes.size() - at - kFrameHeaderBytes) break;
        at += kFrameHeaderBytes + header->sealed_bytes;
        end = at;
    }
    return std::min(end, bytes.size());
}

// By its name: "main/journal/…".
bool is_journal_name(std::string_view name) {
    const std::size_t slash = name.find('/');
    return slash != std::string_view::npos && name.substr(slash).starts_with("/journal/");
}

// Without the packs that it needs.
PendingEntry pending_of(const LedgerRecord& record, const std::string& place) {
    const pb::LedgerEntry& entry = record.entry;
    PendingEntry pending{.sequence = record.head.sequence, .record_bytes = record.bytes.size()};
    if (entry.has_pack_closed()) pending.ends_tail = entry.pack_closed().replaces_tail();
    if (entry.has_key_made())
        pending.needs.push_back({keyring_name(entry.key_made().keyring_generation()), 0});
    if (entry.has_tail_opened()) {
        pending.opens_tail = entry.tail_opened().path();
        pending.history = id_from<16>(entry.tail_opened().history_id());
    }
    if (entry.has_tail_abandoned()) pending.ends_tail = entry.tail_abandoned().path();
    if (entry.has_pack_deleted() && entry.pack_deleted().place() == place)
        pending.deletes = entry.pack_deleted().path();
    pending.is_gap = entry.has_gap_found() || entry.has_journal_gap();
    return pending;
}

class StoreOffloader final : public Offloader {
public:
    StoreOffloader(ObjectStore& repository, ObjectStore& tier, const Id16& id, LedgerKeys keys,
                   OffloadPlace place)
        : repository_(repository),
          tier_(tier),
          id_(id),
          keys_(std::move(keys)),
          place_(std::move(place)),
          lanes_(place_.lanes([this](const ObjectLanes::Object& object) {
              return put_object_once(repository_, tier_, object.name, object.may_be_there);
          })) {}

    Result<Round> offload(const OffloadSnapshot& snapshot,
                          const std::function<bool()>& goes_on) override {
        snapshot_ = snapshot;
        round_ = {};
        take_done(std::chrono::milliseconds(0));
        // Of packs that were begun before the one that was told of: they are begun again.
        if (told_of_failure_) round_.failure.reset();
        told_of_failure_ = false;
        auto done = run(goes_on);
        if (!done) {
            // A put may have been done all the same.
            knows_the_tier_ = false;
            return fail(std::move(done).error());
        }
        round_.pending_bytes = pending_bytes(state_, snapshot_);
        round_.ledger_sequence = offloaded_.sequence;
        round_.has_wal = round_.is_complete || has_all_wal();
        std::erase_if(failed_, [this](const std::string& name) { return !is_needed(name); });
        round_.is_reached = failed_.empty() && (round_.is_reached || state_.under_way.empty());
        told_of_failure_ = round_.failure.has_value();
        if (round_.is_complete && state_.under_way.empty()) sweep();
        return round_;
    }

    Result<bool> is_empty() override {
        if (!knows_the_tier_) WV_CHECK(take_stock());
        return offloaded_.sequence == 0;
    }

private:
    Result<> run(const std::function<bool()>& goes_on) {
        if (!knows_the_tier_) WV_CHECK(take_stock());
        if (++rounds_ % kRoundsBetweenLooks == 0) WV_CHECK(require_last_piece());
        WV_CHECK(read_pending());
        for (;;) {
            take_done(std::chrono::milliseconds(0));
            state_.has_room = lanes_->has_room();
            state_.is_held_up = round_.failure.has_value();
            const OffloadStep step = next_offload_step(state_, snapshot_);
            if (step.kind == Kind::nothing) round_.is_complete = has_all_tails();
            if (step.kind == Kind::nothing || step.kind == Kind::wait || !goes_on()) return {};
            const bool needs_object = step.kind == Kind::object || step.kind == Kind::under_way;
            if (needs_object && round_.failure) return {};
            if (step.kind == Kind::under_way && place_.is_hurried()) return {};
            WV_CHECK(take(step));
        }
    }

    // A pack may have been let go there meanwhile.
    bool is_needed(const std::string& name) const {
        return std::ranges::any_of(state_.pending, [&](const PendingEntry& entry) {
            return std::ranges::find(entry.needs, name, &NeededObject::name) != entry.needs.end();
        });
    }

    // A failure says nothing of the other objects.
    void take_done(std::chrono::milliseconds patience) {
        for (ObjectLanes::Done& done : lanes_->take_done(patience)) {
            state_.under_way.erase(done.name);
            if (done.put_bytes) {
                round_.put_bytes += *done.put_bytes;
                round_.is_reached = true;
                failed_.erase(done.name);
                put_whole_.insert(done.name);
                state_.present.insert(std::move(done.name));
            } else {
                // It may have been carried out.
                left_there_.insert(done.name);
                failed_.insert(std::move(done.name));
                if (!round_.failure) round_.failure = std::move(done.put_bytes).error();
            }
        }
    }

    // A tail is opened there after all WAL before it. Nobody waits for a journal.
    bool has_all_wal() const {
        const auto is_wal = [](const auto& synced) { return !is_journal_name(synced.first); };
        return std::ranges::any_of(snapshot_.tails, is_wal) &&
               std::ranges::all_of(snapshot_.tails, [&](const auto& synced) {
                   if (!is_wal(synced)) return true;
                   auto there = state_.tails.find(synced.first);
                   return there != state_.tails.end() && there->second.end_offset >= synced.second;
               });
    }

    // It may have been emptied, or put back to an older state, since stock was taken.
    Result<> require_last_piece() {
        if (last_piece_.name.empty()) return {};
        auto there = tier_.info(last_piece_.name);
        if (there && there->size_bytes == last_piece_.size_bytes) return {};
        if (!there && there.error().code != Errc::not_found) return fail(std::move(there).error());
        return fail(Errc::refused,
                    tier_.url() + "/" + last_piece_.name +
                        " is not there as it was put: the copy was emptied or put back",
                    "it is looked at anew; if it stays so, bring the right one back");
    }

    // What is left there costs its owner something, and harms nobody.
    void sweep() {
        auto swept = tier_.sweep();
        if (swept || swept.error().message == not_swept_) return;
        not_swept_ = swept.error().message;
        log::warn("offload.not_swept", not_swept_, {{"hint", swept.error().hint}});
    }

    // One that broke and is not closed yet holds what no snapshot tells of.
    bool has_all_tails() const {
        return std::ranges::all_of(
            state_.tails, [&](const auto& tail) { return snapshot_.tails.contains(tail.first); });
    }

    Result<> take(const OffloadStep& step) {
        switch (step.kind) {
            case Kind::object:
                state_.under_way.insert(step.name);
                lanes_->start({step.name, left_there_.erase(step.name) > 0});
                return {};
            case Kind::under_way:
                take_done(kLook);
                return {};
            case Kind::ledger:
                return reached(put_ledger(step.entry_count));
            case Kind::tail:
                return reached(put_tail(step));
            case Kind::remove:
                return reached(remove_tail(step.name));
            case Kind::erase:
                return reached(erase(step.name));
            case Kind::read_on:
                pending_bytes_max_ *= 2;
                return read_pending();
            case Kind::nothing:
            case Kind::wait:
                break;
        }
        return {};
    }

    Result<> reached(Result<> done) {
        if (done) round_.is_reached = true;
        return done;
    }

    // --- what is there ---

    Result<> take_stock() {
        std::set<std::string> under_way = std::move(state_.under_way);
        state_ = {};
        state_.under_way = std::move(under_way);
        failed_.clear();
        records_.clear();
        pending_bytes_max_ = kPendingRecordBytes;
        WV_CHECK(require_own_tier());
        WV_TRY(auto objects, tier_.list(""));
        left_there_.clear();
        held_tails_ = {};
        std::set<std::string> tails_there;
        for (const ObjectInfo& object : objects) {
            if (object.name.ends_with(kPackSuffix)) left_there_.insert(object.name);
            if (auto piece = parse_tail_piece_name(object.name))
                tails_there.insert(piece->tail_path);
        }
        WV_CHECK(put_keyrings(repository_, tier_));
        WV_TRY(offloaded_, head_of_tier());
        if (offloaded_.sequence == 0 && had_entries_)
            return fail(Errc::refused, tier_.url() + " holds nothing any more",
                        "bring the right copy back, or start the agent again to be told more");
        had_entries_ = had_entries_ || offloaded_.sequence > 0;
        read_ = offloaded_;
        WV_CHECK(replay_to(offloaded_, tails_there));
        for (auto& [path, tail] : state_.tails) {
            WV_TRY(tail.end_offset, end_of_pieces(path));
        }
        find_leftovers(objects, tails_there);
        // What this process put whole needs no comparing.
        for (const std::string& name : put_whole_)
            if (left_there_.erase(name) > 0) state_.present.insert(name);
        for (const std::string& name : state_.under_way)
            left_there_.erase(name);
        knows_the_tier_ = true;
        round_.is_reached = true;
        return {};
    }

    Result<> require_own_tier() {
        auto bytes = tier_.get(kHeaderName, 0, 4096);
        if (!bytes && bytes.error().code == Errc::not_found)
            return fail(Errc::not_found, tier_.url() + " holds no repository yet",
                        "walvault repo add NAME makes an empty tier one");
        if (!bytes) return fail(std::move(bytes).error());
        WV_TRY(pb::RepositoryHeader header, decode_repository_header(*bytes));
        const Id16 there = id_from<16>(header.repository_id());
        WV_TRY(auto writers, tier_.list(std::string(kWriters)));
        if (!writers.empty()) return fail(written_in_place(tier_));
        // What the ledger says of a place holds for one tier.
        if (there == id_) return put_name(tier_, place_.name);
        return fail(Errc::refused,
                    tier_.url() + " is a tier of the repository " + to_hex(there) + ", not of " +
                        to_hex(id_),
                    "name another place in its [repo] table");
    }

    // Signed, so that everything before it is the repository's as well.
    Result<LedgerHead> head_of_tier() {
        WV_TRY(auto pieces, list_ledger_files(tier_));
        last_piece_ = {};
        if (pieces.empty()) return LedgerHead{};
        WV_TRY(last_piece_, tier_.info(pieces.back().name));
        WV_TRY(ByteBuffer bytes, read_ledger_file(tier_, pieces.back()));
        LedgerWalk walk(id_, keys_);
        WV_TRY(std::uint64_t end,
               walk.walk(pieces.back(), bytes, false,
                         [](const pb::LedgerEntry&, const LedgerHead&) -> Result<> { return {}; }));
        if (end <= kLedgerHeaderBytes)
            return fail(Errc::corrupt, tier_.url() + "/" + pieces.back().name + " holds no entry");
        return walk.head();
    }

    // Which tails are open after the entries that the tier has; and that they are the repository's.
    Result<> replay_to(const LedgerHead& head, const std::set<std::string>& tails_there) {
        if (head.sequence == 0) return {};
        LedgerHead reached;
        auto read = read_ledger_records(repository_, id_, keys_, {}, head.sequence,
                                        [&](const LedgerRecord& record) {
                                            reached = record.head;
                                            apply(pending_of(record, place_.name));
                                            note_packs(record.entry, tails_there);
                                            return reached.sequence < head.sequence;
                                        });
        if (!read) return fail(std::move(read).error());
        state_.superseded_tails.clear();
        if (reached.sequence == head.sequence && reached.hash == head.hash) return {};
        return fail(another_writer(
            tier_,
            reached.sequence < head.sequence
                ? "its ledger ends with entry " + std::to_string(head.sequence) +
                      ", that of the repository with entry " + std::to_string(reached.sequence)
                : "its entry " + std::to_string(head.sequence) + " is not the repository's"));
    }

    // They are there as the ledger says, but those that were left out.
    void note_packs(const pb::LedgerEntry& entry, const std::set<std::string>& tails_there) {
        if (!entry.has_pack_closed()) return;
        const pb::PackClosed& closed = entry.pack_closed();
        std::set<std::string> paths{closed.pack().path()};
        for (const pb::PackInfo& pack : closed.further())
            paths.insert(pack.path());
        for (const std::string& path : paths)
            left_there_.erase(path);
        if (tails_there.contains(closed.replaces_tail()))
            held_tails_.hold(closed.replaces_tail(), std::move(paths));
    }

    Result<std::uint64_t> end_of_pieces(const std::string& path) {
        WV_TRY(auto pieces, tier_.list(path + "/"));
        std::uint64_t end = 0;
        for (const ObjectInfo& object : pieces)
            if (auto piece = parse_tail_piece_name(object.name); piece && piece->offset == end)
                end += object.size_bytes;
        return end;
    }

    // Left behind where a removal was interrupted; afterwards the ledger tells of each.
    void find_leftovers(const std::vector<ObjectInfo>& objects,
                        const std::set<std::string>& tails_there) {
        std::set<std::string> there;
        for (const ObjectInfo& object : objects)
            there.insert(object.name);
        held_tails_.let_go_if([&](const std::string& pack) {
            return there.contains(pack) || state_.deleted.contains(pack);
        });
        for (const std::string& tail : tails_there)
            if (!state_.tails.contains(tail) && !held_tails_.holds(tail))
                state_.superseded_tails.insert(tail);
        std::erase_if(state_.deleted, [&](const auto& name) { return !there.contains(name); });
    }

    // The ledger up to the snapshot, or so much of it as is held at a time.
    Result<> read_pending() {
        std::uint64_t held = 0;
        for (const ByteBuffer& record : records_)
            held += record.size();
        state_.pending_is_all = true;
        if (read_.sequence >= snapshot_.ledger_sequence) return {};
        Result<> asked;
        auto take = [&](const LedgerRecord& record) {
            if (record.head.sequence > snapshot_.ledger_sequence) return false;
            if (held >= pending_bytes_max_) {
                state_.pending_is_all = false;
                return false;
            }
            held += record.bytes.size();
            read_ = record.head;
            state_.pending.push_back(pending_of(record, place_.name));
            asked = add_needed_packs(record.entry, state_.pending.back());
            if (!asked) return false;
            records_.emplace_back(record.bytes.begin(), record.bytes.end());
            return true;
        };
        WV_CHECK(read_ledger_records(repository_, id_, keys_, read_, 0, take));
        return asked;
    }

    // But those that were let go there before they came.
    Result<> add_needed_packs(const pb::LedgerEntry& entry, PendingEntry& pending) {
        if (!entry.has_pack_closed()) return {};
        auto add = [&](const pb::PackInfo& pack) -> Result<> {
            WV_TRY(const bool keeps, place_.keeps(pack));
            if (keeps)
                pending.needs.push_back({pack.path(), pack.stored_bytes()});
            else
                pending.left_out.insert(pack.path());
            return {};
        };
        WV_CHECK(add(entry.pack_closed().pack()));
        for (const pb::PackInfo& pack : entry.pack_closed().further())
            WV_CHECK(add(pack));
        return {};
    }

    // --- what is put there ---

    Result<> put(const std::string& name, ByteSpan bytes) {
        WV_CHECK(put_once(tier_, name, bytes));
        round_.put_bytes += bytes.size();
        return {};
    }

    Result<> put_ledger(std::size_t count) {
        WV_CHECK(require_last_piece());
        const std::uint64_t first = state_.pending.front().sequence;
        ByteBuffer bytes = encode_ledger_header(id_, first, offloaded_.hash);
        for (std::size_t i = 0; i < count; ++i)
            append(bytes, records_[i]);
        WV_CHECK(put(ledger_file_name(first), bytes));
        last_piece_ = {.name = ledger_file_name(first), .size_bytes = bytes.size()};
        had_entries_ = true;
        offloaded_ = {state_.pending[count - 1].sequence, ledger_record_hash(records_[count - 1])};
        for (std::size_t i = 0; i < count; ++i) {
            for (const NeededObject& object : state_.pending.front().needs) {
                state_.present.erase(object.name);
                put_whole_.erase(object.name);
            }
            apply(state_.pending.front());
            state_.pending.pop_front();
            records_.pop_front();
        }
        pending_bytes_max_ = kPendingRecordBytes;
        return read_pending();
    }

    void apply(const PendingEntry& entry) {
        if (!entry.deletes.empty()) {
            state_.deleted.insert(entry.deletes);
            state_.superseded_tails.merge(held_tails_.let_go(entry.deletes));
        }
        if (!entry.opens_tail.empty()) state_.tails[entry.opens_tail] = {entry.history, 0};
        if (entry.ends_tail.empty()) return;
        auto ended = state_.tails.find(entry.ends_tail);
        if (ended == state_.tails.end()) return;
        if (ended->second.end_offset > 0) {
            held_tails_.hold(ended->first, entry.left_out);
            if (entry.left_out.empty()) state_.superseded_tails.insert(ended->first);
        }
        state_.tails.erase(ended);
    }

    Result<> put_tail(const OffloadStep& step) {
        auto bytes = repository_.get(step.name, step.from,
                                     std::min(step.to - step.from, kTailPieceBytes * 2));
        if (!bytes && bytes.error().code == Errc::not_found) {
            // Closed since the snapshot: the ledger says what became of it.
            snapshot_.tails.erase(step.name);
            return {};
        }
        if (!bytes) return fail(std::move(bytes).error());
        const std::size_t end = whole_frames(*bytes, step.from);
        if (end == 0 || (step.from + bytes->size() == step.to && end != bytes->size()))
            return fail(Errc::corrupt,
                        step.name + ": what was synced from offset " + std::to_string(step.from) +
                            " to " + std::to_string(step.to) + " is not made of whole frames");
        WV_CHECK(put(tail_piece_name(step.name, step.from), ByteSpan(*bytes).first(end)));
        state_.tails[step.name].end_offset = step.from + end;
        return {};
    }

    // From its beginning on: a reader misses it, and looks into the ledger again.
    Result<> remove_tail(const std::string& path) {
        WV_TRY(auto pieces, tier_.list(path + "/"));
        for (const ObjectInfo& piece : pieces) {
            if (!parse_tail_piece_name(piece.name)) continue;
            auto removed = tier_.remove(piece.name);
            if (!removed && removed.error().code != Errc::not_found) return removed;
        }
        state_.superseded_tails.erase(path);
        return {};
    }

    // One that is locked there stays until the next stock is taken.
    Result<> erase(const std::string& name) {
        auto removed = tier_.remove(name);
        if (!removed && removed.error().code == Errc::refused)
            log::warn("offload.pack_locked", removed.error().message,
                      {{"pack", name}, {"tier", tier_.url()}});
        else if (!removed && removed.error().code != Errc::not_found)
            return removed;
        state_.deleted.erase(name);
        return {};
    }

    ObjectStore& repository_;
    ObjectStore& tier_;
    Id16 id_;
    LedgerKeys keys_;
    OffloadPlace place_;
    bool knows_the_tier_ = false;
    bool had_entries_ = false;  // of the ledger, whenever stock was taken
    std::uint64_t rounds_ = 0;
    // Packs that may be there, put whole or not, of which its ledger does not tell.
    std::set<std::string> left_there_;
    HeldTails held_tails_;
    std::set<std::string> put_whole_;  // by this process, of which its ledger does not tell yet
    std::set<std::string> failed_;     // packs that could not be put so far
    bool told_of_failure_ = false;     // by the round before
    ObjectInfo last_piece_;            // of the ledger there; no name: none
    std::string not_swept_;            // the error that was told of last
    OffloadState state_;
    std::deque<ByteBuffer> records_;  // of state_.pending
    LedgerHead offloaded_;
    LedgerHead read_;
    std::uint64_t pending_bytes_max_ = kPendingRecordBytes;
    OffloadSnapshot snapshot_;
    Round round_;
    std::unique_ptr<ObjectLanes> lanes_;  // the first to end: its threads use what is above
};

}  // namespace

Result<bool> is_tier(ObjectStore& repository, ObjectStore& tier, const MasterKey& master) {
    WV_TRY(OpenedRepository opened, open_repository_files(repository, master));
    WV_TRY(auto objects, tier.list(""));
    for (const ObjectInfo& object : objects)
        if (object.name.starts_with(kWriters)) return fail(written_in_place(tier));
    auto there = std::ranges::find(objects, std::string(kHeaderName), &ObjectInfo::name);
    if (there != objects.end()) {
        WV_TRY(ByteBuffer bytes, tier.get(kHeaderName, 0, 4096));
        WV_TRY(pb::RepositoryHeader found, decode_repository_header(bytes));
        if (id_from<16>(found.repository_id()) == opened.id) return true;
        return fail(Errc::refused,
                    tier.url() + " is a tier of the repository " +
                        to_hex(as_bytes(found.repository_id())) + ", not of " + to_hex(opened.id),
                    "name an empty directory or prefix");
    }
    for (const ObjectInfo& object : objects) {
        if (object.name == kTierNameObject) continue;
        auto own = object.name.starts_with("keyring/")
                       ? repository.get(object.name, 0, kSmallFileBytesMax)
                       : Result<ByteBuffer>(fail(Errc::not_found, ""));
        if (!own && own.error().code != Errc::not_found) return fail(std::move(own).error());
        bool equal = false;
        if (own) {
            WV_TRY(equal, is_equal(tier, object.name, *own));
        }
        if (!equal)
            return fail(Errc::refused, tier.url() + " is not empty: it holds " + object.name,
                        "name an empty directory or prefix");
    }
    return false;
}

Result<> initialize_tier(ObjectStore& repository, ObjectStore& tier, const MasterKey& master,
                         const std::string& name) {
    WV_TRY(const bool is_one, is_tier(repository, tier, master));
    WV_CHECK(put_name(tier, name));
    if (is_one) return {};
    WV_TRY(ByteBuffer header, repository.get(kHeaderName, 0, 4096));
    WV_CHECK(put_keyrings(repository, tier));
    // Last: until it is there, the tier is none.
    return put_once(tier, kHeaderName, header);
}

Result<std::unique_ptr<Offloader>> Offloader::open(ObjectStore& repository, ObjectStore& tier,
                                                   const MasterKey& master, OffloadPlace place) {
    WV_TRY(OpenedRepository opened, open_repository_files(repository, master));
    const DataKey* key = opened.keyring.current(pb::KEY_PURPOSE_LEDGER);
    if (key == nullptr) return fail(Errc::corrupt, "the keyring has no key for the ledger");
    return std::make_unique<StoreOffloader>(repository, tier, opened.id, LedgerKeys::derive(*key),
                                            std::move(place));
}

}  // namespace walvault::storage
