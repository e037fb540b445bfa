#include "agent/ddl_mark.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "agent/journal_text.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;

// The trigger writes less.
constexpr std::size_t kContentBytesMax = 64 << 10;
constexpr std::size_t kObjectsMax = 20;
constexpr std::size_t kTextBytesMax = 2 << 10;
constexpr std::size_t kContentBytesKept = 4 << 10;
constexpr std::size_t kShownObjects = 4;

std::optional<std::string> text_member(const nlohmann::json& json, const char* name) {
    const auto found = json.find(name);
    if (found == json.end() || !found->is_string()) return std::nullopt;
    return found->get<std::string>().substr(0, kTextBytesMax);
}

// Nothing: it is not what the trigger writes.
std::optional<DdlMark> parse(std::string_view content) {
    if (content.size() > kContentBytesMax) return std::nullopt;
    // Not the ordered kind, which looks through all members at each one.
    const auto json = nlohmann::json::parse(content, nullptr, false);
    if (!json.is_object()) return std::nullopt;
    DdlMark mark;
    mark.tag = text_member(json, "tag").value_or("");
    mark.user = text_member(json, "user").value_or("");
    const auto dropped = json.find("dropped");
    mark.is_drop = dropped != json.end() && dropped->is_boolean() && dropped->get<bool>();
    const auto objects = json.find("objects");
    if (mark.tag.empty() || objects == json.end() || !objects->is_array()) return std::nullopt;
    for (const auto& each : *objects) {
        if (!each.is_object()) return std::nullopt;
        if (mark.objects.size() < kObjectsMax)
            mark.objects.push_back(
                {text_member(each, "type").value_or(""), text_member(each, "name").value_or("")});
    }
    mark.object_count = objects->size();
    const auto count = json.find("count");
    if (count != json.end() && count->is_number_unsigned())
        mark.object_count = std::max(mark.object_count, count->get<std::uint64_t>());
    return mark;
}

std::string upper(std::string_view text) {
    std::string raised(text);
    for (char& c : raised)
        if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    return raised;
}

// "public.items"; with its type where the tag does not say it.
std::string object_text(const DdlMark& mark, const DdlObject& object) {
    if (object.name.empty()) return printable(object.type);
    const bool is_said = object.type.empty() || mark.tag.find(upper(object.type)) != mark.tag.npos;
    return (is_said ? "" : printable(object.type) + " ") + printable(object.name);
}

std::string statement_text(const DdlMark& mark) {
    if (mark.tag.empty())
        return std::string(kDdlPrefix) + " " + value_text(text_value(mark.content));
    std::string text = printable(mark.tag);
    if (mark.is_drop && !mark.tag.starts_with("DROP ")) text += " dropping";
    const std::size_t shown = std::min(kShownObjects, mark.objects.size());
    for (std::size_t i = 0; i < shown; ++i)
        text += (i > 0 ? ", " : " ") + object_text(mark, mark.objects[i]);
    if (mark.object_count > shown)
        text += " and " + format_count(mark.object_count - shown) + " more";
    return text;
}

}  // namespace

DdlMark read_ddl_mark(std::string_view content) {
    if (auto mark = parse(content)) return std::move(*mark);
    DdlMark mark;
    mark.content = content.substr(0, kContentBytesKept);
    mark.content_bytes = content.size();
    return mark;
}

std::size_t DdlMark::held_bytes() const {
    std::size_t bytes = sizeof *this + tag.size() + user.size() + content.size();
    for (const DdlObject& object : objects)
        bytes += sizeof object + object.type.size() + object.name.size();
    return bytes;
}

std::string ddl_text(const DdlMark& mark) { return ddl_text(std::vector{mark}); }

std::string ddl_text(const std::vector<DdlMark>& marks) {
    std::string text;
    for (std::size_t i = 0; i < marks.size(); ++i) {
        text += (i > 0 ? "; " : "") + statement_text(marks[i]);
        const bool is_same = i + 1 < marks.size() && marks[i + 1].user == marks[i].user;
        if (!is_same && !marks[i].user.empty()) text += " by " + printable(marks[i].user);
    }
    return text;
}

Json ddl_json(const DdlMark& mark) {
    if (mark.tag.empty()) return {{"content", mark.content}, {"content_bytes", mark.content_bytes}};
    Json json{{"tag", mark.tag}, {"dropped", mark.is_drop}, {"objects", Json::array()}};
    for (const DdlObject& object : mark.objects) {
        Json each{{"type", object.type}, {"name", nullptr}};
        if (!object.name.empty()) each["name"] = object.name;
        json["objects"].push_back(each);
    }
    json["object_count"] = mark.object_count;
    json["user"] = nullptr;
    if (!mark.user.empty()) json["user"] = mark.user;
    return json;
}

}  // namespace walvault::agent
