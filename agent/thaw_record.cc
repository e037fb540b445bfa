#include "agent/thaw_record.h"

#include <nlohmann/json.hpp>

namespace walvault::agent {
namespace {

using nlohmann::ordered_json;

constexpr std::uint64_t kThawRecordBytesMax = 512_MiB;
constexpr int kVersion = 1;

tl::unexpected<Error> not_a_record(const std::string& path) {
    return fail(Errc::corrupt, path + " is no record of a thaw",
                "remove it to begin anew; what the store was asked for stays asked for");
}

ThawRecord::Object object_of(const ordered_json& json) {
    ThawRecord::Object object;
    object.size_bytes = json.at("bytes").get<std::uint64_t>();
    object.storage_class = json.at("class").get<std::string>();
    if (json.contains("asked_at_us"))
        object.asked_at = WallTime(Micros(json.at("asked_at_us").get<std::int64_t>()));
    return object;
}

}  // namespace

std::string thaw_record_path(const std::string& pgdata) { return pgdata + ".walvault-thaw"; }

Result<std::optional<ThawRecord>> read_thaw_record(FileSystem& files, const std::string& path) {
    auto bytes = read_file(files, path, kThawRecordBytesMax);
    if (!bytes && bytes.error().code == Errc::not_found) return std::optional<ThawRecord>();
    if (!bytes) return fail(std::move(bytes).error());
    const auto json = ordered_json::parse(as_text(*bytes), nullptr, false);
    if (!json.is_object() || !json.contains("version") || !json["version"].is_number_integer())
        return not_a_record(path);
    if (json["version"] != kVersion)
        return fail(Errc::unsupported, path +
                                           " was written by a later walvault: its version is not " +
                                           std::to_string(kVersion));
    ThawRecord record;
    try {
        record.repository = json.at("repository").get<std::string>();
        record.url = json.at("url").get<std::string>();
        for (const auto& [name, object] : json.at("objects").items())
            record.objects[name] = object_of(object);
    } catch (const nlohmann::json::exception&) {
        return not_a_record(path);
    }
    return std::optional(std::move(record));
}

Result<> write_thaw_record(FileSystem& files, const std::string& path, const ThawRecord& record) {
    ordered_json json{
        {"version", kVersion},
        {"what", "a walvault restore has these objects thawed; the same command goes on"},
        {"repository", record.repository},
        {"url", record.url}};
    json["objects"] = ordered_json::object();
    for (const auto& [name, object] : record.objects) {
        ordered_json one{{"bytes", object.size_bytes}, {"class", object.storage_class}};
        if (object.asked_at) one["asked_at_us"] = object.asked_at->time_since_epoch().count();
        json["objects"][name] = std::move(one);
    }
    const std::string text =
        json.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
    WV_CHECK(files.make_directories(path.substr(0, path.rfind('/')), 0755));
    return write_file_atomically(files, path, as_bytes(text));
}

Result<> remove_thaw_record(FileSystem& files, const std::string& path) {
    auto removed = files.remove(path);
    if (!removed && removed.error().code != Errc::not_found) return removed;
    return {};
}

}  // namespace walvault::agent
