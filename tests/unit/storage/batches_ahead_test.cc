#include "storage/batches_ahead.h"

#include <doctest/doctest.h>

#include <new>
#include <optional>

#include "storage/repository_files.h"
#include "tests/support/flip_bit.h"
#include "tests/support/forwarding_store.h"
#include "tests/support/stored_journal.h"
#include "tests/unit/storage/stage.h"

namespace walvault::storage {
namespace {

// A store whose reads are counted and, once it is shut, wait until they are let through.
class GatedStore final : public ForwardingStore {
public:
    using ForwardingStore::ForwardingStore;

    void shut() {
        std::lock_guard lock(mutex_);
        is_shut_ = true;
    }
    void let_through() {
        std::lock_guard lock(mutex_);
        is_shut_ = false;
        changed_.notify_all();
    }
    // Of the bytes there, whichever read of all it is: threads read in no order.
    void throw_at(std::uint64_t offset) {
        std::lock_guard lock(mutex_);
        throws_at_ = offset;
    }
    std::size_t begun() {
        std::lock_guard lock(mutex_);
        return begun_;
    }
    bool wait_for_begun(std::size_t count) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return begun_ >= count; });
    }

    Result<ByteBuffer> get(const std::string& name, std::uint64_t offset,
                           std::uint64_t length) override {
        {
            std::unique_lock lock(mutex_);
            ++begun_;
            changed_.notify_all();
            if (offset == throws_at_) throw std::bad_alloc();
            changed_.wait(lock, [this] { return !is_shut_; });
        }
        return objects_.get(name, offset, length);
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::size_t begun_ = 0;
    std::optional<std::uint64_t> throws_at_;
    bool is_shut_ = false;
};

// A pack of twelve batches, one transaction in each.
struct TwelveBatches {
    static constexpr int kBatches = 12;

    TwelveBatches() {
        stage.create();
        const RelationRef orders = RelationVersion::make(made_relation(16'400, "orders"));
        const std::string large(200'000, 'o');  // two of them are more than a batch
        auto repository = must(stage.open());
        JournalKeeper keeper(*repository);
        must(keeper.begin());
        for (std::uint64_t n = 1; n <= kBatches; ++n) {
            keeper.transaction(1000 * n, static_cast<Xid>(700 + n), [&](BatchWriter& writer) {
                writer.change(JournalRecordKind::inserted, orders,
                              made_insert({std::to_string(n), large}));
            });
            must(keeper.store());
        }
        must(keeper.close());
        const OpenedRepository opened = must(open_repository_files(*objects, stage.master));
        pack = must(
            PackReader::open(*objects, must(stage.view()->packs("main")).front(), opened.keyring));
        REQUIRE(pack->frame_count() == kBatches);
    }
    // Each batch is wanted, to the last.
    static std::optional<int> next(int index) {
        return index + 1 < kBatches ? std::optional<int>(index + 1) : std::nullopt;
    }
    ByteBuffer batch(int index) {
        ByteBuffer read;
        must(pack->read_batch(*objects, index, read));
        return read;
    }
    void damage(int index) {
        flip_bit(stage.root + "/" + pack->path(), pack->footer().frames(index).offset() + 60);
    }

    Stage stage;
    std::unique_ptr<ObjectStore> objects = make_directory_store(posix_file_system(), stage.root);
    GatedStore store{*objects};
    std::shared_ptr<const PackReader> pack;
};

}  // namespace

TEST_CASE("batches are the same, whether they are read ahead, skipped or asked for out of turn") {
    TwelveBatches twelve;
    BatchesAhead batches(twelve.store, nullptr, TwelveBatches::next);
    batches.begin(twelve.pack);
    for (const int index : {0, 1, 2, 5, 6, 3, 7, 8, 11, 0}) {
        ByteBuffer read;
        must(batches.take(index, read));
        CHECK(read == twelve.batch(index));
    }
}

TEST_CASE("the first batch is read alone, and behind each further one more are under way") {
    TwelveBatches twelve;
    ByteBuffer read;
    {
        BatchesAhead ended_at_once(twelve.store, nullptr, [](int) -> std::optional<int> {
            FAIL("nothing is looked for behind the first");
            return std::nullopt;
        });
        ended_at_once.begin(twelve.pack);
        must(ended_at_once.take(0, read));
    }
    CHECK(twelve.store.begun() == 1);

    BatchesAhead batches(twelve.store, nullptr, TwelveBatches::next);
    batches.begin(twelve.pack);
    must(batches.take(0, read));
    must(batches.take(1, read));
    REQUIRE(twelve.store.wait_for_begun(1 + 3));
    must(batches.take(2, read));
    must(batches.take(3, read));
    REQUIRE(twelve.store.wait_for_begun(1 + 7));
    // Nobody asks for the next one, and yet those behind it come.
    twelve.store.shut();
    must(batches.take(4, read));
    CHECK(twelve.store.wait_for_begun(1 + 9));
    CHECK(twelve.store.begun() == 1 + 9);
    twelve.store.let_through();
}

TEST_CASE("a guess that was wrong is given up, and what follows is read ahead again") {
    TwelveBatches twelve;
    std::vector<int> guessed;
    BatchesAhead batches(twelve.store, nullptr, [&](int index) -> std::optional<int> {
        const auto next = TwelveBatches::next(index);
        if (next) guessed.push_back(*next);
        return next;
    });
    batches.begin(twelve.pack);
    ByteBuffer read;
    for (int index = 0; index < 3; ++index)
        must(batches.take(index, read));
    CHECK(guessed == std::vector<int>{2, 3, 4});
    // Neither 3 nor 4, but one that nobody has named.
    must(batches.take(7, read));
    CHECK(read == twelve.batch(7));
    CHECK(guessed == std::vector<int>{2, 3, 4, 8, 9, 10});
    for (int index = 8; index < TwelveBatches::kBatches; ++index) {
        must(batches.take(index, read));
        CHECK(read == twelve.batch(index));
    }
    // 0 to 2, 3 and 4 for nothing if a thread had begun with them, 7 to 11: each once.
    CHECK(twelve.store.begun() <= 10);
}

TEST_CASE("what cannot be read is told when it is its turn, and not where it was not asked for") {
    TwelveBatches twelve;
    twelve.damage(4);
    BatchesAhead batches(twelve.store, nullptr, TwelveBatches::next);
    batches.begin(twelve.pack);
    ByteBuffer read;
    for (int index = 0; index < 4; ++index)
        must(batches.take(index, read));
    const auto told = batches.take(4, read);
    REQUIRE(!told);
    CHECK(told.error().code == Errc::corrupt);
    CHECK(told.error().message.find("frame 4") != std::string::npos);
    must(batches.take(5, read));

    batches.begin(twelve.pack);
    must(batches.take(3, read));
    must(batches.take(6, read));  // over the damaged one, which was read ahead
    CHECK(read == twelve.batch(6));
}

TEST_CASE("memory that a thread did not get is the answer of its batch, and not the end of all") {
    TwelveBatches twelve;
    twelve.store.throw_at(twelve.pack->footer().frames(2).offset());
    BatchesAhead batches(twelve.store, nullptr, TwelveBatches::next);
    batches.begin(twelve.pack);
    ByteBuffer read;
    must(batches.take(0, read));
    must(batches.take(1, read));
    CHECK_THROWS_AS(static_cast<void>(batches.take(2, read)), std::bad_alloc);
    must(batches.take(3, read));
    CHECK(read == twelve.batch(3));
}

TEST_CASE("another pack may be begun, and all be left, while batches are being read") {
    TwelveBatches twelve;
    ByteBuffer read;
    {
        BatchesAhead batches(twelve.store, nullptr, TwelveBatches::next);
        batches.begin(twelve.pack);
        for (int index = 0; index < 4; ++index)
            must(batches.take(index, read));
        batches.begin(twelve.pack);
        must(batches.take(9, read));
        CHECK(read == twelve.batch(9));
    }
    must(twelve.pack->read_batch(twelve.store, 0, read));
}

}  // namespace walvault::storage
