// Gaps of a journal: what of a range can be read, and how it is told that the rest cannot.
//
// Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "proto/lsn.h"
#include "proto/repository.pb.h"

namespace walvault::agent {

// The stretches of `from` < end LSN ≤ `to` that no gap lies in, in order; empty ones are left out.
struct JournalStretch {
    Lsn from;
    Lsn to;
    bool operator==(const JournalStretch&) const = default;
};
std::vector<JournalStretch> stretches_between(const std::vector<pb::JournalGap>& gaps, Lsn from,
                                              Lsn to);
// The same range in more pieces: none reaches over one of `places`.
std::vector<JournalStretch> cut_at(const std::vector<JournalStretch>& stretches,
                                   const std::vector<Lsn>& places);
// Those gaps that lie in the range.
std::vector<pb::JournalGap> gaps_within(const std::vector<pb::JournalGap>& gaps, Lsn from, Lsn to);
// "changes from 0/1 to 0/2 are missing, between …: cause".
std::string gap_text(const pb::JournalGap& gap, const std::string& zone);
nlohmann::ordered_json gap_json(const pb::JournalGap& gap);

}  // namespace walvault::agent
