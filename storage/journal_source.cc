#include "storage/journal_source.h"

#include <algorithm>
#include <set>

#include "storage/repository_files.h"
#include "storage/repository_state.h"

namespace walvault::storage {
namespace {

constexpr std::size_t kOpenPacksMax = 16;

}  // namespace

JournalChains::JournalChains(const pb::PackFooter& footer)
    : goes_on_of(static_cast<std::size_t>(footer.frames_size()), -1),
      open_of(goes_on_of),
      first_of(goes_on_of) {
    const auto count = goes_on_of.size();
    for (std::size_t i = count; i-- > 0;) {
        const pb::FrameEntry& frame = footer.frames(static_cast<int>(i));
        if (frame.journal().open() && i + 1 < count) open_of[i] = goes_on_of[i + 1];
        if (!frame.journal().goes_on()) continue;
        // The first commit in a batch that goes on is that of the transaction it goes on with.
        goes_on_of[i] = frame.summary().commit_count() > 0 ? static_cast<int>(i) : open_of[i];
    }
    for (std::size_t i = 0; i < count; ++i)
        if (open_of[i] >= 0 && open_of[i] != goes_on_of[i])
            first_of[static_cast<std::size_t>(open_of[i])] = static_cast<int>(i);
}

Result<> JournalSource::refresh() {
    // The agent may close a tail between the reading of the ledger and of the tail: then look
    // again.
    constexpr int kTries = 5;
    for (int tries = 1;; ++tries) {
        files_.clear();
        damage_.reset();
        WV_TRY(IndexJournal::End end, index().end_of(id_));
        end_lsn_ = end.lsn;
        covered_until_us_ = end.covered_until_us;
        WV_TRY(auto packs, index().packs(id_));
        for (pb::PackInfo& pack : packs)
            files_.push_back({std::move(pack), nullptr});
        WV_TRY(auto tails, host_.index.open_tails(pb::PACK_KIND_JOURNAL));
        std::erase_if(
            tails, [&](const OpenTail& tail) { return tail.opened.history_id() != text_of(id_); });
        Result<> added;
        for (std::size_t i = 0; i < tails.size() && added; ++i) {
            std::optional<Lsn> next;
            if (i + 1 < tails.size()) next = Lsn{tails[i + 1].opened.start_lsn()};
            added = add_tail(tails[i], next);
        }
        if (added) break;
        if (added.error().code != Errc::not_found || tries == kTries) return added;
        WV_CHECK(host_.catch_up());
    }
    std::ranges::stable_sort(files_, {},
                             [](const JournalFile& file) { return file.info.start_lsn(); });
    return {};
}

Result<> JournalSource::add_tail(const OpenTail& tail, std::optional<Lsn> next_start) {
    auto scanned = scan_journal_tail(host_.store, tail.opened.path(), host_.keyring,
                                     tail.synced_frames, next_start.value_or(Lsn{}));
    if (!scanned && scanned.error().code == Errc::not_found) {
        WV_TRY(LedgerHead before, host_.index.watermark());
        WV_CHECK(host_.catch_up());
        WV_TRY(LedgerHead now, host_.index.watermark());
        if (now.sequence > before.sequence) return fail(std::move(scanned).error());  // again
        // A tier gets the entry before the first frame.
        if (host_.is_tier && !next_start) return {};
        damage_ = Error{Errc::corrupt, "the tail " + tail.opened.path() + " is missing",
                        "copy it back from another copy of this repository"};
        return {};
    }
    if (!scanned && scanned.error().code == Errc::corrupt) {
        damage_ = scanned.error();
        return {};
    }
    if (!scanned) return fail(std::move(scanned).error());
    if (scanned->damage) damage_ = scanned->damage;
    JournalFile file;
    file.info.set_path(tail.opened.path());
    file.info.set_kind(pb::PACK_KIND_JOURNAL);
    file.info.set_cluster(tail.opened.cluster());
    file.info.set_history_id(tail.opened.history_id());
    file.info.set_start_lsn(tail.opened.start_lsn());
    file.info.set_end_lsn(scanned->end_lsn.value);
    for (const pb::FrameEntry& frame : scanned->reader->footer().frames()) {
        file.info.set_stored_bytes(file.info.stored_bytes() + frame.stored_bytes());
        file.info.set_plain_bytes(file.info.plain_bytes() + frame.plain_bytes());
        if (frame.summary().commit_count() > 0)
            merge_summary(*file.info.mutable_summary(), frame.summary());
    }
    file.tail = scanned->reader;
    end_lsn_ = std::max(end_lsn_, scanned->end_lsn);
    covered_until_us_ = std::max(covered_until_us_, scanned->covered_until_us);
    files_.push_back(std::move(file));
    return {};
}

Result<std::vector<pb::JournalGap>> JournalSource::gaps() {
    WV_TRY(auto gaps, index().gaps(id_));
    std::ranges::stable_sort(gaps, {}, [](const auto& gap) { return gap.from_lsn(); });
    return gaps;
}

Result<std::shared_ptr<const PackReader>> JournalSource::open(const JournalFile& file) {
    if (file.tail) return file.tail;
    for (auto it = recent_.begin(); it != recent_.end(); ++it) {
        if ((*it)->path() != file.info.path()) continue;
        recent_.splice(recent_.begin(), recent_, it);
        return recent_.front();
    }
    WV_TRY(auto reader, PackReader::open(host_.store, file.info, host_.keyring));
    recent_.push_front(reader);
    if (recent_.size() > kOpenPacksMax) recent_.pop_back();
    return reader;
}

Result<std::vector<pb::PackInfo>> journal_tails(const JournalHost& host,
                                                const std::string& cluster) {
    std::vector<pb::PackInfo> found;
    WV_TRY(auto tails, host.index.open_tails(pb::PACK_KIND_JOURNAL));
    std::set<std::string> ids;
    for (const OpenTail& tail : tails)
        if (tail.opened.cluster() == cluster) ids.insert(tail.opened.history_id());
    for (const std::string& id : ids) {
        JournalSource source(host, id_from<16>(id));
        WV_CHECK(source.refresh());
        for (const JournalFile& file : source.files())
            if (file.tail) found.push_back(file.info);
        if (!source.damage()) continue;
        for (const OpenTail& tail : tails) {
            const bool listed = std::ranges::any_of(
                found, [&](const pb::PackInfo& info) { return info.path() == tail.opened.path(); });
            if (tail.opened.history_id() != id || listed) continue;
            pb::PackInfo& info = found.emplace_back();
            info.set_path(tail.opened.path());
            info.set_kind(pb::PACK_KIND_JOURNAL);
            info.set_cluster(cluster);
            info.set_history_id(id);
            info.set_start_lsn(tail.opened.start_lsn());
            info.set_end_lsn(tail.opened.start_lsn());
        }
    }
    return found;
}

Result<std::vector<JournalRecord>> read_journals(const JournalHost& host,
                                                 const std::string& cluster) {
    WV_TRY(auto records, journal_records(host.index, cluster));
    for (JournalRecord& record : records) {
        JournalSource source(host, record.id);
        WV_CHECK(source.refresh());
        record.end_lsn = source.end_lsn();
        record.covered_until = WallTime(Micros(source.covered_until_us()));
        record.damage = source.damage();
    }
    settle_whole_until(records);
    return records;
}

}  // namespace walvault::storage
