#include "storage/lease.h"

#include <charconv>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "storage/sealer.h"

namespace walvault::storage {
namespace {

constexpr std::string_view kLeaseMagic = "WVLEASE1";
constexpr std::uint64_t kLeaseBytesMax = 4096;

std::string encode(const Lease& lease) {
    std::string text(kLeaseMagic);
    text += "\n" + std::to_string(lease.since.time_since_epoch().count());
    text += "\n" + std::to_string(lease.until.time_since_epoch().count());
    return text + "\n" + lease.who + "\n";
}

std::string_view take_line(std::string_view& text) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    return line;
}

bool read_time(std::string_view line, WallTime& at) {
    std::int64_t micros = 0;
    auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), micros);
    at = WallTime(Micros(micros));
    return error == std::errc() && end == line.data() + line.size() && micros > 0;
}

Result<Lease> decode(const std::string& name, std::string_view text) {
    Lease lease;
    lease.name = name;
    const bool known = take_line(text) == kLeaseMagic;
    const bool timed =
        read_time(take_line(text), lease.since) && read_time(take_line(text), lease.until);
    lease.who = take_line(text);
    if (known && timed) return lease;
    return fail(
        Errc::corrupt, "the lease " + name + " cannot be read",
        "nothing is deleted while it is there; remove it when no restore and no verify runs");
}

}  // namespace

Result<std::vector<Lease>> valid_leases(ObjectStore& store, WallTime now) {
    WV_TRY(auto objects, store.list("lease/"));
    std::vector<Lease> leases;
    for (const ObjectInfo& object : objects) {
        auto bytes = store.get(object.name, 0, kLeaseBytesMax);
        if (!bytes && bytes.error().code == Errc::not_found) continue;  // let go, or renewed
        if (!bytes) return fail(bytes.error());
        WV_TRY(Lease lease, decode(object.name, as_text(*bytes)));
        if (lease.until > now) leases.push_back(std::move(lease));
    }
    return leases;
}

struct HeldLease::State {
    State(ObjectStore& in, const Clock& time) : store(in), clock(time) {}

    // Under a new name, since a name is written once; then the one before goes.
    Result<> place() {
        Lease next = lease;
        next.until = clock.now() + lasts;
        next.name = "lease/" + id + "." + std::to_string(++serial);
        const std::string text = encode(next);
        WV_CHECK(store.put(next.name, as_bytes(text)));
        if (!lease.name.empty()) static_cast<void>(store.remove(lease.name));
        lease = std::move(next);
        return placed ? placed(lease.name) : Result<>{};
    }

    void keep_renewing(const std::stop_token& stop) {
        std::unique_lock lock(mutex);
        while (!stop.stop_requested()) {
            wake.wait_for(lock, stop, lasts / 4, [] { return false; });
            if (stop.stop_requested()) return;
            if (auto renewed = place(); !renewed)
                log::warn("lease.not_renewed", renewed.error().message, {{"lease", lease.name}});
        }
    }

    ObjectStore& store;
    const Clock& clock;
    std::function<Result<>(const std::string&)> placed;
    std::chrono::seconds lasts{};
    std::string id = to_hex(random_id16());
    unsigned serial = 0;
    Lease lease;
    std::mutex mutex;
    std::condition_variable_any wake;
    std::jthread renewing;
};

HeldLease::HeldLease(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<HeldLease>> HeldLease::take(
    ObjectStore& store, const std::string& who, const Clock& clock,
    std::function<Result<>(const std::string&)> placed, std::chrono::seconds lasts) {
    auto state = std::make_unique<State>(store, clock);
    state->placed = std::move(placed);
    state->lasts = lasts;
    state->lease.since = clock.now();
    for (char c : who.substr(0, 200))
        state->lease.who += c == '\n' ? ' ' : c;
    WV_CHECK(state->place());
    state->renewing = std::jthread(
        [raw = state.get()](const std::stop_token& stop) { raw->keep_renewing(stop); });
    return std::unique_ptr<HeldLease>(new HeldLease(std::move(state)));
}

HeldLease::~HeldLease() {
    state_->renewing.request_stop();
    if (state_->renewing.joinable()) state_->renewing.join();
    if (auto removed = state_->store.remove(state_->lease.name); !removed)
        log::warn("lease.left", removed.error().message, {{"lease", state_->lease.name}});
}

}  // namespace walvault::storage
