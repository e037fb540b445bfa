#include "proto/wal_interpreter.h"

#include <algorithm>
#include <string>

namespace walvault {
namespace {

namespace xact_operation {  // of xl_info & 0x70; 0x20, between them, is ABORT
constexpr std::uint8_t kCommit = 0x00;
constexpr std::uint8_t kPrepare = 0x10;
constexpr std::uint8_t kCommitPrepared = 0x30;
constexpr std::uint8_t kAbortPrepared = 0x40;
}  // namespace xact_operation

constexpr std::uint8_t kXactHasInfo = 0x80;
constexpr std::uint32_t kXinfoDatabase = 1U << 0;
constexpr std::uint32_t kXinfoSubtransactions = 1U << 1;
constexpr std::uint32_t kXinfoFiles = 1U << 2;
constexpr std::uint32_t kXinfoInvalidations = 1U << 3;
constexpr std::uint32_t kXinfoTwoPhase = 1U << 4;
constexpr std::uint32_t kXinfoDroppedStatistics = 1U << 8;

constexpr std::uint8_t kSmgrCreate = 0x10;
constexpr std::uint8_t kHeapOperationMask = 0x70;
constexpr std::uint8_t kHeapTruncate = 0x30;
constexpr std::uint8_t kHeap2MultiInsert = 0x50;
constexpr std::uint32_t kFirstUserRelation = 16'384;

// Unsigned arithmetic: times in WAL are only as honest as the server, and may not overflow here.
WallTime to_wall_time(std::int64_t postgres_micros) {
    return WallTime(
        Micros(static_cast<std::int64_t>(static_cast<std::uint64_t>(postgres_micros) +
                                         static_cast<std::uint64_t>(kPostgresEpochMicros))));
}
WallTime seconds_to_wall_time(std::int64_t unix_seconds) {
    return WallTime(
        Micros(static_cast<std::int64_t>(static_cast<std::uint64_t>(unix_seconds) * 1'000'000U)));
}

RelationFile read_file(ByteReader& reader) {
    RelationFile file;
    file.tablespace = reader.le<std::uint32_t>();
    file.database = reader.le<std::uint32_t>();
    file.relation = reader.le<std::uint32_t>();
    return file;
}

// Skips an array that begins with its int32 count.
void skip_array(ByteReader& reader, std::size_t element_bytes) {
    reader.bytes(std::size_t{reader.le<std::uint32_t>()} * element_bytes);
}

struct TransactionEnd {
    std::int64_t postgres_micros = 0;
    std::vector<Xid> subtransactions;
    std::vector<RelationFile> dropped;
    Xid prepared_xid = 0;
};

// The arrays of a commit or abort record come in this order, each only if its bit is set. False if
// they run past the end; what was read until then is in `end`.
bool read_transaction_end(const ServerVersion& version, const WalRecordHeader& header,
                          ByteSpan main_data, TransactionEnd& end) {
    ByteReader reader(main_data);
    end.postgres_micros = reader.le<std::int64_t>();
    if (!(header.info & kXactHasInfo)) return reader.ok();
    const auto xinfo = reader.le<std::uint32_t>();
    if (xinfo & kXinfoDatabase) reader.bytes(8);
    if (xinfo & kXinfoSubtransactions) {
        const auto count = reader.le<std::uint32_t>();
        const auto whole = std::min<std::size_t>(count, reader.remaining() / sizeof(Xid));
        end.subtransactions.reserve(whole);
        for (std::size_t i = 0; i < whole; ++i)
            end.subtransactions.push_back(reader.le<Xid>());
        if (whole < count) return false;
    }
    if (xinfo & kXinfoFiles) {
        const auto count = reader.le<std::uint32_t>();
        const auto whole = std::min<std::size_t>(count, reader.remaining() / 12);
        end.dropped.reserve(whole);
        for (std::size_t i = 0; i < whole; ++i)
            end.dropped.push_back(read_file(reader));
        if (whole < count) return false;
    }
    if ((xinfo & kXinfoDroppedStatistics) && version.dropped_statistics_bytes > 0)
        skip_array(reader, version.dropped_statistics_bytes);
    if (xinfo & kXinfoInvalidations) skip_array(reader, 16);
    if (xinfo & kXinfoTwoPhase) end.prepared_xid = reader.le<Xid>();
    return reader.ok();
}

// A name in a fixed field of 64 bytes, ended by a zero.
std::string read_name(ByteReader& reader) {
    std::string_view field = as_text(reader.bytes(64));
    return std::string(field.substr(0, field.find('\0')));
}

bool read_checkpoint(ByteReader& reader, WalFinding& finding) {
    finding.kind = WalFinding::Kind::checkpoint;
    finding.redo_lsn = Lsn{reader.le<std::uint64_t>()};
    finding.timeline = reader.le<std::uint32_t>();
    // From the previous timeline to the oldest multixact's database; what 17 adds to it lies in
    // what was padding before.
    reader.bytes(52);
    finding.at = seconds_to_wall_time(reader.le<std::int64_t>());
    return reader.ok();
}

bool read_parameter_change(ByteReader& reader, WalFinding& finding) {
    finding.kind = WalFinding::Kind::parameter_change;
    reader.bytes(20);  // five limits
    finding.wal_level_minimal = reader.le<std::int32_t>() == 0;
    return reader.ok();
}

}  // namespace

bool WalInterpreter::parse(const WalRecordHeader& header, ByteSpan body,
                           WalRecordBody& parsed) const {
    return parse_record_body(*version_, body, header.total_bytes - kWalRecordHeaderBytes, parsed);
}

Result<> WalInterpreter::not_understood(const WalRecordHeader& header, Lsn start_lsn) const {
    return fail(Errc::corrupt,
                "the WAL record at " + to_string(start_lsn) + " (resource manager " +
                    std::to_string(header.rmgr) + ", info " + std::to_string(header.info) + ", " +
                    std::to_string(header.total_bytes) + " bytes) has a content that PostgreSQL " +
                    std::to_string(version_->major) + " does not write");
}

Result<> WalInterpreter::read(const WalRecordHeader& header, Lsn start_lsn, Lsn end_lsn,
                              ByteSpan body, std::vector<WalFinding>& findings) {
    switch (header.rmgr) {
        case rmgr::kXact:
            return read_xact(header,
                             {.start_lsn = start_lsn, .end_lsn = end_lsn, .xid = header.xid}, body,
                             findings);
        case rmgr::kXlog:
            return read_xlog(header, {.start_lsn = start_lsn, .end_lsn = end_lsn}, body, findings);
        case rmgr::kSmgr:
            read_smgr(header, body);
            return {};
        case rmgr::kHeap:
            // No finding is made for a row: this is the path of most records.
            if ((header.info & kHeapOperationMask) == kHeapTruncate)
                read_truncate(header,
                              {.start_lsn = start_lsn, .end_lsn = end_lsn, .xid = header.xid}, body,
                              findings);
            else if (count_rows_)
                count_row(header, body);
            return {};
        case rmgr::kHeap2:
            if (count_rows_) read_heap2(header, body);
            return {};
        default:
            return {};
    }
}

Result<> WalInterpreter::read_xact(const WalRecordHeader& header, WalFinding finding, ByteSpan body,
                                   std::vector<WalFinding>& findings) {
    const std::uint8_t operation = header.info & 0x70;
    if (operation > xact_operation::kAbortPrepared) return {};
    const std::uint64_t body_bytes = header.total_bytes - kWalRecordHeaderBytes;
    WalRecordBody parsed;
    if (!parse(header, body, parsed)) return not_understood(header, finding.start_lsn);

    if (operation == xact_operation::kPrepare) {
        ByteReader reader(parsed.main_data);
        reader.bytes(8);  // magic, length
        finding.kind = WalFinding::Kind::prepare;
        finding.xid = reader.le<Xid>();
        reader.bytes(4);  // database
        finding.at = to_wall_time(reader.le<std::int64_t>());
        if (!reader.ok()) return not_understood(header, finding.start_lsn);
        open_.mark_prepared(finding.xid);
        findings.push_back(std::move(finding));
        return {};
    }

    TransactionEnd end;
    const bool whole = read_transaction_end(*version_, header, parsed.main_data, end);
    // Only a record of more than 16 MiB was kept in part; its lists are then read as far as they
    // go.
    const bool kept_whole = body.size() == body_bytes;
    if (!whole && (kept_whole || parsed.main_data.size() < sizeof end.postgres_micros))
        return not_understood(header, finding.start_lsn);
    finding.at = to_wall_time(end.postgres_micros);
    if (operation == xact_operation::kCommitPrepared || operation == xact_operation::kAbortPrepared)
        finding.xid = end.prepared_xid;
    if (operation == xact_operation::kCommit || operation == xact_operation::kCommitPrepared) {
        finding.kind = WalFinding::Kind::commit;
        finding.dropped = std::move(end.dropped);
        open_.finish(finding.xid, end.subtransactions, finding);
    } else {
        finding.kind = WalFinding::Kind::abort;
        open_.forget(finding.xid);
        for (Xid subtransaction : end.subtransactions)
            open_.forget(subtransaction);
    }
    findings.push_back(std::move(finding));
    return {};
}

Result<> WalInterpreter::read_xlog(const WalRecordHeader& header, WalFinding finding, ByteSpan body,
                                   std::vector<WalFinding>& findings) {
    const std::uint8_t operation = header.operation();
    if (operation == xlog_info::kSwitch) {
        finding.kind = WalFinding::Kind::segment_switch;
        findings.push_back(std::move(finding));
        return {};
    }
    if (kept_body_bytes_max(header) == 0) return {};
    WalRecordBody parsed;
    if (!parse(header, body, parsed)) return not_understood(header, finding.start_lsn);
    ByteReader reader(parsed.main_data);
    bool understood = true;
    switch (operation) {
        case xlog_info::kCheckpointShutdown:
            open_.forget_unprepared();
            [[fallthrough]];
        case xlog_info::kCheckpointOnline:
            understood = read_checkpoint(reader, finding);
            break;
        case xlog_info::kBackupEnd:
            finding.kind = WalFinding::Kind::backup_end;
            finding.redo_lsn = Lsn{reader.le<std::uint64_t>()};
            break;
        case xlog_info::kParameterChange:
            understood = read_parameter_change(reader, finding);
            break;
        case xlog_info::kRestorePoint:
            finding.kind = WalFinding::Kind::restore_point;
            finding.at = to_wall_time(reader.le<std::int64_t>());
            finding.name = read_name(reader);
            break;
        case xlog_info::kEndOfRecovery:
            open_.forget_unprepared();
            finding.kind = WalFinding::Kind::end_of_recovery;
            finding.at = to_wall_time(reader.le<std::int64_t>());
            finding.timeline = reader.le<std::uint32_t>();
            break;
        default:
            return {};
    }
    if (!understood || !reader.ok()) return not_understood(header, finding.start_lsn);
    findings.push_back(std::move(finding));
    return {};
}

void WalInterpreter::read_smgr(const WalRecordHeader& header, ByteSpan body) {
    WalRecordBody parsed;
    if (header.operation() != kSmgrCreate || header.xid == 0 || !parse(header, body, parsed))
        return;
    ByteReader reader(parsed.main_data);
    RelationFile file = read_file(reader);
    const auto fork = reader.le<std::int32_t>();
    if (reader.ok() && fork == 0) open_.add_created(header.xid, file);
}

void WalInterpreter::count_row(const WalRecordHeader& header, ByteSpan body) {
    RowChanges rows;
    switch (header.info & kHeapOperationMask) {
        case 0x00:
            rows.inserted_rows = 1;
            break;
        case 0x10:
            rows.deleted_rows = 1;
            break;
        case 0x20:  // update
        case 0x40:
            rows.updated_rows = 1;
            break;
        default:
            return;
    }
    RelationFile file;
    if (header.xid == 0 || !first_block_file(*version_, body, file) ||
        file.relation < kFirstUserRelation)
        return;
    open_.add_rows(header.xid, file, rows);
}

void WalInterpreter::read_truncate(const WalRecordHeader& header, WalFinding finding, ByteSpan body,
                                   std::vector<WalFinding>& findings) {
    WalRecordBody parsed;
    if (!parse(header, body, parsed)) return;
    ByteReader reader(parsed.main_data);
    const auto database = reader.le<std::uint32_t>();
    const auto count = reader.le<std::uint32_t>();
    reader.bytes(4);  // flags and padding
    finding.kind = WalFinding::Kind::truncate;
    for (std::uint32_t i = 0; i < count && reader.remaining() >= sizeof(std::uint32_t); ++i)
        finding.dropped.push_back({.database = database, .relation = reader.le<std::uint32_t>()});
    findings.push_back(std::move(finding));
}

void WalInterpreter::read_heap2(const WalRecordHeader& header, ByteSpan body) {
    WalRecordBody parsed;
    if ((header.info & kHeapOperationMask) != kHeap2MultiInsert || header.xid == 0 ||
        !parse(header, body, parsed) || parsed.first_file.relation < kFirstUserRelation)
        return;
    ByteReader reader(parsed.main_data);
    reader.bytes(2);  // flags and padding
    const auto count = reader.le<std::uint16_t>();
    if (reader.ok()) open_.add_rows(header.xid, parsed.first_file, {.inserted_rows = count});
}

}  // namespace walvault
