#include "storage/s3_answer.h"

#include <algorithm>
#include <charconv>
#include <pugixml.hpp>
#include <sstream>

namespace walvault::storage {
namespace {

constexpr std::size_t kCodeBytesMax = 48;

bool is_word(std::string_view text, std::string_view marks) {
    return !text.empty() && text.size() <= kCodeBytesMax && std::ranges::all_of(text, [&](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               marks.find(c) != std::string_view::npos;
    });
}

tl::unexpected<Error> not_an_answer(const std::string& what) {
    return fail(Error{Errc::corrupt, "the store's answer " + what, {}, Origin::server});
}

Result<> load(pugi::xml_document& document, ByteSpan body) {
    if (document.load_buffer(body.data(), body.size())) return {};
    return not_an_answer("is not well-formed XML");
}

// S3 writes a blank as '+', as forms do, and a '+' as %2B.
Result<std::string> key_decoded(std::string_view text) {
    std::string decoded;
    decoded.reserve(text.size());
    for (std::size_t at = 0; at < text.size(); ++at) {
        std::array<std::byte, 1> byte;
        if (text[at] != '%') {
            decoded += text[at] == '+' ? ' ' : text[at];
        } else if (from_hex(text.substr(at + 1, 2), byte)) {
            decoded += as_text(byte);
            at += 2;
        } else {
            return not_an_answer("has a key that is not encoded as it says");
        }
    }
    return decoded;
}

std::string text_of(const pugi::xml_document& document) {
    std::ostringstream text;
    document.save(text, "", pugi::format_raw | pugi::format_no_declaration);
    return text.str();
}

struct Known {
    std::string_view code;
    S3Failure failure;
};
constexpr Known kKnown[] = {
    {"NoSuchKey", S3Failure::absent},
    {"NoSuchBucket", S3Failure::no_bucket},
    {"NoSuchUpload", S3Failure::no_upload},
    {"InvalidAccessKeyId", S3Failure::bad_key},
    {"SignatureDoesNotMatch", S3Failure::bad_key},
    {"InvalidSecurity", S3Failure::bad_key},
    {"ExpiredToken", S3Failure::expired},
    {"InvalidToken", S3Failure::expired},
    {"TokenRefreshRequired", S3Failure::expired},
    {"RequestTimeTooSkewed", S3Failure::clock},
    {"RequestExpired", S3Failure::clock},
    {"PermanentRedirect", S3Failure::wrong_region},
    {"TemporaryRedirect", S3Failure::wrong_region},
    {"Redirect", S3Failure::wrong_region},
    {"AuthorizationHeaderMalformed", S3Failure::wrong_region},
    {"IllegalLocationConstraintException", S3Failure::wrong_region},
    {"PreconditionFailed", S3Failure::exists},
    {"ConditionalRequestConflict", S3Failure::conflict},
    {"OperationAborted", S3Failure::conflict},
    {"SlowDown", S3Failure::throttled},
    {"Throttling", S3Failure::throttled},
    {"ThrottlingException", S3Failure::throttled},
    {"RequestLimitExceeded", S3Failure::throttled},
    {"BandwidthLimitExceeded", S3Failure::throttled},
    {"RequestTimeout", S3Failure::broken},
    {"InternalError", S3Failure::broken},
    {"ServiceUnavailable", S3Failure::throttled},
    // Bytes were changed on the way; the next attempt sends them again.
    {"BadDigest", S3Failure::broken},
    {"XAmzContentSHA256Mismatch", S3Failure::broken},
    {"IncompleteBody", S3Failure::broken},
    {"QuotaExceeded", S3Failure::full},
    {"InsufficientStorage", S3Failure::full},
    {"XMinioStorageFull", S3Failure::full},
    {"InvalidObjectState", S3Failure::archived},
    {"GlacierExpeditedRetrievalNotAvailable", S3Failure::no_capacity},
    {"InvalidRange", S3Failure::beyond_end},
    {"NotImplemented", S3Failure::not_supported},
};

S3Failure by_status(int status) {
    switch (status) {
        case 301:
        case 302:
        case 307:
        case 308:
            return S3Failure::wrong_region;
        case 401:
        case 403:
            return S3Failure::forbidden;
        case 408:
            return S3Failure::broken;
        case 412:
            return S3Failure::exists;
        case 416:
            return S3Failure::beyond_end;
        case 429:
        case 503:
            return S3Failure::throttled;
        case 501:
            return S3Failure::not_supported;
        case 507:
            return S3Failure::full;
        default:
            break;
    }
    if (status >= 500) return S3Failure::broken;
    return status == 400 ? S3Failure::bad_input : S3Failure::unclear;
}

Errc code_for(S3Failure failure) {
    switch (failure) {
        case S3Failure::absent:
            return Errc::not_found;
        case S3Failure::exists:
            return Errc::refused;
        case S3Failure::full:
            return Errc::no_space;
        case S3Failure::bad_input:
            return Errc::invalid_argument;
        case S3Failure::not_supported:
            return Errc::unsupported;
        case S3Failure::archived:
            return Errc::archived;
        case S3Failure::no_upload:
        case S3Failure::beyond_end:
        case S3Failure::unclear:
            return Errc::io;
        default:
            return Errc::unavailable;
    }
}

std::string hint_for(S3Failure failure, const std::string& region) {
    switch (failure) {
        case S3Failure::no_bucket:
            return "Make the bucket, or correct its name or the endpoint; walvault never makes "
                   "one.";
        case S3Failure::forbidden:
            return "The key needs s3:GetObject, s3:PutObject, s3:DeleteObject and "
                   "s3:AbortMultipartUpload on the "
                   "objects and s3:ListBucket on the bucket; without the last, an absent object is "
                   "forbidden too.";
        case S3Failure::bad_key:
            return "Compare access_key and secret_key with those of the store.";
        case S3Failure::expired:
            return "Put new credentials where these came from; they are read again at the next "
                   "request.";
        case S3Failure::clock:
            return "Set the clock of this machine; S3 allows 15 minutes.";
        case S3Failure::wrong_region:
            return region.empty() ? "Set the region and endpoint of the bucket."
                                  : "region = \"" + region + "\"";
        case S3Failure::full:
            return "Raise the quota or make room.";
        case S3Failure::archived:
            return "It is archived and must be thawed first: `walvault restore` asks the store for "
                   "what "
                   "it needs, and `--dry-run` says what that costs.";
        case S3Failure::no_capacity:
            return "Thaw at another speed (--thaw-speed standard), or try again later.";
        default:
            return {};
    }
}

}  // namespace

S3Code parse_s3_code(const S3Answer& answer) {
    S3Code found;
    pugi::xml_document document;
    std::string_view region = answer.header("x-amz-bucket-region");
    std::string in_body;
    if (!answer.body.empty() && document.load_buffer(answer.body.data(), answer.body.size())) {
        pugi::xml_node error = document.child("Error");
        if (std::string_view code = error.child_value("Code"); is_word(code, "."))
            found.code = code;
        in_body = error.child_value("Region");
    }
    if (region.empty()) region = in_body;
    if (is_word(region, "-")) found.region = region;
    return found;
}

S3Failure s3_failure(const S3Answer& answer) {
    S3Code said = parse_s3_code(answer);
    const auto* known = std::ranges::find(kKnown, said.code, &Known::code);
    return known != std::end(kKnown) ? known->failure : by_status(answer.status);
}

bool is_worth_another_try(S3Failure failure) {
    return failure == S3Failure::conflict || failure == S3Failure::throttled ||
           failure == S3Failure::broken;
}

Error s3_error(const S3Answer& answer) {
    S3Code said = parse_s3_code(answer);
    S3Failure failure = s3_failure(answer);
    std::string message = "the store answered " + std::to_string(answer.status);
    if (!said.code.empty()) message += " " + said.code;
    if (answer.attempts > 1)
        message += " at the last of " + std::to_string(answer.attempts) + " attempts";
    return Error{code_for(failure), message, hint_for(failure, said.region), Origin::server};
}

Result<S3Page> parse_s3_page(ByteSpan body) {
    pugi::xml_document document;
    WV_CHECK(load(document, body));
    pugi::xml_node root = document.child("ListBucketResult");
    if (!root) return not_an_answer("to a list is no list");
    bool encoded = root.child_value("EncodingType") == std::string_view("url");
    S3Page page;
    for (pugi::xml_node object : root.children("Contents")) {
        std::string key = object.child_value("Key");
        if (encoded) {
            WV_TRY(key, key_decoded(key));
        }
        WV_TRY(std::uint64_t size, parse_s3_number(object.child_value("Size")));
        page.entries.push_back(
            {std::move(key), size, parse_s3_class(object.child_value("StorageClass"))});
    }
    std::string_view truncated = root.child_value("IsTruncated");
    if (truncated != "true" && truncated != "false")
        return not_an_answer("does not say whether the list goes on");
    if (truncated == "true") page.next = root.child_value("NextContinuationToken");
    if (truncated == "true" && page.next.empty())
        return not_an_answer("says that the list goes on, and not where");
    return page;
}

Result<S3Uploads> parse_s3_uploads(ByteSpan body) {
    pugi::xml_document document;
    WV_CHECK(load(document, body));
    pugi::xml_node root = document.child("ListMultipartUploadsResult");
    if (!root) return not_an_answer("to a list of uploads is no list");
    const bool encoded = root.child_value("EncodingType") == std::string_view("url");
    const auto key_of = [encoded](const char* text) -> Result<std::string> {
        if (encoded) return key_decoded(text);
        return std::string(text);
    };
    S3Uploads page;
    for (pugi::xml_node upload : root.children("Upload")) {
        WV_TRY(std::string key, key_of(upload.child_value("Key")));
        page.entries.push_back({std::move(key), upload.child_value("UploadId")});
    }
    if (root.child_value("IsTruncated") != std::string_view("true")) return page;
    WV_TRY(page.next_key, key_of(root.child_value("NextKeyMarker")));
    page.next_id = root.child_value("NextUploadIdMarker");
    if (page.next_key.empty())
        return not_an_answer("says that the list of uploads goes on, and not where");
    return page;
}

Result<std::string> parse_s3_upload_id(ByteSpan body) {
    pugi::xml_document document;
    WV_CHECK(load(document, body));
    std::string id = document.child("InitiateMultipartUploadResult").child_value("UploadId");
    if (id.empty()) return not_an_answer("to the start of an upload has no upload id");
    return id;
}

Result<> check_s3_completed(ByteSpan body) {
    pugi::xml_document document;
    WV_CHECK(load(document, body));
    if (document.child("CompleteMultipartUploadResult")) return {};
    return not_an_answer("to the end of an upload is not its result");
}

std::string s3_completion(const std::vector<std::string>& etags) {
    pugi::xml_document document;
    pugi::xml_node root = document.append_child("CompleteMultipartUpload");
    for (std::size_t at = 0; at < etags.size(); ++at) {
        pugi::xml_node part = root.append_child("Part");
        part.append_child("PartNumber").text().set(static_cast<unsigned long long>(at + 1));
        part.append_child("ETag").text().set(etags[at].c_str());
    }
    return text_of(document);
}

std::string s3_retention(const std::string& mode, const std::string& until) {
    pugi::xml_document document;
    pugi::xml_node root = document.append_child("Retention");
    root.append_child("Mode").text().set(mode.c_str());
    root.append_child("RetainUntilDate").text().set(until.c_str());
    return text_of(document);
}

std::string s3_tagging(const std::vector<std::pair<std::string, std::string>>& tags) {
    pugi::xml_document document;
    pugi::xml_node set = document.append_child("Tagging").append_child("TagSet");
    for (const auto& [name, value] : tags) {
        pugi::xml_node tag = set.append_child("Tag");
        tag.append_child("Key").text().set(name.c_str());
        tag.append_child("Value").text().set(value.c_str());
    }
    return text_of(document);
}

Result<std::uint64_t> parse_s3_number(std::string_view text) {
    std::uint64_t number = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size())
        return not_an_answer("has a size that is no number");
    return number;
}

std::string parse_s3_class(std::string_view text) {
    return is_word(text, "_-") ? std::string(text) : std::string();
}

Result<S3Range> parse_s3_range(std::string_view text) {
    constexpr std::string_view kUnit = "bytes ";
    std::size_t dash = text.find('-');
    std::size_t slash = text.find('/');
    if (!text.starts_with(kUnit) || dash == std::string_view::npos ||
        slash == std::string_view::npos || slash < dash)
        return not_an_answer("to a range does not say which range it is");
    S3Range range;
    WV_TRY(range.first, parse_s3_number(text.substr(kUnit.size(), dash - kUnit.size())));
    WV_TRY(range.last, parse_s3_number(text.substr(dash + 1, slash - dash - 1)));
    WV_TRY(range.size, parse_s3_number(text.substr(slash + 1)));
    if (range.last < range.first || range.last >= range.size)
        return not_an_answer("to a range has one that cannot be");
    return range;
}

}  // namespace walvault::storage
