// Objects that are put in parts, none of which anybody sees before the last step.
#pragma once

#include <string>

#include "storage/s3_client.h"

namespace walvault::storage {

// Puts `bytes` under `key` in parts, one after the other; `headers` are the object's. `conditions`
// go with the last step ("if-none-match"). What was begun is aborted if it does not get that far;
// where that fails too, its parts stay in the bucket unseen until a lifecycle rule removes them.
// Errors: as S3Client::perform. A refusal of any step is returned as the answer.
Result<S3Answer> upload_in_parts(S3Client& client, const std::string& key, ByteSpan bytes,
                                 const S3Pairs& headers, const S3Pairs& conditions);

}  // namespace walvault::storage
