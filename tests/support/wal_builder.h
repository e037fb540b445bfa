// WalBuilder: writes valid WAL pages and records for tests, which then damage what they want
// damaged.
#pragma once

#include <algorithm>
#include <optional>
#include <string_view>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "proto/lsn.h"
#include "proto/wal_decoder.h"

namespace walvault {

// As they lie in a record.
inline ByteBuffer words(std::initializer_list<std::uint32_t> values) {
    ByteBuffer bytes;
    for (std::uint32_t value : values)
        append_le(bytes, value);
    return bytes;
}

class WalBuilder {
public:
    static constexpr std::uint64_t kSegmentBytes = 1 << 20;
    static constexpr std::uint64_t kSystem = 7'000'000'000'000'000'001;

    static constexpr std::uint16_t kPageMagic15 = 0xD110;

    // `start` is the start of a page.
    explicit WalBuilder(Lsn start, TimelineId timeline = 1, std::uint16_t page_magic = kPageMagic15)
        : start_(start.value),
          position_(start.value),
          timeline_(timeline),
          page_magic_(page_magic) {}

    struct Record {
        std::uint8_t rmgr = 0;
        std::uint8_t info = 0;
        Xid xid = 0;
        ByteBuffer body = {};
    };
    // Returns the record's start. `bytes_max` of it are written: less leaves it cut off.
    Lsn add(const Record& record, std::size_t bytes_max = ~std::size_t{0}) {
        align();
        if (position_ % kWalPageBytes == 0) add_page_header(0, 0);
        const Lsn at{position_};
        ByteBuffer bytes = encoded(record);
        ByteSpan rest = ByteSpan(bytes).first(std::min(bytes_max, bytes.size()));
        while (!rest.empty()) {
            if (position_ % kWalPageBytes == 0) {
                const std::size_t done = static_cast<std::size_t>(rest.data() - bytes.data());
                add_page_header(kContinuation, static_cast<std::uint32_t>(bytes.size() - done));
            }
            const auto room = kWalPageBytes - position_ % kWalPageBytes;
            const std::size_t count = std::min<std::uint64_t>(rest.size(), room);
            put(rest.first(count));
            rest = rest.subspan(count);
        }
        if (bytes_max >= bytes.size()) previous_ = at.value;
        return at;
    }
    // XLOG_SWITCH, and zeros to the end of the segment, page headers included, as the server writes
    // them.
    Lsn add_switch() {
        const Lsn at = add({.rmgr = 0, .info = 0x40});
        const std::uint64_t rest = kSegmentBytes - position_ % kSegmentBytes;
        put(ByteBuffer(rest == kSegmentBytes ? 0 : rest));
        return at;
    }
    // A page that gives up the record at `overwritten`, and the record that says so.
    Lsn add_overwrite(Lsn overwritten) {
        fill_page();
        add_page_header(kOverwrite, 0);
        ByteBuffer data;
        append_le(data, overwritten.value);
        append_le(data, std::int64_t{0});
        return add({.rmgr = 0, .info = 0xD0, .body = main_data(data)});
    }
    // Goes back to the end of a record; `previous` is the start of the last one that stays.
    void cut(Lsn end, Lsn previous) {
        bytes_.resize(end - start());
        position_ = end.value;
        previous_ = previous.value;
    }
    // Of the pages from now on.
    void set_timeline(TimelineId timeline) { timeline_ = timeline; }
    Lsn previous() const { return Lsn{previous_}; }
    // Zeros to where the next record can begin.
    void align() { put(ByteBuffer((8 - position_ % 8) % 8)); }
    void fill_page() {
        const std::uint64_t over = position_ % kWalPageBytes;
        if (over != 0) put(ByteBuffer(kWalPageBytes - over));
    }

    static ByteBuffer main_data(ByteSpan data) {
        ByteBuffer body;
        if (data.size() < 256) {
            body.push_back(std::byte{255});
            body.push_back(static_cast<std::byte>(data.size()));
        } else {
            body.push_back(std::byte{254});
            append_le(body, static_cast<std::uint32_t>(data.size()));
        }
        append(body, data);
        return body;
    }
    // One block reference with `block_data`, then main data.
    static ByteBuffer block_and_main(const RelationFile& file, ByteSpan block_data, ByteSpan main) {
        ByteBuffer body;
        body.push_back(std::byte{0});
        body.push_back(std::byte{0x20});
        append_le(body, static_cast<std::uint16_t>(block_data.size()));
        for (std::uint32_t part : {file.tablespace, file.database, file.relation, 0U})
            append_le(body, part);
        body.push_back(std::byte{255});
        body.push_back(static_cast<std::byte>(main.size()));
        append(body, block_data);
        append(body, main);
        return body;
    }
    // The same with a page image before it, whose info byte is `image_info`; with `hole_bytes` the
    // length of the image's hole is written too.
    static ByteBuffer block_with_image(const RelationFile& file, std::uint8_t image_info,
                                       std::optional<std::uint16_t> hole_bytes, ByteSpan main) {
        const ByteBuffer image(100, std::byte{0xEE});
        ByteBuffer body;
        body.push_back(std::byte{0});
        body.push_back(std::byte{0x10});
        append_le(body, std::uint16_t{0});
        append_le(body, static_cast<std::uint16_t>(image.size()));
        append_le(body, std::uint16_t{40});  // where the hole begins
        body.push_back(static_cast<std::byte>(image_info));
        if (hole_bytes) append_le(body, *hole_bytes);
        for (std::uint32_t part : {file.tablespace, file.database, file.relation, 0U})
            append_le(body, part);
        body.push_back(std::byte{255});
        body.push_back(static_cast<std::byte>(main.size()));
        append(body, image);
        append(body, main);
        return body;
    }
    static Record commit(Xid xid, std::int64_t postgres_micros) {
        ByteBuffer data;
        append_le(data, postgres_micros);
        return {.rmgr = 1, .info = 0x00, .xid = xid, .body = main_data(data)};
    }

    Lsn start() const { return Lsn{start_}; }
    Lsn end() const { return Lsn{position_}; }
    ByteBuffer& bytes() { return bytes_; }
    const ByteBuffer& bytes() const { return bytes_; }
    std::byte* at(Lsn lsn) { return bytes_.data() + (lsn.value - start_); }

private:
    static constexpr std::uint16_t kContinuation = 1;
    static constexpr std::uint16_t kLong = 2;
    static constexpr std::uint16_t kOverwrite = 8;

    void put(ByteSpan bytes) {
        append(bytes_, bytes);
        position_ += bytes.size();
    }
    void add_page_header(std::uint16_t flags, std::uint32_t rest_bytes) {
        const bool is_long = position_ % kSegmentBytes == 0;
        ByteBuffer header;
        append_le(header, page_magic_);
        append_le(header, static_cast<std::uint16_t>(flags | (is_long ? kLong : 0)));
        append_le(header, timeline_);
        append_le(header, position_);
        append_le(header, rest_bytes);
        append_le(header, std::uint32_t{0});
        if (is_long) {
            append_le(header, kSystem);
            append_le(header, static_cast<std::uint32_t>(kSegmentBytes));
            append_le(header, kWalPageBytes);
        }
        put(header);
    }
    ByteBuffer encoded(const Record& record) const {
        ByteBuffer bytes;
        append_le(bytes, static_cast<std::uint32_t>(24 + record.body.size()));
        append_le(bytes, record.xid);
        append_le(bytes, previous_);
        bytes.push_back(static_cast<std::byte>(record.info));
        bytes.push_back(static_cast<std::byte>(record.rmgr));
        append_le(bytes, std::uint16_t{0});
        const std::uint32_t body_crc = crc32c_extend(kCrc32cInit, record.body);
        append_le(bytes, crc32c_finish(crc32c_extend(body_crc, bytes)));
        append(bytes, record.body);
        return bytes;
    }

    std::uint64_t start_;
    std::uint64_t position_;
    std::uint64_t previous_ = 0;
    TimelineId timeline_;
    std::uint16_t page_magic_;
    ByteBuffer bytes_;
};

}  // namespace walvault
