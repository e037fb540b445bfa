#include "agent/thaw_job.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "base/log.h"

namespace walvault::agent {
namespace {

using storage::ArchiveState;
using storage::ThawAnswer;
using storage::ThawItem;
using storage::ThawPlan;
using Kind = ArchiveState::Kind;
using std::chrono::hours;
using std::chrono::milliseconds;

// Requests that run at once.
constexpr std::size_t kAtOnce = 8;
// After so many requests the record is written, and so many that wait are looked at before it is
// taken that those behind them wait too.
constexpr std::size_t kBatch = 128;
// A copy that goes before this is over is made to stay: half of the days it was asked for, at most.
constexpr hours kMargin{24};
constexpr std::chrono::minutes kKeepEvery{30};

// Calls `work` with 0 … count - 1 on several threads.
template <class Work>
void on_threads(std::size_t count, const Work& work) {
    std::atomic<std::size_t> next{0};
    auto run = [&] {
        for (std::size_t i; (i = next++) < count;)
            work(i);
    };
    std::vector<std::thread> threads;
    for (std::size_t i = 1; i < std::min(count, kAtOnce); ++i)
        threads.emplace_back(run);
    run();
    for (std::thread& thread : threads)
        thread.join();
}

}  // namespace

void wait_on_machine(milliseconds time) {
    ::poll(nullptr, 0, static_cast<int>(std::min<milliseconds::rep>(time.count(), 86'400'000)));
}

struct ThawJob::State {
    storage::ObjectStore& store;
    storage::ArchiveStore& archive;
    Options options;
    ThawRecord record;
    std::map<std::string, storage::ObjectInfo> listed;
    bool is_listed = false;
    std::map<std::string, ArchiveState> thawed;  // of this job; those that go at some time

    Result<> list_once() {
        if (is_listed) return {};
        WV_TRY(auto objects, store.list(""));
        for (storage::ObjectInfo& object : objects) {
            std::string name = object.name;
            listed.emplace(std::move(name), std::move(object));
        }
        is_listed = true;
        return {};
    }

    // What the list says of it; nothing where only the object itself can say it.
    std::optional<ArchiveState> listed_state(const std::string& name) const {
        auto found = listed.find(name);
        if (found == listed.end() || storage::may_be_archived(found->second.storage_class))
            return {};
        return ArchiveState{Kind::ready, found->second.storage_class, found->second.size_bytes, {}};
    }

    // In the order of the names. What is not there is ready: who reads it says so better.
    Result<std::vector<ArchiveState>> states(const std::vector<std::string>& names) {
        std::vector<Result<ArchiveState>> found(names.size());
        on_threads(names.size(),
                   [&](std::size_t i) { found[i] = archive.archive_state(names[i]); });
        std::vector<ArchiveState> states;
        for (auto& one : found) {
            if (!one && one.error().code != Errc::not_found) return fail(std::move(one).error());
            states.push_back(one ? std::move(*one) : ArchiveState{});
        }
        return states;
    }

    storage::ThawRequest request_for(const std::string& storage_class) const {
        const bool stays = storage_class == "INTELLIGENT_TIERING";
        return {stays ? 0 : options.archive.thaw.days, options.archive.thaw.speed};
    }

    Result<> ask(const std::vector<ThawItem>& items) {
        for (std::size_t from = 0; from < items.size(); from += kBatch) {
            const std::size_t count = std::min(kBatch, items.size() - from);
            std::vector<Result<ThawAnswer>> answers(count);
            on_threads(count, [&](std::size_t i) {
                const ThawItem& item = items[from + i];
                answers[i] = archive.request_thaw(item.name, request_for(item.state.storage_class));
            });
            std::optional<Error> error;
            for (std::size_t i = 0; i < count; ++i) {
                if (answers[i])
                    record.objects[items[from + i].name].asked_at = options.clock->now();
                else
                    error = answers[i].error();
            }
            WV_CHECK(write_thaw_record(*options.files, options.record_path, record));
            if (error) return fail(std::move(*error));
        }
        return {};
    }

    hours margin() const { return std::min(kMargin, hours(12) * options.archive.thaw.days); }

    void extend(std::map<std::string, ArchiveState>& copies) const {
        const WallTime soon = options.clock->now() + margin();
        for (auto& [name, state] : copies) {
            if (!state.until || *state.until > soon) continue;
            auto answer = archive.request_thaw(name, request_for(state.storage_class));
            if (answer) {
                state.until = options.clock->now() + hours(24) * options.archive.thaw.days;
                continue;
            }
            log::warn("thaw.not_extended", answer.error().message,
                      {{"object", name}, {"goes_at", to_utc_text(*state.until)}});
        }
    }

    void note(const std::string& name, const ArchiveState& state) {
        if (state.kind == Kind::thawed && state.until) thawed[name] = state;
    }

    // Takes what can be read off the front part of `pending`; those that wait longest stand first.
    Result<> look_through(std::deque<ThawItem>& pending, std::uint64_t& done_bytes) {
        std::deque<ThawItem> left;
        bool moved = true;
        while (!pending.empty() && moved) {
            const std::size_t count = std::min(kBatch, pending.size());
            std::vector<std::string> names;
            for (std::size_t i = 0; i < count; ++i)
                names.push_back(pending[i].name);
            WV_TRY(auto now, states(names));
            moved = false;
            for (std::size_t i = 0; i < count; ++i) {
                ThawItem item = std::move(pending.front());
                pending.pop_front();
                if (now[i].kind == Kind::archived) return fail(went_too_soon(item.name));
                note(item.name, now[i]);
                moved = moved || now[i].is_readable();
                if (now[i].is_readable())
                    done_bytes += item.size_bytes;
                else
                    left.push_back(std::move(item));
            }
        }
        pending.insert(pending.begin(), left.begin(), left.end());
        return {};
    }

    static Error went_too_soon(const std::string& name) {
        return Error{Errc::archived, name + " was asked for and is archived again",
                     "its copy went before it was used: repeat the command, with more --thaw-days",
                     Origin::server};
    }
};

namespace {

class KeeperThread final : public ThawJob::Keeper {
public:
    explicit KeeperThread(std::function<void()> work) : work_(std::move(work)) {
        thread_ = std::thread([this] { run(); });
    }
    ~KeeperThread() override {
        {
            std::lock_guard lock(mutex_);
            ending_ = true;
        }
        woken_.notify_all();
        thread_.join();
    }

private:
    void run() {
        std::unique_lock lock(mutex_);
        while (!woken_.wait_for(lock, kKeepEvery, [this] { return ending_; })) {
            lock.unlock();
            work_();
            lock.lock();
        }
    }

    std::function<void()> work_;
    std::mutex mutex_;
    std::condition_variable woken_;
    bool ending_ = false;
    std::thread thread_;
};

}  // namespace

ThawJob::ThawJob(std::unique_ptr<State> state) : state_(std::move(state)) {}
ThawJob::~ThawJob() = default;

Result<std::unique_ptr<ThawJob>> ThawJob::open(storage::ObjectStore& store, Options options) {
    WV_ASSERT(store.archive() != nullptr);
    auto state = std::make_unique<State>(
        State{.store = store, .archive = *store.archive(), .options = std::move(options)});
    WV_TRY(auto record, read_thaw_record(*state->options.files, state->options.record_path));
    if (record && record->url != store.url())
        return fail(Errc::refused,
                    state->options.record_path + " is of a restore from " + record->url +
                        ", not from " + store.url(),
                    "repeat that one, or remove the file");
    if (record) state->record = std::move(*record);
    state->record.url = store.url();
    return std::unique_ptr<ThawJob>(new ThawJob(std::move(state)));
}

Result<bool> ThawJob::has_archived_objects() {
    WV_CHECK(state_->list_once());
    return std::ranges::any_of(state_->listed, [](const auto& one) {
        return storage::may_be_archived(one.second.storage_class);
    });
}

Result<ThawPlan> ThawJob::look(const ThawNeeds& needs) {
    WV_CHECK(state_->list_once());
    std::vector<ThawItem> items = needs;
    std::vector<std::string> unknown;
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < items.size(); ++i) {
        auto listed = state_->listed_state(items[i].name);
        if (listed) {
            items[i].state = std::move(*listed);
        } else {
            unknown.push_back(items[i].name);
            places.push_back(i);
        }
    }
    WV_TRY(auto states, state_->states(unknown));
    for (std::size_t i = 0; i < places.size(); ++i) {
        state_->note(unknown[i], states[i]);
        items[places[i]].state = std::move(states[i]);
    }
    for (ThawItem& item : items)
        if (item.state.size_bytes > 0) item.size_bytes = item.state.size_bytes;
    return storage::plan_thaw(std::move(items), state_->options.archive.prices,
                              state_->options.archive.thaw);
}

bool ThawJob::is_agreed(const ThawPlan& plan) const {
    return std::ranges::all_of(plan.to_ask, [this](const ThawItem& item) {
        auto found = state_->record.objects.find(item.name);
        return found != state_->record.objects.end() && !found->second.asked_at;
    });
}

Result<> ThawJob::agree(const ThawPlan& plan, const std::string& repository) {
    state_->record.repository = repository;
    for (const ThawItem& item : plan.to_ask)
        state_->record.objects[item.name] = {item.size_bytes, item.state.storage_class, {}};
    return write_thaw_record(*state_->options.files, state_->options.record_path, state_->record);
}

Result<> ThawJob::thaw(const ThawPlan& plan, ProgressLine& progress) {
    std::deque<ThawItem> pending(plan.to_ask.begin(), plan.to_ask.end());
    pending.insert(pending.end(), plan.waiting.begin(), plan.waiting.end());
    std::uint64_t bytes = 0;
    for (const ThawItem& item : pending)
        bytes += item.size_bytes;
    progress.begin("thaw", bytes);
    WV_CHECK(state_->ask(plan.to_ask));
    for (std::uint64_t done = 0;;) {
        WV_CHECK(state_->look_through(pending, done));
        progress.update(done);
        if (pending.empty()) break;
        state_->options.wait(state_->options.archive.poll_interval);
        state_->extend(state_->thawed);
    }
    progress.finish();
    return {};
}

Result<std::unique_ptr<ThawJob::Keeper>> ThawJob::keep() {
    state_->extend(state_->thawed);
    if (state_->thawed.empty()) return std::unique_ptr<Keeper>();
    return std::make_unique<KeeperThread>(
        [state = state_.get(), copies = state_->thawed]() mutable { state->extend(copies); });
}

Result<> ThawJob::finish() {
    return remove_thaw_record(*state_->options.files, state_->options.record_path);
}

}  // namespace walvault::agent
