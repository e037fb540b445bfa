#include "storage/sealer.h"

#include <zstd.h>

#include <algorithm>
#include <string>

#include "storage/blake2b.h"

namespace walvault::storage {
namespace {

constexpr std::size_t kKeyBytes = crypto_aead_xchacha20poly1305_ietf_KEYBYTES;
static_assert(kTagBytes == crypto_aead_xchacha20poly1305_ietf_ABYTES);
static_assert(sizeof(FrameHeader::nonce) == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES);

SecretBytes derive_file_key(const DataKey& key, const FileHeader& header) {
    WV_ASSERT(key.secret.view().size() == kKeyBytes);
    SecretBytes file_key(kKeyBytes);
    blake2b(file_key.mutable_view(), key.secret.view(),
            {as_bytes("walvault file 1"), header.repository_id, header.file_id});
    return file_key;
}

Id16 header_tag(const SecretBytes& file_key, const FileHeader& header) {
    std::array<std::byte, kFileHeaderBytes> bytes;
    encode_file_header(header, bytes);
    Id16 tag;
    blake2b(tag, file_key.view(), {ByteSpan(bytes).first(kFileHeaderBytes - tag.size())});
    return tag;
}

Id16 frame_commitment(const SecretBytes& file_key, const FileHeader& file, ByteSpan nonce) {
    Id16 commitment;
    blake2b(commitment, file_key.view(), {as_bytes("commit"), file.file_id, nonce});
    return commitment;
}

// One per thread, reused: making a context costs more than compressing a small frame.
class Compressor {
public:
    Compressor() : context_(ZSTD_createCCtx()) { WV_ASSERT(context_ != nullptr); }
    ~Compressor() { ZSTD_freeCCtx(context_); }
    Compressor(const Compressor&) = delete;
    Compressor& operator=(const Compressor&) = delete;

    // `plain` compressed, in memory of this object; empty where that is no smaller or zstd ran out
    // of memory.
    ByteSpan compress(ByteSpan plain, int level, std::span<const std::size_t> cuts) {
        level = std::clamp(level, ZSTD_minCLevel(), 19);
        if (level != level_) set_level(level);
        // A block that is cut off has a header of its own.
        const std::size_t bound = ZSTD_compressBound(plain.size()) + cuts.size() * 16;
        if (bound > scratch_bytes_) {
            scratch_ = std::make_unique_for_overwrite<std::byte[]>(bound);
            scratch_bytes_ = bound;
        }
        const std::size_t size = cuts.empty() ? ZSTD_compress2(context_, scratch_.get(), bound,
                                                               plain.data(), plain.size())
                                              : compress_in_blocks(plain, cuts);
        if (ZSTD_isError(size) != 0 || size == 0 || size >= plain.size()) return {};
        return {scratch_.get(), size};
    }

private:
    // One frame all the same. 0: it did not fit.
    std::size_t compress_in_blocks(ByteSpan plain, std::span<const std::size_t> cuts) {
        ZSTD_CCtx_reset(context_, ZSTD_reset_session_only);
        ZSTD_CCtx_setPledgedSrcSize(context_, plain.size());
        ZSTD_outBuffer out{scratch_.get(), scratch_bytes_, 0};
        std::size_t from = 0;
        for (std::size_t i = 0; i <= cuts.size(); ++i) {
            const std::size_t to = i < cuts.size() ? cuts[i] : plain.size();
            ZSTD_inBuffer in{plain.data() + from, to - from, 0};
            const auto end = i < cuts.size() ? ZSTD_e_flush : ZSTD_e_end;
            const std::size_t left = ZSTD_compressStream2(context_, &out, &in, end);
            if (ZSTD_isError(left) != 0) return left;
            if (left != 0) return 0;
            from = to;
        }
        return out.pos;
    }

    // Level 1 is zstd's, but for what PostgreSQL's pages ask for: matches of five bytes, since most
    // that repeats there is short, and a table that stays in the processor's first cache.
    void set_level(int level) {
        const bool for_pages = level == 1;
        set(ZSTD_c_compressionLevel, level);
        set(ZSTD_c_minMatch, for_pages ? 5 : 0);
        set(ZSTD_c_hashLog, for_pages ? 13 : 0);
        set(ZSTD_c_windowLog, for_pages ? 20 : 0);
        level_ = level;
    }
    void set(ZSTD_cParameter parameter, int value) {
        WV_ASSERT(ZSTD_isError(ZSTD_CCtx_setParameter(context_, parameter, value)) == 0);
    }

    ZSTD_CCtx* context_;
    int level_ = ZSTD_CLEVEL_DEFAULT;
    std::unique_ptr<std::byte[]> scratch_;
    std::size_t scratch_bytes_ = 0;
};

class Decompressor {
public:
    Decompressor() : context_(ZSTD_createDCtx()) { WV_ASSERT(context_ != nullptr); }
    ~Decompressor() { ZSTD_freeDCtx(context_); }
    Decompressor(const Decompressor&) = delete;
    Decompressor& operator=(const Decompressor&) = delete;

    // Where the compressed bytes of a frame are decrypted to; at most kFramePlainBytesMax.
    ByteBuffer& scratch() { return scratch_; }

    // Exactly one zstd frame that announces and gives exactly plain.size() bytes. One-shot
    // decompression uses the output as its window, so no announced window costs memory.
    Result<> decompress(MutableByteSpan plain, ByteSpan compressed) {
        unsigned long long announced =
            ZSTD_getFrameContentSize(compressed.data(), compressed.size());
        if (announced != plain.size() ||
            ZSTD_findFrameCompressedSize(compressed.data(), compressed.size()) != compressed.size())
            return fail(Errc::corrupt, "the compressed bytes are not one zstd frame of " +
                                           std::to_string(plain.size()) + " bytes");
        std::size_t size = ZSTD_decompressDCtx(context_, plain.data(), plain.size(),
                                               compressed.data(), compressed.size());
        if (ZSTD_isError(size) != 0)
            return fail(Errc::corrupt, std::string("decompress: ") + ZSTD_getErrorName(size));
        if (size != plain.size())
            return fail(Errc::corrupt, "decompressing gave " + std::to_string(size) +
                                           " bytes where " + std::to_string(plain.size()) +
                                           " were sealed");
        return {};
    }

private:
    ZSTD_DCtx* context_;
    ByteBuffer scratch_;
};

Compressor& this_threads_compressor() {
    thread_local Compressor compressor;
    return compressor;
}
Decompressor& this_threads_decompressor() {
    thread_local Decompressor decompressor;
    return decompressor;
}

tl::unexpected<Error> bad_frame(const FramePlace& place, const std::string& what) {
    return fail(Errc::corrupt, "frame " + std::to_string(place.frame_number) + " " + what);
}

Result<FrameHeader> check_frame_header(const FramePlace& place, ByteSpan frame) {
    auto header = decode_frame_header(frame);
    if (!header) return fail_while("frame " + std::to_string(place.frame_number), header.error());
    std::size_t has_bytes = frame.size() - kFrameHeaderBytes;
    if (header->sealed_bytes != has_bytes)
        return bad_frame(place, "announces " + std::to_string(header->sealed_bytes) +
                                    " sealed bytes and has " + std::to_string(has_bytes));
    if (header->frame_number != place.frame_number)
        return bad_frame(place, "is missing: frame " + std::to_string(header->frame_number) +
                                    " stands in its place");
    if (header->kind != place.kind)
        return bad_frame(place, "is of kind " + std::to_string(static_cast<int>(header->kind)) +
                                    " where kind " + std::to_string(static_cast<int>(place.kind)) +
                                    " belongs");
    return header;
}

}  // namespace

FileCipher FileCipher::for_new_file(const DataKey& key, FileHeader& header) {
    header.key_id = key.id;
    SecretBytes file_key = derive_file_key(key, header);
    header.tag = header_tag(file_key, header);
    return FileCipher(std::move(file_key), header);
}

Result<FileCipher> FileCipher::for_existing_file(const DataKey& key, const FileHeader& header) {
    if (header.key_id != key.id)
        return fail(Errc::corrupt, "the file is sealed under data key " + to_hex(header.key_id) +
                                       ", not " + to_hex(key.id));
    SecretBytes file_key = derive_file_key(key, header);
    if (!equal_in_constant_time(header_tag(file_key, header), header.tag))
        return fail(Errc::corrupt,
                    "the file header fails authentication under data key " + to_hex(header.key_id));
    return FileCipher(std::move(file_key), header);
}

ByteBuffer FileCipher::seal(const FramePlace& place, ByteSpan plain, int level,
                            std::span<const std::size_t> cuts) const {
    ByteBuffer out;
    seal_into(place, plain, level, out, cuts);
    return out;
}

void FileCipher::seal_into(const FramePlace& place, ByteSpan plain, int level, ByteBuffer& out,
                           std::span<const std::size_t> cuts) const {
    WV_ASSERT(plain.size() <= kFramePlainBytesMax);
    // Encryption carries the bytes over: nothing is copied for its own sake.
    ByteSpan body;
    if (!plain.empty() && level != kNotCompressed)
        body = this_threads_compressor().compress(plain, level, cuts);
    FrameHeader header;
    header.kind = place.kind;
    header.codec = body.empty() ? Codec::stored : Codec::zstd;
    if (body.empty()) body = plain;
    header.frame_number = place.frame_number;
    header.synced_frames = place.synced_frames;
    header.plain_bytes = static_cast<std::uint32_t>(plain.size());
    header.sealed_bytes = static_cast<std::uint32_t>(body.size() + kTagBytes);
    randombytes_buf(header.nonce.data(), header.nonce.size());
    header.commitment = frame_commitment(*key_, header_, header.nonce);
    out.resize(kFrameHeaderBytes + body.size() + kTagBytes);
    encode_frame_header(header, std::span(out).first<kFrameHeaderBytes>());
    std::array<std::byte, kAdditionalDataBytes> bound;
    encode_additional_data(header_, place, header.codec, header.plain_bytes, bound);
    crypto_aead_xchacha20poly1305_ietf_encrypt(raw(out.data() + kFrameHeaderBytes), nullptr,
                                               raw(body.data()), body.size(), raw(bound.data()),
                                               bound.size(), nullptr, raw(header.nonce.data()),
                                               raw(key_->view().data()));
}

Result<ByteBuffer> FileCipher::unseal(const FramePlace& place, ByteSpan frame) const {
    ByteBuffer plain;
    WV_CHECK(unseal_into(place, frame, plain));
    return plain;
}

// A buffer that had as many bytes before is not filled with zeros again.
Result<> FileCipher::unseal_into(const FramePlace& place, ByteSpan frame, ByteBuffer& plain) const {
    auto opened = open_frame(place, frame, plain);
    if (!opened) plain.clear();
    return opened;
}

Result<> FileCipher::open_frame(const FramePlace& place, ByteSpan frame, ByteBuffer& plain) const {
    WV_TRY(FrameHeader header, check_frame_header(place, frame));
    if (!equal_in_constant_time(frame_commitment(*key_, header_, header.nonce), header.commitment))
        return bad_frame(place, "was not sealed for this file, or its header is damaged");
    FramePlace sealed_place = place;
    sealed_place.synced_frames = header.synced_frames;
    std::array<std::byte, kAdditionalDataBytes> bound;
    encode_additional_data(header_, sealed_place, header.codec, header.plain_bytes, bound);
    Decompressor& decompressor = this_threads_decompressor();
    bool stored = header.codec == Codec::stored;
    ByteBuffer& opened = stored ? plain : decompressor.scratch();
    opened.resize(header.sealed_bytes - kTagBytes);
    if (crypto_aead_xchacha20poly1305_ietf_decrypt(
            raw(opened.data()), nullptr, nullptr, raw(frame.data() + kFrameHeaderBytes),
            header.sealed_bytes, raw(bound.data()), bound.size(), raw(header.nonce.data()),
            raw(key_->view().data())) != 0)
        return bad_frame(place,
                         "fails authentication: its bytes or its place are not the sealed ones");
    if (stored) return {};
    plain.resize(header.plain_bytes);
    if (auto whole = decompressor.decompress(plain, opened); !whole)
        return bad_frame(place, "cannot be decompressed: " + whole.error().message);
    return {};
}

bool FileCipher::vouches_for(const FrameHeader& frame) const {
    return equal_in_constant_time(frame_commitment(*key_, header_, frame.nonce), frame.commitment);
}

Id32 FileCipher::keyed_hash(ByteSpan bytes) const {
    Id32 hash;
    blake2b(hash, key_->view(), {bytes});
    return hash;
}

Id16 FileCipher::derived_key(std::string_view purpose) const {
    Id16 key;
    blake2b(key, key_->view(), {as_bytes(purpose)});
    return key;
}

Id32 content_id(const DataKey& content_key, ByteSpan plain) {
    WV_ASSERT(content_key.secret.view().size() == kKeyBytes);
    Id32 id;
    blake2b(id, content_key.secret.view(), {plain});
    return id;
}

Id16 random_id16() {
    require_sodium();
    Id16 id;
    randombytes_buf(id.data(), id.size());
    return id;
}

Id32 plain_hash(ByteSpan first, ByteSpan second) {
    require_sodium();
    Id32 hash;
    blake2b(hash, {}, {first, second});
    return hash;
}

}  // namespace walvault::storage
