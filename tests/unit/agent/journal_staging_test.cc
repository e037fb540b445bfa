#include "agent/journal_staging.h"

#include <doctest/doctest.h>

#include "base/asio.h"
#include "base/secret.h"
#include "tests/support/scratch_directory.h"

namespace walvault::agent {
namespace {

// An Insert as it comes inside of a stream block.
ByteBuffer insert_of(Xid subxid, pgoutput::Oid relation, const std::string& value) {
    ByteBuffer message{static_cast<std::byte>('I')};
    append_be<std::uint32_t>(message, subxid);
    append_be<std::uint32_t>(message, relation);
    message.push_back(static_cast<std::byte>('N'));
    append_be<std::uint16_t>(message, 1);
    message.push_back(static_cast<std::byte>('t'));
    append_be(message, static_cast<std::uint32_t>(value.size()));
    append(message, as_bytes(value));
    return message;
}

ByteBuffer relation_of(Xid subxid, pgoutput::Oid oid) {
    ByteBuffer message{static_cast<std::byte>('R')};
    append_be<std::uint32_t>(message, subxid);
    append_be<std::uint32_t>(message, oid);
    for (const char each : std::string("s\0t\0d", 5))
        message.push_back(static_cast<std::byte>(each));
    append_be<std::uint16_t>(message, 0);
    return message;
}

template <class Work>
void run(Work work) {
    asio::io_context loop;
    asio::co_spawn(loop, work(), [](std::exception_ptr error) {
        if (error) std::rethrow_exception(error);
    });
    loop.run();
}

struct StagingRig {
    ScratchDirectory directory;
    Pool disk{1};
    JournalStaging staging{disk, posix_file_system(), directory.path(), 64ull << 20};
    std::vector<std::string> taken;

    JournalStaging::Sink sink() {
        return [this](const pgoutput::AnyMessage& message, ByteSpan) -> Task<Result<>> {
            if (const auto* insert = std::get_if<pgoutput::Insert>(&message))
                taken.emplace_back(insert->row[0].bytes);
            if (std::holds_alternative<pgoutput::Relation>(message)) taken.emplace_back("relation");
            co_return Result<>{};
        };
    }
};

TEST_CASE("A transaction comes back in order, without what its savepoints rolled back") {
    StagingRig rig;
    run([&]() -> Task<> {
        const ByteBuffer relation = relation_of(11, 1);
        CHECK(co_await rig.staging.add(10, 11, relation));
        for (const auto& [subxid, value] : std::vector<std::pair<Xid, std::string>>{
                 {10, "a"}, {11, "b"}, {10, "c"}, {12, "d"}, {11, "e"}}) {
            const ByteBuffer message = insert_of(subxid, 1, value);
            CHECK(co_await rig.staging.add(10, subxid, message));
        }
        const ByteBuffer other = insert_of(20, 1, "other");
        CHECK(co_await rig.staging.add(20, 20, other));
        rig.staging.abort(10, 11);
        const JournalStaging::Sink sink = rig.sink();
        CHECK(co_await rig.staging.take(10, sink));
        CHECK(rig.staging.transaction_count() == 1);
        rig.staging.abort(20, 20);
        CHECK(rig.staging.transaction_count() == 0);
        CHECK(co_await rig.staging.take(20, sink));
    });
    // What a table is called is told once, by whichever part was first.
    CHECK(rig.taken == std::vector<std::string>{"relation", "a", "c", "d"});
}

TEST_CASE("What does not fit into memory waits on the disk, rows larger than a block too") {
    StagingRig rig;
    const std::string large(3 << 20, 'x');
    run([&]() -> Task<> {
        for (int i = 0; i < 50; ++i) {
            const ByteBuffer message =
                insert_of(10, 1, std::to_string(i) + std::string(100'000, 'y'));
            CHECK(co_await rig.staging.add(10, 10, message));
        }
        const ByteBuffer message = insert_of(10, 1, large);
        CHECK(co_await rig.staging.add(10, 10, message));
        CHECK(rig.staging.stored_bytes() > 0);
        const JournalStaging::Sink sink = rig.sink();
        CHECK(co_await rig.staging.take(10, sink));
    });
    REQUIRE(rig.taken.size() == 51);
    for (int i = 0; i < 50; ++i)
        CHECK(rig.taken[static_cast<std::size_t>(i)] ==
              std::to_string(i) + std::string(100'000, 'y'));
    CHECK(rig.taken[50] == large);
}

TEST_CASE("More than the room for it is refused") {
    StagingRig rig;
    JournalStaging small{rig.disk, posix_file_system(), rig.directory.path(), 1000};
    run([&]() -> Task<> {
        Result<> added;
        for (int i = 0; added && i < 100; ++i) {
            std::string value(200'000, 'a');
            for (char& each : value)
                each = static_cast<char>('a' + random_number() % 26);
            const ByteBuffer message = insert_of(10, 1, value);
            added = co_await small.add(10, 10, message);
        }
        REQUIRE_FALSE(added);
        CHECK(added.error().code == Errc::no_space);
    });
}

}  // namespace
}  // namespace walvault::agent
