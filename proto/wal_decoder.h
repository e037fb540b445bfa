// WalDecoder: checks WAL as its bytes arrive and tells what the records say that matters to a
// restore.
//
// Pure: bytes in, findings out; pieces may be cut anywhere. It checks page headers (magic, address,
// timeline, system identifier, segment and page size), record lengths, xl_prev and the CRC-32C of
// every complete record, as PostgreSQL's xlogreader.c does, and knows continuation records, records
// that were overwritten after a crash (XLP_FIRST_IS_OVERWRITE_CONTRECORD) and the zeros after
// XLOG_SWITCH.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "proto/lsn.h"

namespace walvault {

// RelFileLocator: which relation file, by number. Names are not in WAL.
struct RelationFile {
    std::uint32_t tablespace = 0;
    std::uint32_t database = 0;
    std::uint32_t relation = 0;
    auto operator<=>(const RelationFile&) const = default;
};
std::string to_string(const RelationFile& file);  // "1663/5/16397"

struct WalFinding {
    enum class Kind : std::uint8_t {
        commit,           // COMMIT, COMMIT PREPARED: xid, at, dropped
        abort,            // ABORT, ABORT PREPARED: xid, at
        prepare,          // PREPARE TRANSACTION: xid, at
        restore_point,    // name, at
        truncate,         // heap TRUNCATE (only logged with wal_level=logical): xid, and in dropped
                          // the OIDs of the tables (not their files; tablespace 0)
        checkpoint,       // online or shutdown: redo_lsn, at
        end_of_recovery,  // a promotion: timeline, at
        parameter_change,  // wal_level_minimal tells whether replay across it is impossible
        segment_switch,    // XLOG_SWITCH
        backup_end,        // redo_lsn: the start LSN of the backup it ends
    };
    Kind kind{};
    Lsn start_lsn;  // first byte of the record
    Lsn end_lsn;    // first byte after it, without alignment padding
    Xid xid = 0;
    WallTime at{};  // zero where the record has none
    std::string name;
    std::vector<RelationFile>
        dropped;  // commit: relation files it removes (DROP, TRUNCATE, rewrite)
    std::vector<RelationFile>
        created;  // commit: relation files created by this transaction (SMGR CREATE)
    Lsn redo_lsn;
    TimelineId timeline = 0;
    bool wal_level_minimal = false;
    // commit: rows the transaction and its subtransactions changed, as far as its records were
    // seen; rows of system catalogs (relation files below 16384) are not counted.
    std::uint64_t inserted_rows = 0;
    std::uint64_t updated_rows = 0;
    std::uint64_t deleted_rows = 0;
    RelationFile most_changed;  // the relation file with the most of them
};

struct WalDecoderOptions {
    unsigned server_major = 0;            // must be given: its WAL is read as no other's
    std::uint64_t system_identifier = 0;  // 0: taken from the first long page header
    std::uint64_t segment_bytes = 0;      // a power of two from 1 MiB to 1 GiB
    TimelineId timeline = 0;              // pages may carry it or an older one; 0: not checked
    bool count_rows = true;               // per open transaction, at most 65,536 of them
};

class WalDecoder {
public:
    // `start` is the start of a page, or the start or end of a record, as record_start_lsn() and
    // checked_lsn() of another decoder give it. If a page starts in mid-record, decoding begins at
    // the first record after that one; if it is empty, XLOG_SWITCH was before it, the rest of the
    // segment must be zero, and decoding begins with the next one. Errors: unsupported for a major
    // this build does not know; invalid_argument for a segment size that is none or a start inside
    // a page header.
    static Result<WalDecoder> open(const WalDecoderOptions& options, Lsn start);

    // Appends bytes that continue exactly at end_lsn(); findings are added to `findings` in WAL
    // order. The rest of a segment after XLOG_SWITCH is passed over, whatever it holds, as
    // PostgreSQL does. Errors: corrupt, with the LSN and what did not match; the decoder must then
    // be opened anew.
    Result<> feed(ByteSpan bytes, std::vector<WalFinding>& findings);

    Lsn end_lsn() const;  // first byte not yet fed
    // Start of the record that end_lsn() lies in, or end_lsn() aligned. XLOG_SWITCH reaches to the
    // end of its segment; a record that began before `start` is answered with `start`. Open there
    // to resume.
    Lsn record_start_lsn() const;
    // End of the last complete record whose CRC was checked; the segment's end once it is fed after
    // XLOG_SWITCH. `start` until there is one.
    Lsn checked_lsn() const;
    Lsn last_record_lsn()
        const;  // start of that record (what the next xl_prev must be); 0: none yet

    WalDecoder(WalDecoder&&) noexcept;
    WalDecoder& operator=(WalDecoder&&) noexcept;
    ~WalDecoder();

private:
    struct State;
    explicit WalDecoder(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace walvault
