// wal_dump: reads the WAL segments of one timeline from a directory and prints the findings, one a
// line.
//
// usage: wal_dump MAJOR DIRECTORY TIMELINE SEGMENT_BYTES START_LSN END_LSN [PIECE_BYTES]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/file_system.h"
#include "proto/wal_decoder.h"
#include "proto/wal_file_name.h"

namespace walvault {
namespace {

const char* name_of(WalFinding::Kind kind) {
    switch (kind) {
        case WalFinding::Kind::commit:
            return "commit";
        case WalFinding::Kind::abort:
            return "abort";
        case WalFinding::Kind::prepare:
            return "prepare";
        case WalFinding::Kind::restore_point:
            return "restore_point";
        case WalFinding::Kind::truncate:
            return "truncate";
        case WalFinding::Kind::checkpoint:
            return "checkpoint";
        case WalFinding::Kind::end_of_recovery:
            return "end_of_recovery";
        case WalFinding::Kind::parameter_change:
            return "parameter_change";
        case WalFinding::Kind::segment_switch:
            return "segment_switch";
        case WalFinding::Kind::backup_end:
            return "backup_end";
    }
    return "?";
}

std::string joined(const std::vector<RelationFile>& files) {
    std::string text;
    for (const RelationFile& file : files)
        text += (text.empty() ? "" : ",") + to_string(file);
    return text.empty() ? "-" : text;
}

void print(const WalFinding& finding) {
    std::printf("%s start=%s end=%s xid=%u at=%s name=%s redo=%s timeline=%u minimal=%d",
                name_of(finding.kind), to_string(finding.start_lsn).c_str(),
                to_string(finding.end_lsn).c_str(), finding.xid, to_utc_text(finding.at).c_str(),
                finding.name.empty() ? "-" : finding.name.c_str(),
                to_string(finding.redo_lsn).c_str(), finding.timeline,
                finding.wal_level_minimal ? 1 : 0);
    std::printf(" rows=%llu/%llu/%llu most=%s dropped=%s created=%s\n",
                static_cast<unsigned long long>(finding.inserted_rows),
                static_cast<unsigned long long>(finding.updated_rows),
                static_cast<unsigned long long>(finding.deleted_rows),
                to_string(finding.most_changed).c_str(), joined(finding.dropped).c_str(),
                joined(finding.created).c_str());
}

Result<> dump_segment(WalDecoder& decoder, const std::string& path, Lsn segment_start, Lsn end,
                      std::size_t piece_bytes) {
    WV_TRY(ByteBuffer bytes, read_file(posix_file_system(), path, 1_GiB));
    std::size_t at = decoder.end_lsn() - segment_start;
    const std::size_t stop = std::min<std::uint64_t>(bytes.size(), end - segment_start);
    std::vector<WalFinding> findings;
    while (at < stop) {
        const std::size_t count = std::min(piece_bytes, stop - at);
        auto fed = decoder.feed(ByteSpan(bytes).subspan(at, count), findings);
        for (const WalFinding& finding : findings)
            print(finding);
        findings.clear();
        WV_CHECK(std::move(fed));
        at += count;
    }
    return {};
}

Result<> run(char** arguments, int count) {
    const auto major = static_cast<unsigned>(std::strtoul(arguments[1], nullptr, 10));
    const std::string directory = arguments[2];
    const auto timeline = static_cast<TimelineId>(std::strtoul(arguments[3], nullptr, 10));
    const std::uint64_t segment_bytes = std::strtoull(arguments[4], nullptr, 10);
    WV_TRY(Lsn start, parse_lsn(arguments[5]));
    WV_TRY(Lsn end, parse_lsn(arguments[6]));
    const std::size_t piece_bytes = count > 7 ? std::strtoull(arguments[7], nullptr, 10) : 65536;
    if (piece_bytes == 0) return fail(Errc::invalid_argument, "a piece has at least 1 byte");
    WV_TRY(
        WalDecoder decoder,
        WalDecoder::open(
            {.server_major = major, .segment_bytes = segment_bytes, .timeline = timeline}, start));
    while (decoder.end_lsn() < end) {
        const Lsn segment_start = decoder.end_lsn().round_down(segment_bytes);
        const std::string name =
            segment_file_name(timeline, segment_start.value / segment_bytes, segment_bytes);
        const Lsn before = decoder.end_lsn();
        WV_CHECK(dump_segment(decoder, directory + "/" + name, segment_start, end, piece_bytes));
        if (decoder.end_lsn() == before) return fail(Errc::corrupt, name + " is too short");
    }
    std::printf("end=%s checked=%s last=%s record=%s\n", to_string(decoder.end_lsn()).c_str(),
                to_string(decoder.checked_lsn()).c_str(),
                to_string(decoder.last_record_lsn()).c_str(),
                to_string(decoder.record_start_lsn()).c_str());
    return {};
}

}  // namespace
}  // namespace walvault

int main(int count, char** arguments) {
    if (count != 7 && count != 8) {
        std::fprintf(stderr,
                     "usage: wal_dump MAJOR DIRECTORY TIMELINE SEGMENT_BYTES START_LSN END_LSN "
                     "[PIECE_BYTES]\n");
        return 2;
    }
    if (auto done = walvault::run(arguments, count); !done) {
        std::fprintf(stderr, "%s\n", done.error().message.c_str());
        return 1;
    }
    return 0;
}
