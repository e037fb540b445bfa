#include "storage/index_catch_up.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <thread>

#include "base/log.h"
#include "storage/index_retention.h"
#include "storage/pack_reader.h"

namespace walvault::storage {

namespace {

// Footers that are read at once: a bucket answers each request late and many at a time. They bound
// the memory, some 300 KB each.
constexpr std::size_t kReadAtOnce = 32;
constexpr std::size_t kThreads = 16;

struct FooterRead {
    pb::PackInfo pack;
    pb::PackFooter footer;  // empty where it could not be read
    std::optional<Error> error;
};

bool is_of_the_pack(Errc code) {
    return code == Errc::corrupt || code == Errc::not_found || code == Errc::io ||
           code == Errc::unavailable || code == Errc::archived;
}

void read_footer(ObjectStore& store, const Keyring& keyring, FooterRead& read) {
    auto reader = PackReader::open(store, read.pack, keyring);
    if (reader)
        read.footer = (*reader)->footer();
    else
        read.error = reader.error();
}

void read_footers(ObjectStore& store, const Keyring& keyring,
                  const std::vector<FooterRead*>& wanted) {
    std::atomic<std::size_t> next{0};
    auto work = [&] {
        for (std::size_t i = next++; i < wanted.size(); i = next++)
            read_footer(store, keyring, *wanted[i]);
    };
    std::vector<std::jthread> threads;
    for (std::size_t i = 1; i < std::min(kThreads, wanted.size()); ++i)
        threads.emplace_back(work);
    work();
}

// Brings entries into the index, a few at a time.
class Catching {
public:
    Catching(Index& index, ObjectStore& store, const Keyring& keyring)
        : index_(index), store_(store), keyring_(keyring) {}

    // Packs that could not be read when they were applied: what is whole again counts from now on.
    // Not of those that no reader sees any more.
    Result<> read_unread_packs() {
        WV_TRY(auto packs, index_.unread_packs());
        std::vector<FooterRead> reads;
        for (std::size_t i = 0; i <= packs.size(); ++i) {
            if (i == packs.size() || reads.size() == kReadAtOnce) {
                WV_CHECK(take_footers(reads));
                reads.clear();
            }
            if (i == packs.size()) break;
            WV_TRY(bool hidden, index_.retention().hides(packs[i].path()));
            if (!hidden) reads.push_back({.pack = std::move(packs[i]), .footer = {}, .error = {}});
        }
        return {};
    }

    // An index that is made anew asks for no pack that is not there: many expired.
    Result<> look_what_is_there() {
        WV_TRY(auto objects, store_.list(""));
        there_.emplace();
        for (ObjectInfo& object : objects)
            if (object.name.ends_with(".pack")) there_->insert(std::move(object.name));
        return {};
    }

    Result<> add(pb::LedgerEntry entry, const LedgerHead& head) {
        Held held{.entry = std::move(entry), .head = head, .reads = {}};
        if (held.entry.has_pack_closed()) {
            held.reads.push_back(
                {.pack = held.entry.pack_closed().pack(), .footer = {}, .error = {}});
            for (const pb::PackInfo& pack : held.entry.pack_closed().further())
                held.reads.push_back({.pack = pack, .footer = {}, .error = {}});
        }
        pack_count_ += held.reads.size();
        held_.push_back(std::move(held));
        return pack_count_ >= kReadAtOnce || held_.size() >= kHeldMax ? apply_held() : Result<>{};
    }

    Result<> apply_held() {
        std::vector<FooterRead*> wanted;
        for (Held& held : held_)
            for (FooterRead& read : held.reads)
                if (!there_ || there_->contains(read.pack.path())) wanted.push_back(&read);
        read_footers(store_, keyring_, wanted);
        for (Held& held : held_) {
            Footers footers;
            for (FooterRead& read : held.reads) {
                if (read.error && !is_of_the_pack(read.error->code)) return fail(*read.error);
                if (read.error) complaints_[read.pack.path()] = *read.error;
                footers.push_back(&read.footer);
            }
            WV_CHECK(index_.apply(held.entry, held.head, footers));
        }
        held_.clear();
        pack_count_ = 0;
        return {};
    }

    // Not of those that a later entry let go.
    Result<> complain() {
        WV_TRY(auto unread, index_.unread_packs());
        std::uint64_t archived = 0;
        for (const pb::PackInfo& pack : unread) {
            WV_TRY(bool hidden, index_.retention().hides(pack.path()));
            auto found = complaints_.find(pack.path());
            if (found == complaints_.end() || hidden) continue;
            if (found->second.code == Errc::archived)
                ++archived;
            else
                log::error("store.pack_damaged", found->second.message, {{"pack", pack.path()}});
        }
        if (archived > 0)
            log::debug("store.packs_archived",
                       "what only these packs tell, as marks of the log, is not known before they "
                       "are thawed",
                       {{"packs", archived}});
        return {};
    }

private:
    static constexpr std::size_t kHeldMax = 1000;
    struct Held {
        pb::LedgerEntry entry;
        LedgerHead head;
        std::vector<FooterRead> reads;
    };

    Result<> take_footers(std::vector<FooterRead>& reads) {
        std::vector<FooterRead*> wanted;
        for (FooterRead& read : reads)
            wanted.push_back(&read);
        read_footers(store_, keyring_, wanted);
        for (const FooterRead& read : reads) {
            if (read.error) {
                complaints_[read.pack.path()] = *read.error;
                continue;
            }
            WV_CHECK(index_.take_footer(read.pack, read.footer));
            if (!there_)
                log::info("store.pack_whole_again", "it is in the index now",
                          {{"pack", read.pack.path()}});
        }
        return {};
    }

    Index& index_;
    ObjectStore& store_;
    const Keyring& keyring_;
    std::optional<std::set<std::string>> there_;  // nothing: it was not looked
    std::vector<Held> held_;
    std::size_t pack_count_ = 0;
    std::map<std::string, Error> complaints_;  // why a pack could not be read, by path
};

}  // namespace

Result<LedgerHead> catch_up(Index& index, ObjectStore& store, ObjectStore& packs_store,
                            const Id16& repository_id, const LedgerKeys& keys,
                            const Keyring& keyring) {
    Catching catching(index, packs_store, keyring);
    WV_TRY(LedgerHead from, index.watermark());
    const bool is_new = from.sequence == 0;
    if (is_new)
        WV_CHECK(catching.look_what_is_there());
    else
        WV_CHECK(catching.read_unread_packs());
    // The hash of an entry is told by the one after it, so each is applied one step late.
    std::optional<pb::LedgerEntry> held;
    auto take = [&](const pb::LedgerEntry& entry) -> Result<> {
        if (held) {
            LedgerHead head{held->sequence(), {}};
            std::copy_n(as_bytes(entry.previous_hash()).begin(),
                        std::min(entry.previous_hash().size(), head.hash.size()),
                        head.hash.begin());
            WV_CHECK(catching.add(std::move(*held), head));
        }
        held = entry;
        return {};
    };
    WV_TRY(LedgerHead head, read_ledger(store, repository_id, keys, from, true, take));
    if (held) WV_CHECK(catching.add(std::move(*held), head));
    WV_CHECK(catching.apply_held());
    // What was not listed is asked for once: a list may be wrong, and the pack may lie elsewhere.
    if (is_new) WV_CHECK(catching.read_unread_packs());
    WV_CHECK(catching.complain());
    return head;
}

}  // namespace walvault::storage
