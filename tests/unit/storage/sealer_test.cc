#include "storage/sealer.h"

#include <sodium.h>
#include <zstd.h>

#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <random>
#include <thread>

#include "tests/unit/storage/fixtures.h"

namespace walvault::storage {
namespace {

struct SealedFile {
    DataKey key = test_data_key(0x50);
    FileHeader header = test_wal_header();
    FileCipher cipher = FileCipher::for_new_file(key, header);
};

ByteBuffer random_bytes(std::size_t size) {
    require_sodium();
    ByteBuffer bytes(size);
    if (size != 0) randombytes_buf(bytes.data(), size);
    return bytes;
}

Errc unseal_error(const FileCipher& cipher, const FramePlace& place, ByteSpan frame) {
    auto plain = cipher.unseal(place, frame);
    REQUIRE_FALSE(plain.has_value());
    CHECK_FALSE(plain.error().message.empty());
    return plain.error().code;
}

ByteBuffer from_hex_text(std::string_view text) {
    ByteBuffer bytes(text.size() / 2);
    REQUIRE(from_hex(text, bytes));
    return bytes;
}

unsigned char* raw(ByteBuffer& bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }

// Additional data and key of the frame, by the grammar in docs/formats.md.
ByteBuffer encrypt_by_grammar(const SealedFile& file, const FramePlace& place, ByteSpan body,
                              Codec codec, std::uint32_t plain_bytes) {
    ByteBuffer seed;
    append(seed, as_bytes("walvault file 1"));
    append(seed, file.header.repository_id);
    append(seed, file.header.file_id);
    ByteBuffer file_key(32);
    ByteBuffer data_key(file.key.secret.view().begin(), file.key.secret.view().end());
    crypto_generichash(raw(file_key), 32, raw(seed), seed.size(), raw(data_key), 32);
    FrameHeader header;
    header.kind = place.kind;
    header.codec = codec;
    header.frame_number = place.frame_number;
    header.plain_bytes = plain_bytes;
    header.sealed_bytes = static_cast<std::uint32_t>(body.size() + kTagBytes);
    header.nonce = filled<24>(0x77);
    ByteBuffer committed;
    append(committed, as_bytes("commit"));
    append(committed, file.header.file_id);
    append(committed, header.nonce);
    ByteBuffer commitment(16);
    crypto_generichash(raw(commitment), 16, raw(committed), committed.size(), raw(file_key), 32);
    std::ranges::copy(commitment, header.commitment.begin());
    ByteBuffer bound(kAdditionalDataBytes);
    encode_additional_data(file.header, place, codec, plain_bytes,
                           std::span(bound).first<kAdditionalDataBytes>());
    ByteBuffer nonce(header.nonce.begin(), header.nonce.end());
    ByteBuffer plain(body.begin(), body.end());
    ByteBuffer sealed(body.size() + kTagBytes);
    crypto_aead_xchacha20poly1305_ietf_encrypt(raw(sealed), nullptr, raw(plain), plain.size(),
                                               raw(bound), bound.size(), nullptr, raw(nonce),
                                               raw(file_key));
    ByteBuffer frame(kFrameHeaderBytes);
    encode_frame_header(header, std::span(frame).first<kFrameHeaderBytes>());
    append(frame, sealed);
    return frame;
}

}  // namespace

TEST_CASE("a sealed frame opens to the same bytes, of any size and content") {
    SealedFile file;
    for (std::size_t size : {0u, 1u, 15u, 64u, 4'096u, 1'000'000u, 8u << 20}) {
        for (bool compressible : {true, false}) {
            ByteBuffer plain = compressible ? compressible_bytes(size) : random_bytes(size);
            FramePlace place = wal_place(7, 100, 100 + size);
            ByteBuffer frame = file.cipher.seal(place, plain, 3);
            CHECK(frame.size() <= kFrameHeaderBytes + size + kTagBytes);
            auto opened = file.cipher.unseal(place, frame);
            REQUIRE(opened.has_value());
            CHECK(*opened == plain);
        }
    }
}

TEST_CASE("what zstd makes smaller is compressed, what it does not is stored") {
    SealedFile file;
    FramePlace place = wal_place(0, 0, 100'000);
    auto codec_of = [&](ByteSpan plain) {
        return decode_frame_header(file.cipher.seal(place, plain, 3)).value().codec;
    };
    CHECK(codec_of(compressible_bytes(100'000)) == Codec::zstd);
    CHECK(codec_of(random_bytes(100'000)) == Codec::stored);
    CHECK(codec_of({}) == Codec::stored);
}

TEST_CASE("blocks that begin where the bytes change make one frame, and a smaller one") {
    SealedFile file;
    // Bytes that cannot be compressed, and bytes that can, with other letters.
    ByteBuffer plain = random_bytes(40'000);
    const std::size_t cut = plain.size();
    for (int i = 0; i < 40'000; ++i)
        plain.push_back(static_cast<std::byte>(
            "abcd"[std::to_integer<int>(plain[static_cast<std::size_t>(i)]) >> 6]));
    const auto sealed_bytes = [&](std::vector<std::size_t> cuts) {
        const FramePlace place = wal_place(1, 0, plain.size());
        const ByteBuffer frame = file.cipher.seal(place, plain, 6, cuts);
        CHECK(file.cipher.unseal(place, frame).value() == plain);
        return frame.size();
    };
    const std::size_t whole = sealed_bytes({});
    CHECK(sealed_bytes({cut}) < whole - 500);
    CHECK(sealed_bytes({1, 2, cut, plain.size() - 1}) < whole - 500);
    const ByteBuffer incompressible = random_bytes(5000);
    const std::vector<std::size_t> cuts = {10, 4000};
    const ByteBuffer frame = file.cipher.seal(wal_place(1, 0, 5000), incompressible, 6, cuts);
    CHECK(decode_frame_header(frame).value().codec == Codec::stored);
}

TEST_CASE("every compression level opens, also when levels alternate on one thread") {
    SealedFile file;
    ByteBuffer plain = compressible_bytes(50'000);
    std::size_t size_at_1 = 0;
    for (int level : {1, 19, -5, 3, 0, 1, 400}) {
        ByteBuffer frame = file.cipher.seal(wal_place(1, 0, plain.size()), plain, level);
        CHECK(file.cipher.unseal(wal_place(1, 0, plain.size()), frame).value() == plain);
        if (level == 1 && size_at_1 != 0) CHECK(frame.size() == size_at_1);
        if (level == 1) size_at_1 = frame.size();
    }
}

TEST_CASE("a buffer that had another frame before, longer or shorter, holds the new one alone") {
    SealedFile file;
    ByteBuffer frame;
    for (std::size_t size : {70'000u, 1'000u, 0u, 200'000u}) {
        ByteBuffer plain = size == 1'000 ? random_bytes(size) : compressible_bytes(size);
        FramePlace place = wal_place(7, 100, 100 + size);
        file.cipher.seal_into(place, plain, 1, frame);
        CHECK(file.cipher.unseal(place, frame).value() == plain);
    }
}

// Pages whose rows share only short runs: level 1 has to find five bytes.
TEST_CASE(
    "level 1 finds short repeats as they are in pages, and leaves other levels as they were") {
    SealedFile file;
    std::mt19937 random(11);
    ByteBuffer plain(1 << 20);
    for (std::size_t at = 0; at + 8 <= plain.size(); at += 8) {
        const std::array<std::uint8_t, 8> row{7,
                                              0,
                                              0,
                                              static_cast<std::uint8_t>(random() % 4),
                                              9,
                                              static_cast<std::uint8_t>(random()),
                                              static_cast<std::uint8_t>(random()),
                                              static_cast<std::uint8_t>(random())};
        std::memcpy(plain.data() + at, row.data(), row.size());
    }
    auto bytes_at = [&](int level) {
        return file.cipher.seal(wal_place(1, 0, plain.size()), plain, level).size();
    };
    const std::size_t at_2 = bytes_at(2), at_3 = bytes_at(3), at_1 = bytes_at(1);
    // zstd's own level 1 looks for seven bytes, and is a fifth larger than level 2 here.
    CHECK(at_1 < at_2 + at_2 / 20);
    CHECK(bytes_at(2) == at_2);
    CHECK(bytes_at(3) == at_3);
    CHECK(bytes_at(1) == at_1);
}

TEST_CASE("sealing in place gives what libsodium gives with separate buffers") {
    SealedFile file;
    ByteBuffer plain = random_bytes(100'003);
    FramePlace place = wal_place(2, 5, 5 + plain.size());
    ByteBuffer frame = file.cipher.seal(place, plain, 1);
    FrameHeader header = decode_frame_header(frame).value();
    REQUIRE(header.codec == Codec::stored);
    // Decrypting with separate buffers and sealing by the written grammar both agree with it.
    CHECK(file.cipher.unseal(place, frame).value() == plain);
    ByteBuffer by_grammar = encrypt_by_grammar(file, place, plain, Codec::stored,
                                               static_cast<std::uint32_t>(plain.size()));
    CHECK(file.cipher.unseal(place, by_grammar).value() == plain);

    ByteBuffer key = random_bytes(32), nonce = random_bytes(24), bound = random_bytes(208);
    ByteBuffer apart(plain.size() + kTagBytes), in_place = plain;
    in_place.resize(plain.size() + kTagBytes);
    crypto_aead_xchacha20poly1305_ietf_encrypt(raw(apart), nullptr, raw(plain), plain.size(),
                                               raw(bound), bound.size(), nullptr, raw(nonce),
                                               raw(key));
    crypto_aead_xchacha20poly1305_ietf_encrypt(raw(in_place), nullptr, raw(in_place), plain.size(),
                                               raw(bound), bound.size(), nullptr, raw(nonce),
                                               raw(key));
    CHECK(apart == in_place);
}

TEST_CASE("sealing twice never gives the same nonce") {
    SealedFile file;
    auto first = decode_frame_header(file.cipher.seal(wal_place(0, 0, 0), {}, 3)).value();
    auto second = decode_frame_header(file.cipher.seal(wal_place(0, 0, 0), {}, 3)).value();
    CHECK(first.nonce != second.nonce);
}

TEST_CASE("every flipped bit of a sealed frame is detected") {
    SealedFile file;
    for (const ByteBuffer& plain : {compressible_bytes(900), random_bytes(40), ByteBuffer{}}) {
        FramePlace place = wal_place(3, 1'000, 1'000 + plain.size());
        ByteBuffer frame = file.cipher.seal(place, plain, 3);
        for (std::size_t bit = 0; bit < frame.size() * 8; ++bit) {
            frame[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
            INFO("bit " << bit);
            CHECK(unseal_error(file.cipher, place, frame) == Errc::corrupt);
            frame[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
        }
        CHECK(file.cipher.unseal(place, frame).value() == plain);
    }
}

TEST_CASE("a frame that is shorter or longer than sealed is detected at every length") {
    SealedFile file;
    ByteBuffer plain = compressible_bytes(500);
    FramePlace place = wal_place(3, 0, 500);
    ByteBuffer frame = file.cipher.seal(place, plain, 3);
    for (std::size_t size = 0; size < frame.size(); ++size)
        CHECK(unseal_error(file.cipher, place, ByteSpan(frame).first(size)) == Errc::corrupt);
    frame.push_back(std::byte{0});
    CHECK(unseal_error(file.cipher, place, frame) == Errc::corrupt);
}

TEST_CASE("a frame opens at no place but its own") {
    SealedFile file;
    ByteBuffer plain = compressible_bytes(200);
    FramePlace place = wal_place(3, 4'000, 4'200);
    place.content_id = filled<32>(0x66);
    ByteBuffer frame = file.cipher.seal(place, plain, 3);
    std::vector<std::function<void(FramePlace&)>> changes = {
        [](FramePlace& p) { p.kind = FrameKind::footer; },
        [](FramePlace& p) { p.frame_number = 4; },
        [](FramePlace& p) { p.start = 4'001; },
        [](FramePlace& p) { p.end = 4'201; },
        [](FramePlace& p) { p.content_id[31] ^= std::byte{1}; },
        [](FramePlace& p) { p.final = true; },
    };
    for (std::size_t i = 0; i < changes.size(); ++i) {
        FramePlace other = place;
        changes[i](other);
        INFO("change " << i);
        CHECK(unseal_error(file.cipher, other, frame) == Errc::corrupt);
    }
}

TEST_CASE(
    "the count of synced frames is authenticated and taken from the header, not from the place") {
    SealedFile file;
    FramePlace place = wal_place(9, 0, 5);
    place.synced_frames = 7;
    ByteBuffer frame = file.cipher.seal(place, as_bytes("plain"), 3);
    CHECK(decode_frame_header(frame).value().synced_frames == 7);
    CHECK(file.cipher.unseal(wal_place(9, 0, 5), frame).has_value());
    frame[20] = std::byte{8};
    CHECK(unseal_error(file.cipher, wal_place(9, 0, 5), frame) == Errc::corrupt);
}

TEST_CASE("a frame opens in no file but its own") {
    SealedFile file;
    ByteBuffer plain = compressible_bytes(200);
    FramePlace place = wal_place(0, 0, 200);
    ByteBuffer frame = file.cipher.seal(place, plain, 3);
    std::vector<std::function<void(FileHeader&)>> changes = {
        [](FileHeader& h) { h.stream = StreamKind::journal; },
        [](FileHeader& h) { h.server_version_num += 1; },
        [](FileHeader& h) { h.timeline += 1; },
        [](FileHeader& h) { h.segment_bytes *= 2; },
        [](FileHeader& h) { h.system_identifier += 1; },
        [](FileHeader& h) { h.start_lsn.value += 1; },
        [](FileHeader& h) { h.generation += 1; },
        [](FileHeader& h) { h.repository_id[0] ^= std::byte{1}; },
        [](FileHeader& h) { h.cluster_id[0] ^= std::byte{1}; },
        [](FileHeader& h) { h.history_id[0] ^= std::byte{1}; },
        [](FileHeader& h) { h.file_id[0] ^= std::byte{1}; },
    };
    for (std::size_t i = 0; i < changes.size(); ++i) {
        INFO("change " << i);
        FileHeader other = file.header;
        changes[i](other);
        // With the old tag the header itself is refused; sealed anew, the frame does not fit it.
        CHECK(FileCipher::for_existing_file(file.key, other).error().code == Errc::corrupt);
        FileCipher cipher = FileCipher::for_new_file(file.key, other);
        CHECK(unseal_error(cipher, place, frame) == Errc::corrupt);
    }
    DataKey other_key = test_data_key(0x60);
    CHECK(FileCipher::for_existing_file(other_key, file.header).error().code == Errc::corrupt);
    other_key.id = file.key.id;
    CHECK(FileCipher::for_existing_file(other_key, file.header).error().code == Errc::corrupt);
    auto again = FileCipher::for_existing_file(file.key, file.header);
    REQUIRE(again.has_value());
    CHECK(again->unseal(place, frame).value() == plain);
}

TEST_CASE("authentic frames whose compressed bytes lie about their length are refused") {
    SealedFile file;
    FramePlace place = wal_place(0, 0, 0);
    ByteBuffer plain = compressible_bytes(3'000);
    ByteBuffer packed(ZSTD_compressBound(plain.size()));
    packed.resize(ZSTD_compress(packed.data(), packed.size(), plain.data(), plain.size(), 3));
    auto sealed = [&](ByteSpan body, std::uint32_t plain_bytes) {
        return encrypt_by_grammar(file, place, body, Codec::zstd, plain_bytes);
    };
    CHECK(file.cipher.unseal(place, sealed(packed, 3'000)).value() == plain);
    CHECK(unseal_error(file.cipher, place, sealed(packed, 2'999)) == Errc::corrupt);
    CHECK(unseal_error(file.cipher, place, sealed(packed, 3'001)) == Errc::corrupt);
    CHECK(unseal_error(file.cipher, place, sealed(random_bytes(100), 3'000)) == Errc::corrupt);
    ByteBuffer twice = packed;
    append(twice, packed);
    if (twice.size() < 6'000)
        CHECK(unseal_error(file.cipher, place, sealed(twice, 6'000)) == Errc::corrupt);
    ByteBuffer cut(packed.begin(), packed.end() - 5);
    CHECK(unseal_error(file.cipher, place, sealed(cut, 3'000)) == Errc::corrupt);
}

TEST_CASE("a refused frame leaves no bytes in the caller's buffer") {
    SealedFile file;
    ByteBuffer frame = file.cipher.seal(wal_place(0, 0, 5), as_bytes("plain"), 3);
    frame.back() ^= std::byte{1};
    ByteBuffer buffer = random_bytes(64);
    CHECK_FALSE(file.cipher.unseal_into(wal_place(0, 0, 5), frame, buffer).has_value());
    CHECK(buffer.empty());
}

TEST_CASE("one cipher seals and unseals on several threads at once") {
    SealedFile file;
    std::atomic<int> whole{0};
    std::vector<std::thread> threads;
    for (std::uint32_t number = 0; number < 4; ++number) {
        threads.emplace_back([&, number] {
            ByteBuffer plain = compressible_bytes(30'000 + number);
            for (int round = 0; round < 20; ++round) {
                FramePlace place = wal_place(number, 0, plain.size());
                auto opened =
                    file.cipher.unseal(place, file.cipher.seal(place, plain, 1 + round % 3));
                if (opened && *opened == plain) ++whole;
            }
        });
    }
    for (std::thread& thread : threads)
        thread.join();
    CHECK(whole == 80);
}

TEST_CASE("XChaCha20-Poly1305 gives the published test vector") {
    // draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    ByteBuffer plain(114);
    std::ranges::copy(
        as_bytes("Ladies and Gentlemen of the class of '99: If I could offer you only one "
                 "tip for the future, sunscreen would be it."),
        plain.begin());
    ByteBuffer bound = from_hex_text("50515253c0c1c2c3c4c5c6c7");
    ByteBuffer key =
        from_hex_text("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
    ByteBuffer nonce = from_hex_text("404142434445464748494a4b4c4d4e4f5051525354555657");
    ByteBuffer sealed(plain.size() + kTagBytes);
    crypto_aead_xchacha20poly1305_ietf_encrypt(raw(sealed), nullptr, raw(plain), plain.size(),
                                               raw(bound), bound.size(), nullptr, raw(nonce),
                                               raw(key));
    CHECK(to_hex(sealed) ==
          "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f"
          "4eda7e39"
          "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b23835"
          "65d3fff9"
          "21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49");
}

TEST_CASE("BLAKE2b gives the published keyed and unkeyed hashes") {
    // RFC 7693 appendix A has BLAKE2b-512("abc"); the keyed one is the second of the reference
    // implementation's vectors (key 00..3f, message 00).
    ByteBuffer hash(64), abc(as_bytes("abc").begin(), as_bytes("abc").end());
    crypto_generichash(raw(hash), 64, raw(abc), abc.size(), nullptr, 0);
    CHECK(to_hex(hash) ==
          "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
          "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923");
    ByteBuffer key(64), zero(1);
    for (unsigned i = 0; i < 64; ++i)
        key[i] = static_cast<std::byte>(i);
    crypto_generichash(raw(hash), 64, raw(zero), 1, raw(key), 64);
    CHECK(to_hex(hash) ==
          "961f6dd1e4dd30f63901690c512e78e4b45e4742ed197c3c5e45c549fd25f2e4"
          "187b0bc9fe30492b16b0d0bc4ef9b0f34c7003fac09a5ef1532e69430234cebd");
    CHECK(to_hex(plain_hash(as_bytes("ab"), as_bytes("c"))) ==
          "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
}

TEST_CASE("content ids depend on the bytes and on the key") {
    DataKey key = test_data_key(1), other = test_data_key(2);
    CHECK(content_id(key, as_bytes("a")) == content_id(key, as_bytes("a")));
    CHECK(content_id(key, as_bytes("a")) != content_id(key, as_bytes("b")));
    CHECK(content_id(key, as_bytes("a")) != content_id(other, as_bytes("a")));
    CHECK(random_id16() != random_id16());
}

}  // namespace walvault::storage
