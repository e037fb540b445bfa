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
};

// Puts `bytes` under `key` in parts, one after the other; `headers` are the object's. `conditions`
// go with the last step ("if-none-match"). What was begun is aborted if it does not get that far;
// where that fails too, its parts stay in the bucket unseen until a lifecycle rule removes them.
// Errors of the answer: as S3Client::perform.
S3Uploaded upload_in_parts(S3Client& client, const std::string& key, ByteSpan bytes,
                           const S3Pairs& headers, const S3Pairs& conditions);

}  // namespace walvault::storage
