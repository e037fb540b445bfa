#include "storage/manifest_pack.h"

namespace walvault::storage {

Result<> read_manifest_pack(ObjectStore& store, const PackReader& reader,
                            const std::function<Result<>(const pb::ManifestHead&)>& on_head,
                            const std::function<Result<>(pb::ManifestFile&)>& on_file) {
    ByteBuffer plain;
    int count = reader.frame_count();
    // The head is the last frame, written when all files were known; it is wanted first.
    for (int n = 0; n < count; ++n) {
        WV_CHECK(reader.read_frame(store, n == 0 ? count - 1 : n - 1, plain));
        pb::ManifestBatch batch;
        if (!batch.ParseFromArray(plain.data(), static_cast<int>(plain.size())) ||
            batch.has_head() != (n == 0))
            return fail(Errc::corrupt, "the manifest " + reader.path() + " cannot be read");
        if (batch.has_head()) WV_CHECK(on_head(batch.head()));
        for (pb::ManifestFile& file : *batch.mutable_files())
            WV_CHECK(on_file(file));
    }
    return {};
}

}  // namespace walvault::storage
