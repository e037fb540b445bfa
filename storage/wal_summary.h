// WalSummary: which transactions end in a stretch of WAL, and the marks an operator looks for.
#pragma once

#include <optional>
#include <vector>

#include "proto/repository.pb.h"
#include "proto/wal_decoder.h"

namespace walvault::storage {

inline constexpr std::uint64_t kBulkRowsMin = 1000;  // rows that make a transaction a BULK mark
inline constexpr std::int64_t kClockStepMicros =
    1'000'000;  // smaller inversions are normal concurrency

bool is_transaction(const WalFinding& finding);  // commit or abort
void add_to_summary(pb::WalSummary& summary, const WalFinding& finding);
void merge_summary(pb::WalSummary& into, const pb::WalSummary& other);
// Of the whole pack.
pb::WalSummary summary_of(const pb::PackFooter& footer);
// Only until when nothing is missing.
void merge_covered(pb::WalSummary& into, const pb::WalSummary& other);

// Turns findings, in WAL order, into marks. `largest_at` is the largest time stamp of any
// transaction before them in the history; it moves with them. A clock that is set back is one mark,
// at the first transaction that is stamped more than kClockStepMicros earlier than one before it;
// one more where reading begins anew before the clock has caught up.
class MarkBuilder {
public:
    explicit MarkBuilder(std::int64_t largest_at_us)
        : largest_at_us_(largest_at_us), since_step_at_us_(largest_at_us) {}
    void add(const WalFinding& finding, std::vector<pb::MarkEntry>& marks);
    std::int64_t largest_at_us() const { return largest_at_us_; }

private:
    std::int64_t largest_at_us_;
    std::int64_t since_step_at_us_;  // the same of those behind the last step of the clock
};

}  // namespace walvault::storage
