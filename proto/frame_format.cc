#include "proto/frame_format.h"

#include <algorithm>
#include <string>

#include "base/crc32c.h"

namespace walvault {
namespace {

constexpr std::string_view kFileMagic = "WVFILE1\n";
constexpr std::string_view kFrameMagic = "WVFR";
constexpr std::string_view kAdditionalDataMagic = "WVFRAD1\n";
constexpr std::string_view kTrailerMagic = "WVPACK1\n";

constexpr std::size_t kFileReservedOffset = 136;
constexpr std::size_t kFileTagOffset = 144;
static_assert(kFileTagOffset == kFileHeaderBytes - sizeof(Id16));

template <class T>
std::uint8_t code_of(T value) {
    return static_cast<std::uint8_t>(value);
}

// Writes fields one after another; the caller asserts where it ended.
class FieldWriter {
public:
    explicit FieldWriter(MutableByteSpan out) : out_(out) { std::ranges::fill(out, std::byte{0}); }
    template <class T>
    void le(T value) {
        store_le(take(sizeof value).data(), value);
    }
    void bytes(ByteSpan value) { std::ranges::copy(value, take(value.size()).begin()); }
    void zeros(std::size_t count) { take(count); }
    std::size_t position() const { return at_; }

private:
    MutableByteSpan take(std::size_t count) {
        WV_ASSERT(count <= out_.size() - at_);
        at_ += count;
        return out_.subspan(at_ - count, count);
    }
    MutableByteSpan out_;
    std::size_t at_ = 0;
};

template <std::size_t N>
void read_id(ByteReader& reader, std::array<std::byte, N>& out) {
    ByteSpan bytes = reader.bytes(N);
    if (bytes.size() == N) std::ranges::copy(bytes, out.begin());
}

bool all_zero(ByteSpan bytes) {
    return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

tl::unexpected<Error> too_short(std::string_view what, std::size_t has, std::size_t needs) {
    return fail(Errc::corrupt, std::string(what) + " has " + std::to_string(has) +
                                   " bytes where " + std::to_string(needs) + " belong");
}

tl::unexpected<Error> unknown_value(Errc code, std::string_view what, unsigned value) {
    return fail(code, std::string(what) + " is " + std::to_string(value) +
                          ", which this version does not know");
}

bool is_stream(std::uint8_t code) {
    return code >= code_of(StreamKind::wal) && code <= code_of(StreamKind::journal);
}
bool is_frame_kind(std::uint8_t code) {
    return code >= code_of(FrameKind::content) && code <= code_of(FrameKind::keys);
}
bool is_codec(std::uint8_t code) { return code <= code_of(Codec::zstd); }

// What can be told of the lengths before anything is authenticated: a stored frame is exactly its
// plain bytes and a tag, a compressed one is smaller.
Result<> check_frame_lengths(const FrameHeader& header) {
    if (header.plain_bytes > kFramePlainBytesMax)
        return fail(Errc::corrupt, "a frame announces " + std::to_string(header.plain_bytes) +
                                       " plain bytes, more than the " +
                                       std::to_string(kFramePlainBytesMax) + " it can have");
    std::uint64_t stored_bytes = std::uint64_t{header.plain_bytes} + kTagBytes;
    bool fits = header.codec == Codec::stored
                    ? header.sealed_bytes == stored_bytes
                    : header.sealed_bytes > kTagBytes && header.sealed_bytes < stored_bytes;
    if (!fits)
        return fail(Errc::corrupt, "a frame announces " + std::to_string(header.sealed_bytes) +
                                       " sealed bytes, which cannot be for " +
                                       std::to_string(header.plain_bytes) + " plain bytes");
    return {};
}

}  // namespace

void encode_file_header(const FileHeader& header, std::span<std::byte, kFileHeaderBytes> out) {
    FieldWriter writer(out);
    writer.bytes(as_bytes(kFileMagic));
    writer.le(kFormatVersion);
    writer.le(code_of(header.stream));
    writer.le(code_of(header.suite));
    writer.zeros(1);
    writer.le(static_cast<std::uint32_t>(kFileHeaderBytes));
    writer.le(header.server_version_num);
    writer.le(header.timeline);
    writer.le(header.segment_bytes);
    writer.le(header.system_identifier);
    writer.le(header.start_lsn.value);
    writer.le(header.generation);
    writer.bytes(header.repository_id);
    writer.bytes(header.cluster_id);
    writer.bytes(header.history_id);
    writer.bytes(header.file_id);
    writer.bytes(header.key_id);
    WV_ASSERT(writer.position() == kFileReservedOffset);
    writer.zeros(kFileTagOffset - kFileReservedOffset);
    writer.bytes(header.tag);
}

Result<FileHeader> decode_file_header(ByteSpan bytes) {
    if (bytes.size() < kFileHeaderBytes)
        return too_short("a file header", bytes.size(), kFileHeaderBytes);
    ByteReader reader(bytes.first(kFileHeaderBytes));
    if (as_text(reader.bytes(kFileMagic.size())) != kFileMagic)
        return fail(Errc::corrupt, "the file does not begin as a walvault tail or pack");
    auto version = reader.le<std::uint8_t>();
    if (version != kFormatVersion)
        return unknown_value(Errc::unsupported, "the format version of the file", version);
    auto stream = reader.le<std::uint8_t>();
    auto suite = reader.le<std::uint8_t>();
    auto reserved = reader.le<std::uint8_t>();
    auto header_bytes = reader.le<std::uint32_t>();
    if (header_bytes != kFileHeaderBytes) return too_short("a file header", header_bytes, kFileHeaderBytes);
    if (!is_stream(stream)) return unknown_value(Errc::corrupt, "the stream of the file", stream);
    if (suite != code_of(Suite::xchacha20_poly1305))
        return unknown_value(Errc::unsupported, "the cipher suite of the file", suite);
    FileHeader header;
    header.stream = static_cast<StreamKind>(stream);
    header.suite = static_cast<Suite>(suite);
    header.server_version_num = reader.le<std::uint32_t>();
    header.timeline = reader.le<std::uint32_t>();
    header.segment_bytes = reader.le<std::uint64_t>();
    header.system_identifier = reader.le<std::uint64_t>();
    header.start_lsn = Lsn{reader.le<std::uint64_t>()};
    header.generation = reader.le<std::uint64_t>();
    read_id(reader, header.repository_id);
    read_id(reader, header.cluster_id);
    read_id(reader, header.history_id);
    read_id(reader, header.file_id);
    read_id(reader, header.key_id);
    if (reserved != 0 || !all_zero(reader.bytes(kFileTagOffset - kFileReservedOffset)))
        return fail(Errc::corrupt, "the unused bytes of a file header are not zero");
    read_id(reader, header.tag);
    WV_ASSERT(reader.ok() && reader.remaining() == 0);
    return header;
}

void encode_frame_header(const FrameHeader& header, std::span<std::byte, kFrameHeaderBytes> out) {
    FieldWriter writer(out);
    writer.bytes(as_bytes(kFrameMagic));
    writer.le(kFormatVersion);
    writer.le(code_of(header.kind));
    writer.le(code_of(header.codec));
    writer.zeros(1);
    writer.le(header.frame_number);
    writer.le(header.plain_bytes);
    writer.le(header.sealed_bytes);
    writer.le(header.synced_frames);
    writer.bytes(header.nonce);
    writer.bytes(header.commitment);
    WV_ASSERT(writer.position() == kFrameHeaderBytes);
}

Result<FrameHeader> decode_frame_header(ByteSpan bytes) {
    if (bytes.size() < kFrameHeaderBytes)
        return too_short("a frame header", bytes.size(), kFrameHeaderBytes);
    ByteReader reader(bytes.first(kFrameHeaderBytes));
    if (as_text(reader.bytes(kFrameMagic.size())) != kFrameMagic)
        return fail(Errc::corrupt, "there is no frame where one should begin");
    auto version = reader.le<std::uint8_t>();
    auto kind = reader.le<std::uint8_t>();
    auto codec = reader.le<std::uint8_t>();
    auto reserved = reader.le<std::uint8_t>();
    if (version != kFormatVersion) return unknown_value(Errc::corrupt, "the version of a frame", version);
    if (!is_frame_kind(kind)) return unknown_value(Errc::corrupt, "the kind of a frame", kind);
    if (!is_codec(codec)) return unknown_value(Errc::corrupt, "the codec of a frame", codec);
    FrameHeader header;
    header.kind = static_cast<FrameKind>(kind);
    header.codec = static_cast<Codec>(codec);
    header.frame_number = reader.le<std::uint32_t>();
    header.plain_bytes = reader.le<std::uint32_t>();
    header.sealed_bytes = reader.le<std::uint32_t>();
    header.synced_frames = reader.le<std::uint32_t>();
    if (reserved != 0)
        return fail(Errc::corrupt, "the unused bytes of a frame header are not zero");
    read_id(reader, header.nonce);
    read_id(reader, header.commitment);
    WV_ASSERT(reader.ok() && reader.remaining() == 0);
    WV_CHECK(check_frame_lengths(header));
    return header;
}

void encode_additional_data(const FileHeader& file, const FramePlace& place, Codec codec,
                            std::uint32_t plain_bytes,
                            std::span<std::byte, kAdditionalDataBytes> out) {
    FieldWriter writer(out);
    writer.bytes(as_bytes(kAdditionalDataMagic));
    writer.le(kFormatVersion);  // of the file
    writer.le(kFormatVersion);  // of the frame
    writer.le(code_of(file.suite));
    writer.le(code_of(codec));
    writer.le(code_of(file.stream));
    writer.le(code_of(place.kind));
    writer.le(static_cast<std::uint8_t>(place.final ? 1 : 0));
    writer.zeros(1);
    writer.bytes(file.repository_id);
    writer.bytes(file.cluster_id);
    writer.bytes(file.history_id);
    writer.bytes(file.file_id);
    writer.bytes(file.key_id);
    writer.bytes(place.content_id);
    writer.le(file.system_identifier);
    writer.le(file.segment_bytes);
    writer.le(file.generation);
    writer.le(place.start);
    writer.le(place.end);
    writer.le(file.timeline);
    writer.le(file.server_version_num);
    writer.le(place.frame_number);
    writer.le(plain_bytes);
    writer.le(file.start_lsn.value);
    writer.le(place.synced_frames);
    WV_ASSERT(writer.position() == 196);
}

void encode_pack_trailer(const PackTrailer& trailer, std::span<std::byte, kPackTrailerBytes> out) {
    FieldWriter writer(out);
    writer.le(trailer.footer_offset);
    writer.le(trailer.footer_bytes);
    writer.le(crc32c(ByteSpan(out).first(12)));
    writer.bytes(as_bytes(kTrailerMagic));
    WV_ASSERT(writer.position() == kPackTrailerBytes);
}

Result<PackTrailer> decode_pack_trailer(ByteSpan bytes) {
    if (bytes.size() != kPackTrailerBytes)
        return too_short("a pack trailer", bytes.size(), kPackTrailerBytes);
    ByteReader reader(bytes);
    PackTrailer trailer;
    trailer.footer_offset = reader.le<std::uint64_t>();
    trailer.footer_bytes = reader.le<std::uint32_t>();
    auto announced_crc = reader.le<std::uint32_t>();
    if (as_text(reader.bytes(kTrailerMagic.size())) != kTrailerMagic)
        return fail(Errc::corrupt, "the file does not end as a pack does");
    if (announced_crc != crc32c(bytes.first(12)))
        return fail(Errc::corrupt, "the trailer of a pack fails its CRC");
    constexpr std::uint64_t kFooterBytesMin = kFrameHeaderBytes + kTagBytes;
    constexpr std::uint64_t kFooterBytesMax = kFooterBytesMin + kFramePlainBytesMax;
    if (trailer.footer_offset < kFileHeaderBytes || trailer.footer_bytes < kFooterBytesMin ||
        trailer.footer_bytes > kFooterBytesMax)
        return fail(Errc::corrupt, "the trailer of a pack names a footer of " +
                                       std::to_string(trailer.footer_bytes) + " bytes at offset " +
                                       std::to_string(trailer.footer_offset) +
                                       ", which cannot be");
    return trailer;
}

}  // namespace walvault
