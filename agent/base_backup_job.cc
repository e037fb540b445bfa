#include "agent/base_backup_job.h"

#include <algorithm>

#include "agent/chunk_store.h"
#include "base/blocking.h"
#include "base/log.h"
#include "wal/base_backup_stream.h"
#include "wal/server_facts.h"
#include "wal/walsender.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kChunkBytes = 1 << 20;          // 128 pages, aligned in the file
constexpr std::size_t kManifestBatchBytes = 512 << 10;  // serialized, before it is sealed
constexpr std::chrono::seconds kWalWait{120};           // without progress of the stream

BackupFailure failure_of(Errc code) {
    switch (code) {
        case Errc::corrupt:
            return BackupFailure::corrupt;
        case Errc::no_space:
            return BackupFailure::no_space;
        case Errc::io:
            return BackupFailure::store;
        case Errc::cancelled:
            return BackupFailure::cancelled;
        default:
            return BackupFailure::connection;
    }
}

}  // namespace

// Compressed, a cluster rarely takes more than half; the reserve is for the stream, which matters
// more.
Result<> require_backup_space(const DiskSpace& space, std::uint64_t expected_bytes,
                              double reserve_ratio) {
    auto reserve =
        static_cast<std::uint64_t>(static_cast<double>(space.size_bytes) * reserve_ratio);
    std::uint64_t needed = expected_bytes / 2 + reserve;
    if (space.available_bytes >= needed) return {};
    auto mib = [](std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
    return fail(Errc::no_space,
                "the disk of the repository has " + mib(space.available_bytes) + " of " +
                    mib(space.size_bytes) + " free; this base backup may need " +
                    mib(expected_bytes / 2) + ", and " + mib(reserve) + " are the stream's reserve",
                "free space there, or lower repo.primary.reserve; the stream goes on meanwhile");
}

struct BaseBackupJob::State : wal::BackupConsumer {
    State(asio::any_io_executor loop, Pools& p, storage::Repository& r, Progress& pr,
          AgentMetrics& m, const Clock& c, const ServerConfig& s, const RepoConfig& rc,
          const storage::ClusterRecord& cl, const wal::ServerAddress& from)
        : executor(loop),
          pools(p),
          repository(r),
          progress(pr),
          metrics(m),
          clock(c),
          server(s),
          repo(rc),
          cluster(cl),
          streamed(from) {}

    // A file whose chunks are not all named yet.
    struct OpenFile {
        pb::ManifestFile entry;
        std::size_t unnamed = 0;
        bool ended = false;
    };

    Task<Result<>> on_entry(const Entry& entry) override;
    Task<Result<>> on_data(ByteSpan bytes) override;
    Task<Result<>> on_file_end() override;
    Task<Result<>> on_manifest(ByteSpan bytes) override;
    void on_progress(std::uint64_t done) override {
        done_bytes = done;
        metrics.backup_done_bytes.set(static_cast<double>(done));
    }

    Task<Result<>> put_chunk();
    void settle(const std::shared_ptr<OpenFile>& file);
    Task<Result<>> write_batch(pb::ManifestBatch batch);
    Task<Result<>> require_space(std::uint64_t expected);
    Task<Result<>> stream_files(const BackupRequest& request);
    Task<Result<>> wait_for_wal();
    Task<Result<>> read_configuration();
    std::int64_t server_now_us() const;
    Task<Result<pb::BackupInfo>> take(const BackupRequest& request);

    asio::any_io_executor executor;
    Pools& pools;
    storage::Repository& repository;
    Progress& progress;
    AgentMetrics& metrics;
    const Clock& clock;
    ServerConfig server;
    RepoConfig repo;
    storage::ClusterRecord cluster;
    wal::ServerAddress streamed;

    std::unique_ptr<ChunkStore> chunks;
    std::unique_ptr<storage::PackWriter> manifest;
    pb::ManifestBatch batch;
    std::size_t batch_bytes = 0;
    std::shared_ptr<OpenFile> file;
    ByteBuffer chunk;
    pb::BackupInfo info;
    pb::ManifestHead head;
    std::uint64_t done_bytes = 0;
    std::uint64_t expected_bytes = 0;
    wal::Hangup hangup;
    std::string gave_way;  // why; empty: it did not
    WallTime server_at{};  // what the server's clock said after asked_at
    SteadyTime asked_at{};
};

BaseBackupJob::BaseBackupJob(asio::any_io_executor executor, Pools& pools,
                             storage::Repository& repository, Progress& progress,
                             AgentMetrics& metrics, const Clock& clock, const ServerConfig& server,
                             const RepoConfig& repo, const storage::ClusterRecord& cluster,
                             const wal::ServerAddress& streamed)
    : state_(std::make_unique<State>(executor, pools, repository, progress, metrics, clock, server,
                                     repo, cluster, streamed)) {}
BaseBackupJob::~BaseBackupJob() = default;

void BaseBackupJob::cancel() {
    state_->hangup.hang_up();
    state_->progress.changed().notify();
}

std::uint64_t BaseBackupJob::done_bytes() const { return state_->done_bytes; }
std::uint64_t BaseBackupJob::expected_bytes() const { return state_->expected_bytes; }

void BaseBackupJob::give_way(const std::string& reason) {
    if (state_->hangup.hung_up()) return;
    state_->gave_way = reason;
    cancel();
}

Task<Result<>> BaseBackupJob::State::on_entry(const Entry& entry) {
    pb::ManifestFile described;
    described.set_path(entry.path);
    described.set_mode(entry.mode);
    described.set_link_target(entry.link_target);
    if (entry.type == Entry::Type::file) {
        file = std::make_shared<OpenFile>();
        described.set_chunk_bytes(kChunkBytes);
        file->entry = std::move(described);
        co_return Result<>();
    }
    described.set_type(entry.type == Entry::Type::directory ? pb::ManifestFile::DIRECTORY
                                                            : pb::ManifestFile::SYMLINK);
    *batch.add_files() = std::move(described);
    batch_bytes += entry.path.size() + 32;
    co_return Result<>();
}

// Kept as a file of the base, as pg_basebackup does it: pg_verifybackup then judges what is
// restored. Ended by stream_files(), when the stream has shown that it is whole.
Task<Result<>> BaseBackupJob::State::on_manifest(ByteSpan bytes) {
    if (!file) {
        Entry entry;
        entry.path = "backup_manifest";
        WV_CO_CHECK(co_await on_entry(entry));
    }
    co_return co_await on_data(bytes);
}

Task<Result<>> BaseBackupJob::State::on_data(ByteSpan bytes) {
    while (!bytes.empty()) {
        if (chunk.capacity() < kChunkBytes) chunk.reserve(kChunkBytes);
        std::size_t count = std::min<std::size_t>(bytes.size(), kChunkBytes - chunk.size());
        append(chunk, bytes.first(count));
        bytes = bytes.subspan(count);
        if (chunk.size() == kChunkBytes) WV_CO_CHECK(co_await put_chunk());
    }
    co_return Result<>();
}

Task<Result<>> BaseBackupJob::State::put_chunk() {
    std::string& ids = *file->entry.mutable_content_ids();
    std::size_t at = ids.size();
    ids.resize(at + sizeof(Id32));
    ++file->unnamed;
    file->entry.set_size_bytes(file->entry.size_bytes() + chunk.size());
    info.set_plain_bytes(info.plain_bytes() + chunk.size());
    std::function<void(const Id32&)> on_id = [this, owner = file, at](const Id32& id) {
        owner->entry.mutable_content_ids()->replace(at, id.size(), as_text(id));
        --owner->unnamed;
        settle(owner);
    };
    ByteBuffer full = std::move(chunk);
    chunk = {};
    co_return co_await chunks->put(std::move(full), std::move(on_id));
}

void BaseBackupJob::State::settle(const std::shared_ptr<OpenFile>& settled) {
    if (!settled->ended || settled->unnamed > 0) return;
    batch_bytes += settled->entry.path().size() + settled->entry.content_ids().size() + 32;
    *batch.add_files() = std::move(settled->entry);
    info.set_file_count(info.file_count() + 1);
}

Task<Result<>> BaseBackupJob::State::on_file_end() {
    if (!chunk.empty()) WV_CO_CHECK(co_await put_chunk());
    auto ended = std::move(file);
    ended->ended = true;
    settle(ended);
    if (batch_bytes < kManifestBatchBytes) co_return Result<>();
    pb::ManifestBatch full = std::move(batch);
    batch = {};
    batch_bytes = 0;
    co_return co_await write_batch(std::move(full));
}

// A batch may hold more than a frame takes only if one file's list of chunks does: 8 MiB name 256
// GiB, and PostgreSQL's files end at 1 GiB.
Task<Result<>> BaseBackupJob::State::write_batch(pb::ManifestBatch full) {
    auto write = [this, full = std::move(full)]() -> Result<> {
        std::string plain = full.SerializeAsString();
        if (plain.size() > kFramePlainBytesMax)
            return fail(Errc::unsupported, "a file of the cluster is too large for the manifest");
        FramePlace place;
        place.frame_number = manifest->next_frame_number();
        pb::FrameEntry entry;
        entry.set_frame_number(place.frame_number);
        entry.set_plain_bytes(static_cast<std::uint32_t>(plain.size()));
        return manifest->append(manifest->cipher().seal(place, as_bytes(plain), 3),
                                std::move(entry));
    };
    co_return co_await run_on(pools.backup, std::move(write));
}

Task<Result<>> BaseBackupJob::State::require_space(std::uint64_t expected) {
    auto look = [this]() -> Result<DiskSpace> {
        DiskSpace space;
        WV_TRY(space.available_bytes, repository.available_bytes());
        WV_TRY(space.size_bytes, posix_file_system().size_bytes(repository.root()));
        return space;
    };
    WV_CO_TRY(DiskSpace space, co_await run_on(pools.backup, std::move(look)));
    co_return require_backup_space(space, expected, repo.reserve_ratio);
}

Task<Result<>> BaseBackupJob::State::read_configuration() {
    wal::Connection::Options options;
    options.conninfo = server.conninfo;
    options.only = streamed;
    options.application_name = "walvault backup";
    options.hangup = hangup;
    WV_CO_TRY(auto sql, co_await wal::Connection::connect(std::move(options)));
    asked_at = clock.steady_now();
    WV_CO_TRY(wal::ConfigurationFacts facts, co_await wal::configuration_facts(*sql));
    server_at = facts.server_at;
    for (const auto& [name, value] : facts.settings)
        (*head.mutable_settings())[name] = value;
    head.set_hba(facts.hba);
    head.set_ident(facts.ident);
    head.set_configuration_outside(facts.configuration_outside);
    head.set_encoding(facts.server_encoding);
    info.set_page_checksums(facts.data_checksums);
    co_return Result<>();
}

// The server's clock, which stamps commits; the agent's may be another host's. Never earlier than
// it is: a base then promises nothing of the moments before its start LSN.
std::int64_t BaseBackupJob::State::server_now_us() const {
    auto since = std::chrono::duration_cast<Micros>(clock.steady_now() - asked_at);
    return (server_at + since).time_since_epoch().count();
}

Task<Result<>> BaseBackupJob::State::stream_files(const BackupRequest& request) {
    wal::Connection::Options options;
    options.conninfo = server.conninfo;
    options.only = streamed;
    options.mode = wal::Connection::Mode::physical_replication;
    options.application_name = "walvault backup";
    options.hangup = hangup;
    WV_CO_TRY(auto connection, co_await wal::Connection::connect(std::move(options)));
    wal::BackupOptions wanted;
    wanted.label = request.label;
    wanted.fast_checkpoint = request.fast_checkpoint;
    wanted.max_rate_bytes = server.backup.max_rate_bytes;
    wanted.system_identifier = cluster.system_identifier;
    // Before 17 no manifest names the system, and behind one address may be another server by now.
    WV_CO_TRY(wal::SystemIdentity identity, co_await wal::identify_system(*connection));
    if (identity.system_identifier != cluster.system_identifier)
        co_return fail(Errc::refused,
                       "the server to copy is system " +
                           std::to_string(identity.system_identifier) + ", \"" + cluster.name +
                           "\" is " + std::to_string(cluster.system_identifier),
                       "check conninfo: another server answered than the one whose WAL is stored");
    std::function<Task<Result<>>(wal::BackupStart)> on_start =
        [this](wal::BackupStart start) -> Task<Result<>> {
        info.set_start_lsn(start.start_lsn.value);
        info.set_started_at_us(server_now_us());
        info.set_timeline(start.timeline);
        expected_bytes = start.expected_bytes;
        metrics.backup_expected_bytes.set(static_cast<double>(expected_bytes));
        for (const wal::BackupTablespace& tablespace : start.tablespaces) {
            pb::Tablespace* entry = info.add_tablespaces();
            entry->set_oid(tablespace.oid);
            entry->set_location(tablespace.location);
        }
        co_return co_await require_space(start.expected_bytes);
    };
    WV_CO_TRY(wal::BackupStop stop,
              co_await wal::run_base_backup(*connection, std::move(wanted), on_start, *this));
    WV_CO_CHECK(co_await on_file_end());
    info.set_stop_lsn(stop.stop_lsn.value);
    if (stop.timeline != info.timeline())
        co_return fail(Errc::corrupt, "the server switched to timeline " +
                                          std::to_string(stop.timeline) + " while it was copied");
    co_return Result<>();
}

// WAIT 0 told the server not to wait for archiving: what counts is that the WAL is here.
Task<Result<>> BaseBackupJob::State::wait_for_wal() {
    Lsn stop{info.stop_lsn()};
    Lsn seen;
    SteadyTime moved = clock.steady_now();
    while (progress.flushed_lsn() < stop) {
        if (hangup.hung_up()) co_return fail(Errc::cancelled, "the WAL is not waited for any more");
        if (progress.flushed_lsn() != seen) moved = clock.steady_now();
        seen = progress.flushed_lsn();
        if (clock.steady_now() - moved > kWalWait)
            co_return fail(Errc::gap, "the WAL the backup needs did not arrive: flushed " +
                                          to_string(seen) + ", needed " + to_string(stop));
        co_await wait_for(progress.changed(), 1s);
    }
    const auto& history = progress.history();
    if (!history || storage::text_of(history->id) != info.history_id() ||
        history->start_lsn > Lsn{info.start_lsn()} || history->timeline != info.timeline())
        co_return fail(Errc::gap, "the WAL of the backup, from " +
                                      to_string(Lsn{info.start_lsn()}) + " to " + to_string(stop) +
                                      ", is not in one history");
    auto prove = [this, id = history->id, stop] {
        Lsn in_packs = std::min(stop, progress.closed_lsn());
        if (in_packs <= Lsn{info.start_lsn()}) return Result<>{};
        return repository.wal().require_coverage(id, Lsn{info.start_lsn()}, in_packs);
    };
    co_return co_await run_on(pools.store, std::move(prove));
}

Task<Result<pb::BackupInfo>> BaseBackupJob::State::take(const BackupRequest& request) {
    if (!progress.history())
        co_return fail(Errc::unavailable, "the WAL stream has not begun yet",
                       "try again when it has");
    info.set_cluster(cluster.name);
    info.set_history_id(storage::text_of(progress.history()->id));
    info.set_server_version_num(cluster.server_version_num);
    info.set_label(request.label);
    WV_CO_CHECK(co_await read_configuration());
    auto begin = [this]() -> Result<std::string> {
        WV_TRY(std::string id, repository.begin_backup(cluster.name));
        WV_TRY(manifest, repository.begin_pack(pb::PACK_KIND_MANIFEST, cluster, id, 0));
        return id;
    };
    WV_CO_TRY(std::string id, co_await run_on(pools.store, std::move(begin)));
    info.set_backup_id(id);
    info.set_manifest_path(manifest->path());
    chunks = std::make_unique<ChunkStore>(executor, pools, repository, metrics, cluster, id,
                                          repo.base_level);
    WV_CO_CHECK(co_await stream_files(request));
    WV_CO_CHECK(co_await chunks->finish());
    WV_CO_CHECK(co_await wait_for_wal());
    info.set_stopped_at_us(server_now_us());
    info.set_new_chunk_bytes(chunks->new_chunk_bytes());
    info.set_stored_bytes(chunks->stored_bytes());
    WV_CO_CHECK(co_await write_batch(std::move(batch)));
    pb::ManifestBatch last;
    *head.mutable_backup() = info;
    *last.mutable_head() = head;
    WV_CO_CHECK(co_await write_batch(std::move(last)));
    auto complete = [this]() -> Result<> {
        pb::PackInfo pack;
        pack.set_kind(pb::PACK_KIND_MANIFEST);
        pack.set_cluster(cluster.name);
        pack.set_backup_id(info.backup_id());
        auto committed = repository.commit_pack(std::move(manifest), std::move(pack));
        if (!committed) return fail(committed.error());
        return repository.complete_backup(info);
    };
    WV_CO_CHECK(co_await run_on(pools.store, std::move(complete)));
    co_return info;
}

Task<Result<pb::BackupInfo>> BaseBackupJob::run(BackupRequest request) {
    State& state = *state_;
    SteadyTime started = state.clock.steady_now();
    state.metrics.backup_running.set(1);
    auto taken = co_await state.take(request);
    state.metrics.backup_running.set(0);
    double seconds = std::chrono::duration<double>(state.clock.steady_now() - started).count();
    if (taken) {
        state.metrics.backup_last_success_timestamp_seconds.set(to_seconds(state.clock.now()));
        state.metrics.backup_last_duration_seconds.set(seconds);
        state.metrics.backup_last_logical_bytes.set(static_cast<double>(taken->plain_bytes()));
        state.metrics.backup_last_stored_bytes.set(static_cast<double>(taken->stored_bytes()));
        log::info("backup.complete", "base backup complete",
                  {{"backup", taken->backup_id()},
                   {"bytes", taken->plain_bytes()},
                   {"stored_bytes", taken->stored_bytes()},
                   {"seconds", seconds}});
        co_return taken;
    }
    Error error = taken.error();
    const bool gave_way = !state.gave_way.empty();
    const bool cancelled = state.hangup.hung_up() && !gave_way;
    if (gave_way)
        error = {Errc::no_space, "the base backup was stopped, WAL goes first: " + state.gave_way,
                 "free space there, or lower repo.primary.reserve"};
    if (cancelled) error = {Errc::cancelled, "the base backup was stopped before it was complete"};
    if (state.chunks) co_await state.chunks->abandon();
    state.metrics.backup_last_failure_timestamp_seconds.set(to_seconds(state.clock.now()));
    state.metrics.backup_failures_total.at(failure_of(error.code)).add();
    state.metrics.base_page_checksum_failures_total.add(
        static_cast<double>(wal::page_checksum_failures(error.message)));
    if (cancelled)
        log::info("backup.cancelled", error.message, {{"backup", state.info.backup_id()}});
    else
        log::error("backup.failed", error.message,
                   {{"backup", state.info.backup_id()}, {"hint", error.hint}});
    if (!state.info.backup_id().empty()) {
        auto record = [&state, reason = error.message]() -> Result<> {
            state.manifest.reset();
            return state.repository.fail_backup(state.cluster.name, state.info.backup_id(), reason);
        };
        auto recorded = co_await run_on(state.pools.store, std::move(record));
        if (!recorded) log::error("backup.failed", recorded.error().message);
    }
    co_return fail(std::move(error));
}

}  // namespace walvault::agent
