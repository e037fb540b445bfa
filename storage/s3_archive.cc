#include "storage/s3_archive.h"

#include <time.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <pugixml.hpp>
#include <sstream>

namespace walvault::storage {
namespace {

using Kind = ArchiveState::Kind;

constexpr std::string_view kWithoutDays = "INTELLIGENT_TIERING";

tl::unexpected<Error> not_a_restore() {
    return fail(Error{Errc::corrupt,
                      "the store tells of a thawed copy in words that are not known",
                      {},
                      Origin::server});
}

// What stands in quotes behind `name=`.
std::optional<std::string_view> quoted(std::string_view text, std::string_view name) {
    const std::string start = std::string(name) + "=\"";
    const std::size_t at = text.find(start);
    if (at == std::string_view::npos) return {};
    text.remove_prefix(at + start.size());
    const std::size_t end = text.find('"');
    if (end == std::string_view::npos) return {};
    return text.substr(0, end);
}

std::optional<int> number(std::string_view text) {
    int value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return {};
    return value;
}

// "Fri, 21 Dec 2012 00:00:00 GMT", the one form that HTTP writes.
std::optional<WallTime> parse_http_date(std::string_view text) {
    constexpr std::array<std::string_view, 12> kMonths{"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    if (text.size() != 29 || !text.ends_with(" GMT")) return {};
    const auto month = std::ranges::find(kMonths, text.substr(8, 3));
    const auto day = number(text.substr(5, 2));
    const auto year = number(text.substr(12, 4));
    const auto hour = number(text.substr(17, 2));
    const auto minute = number(text.substr(20, 2));
    const auto second = number(text.substr(23, 2));
    if (month == kMonths.end() || !day || !year || !hour || !minute || !second) return {};
    std::tm parts{};
    parts.tm_year = *year - 1900;
    parts.tm_mon = static_cast<int>(month - kMonths.begin());
    parts.tm_mday = *day;
    parts.tm_hour = *hour;
    parts.tm_min = *minute;
    parts.tm_sec = *second;
    return WallTime(std::chrono::seconds(::timegm(&parts)));
}

std::string restore_request(const ThawRequest& request) {
    pugi::xml_document document;
    pugi::xml_node root = document.append_child("RestoreRequest");
    root.append_attribute("xmlns").set_value("http://s3.amazonaws.com/doc/2006-03-01/");
    if (request.days > 0) root.append_child("Days").text().set(request.days);
    const char* tier = request.speed == ThawSpeed::bulk        ? "Bulk"
                       : request.speed == ThawSpeed::expedited ? "Expedited"
                                                               : "Standard";
    root.append_child("GlacierJobParameters").append_child("Tier").text().set(tier);
    std::ostringstream text;
    document.save(text, "", pugi::format_raw | pugi::format_no_declaration);
    return text.str();
}

}  // namespace

Result<S3Restore> parse_s3_restore(std::string_view text) {
    auto ongoing = quoted(text, "ongoing-request");
    if (!ongoing || (*ongoing != "true" && *ongoing != "false")) return not_a_restore();
    S3Restore restore{.is_ongoing = *ongoing == "true", .until = {}};
    auto expiry = quoted(text, "expiry-date");
    if (!expiry) return restore;
    restore.until = parse_http_date(*expiry);
    if (!restore.until) return not_a_restore();
    return restore;
}

Result<bool> S3Archive::can_be_read(const std::string& key) {
    WV_TRY(S3Answer answer, client_.perform(S3Request{
                                .method = "GET", .key = key, .headers = {{"range", "bytes=0-0"}}}));
    if (answer.ok() || s3_failure(answer) == S3Failure::beyond_end) return true;
    if (s3_failure(answer) == S3Failure::archived) return false;
    return fail(s3_error(answer));
}

Result<ArchiveState> S3Archive::state(const std::string& key) {
    WV_TRY(S3Answer answer, client_.perform(S3Request{.method = "HEAD", .key = key}));
    if (!answer.ok()) {
        // A HEAD has no body to say why.
        WV_TRY(bool there, can_be_read(key));
        return fail(Error{Errc::unavailable,
                          there ? "the store says by turns that it is there and that it is not"
                                : "the store does not tell of an archived object",
                          {},
                          Origin::server});
    }
    ArchiveState state;
    WV_TRY(state.size_bytes, parse_s3_number(answer.header("content-length")));
    state.storage_class = parse_s3_class(answer.header("x-amz-storage-class"));
    if (state.storage_class.empty()) state.storage_class = "STANDARD";
    if (!may_be_archived(state.storage_class)) return state;
    if (std::string_view restore = answer.header("x-amz-restore"); !restore.empty()) {
        WV_TRY(S3Restore told, parse_s3_restore(restore));
        state.kind = told.is_ongoing ? Kind::thawing : Kind::thawed;
        state.until = told.until;
        return state;
    }
    if (state.storage_class == kWithoutDays && answer.header("x-amz-archive-status").empty())
        return state;
    if (archives_ == Archives::unknown) {
        WV_TRY(bool readable, can_be_read(key));
        archives_ = readable ? Archives::by_name : Archives::yes;
    }
    if (archives_ == Archives::yes) state.kind = Kind::archived;
    return state;
}

Result<ThawAnswer> S3Archive::thaw(const std::string& key, const ThawRequest& request) {
    const std::string body = restore_request(request);
    WV_TRY(S3Answer answer,
           client_.perform(S3Request{.method = "POST",
                                     .key = key,
                                     .query = {{"restore", ""}},
                                     .headers = {{"content-type", "application/xml"}},
                                     .body = as_bytes(body)}));
    if (answer.status == 202) return ThawAnswer::asked;
    if (answer.ok()) return ThawAnswer::extended;
    if (parse_s3_code(answer).code == "RestoreAlreadyInProgress") return ThawAnswer::thawing;
    const S3Failure failure = s3_failure(answer);
    // Of an object that is in no archive class, or of a store that archives by name only.
    if (failure == S3Failure::archived || failure == S3Failure::not_supported) {
        WV_TRY(bool readable, can_be_read(key));
        if (readable) return ThawAnswer::ready;
    }
    return fail(s3_error(answer));
}

}  // namespace walvault::storage
