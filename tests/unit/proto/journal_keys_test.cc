#include "proto/journal_keys.h"

#include <doctest/doctest.h>

#include "tests/support/journal_fixture.h"

using namespace walvault;

TEST_CASE("The key of a row is that of its primary key, or of an identity index") {
    pb::JournalRelation relation = made_relation(16'400, "orders", 3);
    CHECK(key_columns(relation) == std::vector<std::uint32_t>{0});
    relation.set_identity(pb::JournalRelation::INDEX);
    relation.mutable_columns(0)->set_is_identity(false);
    relation.mutable_columns(2)->set_is_identity(true);
    CHECK(key_columns(relation) == std::vector<std::uint32_t>{2});
    relation.set_identity(pb::JournalRelation::FULL);
    CHECK(key_columns(relation) == std::vector<std::uint32_t>{0});

    const auto keys_of = [&](const MadeValues& now, const std::optional<MadeValues>& old) {
        JournalRecordView record;
        const ByteBuffer fresh = made_tuple(now);
        const ByteBuffer before = old ? made_tuple(*old) : ByteBuffer{};
        record.new_tuple = fresh;
        record.old_tuple = before;
        std::vector<ByteBuffer> keys;
        auto done =
            each_journal_key(relation.oid(), key_columns(relation), record,
                             [&](ByteSpan key) { keys.emplace_back(key.begin(), key.end()); });
        CHECK(done.has_value());
        return keys;
    };
    const auto key = [](std::string_view text) { return encode_journal_key(16'400, {text}); };
    CHECK(keys_of({"1", "a", "b"}, {}) == std::vector<ByteBuffer>{key("1")});
    CHECK(keys_of({"2", "a", "b"}, {{"1", {}, {}}}) == std::vector<ByteBuffer>{key("1"), key("2")});
    CHECK(keys_of({"1", "a", "b"}, {{"1", "z", "b"}}) == std::vector<ByteBuffer>{key("1")});
    CHECK(keys_of({kUnchanged, "a", "b"}, {{"1", "z", "b"}}) == std::vector<ByteBuffer>{key("1")});
    CHECK(keys_of({kUnchanged, "a", "b"}, {}).empty());
}

TEST_CASE("A key block is read as it was written, and a malformed one is an error") {
    const std::vector<KeyPlace> places{{0, 3}, {0, 70'000}, {5, 0}, {1'000'000, 1}, {~0u, ~0u}};
    const ByteBuffer block = encode_key_block(places).plain;
    CHECK(decode_key_block(block).value() == places);
    CHECK(decode_key_block(encode_key_block({}).plain).value().empty());
    for (std::size_t size = 0; size < block.size(); ++size)
        CHECK_FALSE(decode_key_block(ByteSpan(block).first(size)).has_value());
    ByteBuffer longer = block;
    longer.push_back({});
    CHECK_FALSE(decode_key_block(longer).has_value());
    const auto error_of = [](std::string_view bytes) {
        return decode_key_block(as_bytes(bytes)).error().message;
    };
    using namespace std::string_view_literals;
    CHECK(error_of("\x02\x05\x00\x01\x00"sv) == "a key block is not sorted");
    // A hash, a frame of more than 32 bits; more pairs than there are bytes.
    for (std::string_view bad : {"\x02\xff\xff\xff\xff\x0f\x01\x00\x00"sv,
                                 "\x01\x00\xff\xff\xff\xff\x1f"sv, "\xff\xff\xff\x7f\x00"sv})
        CHECK(error_of(bad) == "a key block cannot be read");
}
