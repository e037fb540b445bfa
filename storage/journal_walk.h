// JournalWalk: goes through the batches of a journal in one direction, transaction by transaction,
// and reads only those that can hold what is asked for.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>

#include "storage/batches_ahead.h"
#include "storage/journal_reader.h"
#include "storage/journal_source.h"

namespace walvault::storage {

class JournalWalk {
public:
    struct Hooks {
        // Whether a batch is looked into, beyond what the query says; `index`: its place in the
        // footer. Unset: yes.
        std::function<Result<bool>(const JournalFile&, const PackReader&, int index)> wants_frame =
            {};
        // Nothing but changes of this row counts.
        const RowSought* sought = nullptr;
        // Whether a change counts, beyond what the query says. Unset: yes.
        std::function<Result<bool>(const JournalChange&)> wants_change = {};
        // Instead of changes, counts: of each transaction when it is over.
        std::function<Result<bool>(const JournalSummary&)> on_summary = {};
        std::uint64_t rows_min = 0;  // for summaries
    };

    JournalWalk(JournalSource& source, const JournalRecord& journal, const JournalQuery& query,
                const JournalSink& sink, Hooks hooks);
    Result<> run();

private:
    // A transaction, or a piece of one, in one batch. A message outside of all is one of its own.
    struct Unit {
        JournalTransaction transaction;
        bool goes_on = false;
        bool has_commit = false;
        bool is_message = false;
        std::size_t first = 0, last = 0;  // offsets of its records, without B and C
    };
    // A batch that was read.
    struct Batch {
        int index = 0;  // in the footer
        ByteBuffer plain;
        std::optional<BatchReader> reader;
        std::vector<Unit> units;
    };
    // The transaction that is being handed out.
    struct Current {
        JournalTransaction transaction;
        int chain = -1;
        bool is_begun = false;
        std::uint64_t given = 0;  // changes
        std::map<std::uint32_t, TableChanges> counts = {};
    };
    // A record that was cut into parts; one whose first part was not read is not asked for.
    class Assembly {
    public:
        // True when it is whole. Errors: corrupt.
        Result<bool> add(const JournalRecordView& part, bool is_backward);
        ByteSpan body() const { return body_; }
        void clear() { is_active_ = false; }

    private:
        ByteBuffer body_;
        std::uint64_t reached_ = 0;  // forward its end, backward its beginning
        bool is_active_ = false;
    };

    Result<bool> pass();
    void leave_file();
    Result<bool> walk_file(const JournalFile& file);
    Result<bool> walk_frame(int index);
    bool is_only_counted(int index) const;
    std::optional<int> next_read(int index);
    Result<> divide(int index, Batch& batch) const;
    Result<bool> walk_unit(Batch& batch, const Unit& unit, int chain);
    Result<JournalTransaction> whole_of(const Unit& unit, int chain);
    Result<bool> walk_records(Batch& batch, const Unit& unit);
    Result<bool> take_record(const BatchReader& reader, JournalRecordView record);
    Result<bool> take_change(const JournalChange& change);
    void begin(const JournalTransaction& transaction, int chain);
    Result<bool> end_current();
    void count(const JournalChange& change);
    void count_frame(const pb::FrameEntry& frame);
    Result<> require_no_hole(const JournalFile& file);
    Result<> require_no_gap(Lsn from, Lsn to) const;

    Lsn counts_until(const JournalFile& file) const;
    bool is_backward() const { return query_.order == JournalOrder::backward; }
    bool is_counting() const { return static_cast<bool>(hooks_.on_summary); }
    bool wants_kind(JournalRecordKind kind) const;
    bool wants_table(std::uint32_t oid) const {
        return query_.tables.empty() || query_.tables.contains(oid);
    }
    bool wants_transaction(const JournalTransaction& transaction, bool is_message) const;
    bool wants_counts(const pb::FrameEntry& frame) const;
    bool wants_summary(const pb::WalSummary& summary) const;
    bool can_hold(int index) const;
    bool can_hold(const JournalFile& file) const;

    JournalSource& source_;
    JournalQuery query_;
    const JournalSink& sink_;
    Hooks hooks_;
    std::vector<pb::JournalGap> gaps_;
    std::map<Lsn, Lsn> quiet_;  // stretches in which nothing happened
    Lsn cursor_;  // forward: what ends up to here was handed out; backward: what ends behind it

    // Of the file that is walked through.
    const JournalFile* file_ = nullptr;
    Lsn counts_until_ = kOpenEndLsn;
    std::shared_ptr<const PackReader> pack_;
    std::optional<JournalChains> chains_;
    int refused_chain_ = -1;
    BatchesAhead batches_;
    std::optional<Current> current_;
    std::uint64_t skip_ = 0;  // changes of current_ that an earlier pass has given
    Assembly assembly_;
};

}  // namespace walvault::storage
