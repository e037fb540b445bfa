#include "storage/staging_file.h"

#include <sodium.h>

#include "storage/repository_files.h"

namespace walvault::storage {
namespace {

constexpr int kLevel = 1;  // zstd

DataKey random_key() {
    DataKey key;
    key.id = random_id16();
    key.purpose = pb::KEY_PURPOSE_JOURNAL;
    key.secret = SecretBytes(32);
    randombytes_buf(key.secret.mutable_view().data(), 32);
    return key;
}

}  // namespace

FramePlace StagingFile::place_of(std::size_t number) {
    FramePlace place;
    place.frame_number = static_cast<std::uint32_t>(number);
    return place;
}

Result<std::unique_ptr<StagingFile>> StagingFile::create(FileSystem& files,
                                                         const std::string& directory) {
    FileHeader header;
    header.stream = StreamKind::journal;
    header.file_id = random_id16();
    const DataKey key = random_key();
    FileCipher cipher = FileCipher::for_new_file(key, header);
    const std::string path = directory + "/.staging-" + to_hex(header.file_id) + ".tmp";
    WV_TRY(auto file, files.create(path));
    WV_CHECK(files.remove(path));
    return std::unique_ptr<StagingFile>(new StagingFile(std::move(file), std::move(cipher)));
}

Result<> StagingFile::append(ByteSpan block) {
    const ByteBuffer sealed = cipher_.seal(place_of(blocks_.size()), block, kLevel);
    WV_CHECK(file_->write(sealed));
    blocks_.push_back({stored_bytes_, static_cast<std::uint32_t>(sealed.size()),
                       static_cast<std::uint32_t>(block.size())});
    stored_bytes_ += sealed.size();
    return {};
}

Result<> StagingFile::read(std::size_t number, ByteBuffer& block) const {
    const Block& at = blocks_[number];
    ByteBuffer sealed(at.stored_bytes);
    WV_TRY(const std::size_t count, file_->read_at(at.offset, sealed));
    if (count != sealed.size())
        return fail(Errc::io, "a staging file is shorter than what was written to it");
    return cipher_.unseal_into(place_of(number), sealed, block);
}

}  // namespace walvault::storage
