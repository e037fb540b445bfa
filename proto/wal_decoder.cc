#include "proto/wal_decoder.h"

#include <algorithm>
#include <bit>
#include <string_view>

#include "base/crc32c.h"
#include "proto/wal_interpreter.h"

namespace walvault {
namespace {

constexpr std::uint32_t kShortPageHeaderBytes = 24;
constexpr std::uint32_t kLongPageHeaderBytes = 40;
constexpr std::uint32_t kRecordAlignmentBytes = 8;
constexpr std::uint32_t kCrcOffset = 20;

constexpr std::uint16_t kFirstIsContinuation = 0x0001;
constexpr std::uint16_t kLongHeader = 0x0002;
constexpr std::uint16_t kFirstIsOverwrite = 0x0008;
constexpr std::uint16_t kAllPageFlags = 0x000F;

// Leaves no position of a decoder near the end of 64 bits.
constexpr std::uint64_t kStartLsnMax = ~std::uint64_t{0} >> 1;

std::string hex16(std::uint16_t value) {
    const std::array bytes{static_cast<std::byte>(value >> 8),
                           static_cast<std::byte>(value & 0xFF)};
    return to_hex(bytes);
}

bool is_empty(ByteSpan bytes) {
    return std::ranges::all_of(bytes, [](std::byte each) { return each == std::byte{0}; });
}

}  // namespace

std::string to_string(const RelationFile& file) {
    return std::to_string(file.tablespace) + '/' + std::to_string(file.database) + '/' +
           std::to_string(file.relation);
}

struct WalDecoder::State {
    State(const WalDecoderOptions& with, const ServerVersion& of, Lsn from)
        : options(with),
          version(of),
          start(from.value),
          position(from.value),
          checked(from.value),
          synced(from.value % kWalPageBytes != 0),
          interpreter(of, with.count_rows) {}

    Result<> feed(ByteSpan bytes, std::vector<WalFinding>& findings);

    // The page header that `position` is in or at.
    std::uint32_t page_header_bytes() const {
        return position - position % kWalPageBytes == segment_start() ? kLongPageHeaderBytes
                                                                      : kShortPageHeaderBytes;
    }
    std::uint64_t segment_start() const { return position - position % options.segment_bytes; }
    std::size_t feed_page_header(ByteSpan bytes, Result<>& result);
    Result<> check_page_header(const std::byte* page, Lsn page_lsn);
    Result<> check_long_header(const std::byte* page, Lsn page_lsn);
    Result<> check_continuation(std::uint16_t flags, std::uint32_t rest_bytes, Lsn page_lsn);

    // `span` lies within one page, after its header.
    Result<> feed_records(ByteSpan span, std::vector<WalFinding>& findings);
    std::size_t feed_part(ByteSpan span, Result<>& result, std::vector<WalFinding>& findings);
    Result<> check_record_length(std::uint32_t total_bytes) const;
    Result<> check_record_header(const WalRecordHeader& header) const;
    Result<> check_overwrite(const WalRecordHeader& header, ByteSpan body);
    Result<> finish_record(const WalRecordHeader& header, const std::byte* header_bytes,
                           std::uint32_t body_crc, ByteSpan body,
                           std::vector<WalFinding>& findings);
    std::size_t pass_over_switch_rest(ByteSpan bytes, Result<>& result);

    tl::unexpected<Error> corrupt(Lsn at, const std::string& what) const {
        return fail(Errc::corrupt, "the WAL at " + to_string(at) + " is damaged: " + what);
    }
    std::uint32_t record_total_bytes() const {
        return load_le<std::uint32_t>(record_header.data());
    }

    WalDecoderOptions options;
    const ServerVersion& version;
    std::uint64_t start;
    std::uint64_t position;  // end_lsn
    std::uint64_t checked;
    std::uint64_t last_record = 0;
    TimelineId page_timeline = 0;
    bool synced;  // it is known where the next record starts
    bool failed = false;
    bool in_switch_rest = false;
    bool is_rest_known = true;  // by the record of the switch; otherwise by an empty page

    std::array<std::byte, kLongPageHeaderBytes> page_header{};
    std::size_t page_header_have = 0;

    // The record that is not complete yet; nothing of it when record_have is 0.
    std::uint64_t record_start = 0;
    std::uint64_t record_have = 0;
    std::array<std::byte, kWalRecordHeaderBytes> record_header{};
    WalRecordHeader header;  // once record_have >= kWalRecordHeaderBytes
    std::uint32_t crc = kCrc32cInit;
    std::size_t kept_max = 0;
    ByteBuffer kept;

    std::uint64_t skip_left = 0;           // of the record that began before `start`
    bool expect_overwrite = false;         // the next record must be XLOG_OVERWRITE_CONTRECORD
    std::uint64_t overwritten_record = 0;  // which must name this one; 0: not known

    WalInterpreter interpreter;
};

Result<> WalDecoder::State::feed(ByteSpan bytes, std::vector<WalFinding>& findings) {
    WV_ASSERT(!failed);
    while (!bytes.empty()) {
        const std::uint64_t offset = position % kWalPageBytes;
        Result<> result;
        std::size_t used = 0;
        if (in_switch_rest) {
            used = pass_over_switch_rest(bytes, result);
        } else if (offset < page_header_bytes() && (offset == 0 || page_header_have > 0)) {
            used = feed_page_header(bytes, result);
        } else {
            used = std::min<std::size_t>(bytes.size(), kWalPageBytes - offset);
            result = feed_records(bytes.first(used), findings);
        }
        if (!result) {
            failed = true;
            return result;
        }
        bytes = bytes.subspan(used);
    }
    return {};
}

std::size_t WalDecoder::State::pass_over_switch_rest(ByteSpan bytes, Result<>& result) {
    const std::uint64_t segment_end = segment_start() + options.segment_bytes;
    const std::size_t used = std::min<std::uint64_t>(bytes.size(), segment_end - position);
    if (!is_rest_known && !is_empty(bytes.first(used)))
        result = corrupt(Lsn{position}, "an empty page is followed by one that is not");
    position += used;
    if (position == segment_end) {
        in_switch_rest = false;
        checked = position;
    }
    return used;
}

std::size_t WalDecoder::State::feed_page_header(ByteSpan bytes, Result<>& result) {
    const std::uint32_t needed = page_header_bytes();
    const Lsn page_lsn{position - page_header_have};
    const std::size_t used = std::min<std::size_t>(bytes.size(), needed - page_header_have);
    if (used == needed) {
        result = check_page_header(bytes.data(), page_lsn);
    } else {
        std::memcpy(page_header.data() + page_header_have, bytes.data(), used);
        page_header_have += used;
        if (page_header_have == needed) {
            result = check_page_header(page_header.data(), page_lsn);
            page_header_have = 0;
        }
    }
    position += used;
    return used;
}

Result<> WalDecoder::State::check_page_header(const std::byte* page, Lsn page_lsn) {
    const auto found_magic = load_le<std::uint16_t>(page);
    const auto flags = load_le<std::uint16_t>(page + 2);
    const auto timeline = load_le<std::uint32_t>(page + 4);
    const Lsn address{load_le<std::uint64_t>(page + 8)};
    const auto rest_bytes = load_le<std::uint32_t>(page + 16);
    const bool is_segment_start = page_lsn.value % options.segment_bytes == 0;
    // The switch was before `start`: XLogSwitch leaves the pages behind it empty, headers too
    // (CopyXLogRecordToWAL).
    if (!synced && !is_segment_start && is_empty(ByteSpan(page, kShortPageHeaderBytes))) {
        in_switch_rest = true;
        is_rest_known = false;
        return {};
    }
    if (found_magic != version.wal_page_magic)
        return corrupt(page_lsn, "the page has the magic " + hex16(found_magic) + " instead of " +
                                     hex16(version.wal_page_magic));
    if (flags & ~kAllPageFlags)
        return corrupt(page_lsn, "the page has the flags " + hex16(flags) + ", of which " +
                                     hex16(kAllPageFlags) + " are known");
    if (address != page_lsn)
        return corrupt(page_lsn, "the page says that it belongs at " + to_string(address));
    if (timeline == 0 || (options.timeline != 0 && timeline > options.timeline))
        return corrupt(page_lsn, "the page is of timeline " + std::to_string(timeline) +
                                     ", which timeline " + std::to_string(options.timeline) +
                                     " does not descend from");
    if (timeline < page_timeline)
        return corrupt(page_lsn, "the page is of timeline " + std::to_string(timeline) +
                                     " after a page of timeline " + std::to_string(page_timeline));
    if (((flags & kLongHeader) != 0) != is_segment_start)
        return corrupt(page_lsn, is_segment_start
                                     ? "the segment begins without a long page header"
                                     : "a long page header is in the middle of a segment");
    if (is_segment_start) WV_CHECK(check_long_header(page, page_lsn));
    page_timeline = timeline;
    return check_continuation(flags, rest_bytes, page_lsn);
}

Result<> WalDecoder::State::check_long_header(const std::byte* page, Lsn page_lsn) {
    const auto system = load_le<std::uint64_t>(page + 24);
    const auto segment_bytes = load_le<std::uint32_t>(page + 32);
    const auto page_bytes = load_le<std::uint32_t>(page + 36);
    if (options.system_identifier == 0) options.system_identifier = system;
    if (system != options.system_identifier)
        return corrupt(page_lsn, "the segment is of system " + std::to_string(system) +
                                     " instead of " + std::to_string(options.system_identifier));
    if (segment_bytes != options.segment_bytes)
        return corrupt(page_lsn, "the segment says that it has " + std::to_string(segment_bytes) +
                                     " bytes instead of " + std::to_string(options.segment_bytes));
    if (page_bytes != kWalPageBytes)
        return corrupt(page_lsn, "the segment has pages of " + std::to_string(page_bytes) +
                                     " bytes instead of " + std::to_string(kWalPageBytes));
    return {};
}

// What the page says of the record it begins in must fit the record that is being read.
Result<> WalDecoder::State::check_continuation(std::uint16_t flags, std::uint32_t rest_bytes,
                                               Lsn page_lsn) {
    const bool in_record = record_have > 0 || skip_left > 0;
    if (flags & kFirstIsOverwrite) {
        if (synced && !in_record)
            return corrupt(page_lsn,
                           "the page overwrites the rest of a record, but none is incomplete");
        if (flags & kFirstIsContinuation)
            return corrupt(page_lsn, "the page both continues and overwrites a record");
        overwritten_record = record_have > 0 ? record_start : 0;
        expect_overwrite = true;
        record_have = 0;
        skip_left = 0;
        synced = true;
        return {};
    }
    const bool continues = (flags & kFirstIsContinuation) != 0;
    if (!synced) {
        if (continues && rest_bytes == 0)
            return corrupt(page_lsn, "the page continues a record of which 0 bytes are left");
        skip_left = continues ? rest_bytes : 0;
        synced = true;
        return {};
    }
    if (continues != in_record)
        return corrupt(page_lsn, continues ? "the page continues a record, but none is incomplete"
                                           : "the page does not continue the record at " +
                                                 to_string(Lsn{record_start}));
    if (!in_record) return {};
    const std::uint64_t expected = record_have > 0 ? record_total_bytes() - record_have : skip_left;
    if (rest_bytes != expected)
        return corrupt(page_lsn, "the page continues a record with " + std::to_string(rest_bytes) +
                                     " bytes left instead of " + std::to_string(expected));
    return {};
}

Result<> WalDecoder::State::feed_records(ByteSpan span, std::vector<WalFinding>& findings) {
    while (!span.empty()) {
        std::size_t used = 0;
        if (in_switch_rest) {
            Result<> result;
            used = pass_over_switch_rest(span, result);
        } else if (skip_left > 0) {
            used = std::min<std::uint64_t>(span.size(), skip_left);
            skip_left -= used;
            position += used;
        } else if (record_have == 0 && position % kRecordAlignmentBytes != 0) {
            used = std::min<std::size_t>(span.size(),
                                         kRecordAlignmentBytes - position % kRecordAlignmentBytes);
            position += used;
        } else if (record_have == 0 && span.size() >= kWalRecordHeaderBytes &&
                   load_le<std::uint32_t>(span.data()) <= span.size()) {
            // The whole record is here: no copy is made of it.
            const WalRecordHeader whole = load_record_header(span.data());
            record_start = position;
            WV_CHECK(check_record_header(whole));
            used = whole.total_bytes;
            const ByteSpan body = span.first(used).subspan(kWalRecordHeaderBytes);
            position += used;
            WV_CHECK(finish_record(whole, span.data(), crc32c_extend(kCrc32cInit, body), body,
                                   findings));
        } else {
            Result<> result;
            used = feed_part(span, result, findings);
            WV_CHECK(std::move(result));
        }
        span = span.subspan(used);
    }
    return {};
}

// Takes as much of `span` as belongs to the current record, whose header or body may be cut
// anywhere.
std::size_t WalDecoder::State::feed_part(ByteSpan span, Result<>& result,
                                         std::vector<WalFinding>& findings) {
    if (record_have == 0) {
        record_start = position;
        crc = kCrc32cInit;
        kept.clear();
    }
    if (record_have < kWalRecordHeaderBytes) {
        const std::size_t used =
            std::min<std::size_t>(span.size(), kWalRecordHeaderBytes - record_have);
        std::memcpy(record_header.data() + record_have, span.data(), used);
        record_have += used;
        position += used;
        // The length is known before the rest of the header: the next page's header is checked
        // against it.
        if (record_have >= sizeof(std::uint32_t))
            result = check_record_length(record_total_bytes());
        if (!result || record_have < kWalRecordHeaderBytes) return used;
        header = load_record_header(record_header.data());
        kept_max = kept_body_bytes_max(header);
        result = check_record_header(header);
        if (result && header.total_bytes == kWalRecordHeaderBytes) {
            record_have = 0;
            result = finish_record(header, record_header.data(), crc, {}, findings);
        }
        return used;
    }
    const std::size_t used = std::min<std::uint64_t>(span.size(), header.total_bytes - record_have);
    const ByteSpan part = span.first(used);
    crc = crc32c_extend(crc, part);
    if (kept.size() < kept_max) append(kept, part.first(std::min(used, kept_max - kept.size())));
    record_have += used;
    position += used;
    if (record_have == header.total_bytes) {
        record_have = 0;
        result = finish_record(header, record_header.data(), crc, kept, findings);
        if (kept.capacity() > 1_MiB) kept = ByteBuffer();
    }
    return used;
}

Result<> WalDecoder::State::check_record_length(std::uint32_t total_bytes) const {
    if (total_bytes >= kWalRecordHeaderBytes && total_bytes <= kWalRecordBytesMax) return {};
    return corrupt(Lsn{record_start}, "the record has a length of " + std::to_string(total_bytes) +
                                          " bytes, outside of " +
                                          std::to_string(kWalRecordHeaderBytes) + " to " +
                                          std::to_string(kWalRecordBytesMax));
}

Result<> WalDecoder::State::check_record_header(const WalRecordHeader& found) const {
    const Lsn at{record_start};
    WV_CHECK(check_record_length(found.total_bytes));
    const bool custom = version.has_custom_rmgrs && found.rmgr >= rmgr::kFirstCustom;
    if (found.rmgr > rmgr::kLastBuiltIn && !custom)
        return corrupt(at, "the record is of resource manager " + std::to_string(found.rmgr) +
                               ", the last known is " + std::to_string(rmgr::kLastBuiltIn));
    if (last_record != 0 && found.previous_lsn.value != last_record)
        return corrupt(at, "the record names " + to_string(found.previous_lsn) +
                               " as the record before it instead of " +
                               to_string(Lsn{last_record}));
    if (found.previous_lsn.value >= record_start)
        return corrupt(at, "the record names " + to_string(found.previous_lsn) +
                               " as the record before it, which is not before it");
    if (found.is_switch() && found.total_bytes != kWalRecordHeaderBytes)
        return corrupt(at, "a segment switch has " + std::to_string(found.total_bytes) +
                               " bytes instead of " + std::to_string(kWalRecordHeaderBytes));
    return {};
}

// After a crash in mid-record the server begins the next page anew, and says there which record it
// left.
Result<> WalDecoder::State::check_overwrite(const WalRecordHeader& found, ByteSpan body) {
    expect_overwrite = false;
    const Lsn at{record_start};
    if (found.rmgr != rmgr::kXlog || found.operation() != xlog_info::kOverwriteContrecord)
        return corrupt(
            at, "the page overwrites a record, but does not begin with the record that says so");
    WalRecordBody parsed;
    const std::uint64_t body_bytes = found.total_bytes - kWalRecordHeaderBytes;
    const bool whole = parse_record_body(version, body, body_bytes, parsed) &&
                       parsed.main_data.size() >= sizeof(std::uint64_t);
    if (!whole) return corrupt(at, "the record that overwrites another does not say which");
    const Lsn named{load_le<std::uint64_t>(parsed.main_data.data())};
    if (overwritten_record != 0 && named.value != overwritten_record)
        return corrupt(at, "the record overwrites the one at " + to_string(named) + " instead of " +
                               to_string(Lsn{overwritten_record}));
    return {};
}

Result<> WalDecoder::State::finish_record(const WalRecordHeader& found,
                                          const std::byte* header_bytes, std::uint32_t body_crc,
                                          ByteSpan body, std::vector<WalFinding>& findings) {
    const Lsn at{record_start};
    const std::uint32_t computed =
        crc32c_finish(crc32c_extend(body_crc, ByteSpan(header_bytes, kCrcOffset)));
    if (computed != found.crc)
        return corrupt(at, "the record has the CRC " + std::to_string(computed) + " instead of " +
                               std::to_string(found.crc));
    if (expect_overwrite) WV_CHECK(check_overwrite(found, body));
    WV_CHECK(interpreter.read(found, at, Lsn{position}, body, findings));
    last_record = record_start;
    checked = position;
    if (found.is_switch()) {
        // A switch that ends its segment exactly leaves nothing to pass over.
        in_switch_rest = position % options.segment_bytes != 0;
        is_rest_known = true;
    }
    return {};
}

Result<WalDecoder> WalDecoder::open(const WalDecoderOptions& options, Lsn start) {
    WV_TRY(const ServerVersion* version,
           find_server_version(options.server_major, "what wrote this WAL"));
    if (!std::has_single_bit(options.segment_bytes) || options.segment_bytes < 1_MiB ||
        options.segment_bytes > 1_GiB)
        return fail(Errc::invalid_argument,
                    "a WAL segment cannot have " + std::to_string(options.segment_bytes) +
                        " bytes: a power of two from 1 MiB to 1 GiB is needed");
    if (start.value > kStartLsnMax)
        return fail(Errc::invalid_argument, "WAL cannot be read from " + to_string(start));
    auto state = std::make_unique<State>(options, *version, start);
    const std::uint64_t offset = start.value % kWalPageBytes;
    if (offset != 0 && offset < state->page_header_bytes())
        return fail(
            Errc::invalid_argument,
            "WAL cannot be read from " + to_string(start) + ", which lies inside a page header",
            "begin at the start of the page or of a record");
    return WalDecoder(std::move(state));
}

Result<> WalDecoder::feed(ByteSpan bytes, std::vector<WalFinding>& findings) {
    return state_->feed(bytes, findings);
}

Lsn WalDecoder::end_lsn() const { return Lsn{state_->position}; }

Lsn WalDecoder::record_start_lsn() const {
    const State& state = *state_;
    if (state.in_switch_rest && state.is_rest_known) return Lsn{state.last_record};
    if (state.record_have > 0) return Lsn{state.record_start};
    if (state.skip_left > 0 || !state.synced) return Lsn{state.start};
    if (state.page_header_have > 0) return Lsn{state.position}.round_down(kWalPageBytes);
    return Lsn{state.position + kRecordAlignmentBytes - 1}.round_down(kRecordAlignmentBytes);
}

Lsn WalDecoder::checked_lsn() const { return Lsn{state_->checked}; }
Lsn WalDecoder::last_record_lsn() const { return Lsn{state_->last_record}; }

WalDecoder::WalDecoder(std::unique_ptr<State> state) : state_(std::move(state)) {}
WalDecoder::WalDecoder(WalDecoder&&) noexcept = default;
WalDecoder& WalDecoder::operator=(WalDecoder&&) noexcept = default;
WalDecoder::~WalDecoder() = default;

}  // namespace walvault
