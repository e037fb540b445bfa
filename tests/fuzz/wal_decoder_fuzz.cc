#include "proto/wal_decoder.h"

#include <algorithm>

#include "base/crc32c.h"
#include "proto/server_version.h"
#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

namespace {

constexpr Lsn kStart{3 << 20};

struct Outcome {
    bool failed = false;
    std::size_t findings = 0;
    Lsn checked_lsn, last_record_lsn, record_start_lsn;
    bool operator==(const Outcome&) const = default;
};

Outcome decode(ByteSpan input, std::size_t piece_bytes) {
    // The first page's magic chooses, so that inputs of every major are read.
    unsigned major = 15;
    for (const ServerVersion& version : known_server_versions())
        if (input.size() >= 2 && load_le<std::uint16_t>(input.data()) == version.wal_page_magic)
            major = version.major;
    auto decoder =
        WalDecoder::open({.server_major = major, .segment_bytes = 1_MiB, .timeline = 5}, kStart);
    WV_ASSERT(decoder);
    std::vector<WalFinding> findings;
    Outcome outcome;
    while (!input.empty() && !outcome.failed) {
        const ByteSpan piece = input.first(std::min(piece_bytes, input.size()));
        input = input.subspan(piece.size());
        outcome.failed = !decoder->feed(piece, findings);
        WV_ASSERT(decoder->checked_lsn() <= decoder->end_lsn());
        WV_ASSERT(decoder->last_record_lsn() < decoder->checked_lsn() ||
                  !decoder->last_record_lsn());
    }
    for (std::size_t i = 1; i < findings.size(); ++i)
        WV_ASSERT(findings[i - 1].end_lsn <= findings[i].start_lsn);
    outcome.findings = findings.size();
    outcome.checked_lsn = decoder->checked_lsn();
    outcome.last_record_lsn = decoder->last_record_lsn();
    if (!outcome.failed) outcome.record_start_lsn = decoder->record_start_lsn();
    return outcome;
}

// Makes the CRCs of the records in the first page right, so that what is behind them is reached.
ByteBuffer with_right_crcs(ByteSpan input) {
    ByteBuffer bytes(input.begin(), input.end());
    const std::size_t page_end = std::min<std::size_t>(bytes.size(), kWalPageBytes);
    for (std::size_t at = 40; at + 24 <= page_end;) {
        const auto total = load_le<std::uint32_t>(bytes.data() + at);
        if (total < 24 || total > page_end - at) break;
        const ByteSpan record = ByteSpan(bytes).subspan(at, total);
        const std::uint32_t crc = crc32c_extend(kCrc32cInit, record.subspan(24));
        store_le(bytes.data() + at + 20, crc32c_finish(crc32c_extend(crc, record.first(20))));
        at = (at + total + 7) / 8 * 8;
    }
    return bytes;
}

}  // namespace

// The outcome is the same however the bytes are cut.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ByteSpan input = fuzz_input(data, size);
    const std::size_t piece_bytes = take_piece_bytes(input);
    WV_ASSERT(decode(input, piece_bytes) == decode(input, 1 << 20));
    const ByteBuffer repaired = with_right_crcs(input);
    WV_ASSERT(decode(repaired, piece_bytes) == decode(repaired, 1 << 20));
    return 0;
}
