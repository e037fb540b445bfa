#include "storage/s3_options.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "storage/object_name.h"
#include "storage/private_file.h"
#include "storage/s3_instance.h"

namespace walvault::storage {
namespace {

constexpr std::string_view kScheme = "s3://";
constexpr std::size_t kPrefixBytesMax = 500;
constexpr std::uint64_t kCredentialsBytesMax = 16_KiB;
constexpr std::size_t kTagsMax = 10;
constexpr unsigned kConcurrencyMax = 32;
constexpr std::uint64_t kBandwidthMin = 64_KiB;
constexpr std::uint64_t kBandwidthMax = std::uint64_t{1} << 40;
constexpr unsigned kLockDaysMax = 36'500;

bool is_letter_or_digit(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
bool consists_of(std::string_view text, std::string_view marks) {
    return !text.empty() && std::ranges::all_of(text, [&](char c) {
        return is_letter_or_digit(c) || marks.find(c) != std::string_view::npos;
    });
}

// What every dialect takes; AWS allows no upper case and no '_' in new ones.
bool is_bucket_name(std::string_view name) {
    return name.size() >= 3 && name.size() <= 63 && consists_of(name, "-._") &&
           is_letter_or_digit(name.front()) && is_letter_or_digit(name.back()) &&
           name.find("..") == std::string_view::npos;
}
// One that can be a label of a host's name, also under a certificate for "*.host".
bool is_host_label(std::string_view name) {
    return consists_of(name, "-") &&
           std::ranges::none_of(name, [](char c) { return c >= 'A' && c <= 'Z'; });
}

Result<std::string> percent_decoded(std::string_view text) {
    std::string decoded;
    for (std::size_t at = 0; at < text.size(); ++at) {
        std::array<std::byte, 1> byte;
        if (text[at] != '%') {
            decoded += text[at];
        } else if (from_hex(text.substr(at + 1, 2), byte)) {
            decoded += as_text(byte);
            at += 2;
        } else {
            return fail(Errc::invalid_argument,
                        "a %XX of the s3 URL is not two hexadecimal digits");
        }
    }
    return decoded;
}

tl::unexpected<Error> bad_option(std::string_view name, const std::string& wanted) {
    return fail(Errc::invalid_argument, "the S3 option " + std::string(name) + " " + wanted);
}

Result<> check_endpoint(std::string_view url) {
    for (std::string_view scheme : {"https://", "http://"}) {
        if (!url.starts_with(scheme)) continue;
        if (consists_of(url.substr(scheme.size()), "-.:[]_")) return {};
    }
    return bad_option("endpoint",
                      "is https://host or https://host:port, without a path, a user or a password");
}

constexpr std::string_view kInstance = "imds:";

Result<> check_credentials_source(std::string_view source) {
    if (source == "environment" || source.starts_with("file:/")) return {};
    constexpr std::string_view kCredential = "credential:";
    if (source.starts_with(kCredential) && consists_of(source.substr(kCredential.size()), "-_."))
        return {};
    if (source.starts_with(kInstance) && is_instance_service(source.substr(kInstance.size())))
        return {};
    return bad_option("credentials",
                      "is environment, file:/path, credential:NAME or imds:; keys themselves are "
                      "never in it");
}

Result<std::uint64_t> whole_number(std::string_view text) {
    std::uint64_t number = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size())
        return fail(Errc::invalid_argument, "not a number");
    return number;
}

Result<> set_lock(S3Options& options, std::string_view value) {
    options.object_lock.clear();
    options.object_lock_for = {};
    if (value == "off") return {};
    const auto wrong = [] {
        return bad_option(
            "object_lock",
            "is off, or governance or compliance and a number of days: compliance 30d");
    };
    const std::size_t blank = std::min(value.find(' '), value.size());
    const std::string_view mode = value.substr(0, blank);
    const std::string_view days = value.substr(std::min(blank + 1, value.size()));
    if ((mode != "governance" && mode != "compliance") || !days.ends_with('d')) return wrong();
    auto count = whole_number(days.substr(0, days.size() - 1));
    if (!count || *count == 0 || *count > kLockDaysMax) return wrong();
    options.object_lock = mode == "governance" ? "GOVERNANCE" : "COMPLIANCE";
    options.object_lock_for = std::chrono::hours(24 * *count);
    return {};
}

Result<> set_sse(S3Options& options, std::string_view value) {
    constexpr std::string_view kKey = "aws:kms:";
    const bool known = value.empty() || value == "AES256" || value == "aws:kms" ||
                       (value.starts_with(kKey) && consists_of(value.substr(kKey.size()), ":/_-"));
    if (!known) return bad_option("sse", "is AES256, aws:kms or aws:kms:KEY");
    options.sse = value;
    return {};
}

Result<> set_bandwidth(S3Options& options, std::string_view value) {
    options.bandwidth = 0;
    if (value == "off") return {};
    struct Unit {
        std::string_view name;
        std::uint64_t factor;
    };
    constexpr Unit kUnits[] = {{"KiB/s", 1_KiB}, {"MiB/s", 1_MiB}, {"GiB/s", 1_MiB << 10}, {"", 1}};
    for (const Unit& unit : kUnits) {
        if (!value.ends_with(unit.name)) continue;
        auto number = whole_number(value.substr(0, value.size() - unit.name.size()));
        if (!number || *number > kBandwidthMax || *number * unit.factor > kBandwidthMax ||
            *number * unit.factor < kBandwidthMin)
            break;
        options.bandwidth = *number * unit.factor;
        return {};
    }
    return bad_option("bandwidth", "is off or a rate from 64KiB/s to 1024GiB/s, such as 20MiB/s");
}

Result<> set_concurrency(S3Options& options, std::string_view value) {
    auto count = whole_number(value);
    if (!count || *count == 0 || *count > kConcurrencyMax)
        return bad_option("concurrency", "is a number of requests from 1 to 32");
    options.concurrency = static_cast<unsigned>(*count);
    return {};
}

std::string_view trimmed(std::string_view text) {
    constexpr std::string_view kBlanks = " \t\r";
    std::size_t first = text.find_first_not_of(kBlanks);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

Result<> set_tags(S3Options& options, std::string_view text) {
    options.tags.clear();
    while (!text.empty()) {
        const std::size_t comma = std::min(text.find(','), text.size());
        const std::string_view pair = trimmed(text.substr(0, comma));
        text.remove_prefix(std::min(comma + 1, text.size()));
        const std::size_t equals = std::min(pair.find('='), pair.size());
        const std::string_view name = pair.substr(0, equals);
        const std::string_view value = pair.substr(std::min(equals + 1, pair.size()));
        constexpr std::string_view kMarks = " +-._:/@";
        const bool good = equals < pair.size() && consists_of(name, kMarks) && name.size() <= 128 &&
                          (value.empty() || consists_of(value, kMarks)) && value.size() <= 256;
        if (!good || options.tags.size() == kTagsMax)
            return bad_option("tags",
                              "are at most 10 NAME=VALUE of letters, digits and + - . _ : / @");
        options.tags.emplace_back(name, value);
    }
    return {};
}

Result<> set_style(S3Options& options, std::string_view value) {
    if (value == "path")
        options.style = S3Options::Style::path;
    else if (value == "host")
        options.style = S3Options::Style::host;
    else if (value == "auto")
        options.style = S3Options::Style::automatic;
    else
        return bad_option("style", "is path, host or auto");
    return {};
}

bool is_header_safe(std::string_view text) {
    return std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7F; });
}

Result<> check_complete(const S3Credentials& credentials, const std::string& where,
                        const std::string& names) {
    if (credentials.access_key.empty() || credentials.secret_key.empty())
        return fail(Errc::wrong_key, where + " has no S3 credentials",
                    "It must have " + names + ".");
    if (!is_header_safe(credentials.access_key) ||
        !is_header_safe(as_text(credentials.session_token.view())))
        return fail(Errc::wrong_key,
                    "the S3 credentials of " + where + " have characters that no key has");
    return {};
}

Result<S3Credentials> credentials_of_environment() {
    auto value = [](const char* name) {
        const char* text = std::getenv(name);
        return std::string_view(text != nullptr ? text : "");
    };
    S3Credentials credentials{std::string(value("AWS_ACCESS_KEY_ID")),
                              SecretBytes::copy_of(as_bytes(value("AWS_SECRET_ACCESS_KEY"))),
                              SecretBytes::copy_of(as_bytes(value("AWS_SESSION_TOKEN")))};
    WV_CHECK(check_complete(credentials, "the environment",
                            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
    return credentials;
}

// The text of a line is never in an error.
Result<S3Credentials> parse_credentials(std::string_view text, const std::string& path) {
    S3Credentials credentials;
    for (std::size_t number = 1; !text.empty(); ++number) {
        std::size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = trimmed(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
        if (line.empty() || line.front() == '#') continue;
        std::size_t equals = line.find('=');
        std::string_view name = trimmed(line.substr(0, equals));
        std::string_view value =
            equals == std::string_view::npos ? "" : trimmed(line.substr(equals + 1));
        if (name == "access_key" && !value.empty())
            credentials.access_key = value;
        else if (name == "secret_key" && !value.empty())
            credentials.secret_key = SecretBytes::copy_of(as_bytes(value));
        else if (name == "session_token" && !value.empty())
            credentials.session_token = SecretBytes::copy_of(as_bytes(value));
        else
            return fail(Errc::wrong_key,
                        "line " + std::to_string(number) + " of the S3 credentials " + path +
                            " is none that is known",
                        "Lines are: access_key = …, secret_key = …, and session_token = … where "
                        "there is one.");
    }
    WV_CHECK(check_complete(credentials, path, "a line access_key = … and a line secret_key = …"));
    return credentials;
}

Result<S3Credentials> credentials_of_file(FileSystem& files, const std::string& path) {
    std::string what = "the S3 credentials " + path;
    auto info = files.info(path);
    if (!info) return fail(Errc::wrong_key, "read the S3 credentials: " + info.error().message);
    WV_CHECK(check_private_file(*info, what, path, kCredentialsBytesMax));
    auto bytes = read_file(files, path, kCredentialsBytesMax);
    if (!bytes) return fail(Errc::wrong_key, "read the S3 credentials: " + bytes.error().message);
    auto credentials = parse_credentials(as_text(*bytes), path);
    wipe(*bytes);
    return credentials;
}

}  // namespace

Result<> set_s3_option(S3Options& options, std::string_view name, std::string_view value) {
    if (name == "style") return set_style(options, value);
    if (name == "sse") return set_sse(options, value);
    if (name == "tags") return set_tags(options, value);
    if (name == "object_lock") return set_lock(options, value);
    if (name == "concurrency") return set_concurrency(options, value);
    if (name == "bandwidth") return set_bandwidth(options, value);
    if (name == "region") {
        if (!consists_of(value, "-"))
            return bad_option(name, "is a region's name, such as eu-west-1");
        options.region = value;
    } else if (name == "endpoint") {
        WV_CHECK(check_endpoint(value));
        options.endpoint = value;
    } else if (name == "ca_file") {
        if (!value.starts_with('/')) return bad_option(name, "is an absolute path");
        options.ca_file = value;
    } else if (name == "storage_class" || name == "storage_class_wal" ||
               name == "storage_class_base") {
        if (!consists_of(value, "_-"))
            return bad_option(name, "is a storage class, such as STANDARD_IA");
        (name == "storage_class"       ? options.storage_class
         : name == "storage_class_wal" ? options.storage_class_wal
                                       : options.storage_class_base) = value;
    } else if (name == "credentials") {
        WV_CHECK(check_credentials_source(value));
        options.credentials = value;
    } else {
        return fail(Errc::invalid_argument, "there is no such S3 option",
                    "There are region, endpoint, style, ca_file, storage_class, storage_class_wal, "
                    "storage_class_base, credentials, sse, tags, object_lock, concurrency and "
                    "bandwidth.");
    }
    return {};
}

Result<S3Options> parse_s3_url(std::string_view url) {
    if (!url.starts_with(kScheme))
        return fail(Errc::invalid_argument, "an s3 URL is s3://bucket/prefix");
    url.remove_prefix(kScheme.size());
    std::size_t question = std::min(url.find('?'), url.size());
    std::string_view place = url.substr(0, question);
    std::string_view query = url.substr(std::min(question + 1, url.size()));
    S3Options options;
    std::size_t slash = std::min(place.find('/'), place.size());
    options.bucket = place.substr(0, slash);
    if (!is_bucket_name(options.bucket))
        return fail(Errc::invalid_argument, "the s3 URL does not begin with the name of a bucket",
                    "s3://bucket/prefix; credentials are never in it.");
    WV_TRY(options.prefix, percent_decoded(place.substr(std::min(slash + 1, place.size()))));
    if (options.prefix.ends_with('/')) options.prefix.pop_back();
    if (!options.prefix.empty()) WV_CHECK(check_object_name(options.prefix));
    if (options.prefix.size() > kPrefixBytesMax)
        return fail(Errc::invalid_argument,
                    "the prefix of the s3 URL has " + std::to_string(options.prefix.size()) +
                        " bytes, more than " + std::to_string(kPrefixBytesMax));
    while (!query.empty()) {
        std::size_t end = std::min(query.find('&'), query.size());
        std::string_view pair = query.substr(0, end);
        query.remove_prefix(std::min(end + 1, query.size()));
        std::size_t equals = std::min(pair.find('='), pair.size());
        WV_TRY(std::string value, percent_decoded(pair.substr(std::min(equals + 1, pair.size()))));
        WV_CHECK(set_s3_option(options, pair.substr(0, equals), value));
    }
    WV_CHECK(s3_endpoint(options));
    return options;
}

Result<S3Endpoint> s3_endpoint(const S3Options& options) {
    if (!is_bucket_name(options.bucket))
        return fail(Errc::invalid_argument, "the S3 bucket has no name a bucket can have");
    std::string base = options.endpoint;
    if (base.empty())
        base = "https://s3." + options.region + ".amazonaws.com" +
               (options.region.starts_with("cn-") ? ".cn" : "");
    WV_CHECK(check_endpoint(base));
    std::size_t host_at = base.find("://") + 3;
    std::string scheme = base.substr(0, host_at);
    std::string host = base.substr(host_at);
    bool label = is_host_label(options.bucket);
    if (options.style == S3Options::Style::host && !label)
        return fail(Errc::invalid_argument,
                    "the bucket " + options.bucket +
                        " cannot be a part of a host's name, as style = host wants it",
                    "style = path");
    bool in_host =
        options.style == S3Options::Style::host ||
        (options.style == S3Options::Style::automatic && options.endpoint.empty() && label);
    if (in_host) host = options.bucket + "." + host;
    // curl leaves the scheme's own port out of the Host header, and so must the signature.
    std::string own_port = scheme == "https://" ? ":443" : ":80";
    std::string said =
        host.ends_with(own_port) ? host.substr(0, host.size() - own_port.size()) : host;
    return S3Endpoint{scheme + host, said, in_host ? "" : "/" + options.bucket};
}

Result<S3Credentials> read_s3_credentials(FileSystem& files, const std::string& source) {
    WV_CHECK(check_credentials_source(source));
    if (source == "environment") return credentials_of_environment();
    if (source.starts_with("file:")) return credentials_of_file(files, source.substr(5));
    if (source.starts_with(kInstance)) {
        WV_TRY(S3Credentials credentials,
               read_instance_credentials(source.substr(kInstance.size())));
        WV_CHECK(check_complete(credentials, "the role of this machine", "a role with keys"));
        return credentials;
    }
    const char* directory = std::getenv("CREDENTIALS_DIRECTORY");
    if (directory == nullptr || *directory == '\0')
        return fail(Errc::wrong_key,
                    "there are no systemd credentials: CREDENTIALS_DIRECTORY is not set",
                    "LoadCredential= in the unit gives them; outside of a service name the file: "
                    "file:/path.");
    return credentials_of_file(files,
                               std::string(directory) + "/" + source.substr(source.find(':') + 1));
}

}  // namespace walvault::storage
