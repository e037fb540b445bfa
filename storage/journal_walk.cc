#include "storage/journal_walk.h"

#include <algorithm>

#include "storage/repository_files.h"

namespace walvault::storage {
namespace {

using Kind = JournalRecordKind;

// PostgreSQL has rows of 1 GB, and a change has at most two.
constexpr std::uint64_t kRecordBytesMax = 4_GiB;

std::int64_t micros_of(WallTime at) { return at.time_since_epoch().count(); }

}  // namespace

JournalWalk::JournalWalk(JournalSource& source, const JournalRecord& journal,
                         const JournalQuery& query, const JournalSink& sink, Hooks hooks)
    : source_(source),
      query_(query),
      sink_(sink),
      hooks_(std::move(hooks)),
      batches_(source.store(), hooks_.sought, [this](int index) { return next_read(index); }) {
    query_.from = std::max(query_.from, journal.start_lsn);
    query_.to = std::min(query_.to, journal.whole_until_lsn);
    cursor_ = is_backward() ? query_.to : query_.from;
}

Result<> JournalWalk::run() {
    if (query_.to <= query_.from) return {};
    // A tail that is closed meanwhile has become a pack: it is gone on with where it was left.
    constexpr int kTries = 5;
    for (int tries = 1;; ++tries) {
        WV_TRY(gaps_, source_.gaps());
        WV_TRY(quiet_, source_.index().quiet_stretches(source_.id()));
        auto passed = pass();
        if (passed) return {};
        const bool was_closed =
            passed.error().code == Errc::not_found && file_ != nullptr && file_->tail != nullptr;
        if (!was_closed || tries == kTries) return fail(std::move(passed).error());
        leave_file();
        WV_CHECK(source_.refresh());
    }
}

// What comes before the transaction that was being handed out was passed, also where it was not
// read; and that one lies at another place in the pack.
void JournalWalk::leave_file() {
    file_ = nullptr;
    skip_ = 0;
    if (!current_) return;
    skip_ = current_->given;
    current_->chain = -1;
    const Lsn end = current_->transaction.end_lsn;
    cursor_ = is_backward() ? std::min(cursor_, end) : std::max(cursor_, Lsn{end.value - 1});
}

Result<bool> JournalWalk::pass() {
    assembly_.clear();
    const std::vector<JournalFile>& files = source_.files();
    for (std::size_t n = 0; n < files.size(); ++n) {
        const JournalFile& file = files[is_backward() ? files.size() - 1 - n : n];
        const Lsn from = is_backward() ? query_.from : cursor_;
        const Lsn to = is_backward() ? cursor_ : query_.to;
        if (file.info.end_lsn() <= from.value || file.info.start_lsn() >= to.value) continue;
        WV_CHECK(require_no_hole(file));
        if (can_hold(file)) {
            WV_TRY(bool more, walk_file(file));
            if (!more) return false;
        }
        cursor_ = is_backward() ? std::min(cursor_, Lsn{file.info.start_lsn()})
                                : std::max(cursor_, Lsn{file.info.end_lsn()});
    }
    file_ = nullptr;
    // No transaction lies behind the last file, or before the first: unless it is told of.
    WV_CHECK(is_backward() ? require_no_gap(query_.from, cursor_)
                           : require_no_gap(cursor_, query_.to));
    if (source_.damage() && !is_backward() && cursor_ < query_.to) return fail(*source_.damage());
    return true;
}

Result<> JournalWalk::require_no_gap(Lsn from, Lsn to) const {
    for (const pb::JournalGap& gap : gaps_)
        if (gap.from_lsn() < to.value && gap.to_lsn() > from.value)
            return fail(Errc::gap,
                        "the journal has no transactions that ended behind " +
                            to_string(Lsn{gap.from_lsn()}) + " up to " +
                            to_string(Lsn{gap.to_lsn()}) + ": " + gap.cause(),
                        "what lies before and behind it can be read, each by itself");
    return {};
}

// Files follow one another without a hole, but where a gap is told of, or nothing happened.
Result<> JournalWalk::require_no_hole(const JournalFile& file) {
    Lsn from = is_backward() ? Lsn{file.info.end_lsn()} : cursor_;
    const Lsn to = is_backward() ? cursor_ : Lsn{file.info.start_lsn()};
    for (const auto& [start, end] : quiet_)
        if (start <= from && from < end) from = end;
    if (from >= to) return {};
    WV_CHECK(require_no_gap(from, to));
    if (source_.damage()) return fail(*source_.damage());
    // The main journal says that this one has nothing behind its end.
    if (is_backward() && to == query_.to) return {};
    return fail(Errc::gap, "the journal from " + to_string(from) + " to " + to_string(to) +
                               " is not stored any more");
}

// Whether times and xids of a file can be of what is asked for; of one without a commit nothing is
// known.
bool JournalWalk::can_hold(const JournalFile& file) const {
    return file.info.summary().commit_count() == 0 || wants_summary(file.info.summary());
}

// What a file holds behind the point where the server went another way was taken back. Elsewhere a
// message outside of all transactions may lie behind the end of its file, and counts.
Lsn JournalWalk::counts_until(const JournalFile& file) const {
    const bool is_cut = std::ranges::any_of(gaps_, [&](const pb::JournalGap& gap) {
        return gap.left_end_lsn() != 0 && gap.from_lsn() == file.info.end_lsn();
    });
    return is_cut ? Lsn{file.info.end_lsn()} : kOpenEndLsn;
}

Result<bool> JournalWalk::walk_file(const JournalFile& file) {
    file_ = &file;
    counts_until_ = counts_until(file);
    WV_TRY(pack_, source_.open(file));
    chains_.emplace(pack_->footer());
    refused_chain_ = -1;
    batches_.begin(pack_);
    const int count = pack_->frame_count();
    for (int n = 0; n < count; ++n) {
        WV_TRY(bool more, walk_frame(is_backward() ? count - 1 - n : n));
        if (!more) return false;
    }
    return end_current();
}

// Whether counts, times and xids of a batch can be of what is asked for: of the transactions that
// end in it, or of the one that it has a piece of.
bool JournalWalk::can_hold(int index) const {
    const pb::FrameEntry& frame = pack_->footer().frames(index);
    if (frame.start_lsn() >= std::min(query_.to, counts_until_).value || !wants_counts(frame))
        return false;
    // A message outside of all transactions has neither time nor number.
    if (frame.journal().message_count() > 0 && wants_kind(Kind::message) && !query_.xid &&
        micros_of(query_.since) == 0 && frame.journal().end_lsn() >= query_.from.value)
        return true;
    const bool is_large = !is_counting() || frame.journal().largest_rows() >= hooks_.rows_min;
    if (is_large && frame.summary().commit_count() > 0 &&
        frame.journal().end_lsn() > query_.from.value && wants_summary(frame.summary()))
        return true;
    const auto at = static_cast<std::size_t>(index);
    return std::ranges::any_of(
        std::array{chains_->goes_on_of[at], chains_->open_of[at]}, [&](int chain) {
            if (chain < 0 || chain == refused_chain_) return false;
            const pb::FrameEntry& last = pack_->footer().frames(chain);
            return last.journal().end_lsn() > query_.from.value && wants_summary(last.summary());
        });
}

Result<bool> JournalWalk::walk_frame(int index) {
    const auto at = static_cast<std::size_t>(index);
    // A transaction ends where its last piece is passed, whether that was read or not.
    if (current_ && current_->chain >= 0 &&
        (is_backward() ? index < chains_->first_of[static_cast<std::size_t>(current_->chain)]
                       : index > current_->chain)) {
        WV_TRY(bool more, end_current());
        if (!more) return false;
    }
    if (!can_hold(index)) return true;
    if (hooks_.wants_frame) {
        WV_TRY(bool wanted, hooks_.wants_frame(*file_, *pack_, index));
        if (!wanted) return true;
    }
    if (is_only_counted(index) && current_ && current_->chain == chains_->goes_on_of[at]) {
        count_frame(pack_->footer().frames(index));
        return true;
    }
    Batch batch;
    WV_CHECK(batches_.take(index, batch.plain));
    WV_CHECK(divide(index, batch));
    for (std::size_t n = 0; n < batch.units.size(); ++n) {
        const Unit& unit = batch.units[is_backward() ? batch.units.size() - 1 - n : n];
        const int chain = unit.goes_on                         ? chains_->goes_on_of[at]
                          : unit.has_commit || unit.is_message ? -1
                                                               : chains_->open_of[at];
        const bool is_piece = unit.goes_on || !(unit.has_commit || unit.is_message);
        if (is_piece && chain < 0) continue;  // without its commit it does not count
        WV_TRY(bool more, walk_unit(batch, unit, chain));
        if (!more) return false;
    }
    return true;
}

// Of what lies inside of a transaction that is known, its counts tell all that a summary needs.
bool JournalWalk::is_only_counted(int index) const {
    return is_counting() && pack_->footer().frames(index).summary().commit_count() == 0 &&
           chains_->goes_on_of[static_cast<std::size_t>(index)] >= 0;
}

// The batch that will be read behind that at `index`, by what is known now.
std::optional<int> JournalWalk::next_read(int index) {
    const int step = is_backward() ? -1 : 1;
    for (int next = index + step; next >= 0 && next < pack_->frame_count(); next += step) {
        if (is_only_counted(next) || !can_hold(next)) continue;
        if (!hooks_.wants_frame) return next;
        const auto wanted = hooks_.wants_frame(*file_, *pack_, next);
        if (!wanted) return std::nullopt;  // told when it is the turn of that one
        if (*wanted) return next;
    }
    return std::nullopt;
}

// Finds the transactions in a batch that was read.
Result<> JournalWalk::divide(int index, Batch& batch) const {
    batch.index = index;
    auto reader = BatchReader::open(batch.plain);
    const std::string name = pack_->path() + ", frame " + std::to_string(index);
    if (!reader) return fail_while(name, reader.error());
    batch.reader.emplace(std::move(*reader));
    JournalRecordView record;
    for (bool inside = false;;) {
        auto more = batch.reader->next(record);
        if (!more) return fail_while(name, more.error());
        if (!*more) return {};
        if (record.kind == Kind::begin) {
            Unit& unit = batch.units.emplace_back();
            unit.transaction.commit_lsn = record.commit_lsn;
            unit.transaction.at = record.at;
            unit.transaction.xid = record.xid;
            unit.goes_on = record.goes_on;
            unit.first = batch.reader->offset();
            unit.last = batch.plain.size();
        } else if (record.kind == Kind::commit) {
            Unit& unit = batch.units.back();
            unit.has_commit = true;
            unit.transaction.end_lsn = record.end_lsn;
            unit.last = record.offset;
        } else if (!inside) {
            Unit& unit = batch.units.emplace_back();
            unit.is_message = true;
            unit.transaction.commit_lsn = unit.transaction.end_lsn = record.lsn;
            unit.first = record.offset;
            unit.last = batch.reader->offset();
        }
        inside = batch.reader->is_inside_transaction();
    }
}

// With what the commit in another batch says.
Result<JournalTransaction> JournalWalk::whole_of(const Unit& unit, int chain) {
    if (unit.has_commit || unit.is_message) return unit.transaction;
    Batch last;
    WV_CHECK(pack_->read_batch(source_.store(), chain, last.plain, hooks_.sought));
    WV_CHECK(divide(chain, last));
    if (last.units.empty() || !last.units.front().has_commit ||
        last.units.front().transaction.xid != unit.transaction.xid)
        return fail(Errc::corrupt, pack_->path() + ", frame " + std::to_string(chain) +
                                       " does not end the transaction that it should");
    return last.units.front().transaction;
}

Result<bool> JournalWalk::walk_unit(Batch& batch, const Unit& unit, int chain) {
    const bool is_known = current_ && chain >= 0 && current_->chain == chain;
    if (!is_known) {
        if (chain >= 0 && chain == refused_chain_) return true;
        WV_TRY(JournalTransaction whole, whole_of(unit, chain));
        if (!wants_transaction(whole, unit.is_message)) {
            if (chain >= 0) refused_chain_ = chain;
            return true;
        }
        begin(whole, chain);
    }
    WV_TRY(bool more, walk_records(batch, unit));
    if (!more) return false;
    const bool is_last_piece = is_backward() ? !unit.goes_on : unit.has_commit;
    return chain < 0 || is_last_piece ? end_current() : Result<bool>(true);
}

Result<bool> JournalWalk::walk_records(Batch& batch, const Unit& unit) {
    BatchReader& reader = *batch.reader;
    JournalRecordView record;
    std::vector<std::size_t> offsets;
    reader.seek(unit.first, !unit.is_message);
    while (reader.offset() < unit.last) {
        offsets.push_back(reader.offset());
        WV_TRY(bool read, reader.next(record));
        WV_ASSERT(read);
        if (is_backward()) continue;
        WV_TRY(bool more, take_record(reader, record));
        if (!more) return false;
    }
    if (!is_backward()) return true;
    for (; !offsets.empty(); offsets.pop_back()) {
        reader.seek(offsets.back(), !unit.is_message);
        WV_TRY(bool read, reader.next(record));
        WV_ASSERT(read);
        WV_TRY(bool more, take_record(reader, record));
        if (!more) return false;
    }
    return true;
}

Result<bool> JournalWalk::Assembly::add(const JournalRecordView& part, bool is_backward) {
    if (part.total_bytes > kRecordBytesMax)
        return fail(Errc::corrupt, "a record of " + std::to_string(part.total_bytes) + " bytes");
    const std::uint64_t end = part.part_offset + part.content.size();
    if (is_backward ? part.is_last_part() : part.part_offset == 0) {
        body_.assign(is_backward ? part.total_bytes : 0, {});
        reached_ = is_backward ? part.total_bytes : 0;
        is_active_ = true;
    }
    if (!is_active_ || (is_backward ? end : part.part_offset) != reached_ ||
        (is_backward && body_.size() != part.total_bytes))
        return is_active_ = false;
    if (is_backward)
        std::ranges::copy(part.content, body_.begin() + static_cast<long>(part.part_offset));
    else
        append(body_, part.content);
    reached_ = is_backward ? part.part_offset : end;
    const bool is_whole = reached_ == (is_backward ? 0 : part.total_bytes);
    if (is_whole) is_active_ = false;
    return is_whole;
}

Result<bool> JournalWalk::take_record(const BatchReader& reader, JournalRecordView record) {
    if (record.kind == Kind::part) {
        if (!wants_kind(record.part_of)) return true;
        WV_TRY(bool whole, assembly_.add(record, is_backward()));
        if (!whole) return true;
        WV_TRY(record, reader.read_joined(record, assembly_.body()));
    }
    if (!wants_kind(record.kind)) return true;
    JournalChange change;
    change.kind = record.kind;
    if (record.kind == Kind::truncated) {
        for (std::uint32_t place : record.relations)
            if (wants_table(reader.relations()[place].oid()))
                change.truncated.push_back(&reader.relations()[place]);
        if (change.truncated.empty()) return true;
    } else if (record.kind != Kind::origin && record.kind != Kind::message) {
        change.relation = &reader.relations()[record.relation];
        if (!wants_table(change.relation->oid())) return true;
    }
    change.old_kind = record.old_kind;
    change.old_tuple = record.old_tuple;
    change.new_tuple = record.new_tuple;
    change.cascade = record.cascade;
    change.restart_identity = record.restart_identity;
    change.lsn = record.lsn;
    change.transactional = record.transactional;
    change.name = record.name;
    if (record.kind == Kind::message) change.content = record.content;
    return take_change(change);
}

Result<bool> JournalWalk::take_change(const JournalChange& change) {
    if (hooks_.wants_change) {
        WV_TRY(bool wanted, hooks_.wants_change(change));
        if (!wanted) return true;
    }
    if (is_counting()) {
        count(change);
        return true;
    }
    if (skip_ > 0) {
        --skip_;
        return true;
    }
    if (!current_->is_begun) {
        current_->is_begun = true;
        if (sink_.on_begin) {
            WV_TRY(bool more, sink_.on_begin(current_->transaction));
            if (!more) return false;
        }
    }
    ++current_->given;
    return sink_.on_change ? sink_.on_change(current_->transaction, change) : Result<bool>(true);
}

void JournalWalk::begin(const JournalTransaction& transaction, int chain) {
    if (current_ && current_->transaction.end_lsn == transaction.end_lsn) {
        current_->chain = chain;  // an earlier pass was inside of it
        current_->counts.clear();
        return;
    }
    skip_ = 0;
    assembly_.clear();
    current_ = Current{.transaction = transaction, .chain = chain};
}

Result<bool> JournalWalk::end_current() {
    if (!current_) return true;
    const Current over = std::move(*current_);
    current_.reset();
    const Lsn end = over.transaction.end_lsn;
    cursor_ = is_backward() ? std::min(cursor_, Lsn{end.value - 1}) : std::max(cursor_, end);
    if (!is_counting())
        return over.is_begun && sink_.on_end ? sink_.on_end(over.transaction) : Result<bool>(true);
    const JournalSummary summary{.transaction = over.transaction, .tables = over.counts};
    if (summary.tables.empty() || summary.rows() < hooks_.rows_min) return true;
    return hooks_.on_summary(summary);
}

void JournalWalk::count(const JournalChange& change) {
    for (const pb::JournalRelation* relation : change.truncated)
        ++current_->counts[relation->oid()].truncated;
    if (change.relation == nullptr) return;
    TableChanges& counts = current_->counts[change.relation->oid()];
    if (change.kind == Kind::inserted) ++counts.inserted;
    if (change.kind == Kind::updated) ++counts.updated;
    if (change.kind == Kind::deleted) ++counts.deleted;
}

void JournalWalk::count_frame(const pb::FrameEntry& frame) {
    for (const pb::JournalCount& each : frame.journal().counts()) {
        const std::uint32_t oid = pack_->footer().tables(static_cast<int>(each.table())).oid();
        if (!wants_table(oid)) continue;
        TableChanges& counts = current_->counts[oid];
        if (wants_kind(Kind::inserted)) counts.inserted += each.inserted();
        if (wants_kind(Kind::updated)) counts.updated += each.updated();
        if (wants_kind(Kind::deleted)) counts.deleted += each.deleted();
        if (wants_kind(Kind::truncated)) counts.truncated += each.truncated();
    }
}

bool JournalWalk::wants_kind(Kind kind) const {
    if (!query_.kinds.empty()) return query_.kinds.contains(kind);
    return kind != Kind::origin && (kind != Kind::message || query_.tables.empty());
}

bool JournalWalk::wants_transaction(const JournalTransaction& transaction, bool is_message) const {
    const Lsn from = is_backward() ? query_.from : cursor_;
    // Backward the files behind were passed, and a message may lie behind the end of its own.
    const bool is_behind = is_message && transaction.end_lsn.value > file_->info.end_lsn();
    const Lsn to = std::min(is_backward() && !is_behind ? cursor_ : query_.to, counts_until_);
    if (transaction.end_lsn <= from || transaction.end_lsn > to) return false;
    if (query_.xid && transaction.xid != *query_.xid) return false;
    if (micros_of(query_.since) != 0 && transaction.at < query_.since) return false;
    return micros_of(query_.until) == 0 || transaction.at <= query_.until;
}

bool JournalWalk::wants_counts(const pb::FrameEntry& frame) const {
    if (frame.journal().begins_row() || wants_kind(Kind::origin)) return true;
    if (frame.journal().message_count() > 0 && wants_kind(Kind::message)) return true;
    return std::ranges::any_of(frame.journal().counts(), [&](const pb::JournalCount& count) {
        if (count.table() >= static_cast<std::uint32_t>(pack_->footer().tables_size())) return true;
        return wants_table(pack_->footer().tables(static_cast<int>(count.table())).oid()) &&
               ((count.inserted() > 0 && wants_kind(Kind::inserted)) ||
                (count.updated() > 0 && wants_kind(Kind::updated)) ||
                (count.deleted() > 0 && wants_kind(Kind::deleted)) ||
                (count.truncated() > 0 && wants_kind(Kind::truncated)));
    });
}

bool JournalWalk::wants_summary(const pb::WalSummary& summary) const {
    if (query_.xid && (*query_.xid < summary.min_xid() || *query_.xid > summary.max_xid()))
        return false;
    if (micros_of(query_.since) != 0 && summary.last_at_us() < micros_of(query_.since))
        return false;
    return micros_of(query_.until) == 0 || summary.first_at_us() <= micros_of(query_.until);
}

}  // namespace walvault::storage
