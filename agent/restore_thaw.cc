#include "agent/restore_thaw.h"

#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/render.h"
#include "agent/restore_directory.h"
#include "agent/thaw_text.h"

namespace walvault::agent {
namespace {

// Each thaws what the one before it could not know of; the second is the last in any repository
// that is whole.
constexpr unsigned kRoundsMax = 5;

Result<> require_speed(const storage::ThawPlan& plan) {
    if (plan.too_fast.empty()) return {};
    return fail(Errc::invalid_argument,
                "objects in " + plan.too_fast.front() + " cannot be thawed at expedited speed",
                "--thaw-speed standard or bulk");
}

}  // namespace

Result<ArchiveConfig> RestoreThaw::settings(const OpenedView& opened) const {
    ArchiveConfig settings = opened.config.archive;
    if (!arguments_.prices.empty()) {
        WV_TRY(settings, load_archive_config(posix_file_system(), arguments_.prices));
    }
    if (!arguments_.thaw_speed.empty()) {
        auto speed = storage::parse_thaw_speed(arguments_.thaw_speed);
        if (!speed)
            return fail_while("--thaw-speed " + printable(arguments_.thaw_speed), speed.error());
        settings.thaw.speed = *speed;
    }
    if (arguments_.thaw_days > 0) settings.thaw.days = arguments_.thaw_days;
    if (!arguments_.thaw_poll.empty()) {
        WV_TRY(settings.poll_interval, parse_duration(arguments_.thaw_poll));
    }
    return settings;
}

Result<> RestoreThaw::open_job(OpenedView& opened, const std::string& pgdata) {
    WV_TRY(ArchiveConfig archive, settings(opened));
    options_ = archive.thaw;
    ThawJob::Options options{.archive = std::move(archive),
                             .record_path = thaw_record_path(pgdata),
                             .wait = wait_on_machine};
    job_.reset();
    WV_TRY(job_, ThawJob::open(*opened.store, std::move(options)));
    return {};
}

Result<ThawNeeds> RestoreThaw::needs(OpenedView& opened, const RestorePlan* plan) const {
    const bool widest = round_ > 0;
    if (plan != nullptr) {
        const Lsn wal_to = plan->wal_in_place
                               ? plan->stop.wal_to_lsn
                               : segment_end(plan->stop.wal_to_lsn, plan->cluster.segment_bytes);
        return needs_of_restore(*opened.view, plan->stop, wal_to, widest);
    }
    const std::string refused = opened.store->archive()->last_refused();
    if (opened.view == nullptr) return ThawNeeds{storage::ThawItem{.name = refused}};
    return needs_to_look(*opened.view, opened.cluster.name, refused, widest);
}

Result<RestoreThaw::Next> RestoreThaw::next(OpenedView& opened, const RestorePlan* plan,
                                            const Error* error) {
    plan_.reset();
    job_.reset();
    const bool archives = opened.store != nullptr && opened.store->archive() != nullptr;
    if (error != nullptr && (error->code != Errc::archived || !archives)) return fail(*error);
    if (!archives) return Next::restore;
    std::string pgdata;
    if (plan != nullptr) {
        pgdata = plan->directory.path;
    } else {
        WV_TRY(DirectoryFacts facts, inspect_directory(arguments_.pgdata));
        pgdata = facts.path;
    }
    WV_CHECK(open_job(opened, pgdata));
    WV_TRY(const bool any, job_->has_archived_objects());
    if (!any && error != nullptr) return fail(*error);
    if (!any) return Next::restore;
    WV_TRY(ThawNeeds wanted, needs(opened, plan));
    WV_TRY(plan_, job_->look(wanted));
    WV_CHECK(require_speed(*plan_));
    target_is_known_ = plan != nullptr;
    // All that it was thought to need can be read, and yet it cannot be planned.
    if (plan_->is_ready() && error != nullptr) return fail(*error);
    if (plan_->is_ready()) return Next::restore;
    if (++round_ > kRoundsMax)
        return fail(Errc::archived, "what was thawed is archived again, time after time",
                    "let the store keep it longer: --thaw-days");
    return Next::thaw;
}

std::string RestoreThaw::text() const {
    if (!plan_) return {};
    std::string told = thaw_text(*plan_, options_);
    if (told.empty() || target_is_known_) return told;
    return "Plan\n  target     not known before WAL around it is thawed\n" + told;
}

nlohmann::ordered_json RestoreThaw::json() const { return thaw_json(*plan_, options_); }

// Once: what was agreed to is in the record.
Result<> RestoreThaw::ask() const {
    if (globals_.yes) return {};
    const std::string what = format_count(plan_->to_ask.size()) +
                             (plan_->to_ask.size() == 1 ? " object" : " objects") + " (" +
                             format_size(plan_->ask_bytes) + ")";
    if (::isatty(STDIN_FILENO) == 0)
        return fail(Errc::archived,
                    what + " must be thawed first, which costs, and nobody is there to be asked",
                    "say --yes; --dry-run tells which, how long it takes and what it costs");
    std::fprintf(stderr, "Have the store thaw %s? [y/N] ", what.c_str());
    char answer[16] = "";
    if (std::fgets(answer, sizeof answer, stdin) != nullptr &&
        (answer[0] == 'y' || answer[0] == 'Y'))
        return {};
    return fail(Errc::archived, "the answer was no; nothing was changed");
}

Result<> RestoreThaw::carry_out(OpenedView& opened) {
    if (globals_.output == Output::text && !globals_.quiet) {
        std::fputs(text().c_str(), stdout);
        std::fflush(stdout);
    }
    if (!job_->is_agreed(*plan_)) {
        WV_CHECK(ask());
        WV_CHECK(job_->agree(
            *plan_, opened.view == nullptr ? std::string() : to_hex(opened.view->repository_id())));
    }
    return job_->thaw(*plan_, progress_);
}

Result<std::unique_ptr<ThawJob::Keeper>> RestoreThaw::keep() {
    if (job_ == nullptr) return std::unique_ptr<ThawJob::Keeper>();
    return job_->keep();
}

Result<> RestoreThaw::finish() {
    if (job_ == nullptr) return {};
    return job_->finish();
}

}  // namespace walvault::agent
