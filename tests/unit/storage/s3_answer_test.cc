#include "storage/s3_answer.h"

#include <doctest/doctest.h>

namespace walvault::storage {
namespace {

S3Answer answer(int status, const std::string& code, const std::string& more = {}) {
    S3Answer made{.status = status};
    std::string body =
        "<?xml version=\"1.0\"?><Error><Code>" + code + "</Code>" + more + "</Error>";
    append(made.body, as_bytes(body));
    return made;
}

Result<S3Page> page(const std::string& inside) {
    return parse_s3_page(
        as_bytes("<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" + inside +
                 "</ListBucketResult>"));
}

}  // namespace

TEST_CASE("refusals are told apart by what can be done about them") {
    CHECK(s3_failure(answer(404, "NoSuchKey")) == S3Failure::absent);
    CHECK(s3_failure(answer(404, "NoSuchBucket")) == S3Failure::no_bucket);
    CHECK(s3_failure(answer(403, "AccessDenied")) == S3Failure::forbidden);
    CHECK(s3_failure(answer(403, "SignatureDoesNotMatch")) == S3Failure::bad_key);
    CHECK(s3_failure(answer(400, "ExpiredToken")) == S3Failure::expired);
    CHECK(s3_failure(answer(403, "RequestTimeTooSkewed")) == S3Failure::clock);
    CHECK(s3_failure(answer(503, "SlowDown")) == S3Failure::throttled);
    CHECK(s3_failure(answer(400, "RequestTimeout")) == S3Failure::broken);
    CHECK(s3_failure(answer(412, "PreconditionFailed")) == S3Failure::exists);
    CHECK(s3_failure(answer(409, "ConditionalRequestConflict")) == S3Failure::conflict);
    CHECK(s3_failure(answer(403, "QuotaExceeded")) == S3Failure::full);
    CHECK(s3_failure(answer(501, "NotImplemented")) == S3Failure::not_supported);
    CHECK(s3_failure(answer(400, "SomethingNew")) == S3Failure::bad_input);
    for (int status : {500, 502, 504})
        CHECK(s3_failure(S3Answer{.status = status}) == S3Failure::broken);
    for (int status : {429, 503})
        CHECK(s3_failure(S3Answer{.status = status}) == S3Failure::throttled);
    for (int status : {301, 307})
        CHECK(s3_failure(S3Answer{.status = status}) == S3Failure::wrong_region);
}

TEST_CASE("only NoSuchKey is absence") {
    CHECK(s3_error(answer(404, "NoSuchKey")).code == Errc::not_found);
    CHECK(s3_error(S3Answer{.status = 404}).code != Errc::not_found);
    for (const char* code : {"NoSuchBucket", "NoSuchUpload", "NotFound", "", "nosuchkey"})
        CHECK(s3_error(answer(404, code)).code != Errc::not_found);
}

TEST_CASE("the region of a bucket that is elsewhere is in the hint") {
    S3Answer moved = answer(301, "PermanentRedirect");
    moved.headers["x-amz-bucket-region"] = "eu-west-1";
    CHECK(s3_error(moved).hint == "region = \"eu-west-1\"");
    CHECK(
        s3_error(answer(400, "AuthorizationHeaderMalformed", "<Region>us-west-2</Region>")).hint ==
        "region = \"us-west-2\"");
}

TEST_CASE("nothing the other side wrote is shown but a code that looks like one") {
    Error error = s3_error(
        answer(403, std::string(60, 'S'), "<Message>SeCrEt</Message><Token-0>SeCrEt</Token-0>"));
    CHECK(error.message == "the store answered 403");
    CHECK(error.origin == Origin::server);
    CHECK(s3_error(answer(403, "a\nb")).message == "the store answered 403");
    CHECK(s3_error(answer(403, "AccessDenied")).message == "the store answered 403 AccessDenied");
}

TEST_CASE("a page of a list is read, its keys decoded where it says that they are encoded") {
    S3Page read = page(
                      "<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
                      "<Contents><Key>a%2Fb+c%2Bd</Key><Size>12</Size></Contents>"
                      "<NextContinuationToken>t/+=</NextContinuationToken>")
                      .value();
    REQUIRE(read.entries.size() == 1);
    CHECK(read.entries[0].key == "a/b c+d");
    CHECK(read.entries[0].size_bytes == 12);
    CHECK(read.next == "t/+=");
    S3Page plain = page(
                       "<IsTruncated>false</IsTruncated><Contents><Key>a%2F+&amp;</Key><Size>0</"
                       "Size></Contents>")
                       .value();
    CHECK(plain.entries[0].key == "a%2F+&");
    CHECK(plain.next.empty());
}

TEST_CASE("what is no page is refused") {
    CHECK(parse_s3_page({}).error().code == Errc::corrupt);
    CHECK(parse_s3_page(as_bytes("<html><p></html>")).error().code == Errc::corrupt);
    CHECK(parse_s3_page(as_bytes("<Error/>")).error().code == Errc::corrupt);
    for (const char* inside :
         {"", "<IsTruncated>maybe</IsTruncated>", "<IsTruncated>true</IsTruncated>",
          "<IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents>",
          "<IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>-1</Size></Contents>",
          "<IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>99999999999999999999</"
          "Size></Contents>",
          "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated><Contents><Key>%z</"
          "Key><Size>1</Size>"
          "</Contents>"})
        CHECK(page(inside).error().code == Errc::corrupt);
}

TEST_CASE("a completion is complete only if it says so") {
    CHECK(check_s3_completed(as_bytes("<CompleteMultipartUploadResult/>")).has_value());
    CHECK_FALSE(
        check_s3_completed(as_bytes("<Error><Code>InternalError</Code></Error>")).has_value());
    CHECK_FALSE(check_s3_completed({}).has_value());
    CHECK(
        s3_completion({"\"a\"", "<b>"}) ==
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag></Part>"
        "<Part><PartNumber>2</PartNumber><ETag>&lt;b&gt;</ETag></Part></CompleteMultipartUpload>");
    CHECK(parse_s3_upload_id(as_bytes("<InitiateMultipartUploadResult><UploadId>a/b+</UploadId>"
                                      "</InitiateMultipartUploadResult>"))
              .value() == "a/b+");
    CHECK_FALSE(parse_s3_upload_id(as_bytes("<InitiateMultipartUploadResult/>")).has_value());
}

TEST_CASE("a range is read as it must be") {
    S3Range range = parse_s3_range("bytes 3-6/10").value();
    CHECK(range.first == 3);
    CHECK(range.last == 6);
    CHECK(range.size == 10);
    for (const char* text :
         {"", "bytes", "bytes 3-6", "bytes 3-6/*", "bytes 6-3/10", "bytes 3-10/10", "items 3-6/10",
          "bytes -3-6/10", "bytes 3 -6/10", "bytes 3/6-10"})
        CHECK_FALSE(parse_s3_range(text).has_value());
}

TEST_CASE("a page of uploads says which, and where the list goes on") {
    const std::string head = "<ListMultipartUploadsResult>";
    const std::string tail = "</ListMultipartUploadsResult>";
    S3Uploads page =
        parse_s3_uploads(as_bytes(head +
                                  "<EncodingType>url</EncodingType><Upload><Key>a%2Fb+c</Key>"
                                  "<UploadId>1~x</UploadId></Upload><IsTruncated>true</IsTruncated>"
                                  "<NextKeyMarker>a%2Fb+c</NextKeyMarker>"
                                  "<NextUploadIdMarker>1~x</NextUploadIdMarker>" +
                                  tail))
            .value();
    REQUIRE(page.entries.size() == 1);
    CHECK(page.entries[0].key == "a/b c");
    CHECK(page.entries[0].id == "1~x");
    CHECK(page.next_key == "a/b c");
    CHECK(page.next_id == "1~x");
    CHECK(parse_s3_uploads(as_bytes(head + tail)).value().entries.empty());
    for (const std::string& text :
         {std::string("<Other/>"), std::string("x"),
          head + "<IsTruncated>true</IsTruncated>" + tail,
          head + "<EncodingType>url</EncodingType><Upload><Key>%z</Key></Upload>" + tail})
        CHECK(parse_s3_uploads(as_bytes(text)).error().code == Errc::corrupt);
}

}  // namespace walvault::storage
