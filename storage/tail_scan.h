// TailScan: reads a tail from its start to its last whole frame, and tells a torn end from damage.
//
// What a frame holds is for the class derived from it: WAL, or batches of a journal.
#pragma once

#include <optional>
#include <string>

#include "storage/pack_reader.h"

namespace walvault::storage {

class TailScan {
public:
    virtual ~TailScan() = default;

protected:
    // `content`: what is lost where a frame is, for messages.
    TailScan(ObjectStore& store, std::string path, FileCipher cipher, std::uint64_t size,
             std::string content);

    // Reads all of it. `witness`: so many frames are known to be synced; `reached`: up to there
    // they are (zero: not known). What is damaged is told in damage_. Errors: io, unavailable.
    Result<> run(std::uint32_t witness, Lsn reached);

    // Where a frame ends that begins at end_lsn_, as far as its place in the file says.
    virtual Lsn frame_end(const FrameHeader& header) const = 0;
    // Authentic frames in order. They move end_lsn_ and add to footer_; `entry` has the frame's
    // place, length and tag. An error ends the scan there: a torn end, unless damage_ was set.
    virtual Result<> take_quiet(ByteSpan plain) = 0;
    virtual Result<> take_content(ByteSpan plain, pb::FrameEntry entry) = 0;

    const std::string& path() const { return path_; }
    const FileCipher& cipher() const { return cipher_; }
    std::uint32_t frame_number() const { return frame_number_; }  // frames that were taken
    std::uint32_t synced_frames() const { return synced_frames_; }
    std::uint64_t torn_bytes() const { return torn_bytes_; }
    // At the end.
    std::shared_ptr<const PackReader> take_reader();

    Lsn end_lsn_;
    std::optional<Error> damage_;
    pb::PackFooter footer_;

private:
    enum class Step { frame, footer };
    // Reads an object forward through one buffer, so that a tail of small frames is not a read
    // each.
    class ForwardReader {
    public:
        ForwardReader(ObjectStore& store, const std::string& path, std::uint64_t size)
            : store_(store), path_(path), size_(size) {}
        // A view of `length` bytes at `offset`, shorter at the end; valid until the next call.
        Result<ByteSpan> view(std::uint64_t offset, std::uint64_t length);

    private:
        ObjectStore& store_;
        const std::string& path_;
        std::uint64_t size_;
        std::uint64_t start_ = 0;
        ByteBuffer buffer_;
    };

    Result<Step> take_frame();
    Result<bool> only_zeros_follow();
    Result<> look_behind(const Error& error);
    void compare_with(Lsn reached);

    std::string path_;
    std::string content_;
    FileCipher cipher_;
    std::uint64_t size_;
    ForwardReader forward_;
    std::uint64_t offset_ = kFileHeaderBytes;
    std::uint32_t frame_number_ = 0;
    std::uint32_t synced_frames_ = 0;
    std::uint64_t torn_bytes_ = 0;
    ByteBuffer plain_;
};

}  // namespace walvault::storage
