// walvault verify: reads the repository back and checks it.
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "agent/control.h"
#include "agent/expire.h"
#include "agent/hold.h"
#include "agent/open_view.h"
#include "agent/progress_line.h"
#include "agent/render.h"
#include "storage/repository.h"
#include "storage/repository_files.h"

namespace walvault::agent {
namespace {

using SortedJson = nlohmann::json;

struct Outcome {
    std::uint64_t checked_bytes = 0;
    std::uint64_t pack_count = 0;      // read
    std::uint64_t archived_count = 0;  // packs that cannot be read before they are thawed
    std::vector<std::string> failures;
};

void note(Outcome& outcome, const Error& error) {
    outcome.failures.push_back(error.message);
    std::fprintf(stderr, "damaged: %s\n", printable(error.message).c_str());
}

// Where what retention keeps of a history ends, a record may go on in what it let go.
Result<std::uint64_t> verify_pack(storage::RepositoryView& view, const pb::PackInfo& pack,
                                  bool decode_wal) {
    auto checked = view.verify_pack(pack, decode_wal);
    if (checked || checked.error().code != Errc::gap) return checked;
    const Id16 history = storage::id_from<16>(pack.history_id());
    WV_TRY(const Lsn expired, view.expired_until(history));
    auto own = view.require_coverage(history, Lsn{pack.start_lsn()}, Lsn{pack.end_lsn()});
    if (!own || pack.end_lsn() >= expired.value) return checked;
    return view.verify_pack(pack, false);
}

// Every frame of every pack and tail: authenticated, chunks named rightly; WAL decoded if asked
// for.
Result<> check_packs(OpenedView& opened, bool wal_only, const Globals& globals, Outcome& outcome) {
    WV_TRY(auto packs, opened.view->packs(opened.cluster.name));
    std::uint64_t total = 0;
    for (const pb::PackInfo& pack : packs)
        total += pack.stored_bytes();
    ProgressLine progress = ProgressLine::for_globals(globals, "verify", system_clock());
    progress.begin(wal_only ? "wal" : "chunks", total);
    std::uint64_t passed = 0;
    for (const pb::PackInfo& pack : packs) {
        passed += pack.stored_bytes();
        if (wal_only && pack.kind() != pb::PACK_KIND_WAL) continue;
        auto checked = verify_pack(*opened.view, pack, wal_only);
        const bool archived = !checked && checked.error().code == Errc::archived;
        if (checked)
            outcome.checked_bytes += *checked;
        else if (!archived)
            note(outcome, checked.error());
        ++(archived ? outcome.archived_count : outcome.pack_count);
        progress.update(passed);
    }
    progress.finish();
    return {};
}

// What is held is there; a copy alone need not have it.
Result<> check_holds(OpenedView& opened, Outcome& outcome) {
    if (opened.is_tier) return {};
    WV_TRY(auto holds, opened.view->holds(opened.cluster.name));
    for (const storage::HoldRecord& hold : holds) {
        if (hold.is_over(system_clock().now())) continue;
        const HoldWanted wanted{.backup_id = hold.backup_id, .from = hold.from, .to = hold.to};
        auto there = require_holdable(*opened.view, opened.cluster.name, wanted, opened.zone);
        if (!there)
            note(outcome, {Errc::corrupt, "hold " + hold.id + ": " + there.error().message});
    }
    return {};
}

// Histories without holes, and every base backup with all its chunks and the WAL it needs.
Result<> check_promises(OpenedView& opened, bool wal_only, Outcome& outcome) {
    WV_TRY(auto histories, opened.view->histories(opened.cluster.name));
    for (const storage::HistoryRecord& history : histories) {
        // What retention left before its window are single bases, which are looked at below.
        WV_TRY(Lsn expired, opened.view->expired_until(history.id));
        const Lsn from = std::max(history.start_lsn, expired);
        if (from >= history.end_lsn) continue;
        auto whole = opened.view->require_coverage(history.id, from, history.end_lsn);
        if (!whole) note(outcome, whole.error());
    }
    WV_CHECK(check_holds(opened, outcome));
    WV_TRY(auto backups, opened.view->backups(opened.cluster.name));
    for (const pb::BackupInfo& backup : backups) {
        Id16 history = storage::id_from<16>(backup.history_id());
        auto covered =
            opened.view->require_coverage(history, Lsn{backup.start_lsn()}, Lsn{backup.stop_lsn()});
        if (!covered) note(outcome, covered.error());
        if (wal_only) continue;
        ByteBuffer plain;
        std::set<Id32> missing;
        auto read = opened.view->read_manifest(
            backup, [](const pb::ManifestHead&) { return Result<>{}; },
            [&](pb::ManifestFile& file) -> Result<> {
                for (std::size_t at = 0; at + 32 <= file.content_ids().size(); at += 32) {
                    Id32 id = storage::id_from<32>(file.content_ids().substr(at, 32));
                    if (missing.contains(id)) continue;
                    auto there = opened.view->read_chunk(id, plain);
                    if (there || there.error().code == Errc::archived) continue;
                    // It may be in one of those whose footers could not be read.
                    if (there.error().code == Errc::not_found && outcome.archived_count > 0)
                        continue;
                    missing.insert(id);
                    note(outcome,
                         Error{Errc::corrupt, "backup " + backup.backup_id() + ", " + file.path() +
                                                  ": " + there.error().message});
                }
                return {};
            });
        if (!read && read.error().code != Errc::archived) note(outcome, read.error());
    }
    return {};
}

// In the audit trail, by the agent where one runs.
void record(const OpenedView& opened, const std::string& level, const Outcome& outcome) {
    SortedJson body{{"actor", "verify"},
                    {"level", level},
                    {"checked_bytes", outcome.checked_bytes},
                    {"failed_count", outcome.failures.size()}};
    auto told = call_agent(opened.config.web.socket, "POST", "/v1/verify-done", body.dump());
    if (told || told.error().code != Errc::unavailable) return;
    pb::LedgerEntry entry;
    entry.set_actor("verify");
    entry.mutable_verify_done()->set_level(level);
    entry.mutable_verify_done()->set_checked_bytes(outcome.checked_bytes);
    entry.mutable_verify_done()->set_failed_count(outcome.failures.size());
    auto entered = storage::append_to_ledger(posix_file_system(), opened.config.repo.root,
                                             *opened.master, system_clock(), std::move(entry));
    if (!entered)
        std::fprintf(stderr, "warning: the result is not in the ledger: %s\n",
                     entered.error().message.c_str());
}

int print(const Globals& globals, const std::string& level, const Outcome& outcome) {
    bool good = outcome.failures.empty();
    if (globals.output != Output::text) {
        SortedJson body{{"level", level},
                        {"ok", good},
                        {"packs", outcome.pack_count},
                        {"archived_packs", outcome.archived_count},
                        {"checked_bytes", outcome.checked_bytes},
                        {"failures", outcome.failures}};
        print_answer(globals, body);
    } else {
        std::printf("%s: %s in %s packs read back, %zu damaged.\n", good ? "ok" : "FAIL",
                    format_size(outcome.checked_bytes).c_str(),
                    format_count(outcome.pack_count).c_str(), outcome.failures.size());
        if (outcome.archived_count > 0)
            std::printf("%s packs are archived and were not read: nothing is said of them.\n",
                        format_count(outcome.archived_count).c_str());
    }
    if (!good) return kExitCorrupt;
    return outcome.archived_count > 0 ? kExitArchived : kExitDone;
}

}  // namespace

int verb_verify(const Globals& globals, const VerifyArguments& arguments) {
    bool wal_only = arguments.level == "wal";
    if (!wal_only && arguments.level != "chunks")
        return report(globals,
                      Error{Errc::invalid_argument, "no verify level \"" + arguments.level + "\"",
                            "chunks or wal"},
                      kExitUsage);
    auto opened = open_view(globals, {.only_here = true});
    if (!opened) return report(globals, opened.error());
    const auto lease = hold_lease(*opened, "verify");
    Outcome outcome;
    if (auto done = check_packs(*opened, wal_only, globals, outcome); !done)
        return report(globals, done.error());
    if (auto done = check_promises(*opened, wal_only, outcome); !done)
        return report(globals, done.error());
    if (!opened->is_tier) record(*opened, arguments.level, outcome);
    return print(globals, arguments.level, outcome);
}

}  // namespace walvault::agent
