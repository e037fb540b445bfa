#include "proto/frame_format.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <set>

#include "tests/unit/storage/fixtures.h"

namespace walvault::storage {
namespace {

using FileBytes = std::array<std::byte, kFileHeaderBytes>;
using FrameBytes = std::array<std::byte, kFrameHeaderBytes>;

FileBytes encoded(const FileHeader& header) {
    FileBytes bytes;
    encode_file_header(header, bytes);
    return bytes;
}
FrameBytes encoded(const FrameHeader& header) {
    FrameBytes bytes;
    encode_frame_header(header, bytes);
    return bytes;
}
std::string bound_to(const FileHeader& file, const FramePlace& place, Codec codec,
                     std::uint32_t plain) {
    std::array<std::byte, kAdditionalDataBytes> bytes;
    encode_additional_data(file, place, codec, plain, bytes);
    return to_hex(bytes);
}
FrameHeader test_frame_header() {
    FrameHeader header;
    header.frame_number = 5;
    header.plain_bytes = 1'000;
    header.sealed_bytes = 316;
    header.synced_frames = 4;
    header.nonce = filled<24>(0xAB);
    header.commitment = id16(0xCD);
    return header;
}

}  // namespace

TEST_CASE("a file header decodes to what was encoded") {
    FileHeader header = test_wal_header();
    header.key_id = id16(0x50);
    header.tag = id16(0x60);
    FileBytes bytes = encoded(header);
    auto decoded = decode_file_header(bytes);
    REQUIRE(decoded.has_value());
    CHECK(decoded->stream == header.stream);
    CHECK(decoded->server_version_num == header.server_version_num);
    CHECK(decoded->timeline == header.timeline);
    CHECK(decoded->segment_bytes == header.segment_bytes);
    CHECK(decoded->system_identifier == header.system_identifier);
    CHECK(decoded->start_lsn == header.start_lsn);
    CHECK(decoded->generation == header.generation);
    CHECK(decoded->history_id == header.history_id);
    CHECK(decoded->tag == header.tag);
    CHECK(encoded(*decoded) == bytes);
}

TEST_CASE("a file header that decodes encodes to the same bytes, whatever bit was flipped") {
    FileBytes bytes = encoded(test_wal_header());
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
        FileBytes damaged = bytes;
        damaged[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
        if (auto decoded = decode_file_header(damaged)) CHECK(encoded(*decoded) == damaged);
    }
    for (std::size_t size = 0; size < bytes.size(); ++size)
        CHECK(decode_file_header(ByteSpan(bytes).first(size)).error().code == Errc::corrupt);
}

TEST_CASE("an unknown version or suite is unsupported, an unknown stream is corrupt") {
    FileBytes bytes = encoded(test_wal_header());
    auto code_with = [&](std::size_t offset, unsigned char value) {
        FileBytes changed = bytes;
        changed[offset] = std::byte{value};
        return decode_file_header(changed).error().code;
    };
    CHECK(code_with(0, 'X') == Errc::corrupt);
    CHECK(code_with(8, 2) == Errc::unsupported);
    CHECK(code_with(9, 0) == Errc::corrupt);
    CHECK(code_with(9, 5) == Errc::corrupt);
    CHECK(code_with(10, 2) == Errc::unsupported);
    CHECK(code_with(11, 1) == Errc::corrupt);
    CHECK(code_with(12, 161) == Errc::corrupt);
    CHECK(code_with(140, 1) == Errc::corrupt);
}

TEST_CASE("a frame header decodes to what was encoded") {
    FrameHeader header = test_frame_header();
    FrameBytes bytes = encoded(header);
    auto decoded = decode_frame_header(bytes);
    REQUIRE(decoded.has_value());
    CHECK(decoded->kind == header.kind);
    CHECK(decoded->codec == header.codec);
    CHECK(decoded->frame_number == 5);
    CHECK(decoded->plain_bytes == 1'000);
    CHECK(decoded->sealed_bytes == 316);
    CHECK(decoded->synced_frames == 4);
    CHECK(encoded(*decoded) == bytes);
    for (std::size_t size = 0; size < bytes.size(); ++size)
        CHECK(decode_frame_header(ByteSpan(bytes).first(size)).error().code == Errc::corrupt);
}

TEST_CASE("lengths that no frame can have are refused before anything is read") {
    auto refused = [](Codec codec, std::uint32_t plain, std::uint32_t sealed) {
        FrameHeader header = test_frame_header();
        header.codec = codec;
        header.plain_bytes = plain;
        header.sealed_bytes = sealed;
        auto decoded = decode_frame_header(encoded(header));
        return !decoded && decoded.error().code == Errc::corrupt;
    };
    CHECK_FALSE(refused(Codec::stored, 0, 16));
    CHECK_FALSE(refused(Codec::stored, kFramePlainBytesMax, kFramePlainBytesMax + 16));
    CHECK_FALSE(refused(Codec::zstd, 100, 17));
    CHECK(refused(Codec::stored, kFramePlainBytesMax + 1, kFramePlainBytesMax + 17));
    CHECK(refused(Codec::stored, 100, 115));
    CHECK(refused(Codec::stored, 100, 117));
    CHECK(refused(Codec::stored, 0xFFFFFFFF, 15));
    CHECK(refused(Codec::zstd, 100, 116));
    CHECK(refused(Codec::zstd, 100, 16));
    CHECK(refused(Codec::zstd, 100, 0));
    CHECK(refused(Codec::zstd, 100, 0xFFFFFFFF));
}

TEST_CASE("an unknown frame kind, codec, version or magic is corrupt") {
    FrameBytes bytes = encoded(test_frame_header());
    for (auto [offset, value] :
         {std::pair<std::size_t, int>{0, 'X'}, {4, 2}, {5, 0}, {5, 5}, {6, 2}, {7, 1}}) {
        FrameBytes changed = bytes;
        changed[offset] = static_cast<std::byte>(value);
        CHECK(decode_frame_header(changed).error().code == Errc::corrupt);
    }
}

TEST_CASE("additional data differs for every field it binds") {
    FileHeader file = test_wal_header();
    FramePlace place = wal_place(1, 2, 3);
    std::vector<std::function<void(FileHeader&, FramePlace&)>> changes = {
        [](FileHeader&, FramePlace&) {},
        [](FileHeader& h, FramePlace&) { h.stream = StreamKind::base; },
        [](FileHeader& h, FramePlace&) { h.server_version_num = 1; },
        [](FileHeader& h, FramePlace&) { h.timeline = 1; },
        [](FileHeader& h, FramePlace&) { h.segment_bytes = 1; },
        [](FileHeader& h, FramePlace&) { h.system_identifier = 1; },
        [](FileHeader& h, FramePlace&) { h.start_lsn = Lsn{1}; },
        [](FileHeader& h, FramePlace&) { h.generation = 1; },
        [](FileHeader& h, FramePlace&) { h.repository_id = id16(1); },
        [](FileHeader& h, FramePlace&) { h.cluster_id = id16(1); },
        [](FileHeader& h, FramePlace&) { h.history_id = id16(1); },
        [](FileHeader& h, FramePlace&) { h.file_id = id16(1); },
        [](FileHeader& h, FramePlace&) { h.key_id = id16(1); },
        [](FileHeader&, FramePlace& p) { p.kind = FrameKind::quiet; },
        [](FileHeader&, FramePlace& p) { p.frame_number = 9; },
        [](FileHeader&, FramePlace& p) { p.start = 9; },
        [](FileHeader&, FramePlace& p) { p.end = 9; },
        [](FileHeader&, FramePlace& p) { p.content_id = filled<32>(9); },
        [](FileHeader&, FramePlace& p) { p.final = true; },
        [](FileHeader&, FramePlace& p) { p.synced_frames = 9; },
    };
    std::set<std::string> seen;
    for (auto& change : changes) {
        FileHeader changed_file = file;
        FramePlace changed_place = place;
        change(changed_file, changed_place);
        seen.insert(bound_to(changed_file, changed_place, Codec::zstd, 100));
    }
    seen.insert(bound_to(file, place, Codec::stored, 100));
    seen.insert(bound_to(file, place, Codec::zstd, 101));
    CHECK(seen.size() == changes.size() + 2);
}

TEST_CASE("additional data stands at the documented offsets") {
    FileHeader file = test_wal_header();
    file.key_id = id16(0x50);
    FramePlace place = wal_place(0x01020304, 0x1122334455667788, 0x99AABBCCDDEEFF00);
    place.content_id = filled<32>(0x70);
    place.synced_frames = 0x05060708;
    std::array<std::byte, kAdditionalDataBytes> bytes;
    encode_additional_data(file, place, Codec::zstd, 0x0A0B0C0D, bytes);
    CHECK(as_text(bytes).substr(0, 8) == "WVFRAD1\n");
    CHECK(to_hex(ByteSpan(bytes).subspan(8, 8)) == "0101010101010000");
    CHECK(to_hex(ByteSpan(bytes).subspan(16, 16)) == to_hex(id16(0x10)));
    CHECK(to_hex(ByteSpan(bytes).subspan(80, 16)) == to_hex(id16(0x50)));
    CHECK(to_hex(ByteSpan(bytes).subspan(96, 32)) == to_hex(filled<32>(0x70)));
    CHECK(load_le<std::uint64_t>(&bytes[128]) == file.system_identifier);
    CHECK(load_le<std::uint64_t>(&bytes[136]) == file.segment_bytes);
    CHECK(load_le<std::uint64_t>(&bytes[144]) == file.generation);
    CHECK(load_le<std::uint64_t>(&bytes[152]) == place.start);
    CHECK(load_le<std::uint64_t>(&bytes[160]) == place.end);
    CHECK(load_le<std::uint32_t>(&bytes[168]) == file.timeline);
    CHECK(load_le<std::uint32_t>(&bytes[172]) == file.server_version_num);
    CHECK(load_le<std::uint32_t>(&bytes[176]) == place.frame_number);
    CHECK(load_le<std::uint32_t>(&bytes[180]) == 0x0A0B0C0D);
    CHECK(load_le<std::uint64_t>(&bytes[184]) == file.start_lsn.value);
    CHECK(load_le<std::uint32_t>(&bytes[192]) == 0x05060708);
    CHECK(to_hex(ByteSpan(bytes).subspan(196)) == std::string(24, '0'));
}

TEST_CASE("a pack trailer decodes to what was encoded and every flipped bit is detected") {
    std::array<std::byte, kPackTrailerBytes> bytes;
    encode_pack_trailer(PackTrailer{123'456'789'012, 4'711}, bytes);
    auto decoded = decode_pack_trailer(bytes);
    REQUIRE(decoded.has_value());
    CHECK(decoded->footer_offset == 123'456'789'012);
    CHECK(decoded->footer_bytes == 4'711);
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
        auto damaged = bytes;
        damaged[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
        CHECK(decode_pack_trailer(damaged).error().code == Errc::corrupt);
    }
    for (std::size_t size = 0; size < bytes.size(); ++size)
        CHECK(decode_pack_trailer(ByteSpan(bytes).first(size)).error().code == Errc::corrupt);
    encode_pack_trailer(PackTrailer{159, 4'711}, bytes);
    CHECK(decode_pack_trailer(bytes).error().code == Errc::corrupt);
    encode_pack_trailer(PackTrailer{160, 79}, bytes);
    CHECK(decode_pack_trailer(bytes).error().code == Errc::corrupt);
}

}  // namespace walvault::storage
