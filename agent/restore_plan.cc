#include "agent/restore_plan.h"

#include <algorithm>
#include <set>

#include "agent/render.h"
#include "agent/wal_spool.h"
#include "proto/wal_file_name.h"

namespace walvault::agent {
namespace {

// More WAL than this stays in the repository and is fetched segment by segment as replay asks.
constexpr std::uint64_t kWalInPlaceBytesMax = 16_GiB;
// PostgreSQL keeps what it fetched until its next restart point, which comes as often as the
// original made checkpoints: at about max_wal_size, which is 1 GiB unless somebody changed it.
constexpr std::uint64_t kFetchedBytesKept = 1_GiB + kSpoolBytesMax;
// Left free for what the restored server writes first.
constexpr std::uint64_t kSpareBytes = 64_MiB;

bool is_inside(const std::string& path, const std::string& directory) {
    if (directory.empty()) return false;
    if (path == directory) return true;
    const std::string prefix = directory.back() == '/' ? directory : directory + "/";
    return path.compare(0, prefix.size(), prefix) == 0;
}

Result<> require_usable(const DirectoryFacts& facts, const std::string& what,
                        const std::string& hint) {
    using State = DirectoryFacts::State;
    if (facts.state == State::running)
        return fail(Errc::refused,
                    "a PostgreSQL server is running in " + facts.path + " (" + facts.detail + ")",
                    "name another directory, or stop that server and empty the directory first");
    if (facts.state == State::occupied)
        return fail(Errc::refused,
                    what + facts.path + " is not empty" +
                        (facts.detail.empty() ? "" : " (" + facts.detail + ")"),
                    hint);
    return {};
}

Result<> require_apart(const RestoreInputs& inputs) {
    std::vector<std::string> places{inputs.directory.path};
    for (const auto& facts : inputs.tablespace_facts)
        places.push_back(facts.path);
    for (std::size_t i = 0; i < places.size(); ++i) {
        if (is_inside(places[i], inputs.repository_root) ||
            is_inside(inputs.repository_root, places[i]))
            return fail(Errc::refused,
                        places[i] + " and the repository " + inputs.repository_root +
                            " are inside one another",
                        "name a directory outside of it");
        for (std::size_t other = 0; other < places.size(); ++other)
            if (i != other && is_inside(places[i], places[other]))
                return fail(Errc::refused,
                            places[i] + " is inside " + places[other] + ", which is restored too",
                            "name directories apart from each other");
    }
    return {};
}

void plan_segments(RestorePlan& plan, const std::vector<TimelineSwitch>& switches) {
    const std::uint64_t size = plan.cluster.segment_bytes;
    const std::uint64_t last = (plan.stop.wal_to_lsn.value - 1) / size;
    for (std::uint64_t number = plan.stop.wal_from_lsn.value / size; number <= last; ++number) {
        const TimelineId timeline =
            timeline_of_segment(switches, plan.stop.timeline(), number, size);
        plan.segments.push_back(
            WalSegmentPlan{.name = segment_file_name(timeline, number, size),
                           .start_lsn = Lsn{number * size},
                           .to_lsn = std::min(plan.stop.wal_to_lsn, Lsn{(number + 1) * size})});
    }
    plan.wal_bytes = plan.stop.wal_to_lsn - plan.stop.wal_from_lsn;
}

Result<> plan_space(RestorePlan& plan, WalPlace wal_place) {
    std::set<std::uint64_t> devices{plan.directory.device};
    plan.free_bytes = plan.directory.free_bytes;
    for (const auto& facts : plan.tablespace_facts)
        if (devices.insert(facts.device).second) plan.free_bytes += facts.free_bytes;
    plan.base_bytes = plan.stop.base.plain_bytes();
    const std::uint64_t wal_on_disk = plan.segments.size() * plan.cluster.segment_bytes;
    plan.needed_bytes = plan.base_bytes + wal_on_disk + kSpareBytes;
    const bool fits = wal_on_disk <= kWalInPlaceBytesMax && plan.needed_bytes <= plan.free_bytes &&
                      wal_on_disk + kSpareBytes <= plan.directory.free_bytes;
    plan.wal_in_place = wal_place == WalPlace::copied || (wal_place == WalPlace::automatic && fits);
    if (!plan.wal_in_place)
        plan.needed_bytes = plan.base_bytes + kSpareBytes +
                            std::min(wal_on_disk + plan.cluster.segment_bytes, kFetchedBytesKept);
    if (plan.needed_bytes <= plan.free_bytes) return {};
    return fail(Errc::no_space,
                "the restore needs " + format_size(plan.needed_bytes) + " in " +
                    plan.directory.path + ", which has " + format_size(plan.free_bytes) + " free",
                "free space there or name a directory on a larger disk");
}

bool is_absolute_and_plain(const std::string& path) {
    return path.size() > 1 && path.front() == '/' && path.find("/../") == std::string::npos &&
           !path.ends_with("/..") && path.find('\0') == std::string::npos &&
           path.find('\n') == std::string::npos;
}

}  // namespace

Result<std::vector<TablespacePlace>> place_tablespaces(const pb::BackupInfo& base,
                                                       const std::vector<std::string>& mappings) {
    std::map<std::string, std::string> wanted;
    for (const auto& mapping : mappings) {
        const std::size_t equals = mapping.find('=');
        std::string from = mapping.substr(0, equals);
        std::string to = equals == std::string::npos ? "" : mapping.substr(equals + 1);
        while (to.size() > 1 && to.back() == '/')
            to.pop_back();
        if (!is_absolute_and_plain(to) || from.empty() || from.front() != '/')
            return fail(
                Errc::invalid_argument,
                "--tablespace " + printable(mapping) + " is not OLD=NEW with absolute paths",
                "for example --tablespace /mnt/fast=/srv/restored/fast");
        wanted[from] = to;
    }
    std::vector<TablespacePlace> places;
    for (const auto& tablespace : base.tablespaces()) {
        TablespacePlace place{tablespace.oid(), tablespace.location(), tablespace.location()};
        if (auto found = wanted.find(place.source); found != wanted.end()) {
            place.location = found->second;
            wanted.erase(found);
        }
        if (!is_absolute_and_plain(place.location))
            return fail(Errc::corrupt,
                        "tablespace " + std::to_string(place.oid) + " has the location '" +
                            printable(place.location) + "', which is no absolute path",
                        "give it another with --tablespace OLD=NEW");
        places.push_back(std::move(place));
    }
    if (!wanted.empty())
        return fail(Errc::invalid_argument,
                    "the base " + base.backup_id() + " has no tablespace at " +
                        printable(wanted.begin()->first),
                    "walvault info --backups lists its tablespaces");
    return places;
}

Result<RestorePlan> plan_restore(RestoreInputs inputs) {
    WV_ASSERT(inputs.tablespaces.size() == inputs.tablespace_facts.size());
    WV_CHECK(require_usable(inputs.directory, "",
                            "name another directory; walvault never writes over files"));
    for (std::size_t i = 0; i < inputs.tablespaces.size(); ++i)
        WV_CHECK(require_usable(
            inputs.tablespace_facts[i],
            "tablespace " + std::to_string(inputs.tablespaces[i].oid) + ": ",
            "say where it goes: --tablespace " + inputs.tablespaces[i].source + "=/NEW/PLACE"));
    WV_CHECK(require_apart(inputs));
    RestorePlan plan;
    plan.stop = std::move(inputs.stop);
    plan.cluster = std::move(inputs.cluster);
    plan.directory = std::move(inputs.directory);
    plan.tablespaces = std::move(inputs.tablespaces);
    plan.tablespace_facts = std::move(inputs.tablespace_facts);
    plan_segments(plan, inputs.switches);
    WV_CHECK(plan_space(plan, inputs.wal_place));
    return plan;
}

TimelineId timeline_of_segment(const std::vector<TimelineSwitch>& switches, TimelineId target,
                               std::uint64_t segment_number, std::uint64_t segment_bytes) {
    TimelineId timeline = target;
    // A timeline begins where the one before it ended; the segment of a switch exists on both, and
    // PostgreSQL reads the newer one's copy.
    for (auto ended = switches.rbegin(); ended != switches.rend(); ++ended) {
        if (ended->end_lsn.value / segment_bytes <= segment_number) break;
        timeline = ended->timeline;
    }
    return timeline;
}

std::string tablespace_map(const std::vector<TablespacePlace>& places) {
    std::string text;
    for (const auto& place : places) {
        text += std::to_string(place.oid) + " ";
        for (char c : place.location) {
            if (c == '\n' || c == '\r' || c == '\\') text += '\\';
            text += c;
        }
        text += '\n';
    }
    return text;
}

}  // namespace walvault::agent
