#include "agent/restore_ledger.h"

#include <nlohmann/json.hpp>

#include "agent/control.h"
#include "agent/operating_user.h"
#include "storage/repository.h"

namespace walvault::agent {
namespace {

std::string actor() { return "restore by " + asking_user(); }

std::string target_text(const Target& target) {
    return (target.before ? "before " : "to ") + target.text;
}

}  // namespace

Result<> record_restore(const OpenedView& opened, const RestoreReport& report) {
    const StopPoint& stop = report.plan->stop;
    const auto duration_ms = static_cast<std::uint64_t>(report.duration.count() / 1000);
    nlohmann::json json{{"actor", actor()},
                        {"cluster", opened.cluster.name},
                        {"target", target_text(stop.target)},
                        {"backup_id", stop.base.backup_id()},
                        {"history_id", to_hex(stop.history.id)},
                        {"stop_lsn", to_string(stop.cut_lsn)},
                        {"confirmed", report.confirmed},
                        {"restored_bytes", report.restored_bytes},
                        {"duration_ms", duration_ms}};
    const std::string body = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    auto told = call_agent(opened.config.web.socket, "POST", "/v1/restore-done", body);
    if (told) return {};
    if (told.error().code != Errc::unavailable) return fail(told.error());
    pb::LedgerEntry entry;
    entry.set_actor(actor());
    pb::RestoreDone& done = *entry.mutable_restore_done();
    done.set_cluster(opened.cluster.name);
    done.set_target(target_text(stop.target));
    done.set_backup_id(stop.base.backup_id());
    done.set_history_id(std::string(as_text(stop.history.id)));
    done.set_stop_lsn(stop.cut_lsn.value);
    done.set_confirmed(report.confirmed);
    done.set_restored_bytes(report.restored_bytes);
    done.set_duration_ms(duration_ms);
    return storage::append_to_ledger(posix_file_system(), opened.config.repo.root, *opened.master,
                                     system_clock(), std::move(entry));
}

}  // namespace walvault::agent
