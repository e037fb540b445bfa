#include "storage/tail_writer.h"

#include <doctest/doctest.h>

#include <random>

#include "tests/support/scratch_directory.h"
#include "tests/unit/storage/fixtures.h"

using namespace walvault;
using namespace walvault::storage;

namespace {

constexpr std::size_t kBlockBytes = 4096;

struct OpenTail {
    ScratchDirectory directory;
    FileHeader header = test_wal_header();
    std::shared_ptr<const TailPlan> plan = std::make_shared<const TailPlan>(
        TailPlan{"main/wal/a.tail", "main", FileCipher::for_new_file(test_data_key(1), header)});
    std::unique_ptr<TailWriter> writer;
    ByteBuffer expected;  // header and frames

    OpenTail() {
        auto created = TailWriter::create(posix_file_system(), directory.path(), plan);
        REQUIRE(created.has_value());
        writer = std::move(*created);
        expected = content();
        REQUIRE(expected.size() == kFileHeaderBytes);
    }
    ByteBuffer content() const {
        auto bytes =
            read_file(posix_file_system(), directory.path() + "/" + plan->path, 1ull << 30);
        REQUIRE(bytes.has_value());
        return *bytes;
    }
    // Every frame at its place, and nothing but zeros behind the last.
    void require_as_expected() const {
        ByteBuffer found = content();
        REQUIRE(found.size() >= expected.size());
        CHECK(writer->end_offset() == expected.size());
        CHECK(std::ranges::equal(ByteSpan(found).first(expected.size()), expected));
        CHECK(std::ranges::all_of(ByteSpan(found).subspan(expected.size()),
                                  [](std::byte byte) { return byte == std::byte{}; }));
    }
};

ByteBuffer frame_of(std::mt19937& random, std::size_t bytes) {
    ByteBuffer frame(bytes);
    for (std::byte& byte : frame)
        byte = static_cast<std::byte>(random() | 1);
    return frame;
}

}  // namespace

TEST_CASE("frames lie one behind the other however they were appended") {
    OpenTail tail;
    std::mt19937 random(5);
    for (int round = 0; round < 60; ++round) {
        std::vector<ByteBuffer> frames;
        for (unsigned i = 0; i < 1 + random() % 4; ++i) {
            // Short ones, ones that end at the end of a block, and ones of many blocks.
            const std::size_t end = tail.expected.size() % kBlockBytes;
            const std::size_t sizes[] = {1 + random() % 300, kBlockBytes - end,
                                         random() % 200'000 + 1};
            frames.push_back(frame_of(random, sizes[random() % 3]));
        }
        const bool past_cache = random() % 2 == 0;
        std::vector<ByteSpan> spans(frames.begin(), frames.end());
        for (const ByteBuffer& frame : frames)
            append(tail.expected, frame);
        if (random() % 3 == 0) REQUIRE(tail.writer->write_ahead(random() % 9000).has_value());
        if (past_cache) {
            REQUIRE(tail.writer->append_past_cache(spans).has_value());
        } else {
            for (ByteSpan frame : spans)
                REQUIRE(tail.writer->append(frame).has_value());
        }
        REQUIRE(tail.writer->sync().has_value());
        tail.require_as_expected();
    }
}

TEST_CASE("more than is gathered for one write lies there whole") {
    OpenTail tail;
    std::mt19937 random(6);
    std::vector<ByteBuffer> frames;
    for (std::size_t bytes : {5'000'000u, 1u, 4u << 20, 3'333u})
        frames.push_back(frame_of(random, bytes));
    for (const ByteBuffer& frame : frames)
        append(tail.expected, frame);
    std::vector<ByteSpan> spans(frames.begin(), frames.end());
    REQUIRE(tail.writer->append_past_cache(spans).has_value());
    tail.require_as_expected();
}

TEST_CASE("a pack made of a tail ends with its trailer, and no zeros are left of its blocks") {
    OpenTail tail;
    std::mt19937 random(7);
    ByteBuffer frame = frame_of(random, 70'001);
    const ByteSpan span(frame);
    REQUIRE(tail.writer->write_ahead(frame.size()).has_value());
    REQUIRE(tail.writer->append_past_cache({&span, 1}).has_value());
    const std::uint64_t frames_end = tail.writer->end_offset();
    pb::PackFooter footer;
    footer.set_format_version(1);
    auto info = tail.writer->close_in_place(footer, 1, {});
    REQUIRE(info.has_value());
    CHECK(info->footer_offset() == frames_end);
    auto size = posix_file_system().info(tail.directory.path() + "/" + info->path());
    REQUIRE(size.has_value());
    CHECK(size->size_bytes == info->stored_bytes());
    CHECK(info->stored_bytes() < frames_end + kBlockBytes);
}
