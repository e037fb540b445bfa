// Objects that are put in parts, none of which anybody sees before the last step.
#pragma once

#include <string>

#include "storage/s3_client.h"

namespace walvault::storage {

struct S3Uploaded {
    Result<S3Answer> answer;  // the last one; a refusal of any step is one
    // All parts were put and the last step had no good answer: the object may be there, and where
    // it is not, another upload can help. A gateway that died in that step may keep the upload
    // locked for minutes, and one that was carried out is not known any more.
    bool at_completion = false;
    bool left = false;
};

// Puts `size_bytes` of `source` under `key` in parts, a few at once and one more, which is digested
// meanwhile; of a far source so many are in memory. `headers` are the object's.
// `conditions` go with the last step ("if-none-match"). What was begun is aborted if it does not
// get that far; where that fails too, `left` is true: its parts stay in the bucket unseen until
// somebody aborts it. Errors of the answer: as S3Client::perform, and those of `source`.
S3Uploaded upload_in_parts(S3Client& client, const std::string& key, std::uint64_t size_bytes,
                           const ObjectSource& source, const S3Pairs& headers,
                           const S3Pairs& conditions);

// Aborts the upload; success also if there is none. Errors: as S3Client::perform.
Result<> abort_upload(S3Client& client, const std::string& key, const std::string& id);

}  // namespace walvault::storage
