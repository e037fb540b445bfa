// JournalCapture: the row journal of one database: attached, streamed, stored, acknowledged; and
// again after every loss. Nothing of the physical stream waits for it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/config.h"
#include "agent/journal_attachment.h"
#include "agent/journal_pipeline.h"
#include "agent/journal_staging.h"
#include "agent/metrics_catalogue.h"
#include "base/backoff.h"
#include "wal/logical_receiver.h"
#include "wal/logical_setup.h"
#include "wal/table_form.h"
#include "wal/table_snapshot.h"

namespace walvault::agent {

struct JournalStatus {
    std::string database;
    std::string slot;
    bool connected = false;
    std::optional<Error> error;  // why the last session ended
    Lsn stored_lsn;              // every transaction that ends at or before this is stored
    WallTime last_commit_at{};   // of a transaction that was stored
    std::uint64_t transaction_count = 0;
    std::uint64_t change_count = 0;
    std::optional<wal::LogicalSlot> slot_facts;
    std::vector<wal::TableVerdict> verdicts;  // as of the last look at the catalogue
    std::size_t waiting_snapshots = 0;
    std::string snapshot_of;  // the table that is being read
    std::uint64_t staged_bytes = 0;
};

// The cluster, and the history that its server goes on with.
struct JournalGround {
    storage::ClusterRecord cluster;
    Id16 wal_history{};
    TimelineId timeline = 0;
};

class JournalCapture {
public:
    struct Services {
        asio::any_io_executor executor;
        Pool& cpu;
        Pool& store;
        storage::Repository& repository;
        const Clock& clock;
        // Where the physical stream is; nothing until it has found out whose WAL that is.
        std::function<std::optional<JournalGround>()> ground;
    };
    JournalCapture(const Services& services, const ServerConfig& server,
                   const std::vector<ClassConfig>& classes, std::string database,
                   AgentMetrics::Journal metrics);
    ~JournalCapture();

    // Returns when stopped, when all that was received is stored and the tails are packs. Loses
    // nothing in between, and never ends by an error.
    Task<> run();
    void stop();

    const JournalStatus& status() const { return status_; }
    // For the copies of the repository: as WalPipeline::synced_tails().
    std::map<std::string, std::uint64_t> synced_tails() const { return pipeline_.synced_tails(); }

private:
    struct Catalogue;
    struct Session;
    using SharedSnapshot = std::shared_ptr<std::unique_ptr<storage::SnapshotWriter>>;
    Task<Result<>> session();
    Task<Result<>> begin_session(Session& session);
    Task<Result<>> know_ground();
    Task<Result<>> require_same_server(wal::Connection& sql);
    Task<Result<>> leave_another_history();
    Task<Result<>> prepare();
    Task<Result<>> require_known_ends();
    Task<Result<>> look_at_slot(wal::Connection& sql, wal::DatabaseFacts facts);
    Task<Result<>> guard_slot();
    Task<Result<>> look_for_publications(wal::Connection& sql);
    Task<Result<>> look_at_catalogue(wal::Connection& sql);
    std::vector<std::uint32_t> tables_left_by(const std::vector<std::uint32_t>& members,
                                              const std::vector<std::uint32_t>& planned) const;
    Task<Result<>> publish_tables(wal::Connection& sql);
    Task<Result<>> look_at_forms(wal::Connection& sql);
    void leave(const std::vector<std::uint32_t>& tables,
               const std::vector<wal::TableVerdict>& verdicts, const std::string& cause);
    Task<Result<>> enter_left(wal::Connection& sql);
    Task<Result<>> enter_left(std::uint32_t table_oid, Lsn from_lsn, Lsn to_lsn, std::string cause);
    Task<Result<>> note_whole_look(Lsn lsn);
    Task<Result<Lsn>> make_slot(wal::Connection& sql, MakeJournalSlot make);
    Task<Result<>> know_journals();
    Task<Result<>> open_missing(Lsn start);
    Task<Result<>> enter_gap(std::optional<Lsn> left_lsn, Lsn start_lsn, std::string cause);
    Task<Result<>> settle(wal::Connection& sql, JournalAttachment attachment);
    Task<Result<TableFacts>> facts_of(Catalogue& catalogue, const pgoutput::Relation& relation);
    void note_trouble(const Session& session, const Error& error);
    Task<Result<>> stream(Session& session);
    Result<bool> take_now(Session& session, wal::LogicalEvent& event);
    Task<Result<>> take_change(Session& session);
    Task<Result<>> take_whole(Session& session, const pgoutput::AnyMessage& message, ByteSpan bytes,
                              bool in_stream);
    Result<> add(Session& session, const pgoutput::AnyMessage& message, ByteSpan tuples);
    Task<Result<>> put_full(Session& session);
    Task<Result<>> take_relation(Session& session, const pgoutput::Relation& relation);
    Task<Result<>> take_stream_commit(Session& session, const pgoutput::StreamCommit& commit);
    void take_position(Session& session, const wal::DecodedPosition& position);
    void flush(Session& session);
    Task<> flush_loop(Session& session);
    Task<> acknowledge_loop(Session& session);
    Task<> watch_loop(Session& session);
    Task<Result<>> watch_once(Session& session);
    bool is_to_be_given_up() const;
    Task<> snapshot_loop(Session& session);
    Task<Result<>> know_snapshots();
    std::string rows_slot_name() const;
    Task<Result<>> let_others_pass(Session& session, wal::Connection& sql,
                                   const wal::DatabaseFacts& facts);
    std::vector<std::uint32_t> tables_to_read() const;
    Task<Result<>> take_snapshots(Session& session);
    Task<Result<>> read_tables(Session& session, wal::CreatedSlot slot,
                               std::vector<std::uint32_t> tables);
    Task<Result<>> read_table(Session& session, wal::TableSnapshot& rows, JournalRouter& router,
                              std::uint32_t table_oid, Lsn lsn);
    Task<Result<>> keep_rows(Session& session, wal::TableSnapshot& rows, JournalRouter& router,
                             std::uint32_t table_oid, SharedSnapshot writer);
    Task<> stop_loop(Session& session);
    Task<> end_session(Session& session);
    Task<> recover();
    wal::DatabaseOptions database_options(const std::string& application_name) const;
    JournalRouter::Options router_options() const;
    void note_failure(const Error& error);
    void note_verdicts(const wal::PublicationPlan& plan);
    void publish(Session& session);
    void publish_slot();

    Services services_;
    ServerConfig server_;
    std::vector<ClassConfig> classes_;
    std::string database_;
    AgentMetrics::Journal metrics_;
    JournalStatus status_;
    JournalPipeline pipeline_;
    Pool disk_{1};  // of what is staged and of snapshots
    Backoff backoff_;
    wal::Hangup hangup_;  // of the session's connections
    Event stopped_;
    bool stopping_ = false;
    // The server would stream what does not fit: it keeps large transactions on its own disk then.
    bool streams_ = true;
    std::string slot_unusable_;                     // found while streaming
    std::vector<storage::JournalRecord> journals_;  // the main one first
    JournalGround ground_;
    std::optional<Id16> tails_of_;  // the history that the pipeline was begun in
    TimelineId timeline_ = 0;
    std::uint64_t counted_bytes_ = 0;
    // Tables that have a snapshot, or are not to have one, since the last gap.
    struct ReadTable {
        Lsn lsn;                               // of the snapshot
        std::optional<wal::TableForm> form;    // nothing: it is not looked at
        std::optional<std::uint32_t> version;  // when its form was last compared
        bool was_looked_at = false;            // whole_look_lsn_ speaks of it too
    };
    std::map<std::uint32_t, ReadTable> read_tables_;
    // Tables that joined or left the publication since the snapshot that is being read was made:
    // what it shows of them is no start for anything.
    std::set<std::uint32_t> spoilt_;
    // Read tables of which it is still to be entered that not all that happened is known.
    std::map<std::uint32_t, std::string> owed_left_;
    // What partitions are, or were, partitions of: a detached or dropped one does not say it.
    std::map<std::uint32_t, std::pair<std::string, std::string>> roots_;
    // Stored when the catalogue was last looked at and nothing was amiss: up to there the journal
    // says all that happened to what is published.
    std::optional<Lsn> whole_look_lsn_;
    std::string warned_of_tables_;
    std::string watch_error_;
};

// "walvault_journal" and "App DB" make "walvault_journal_app_db_1f2e3d4c": what is no letter, digit
// or _ becomes _, and then a checksum tells such names apart. At most 63 bytes.
std::string journal_slot_name(const std::string& prefix, const std::string& database);

}  // namespace walvault::agent
