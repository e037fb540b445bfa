#include "agent/repo_contents.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "agent/render.h"
#include "storage/repository_files.h"
#include "storage/tier_store.h"

namespace walvault::agent {
namespace {

using storage::ObjectInfo;

constexpr std::size_t kNamesShown = 5;

struct Known {
    std::string kind;
    pb::PackInfo pack;
};
using Ledger = std::map<std::string, Known>;

std::string kind_of(const pb::PackInfo& pack) {
    if (pack.path().ends_with(".tail")) return "tail";
    if (pack.kind() == pb::PACK_KIND_BASE) return "base";
    if (pack.kind() == pb::PACK_KIND_JOURNAL) return "journal";
    if (pack.kind() == pb::PACK_KIND_JOURNAL_ROWS) return "snapshot";
    return pack.kind() == pb::PACK_KIND_MANIFEST ? "manifest" : "wal";
}

Result<Ledger> ledger_of(storage::RepositoryView& view, const std::string& place,
                         RepoContents& contents) {
    Ledger ledger;
    WV_TRY(auto clusters, view.clusters());
    for (const auto& cluster : clusters) {
        WV_TRY(auto packs, view.packs(cluster.name));
        for (const pb::PackInfo& pack : packs)
            ledger[pack.path()] = {kind_of(pack), pack};
        WV_TRY(auto condemned, view.condemned(cluster.name, place));
        for (const storage::CondemnedThere& each : condemned)
            ledger[each.pack.path()] = {"condemned", each.pack};
        WV_TRY(auto backups, view.backups(cluster.name));
        for (const pb::BackupInfo& base : backups) {
            if (contents.oldest_base.empty() || base.backup_id() < contents.oldest_base)
                contents.oldest_base = base.backup_id();
            contents.newest_base = std::max(contents.newest_base, base.backup_id());
        }
    }
    return ledger;
}

std::string own_kind(const std::string& name) {
    constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kFolders{
        std::pair("ledger/", "ledger"), std::pair("keyring/", "keyring"),
        std::pair("writer/", "writer"), std::pair("lease/", "lease"), std::pair("index/", "index")};
    for (const auto& [folder, kind] : kFolders)
        if (name.starts_with(folder)) return std::string(kind);
    if (name == storage::kHeaderName || name == storage::kTierNameObject) return "header";
    if (name == storage::kLockName) return "lock";
    return "unnamed";
}

RepoObject object_of(ObjectInfo&& info, const Ledger& ledger) {
    RepoObject object{.name = std::move(info.name),
                      .kind = {},
                      .storage_class = std::move(info.storage_class),
                      .size_bytes = info.size_bytes};
    auto known = ledger.find(object.name);
    const auto piece = storage::parse_tail_piece_name(object.name);
    if (known != ledger.end()) {
        object.kind = known->second.kind;
        object.pack = known->second.pack;
    } else if (piece && ledger.contains(piece->tail_path)) {
        object.kind = "tail";
    } else {
        object.kind = own_kind(object.name);
    }
    return object;
}

}  // namespace

Result<RepoContents> contents_of(std::vector<ObjectInfo> objects, storage::RepositoryView& view,
                                 const std::string& place) {
    RepoContents contents;
    WV_TRY(Ledger ledger, ledger_of(view, place, contents));
    std::map<std::string, bool> there;
    for (ObjectInfo& info : objects) {
        RepoObject object = object_of(std::move(info), ledger);
        there[object.name] = true;
        if (auto piece = storage::parse_tail_piece_name(object.name))
            there[piece->tail_path] = true;
        for (RepoContents::Part* part :
             {&contents.kinds[object.kind],
              object.storage_class.empty() ? nullptr : &contents.classes[object.storage_class]}) {
            if (part == nullptr) continue;
            ++part->count;
            part->bytes += object.size_bytes;
        }
        contents.total_bytes += object.size_bytes;
        contents.objects.push_back(std::move(object));
    }
    for (const auto& [path, known] : ledger)
        if (known.kind != "condemned" && !there.contains(path)) contents.missing.push_back(path);
    return contents;
}

std::string contents_text(const RepoContents& contents) {
    Table table({"KIND", "OBJECTS", "BYTES"},
                {Table::Align::left, Table::Align::right, Table::Align::right});
    for (const auto& [kind, part] : contents.kinds)
        table.add_row({kind, format_count(part.count), format_size(part.bytes)});
    table.add_row(
        {"all", format_count(contents.objects.size()), format_size(contents.total_bytes)});
    std::string text = table.text();
    if (!contents.classes.empty()) {
        Table classes({"CLASS", "OBJECTS", "BYTES"},
                      {Table::Align::left, Table::Align::right, Table::Align::right});
        for (const auto& [name, part] : contents.classes)
            classes.add_row({printable(name), format_count(part.count), format_size(part.bytes)});
        text += classes.text();
    }
    if (!contents.oldest_base.empty())
        text += "base backups from " + contents.oldest_base + " to " + contents.newest_base + "\n";
    std::size_t shown = 0;
    for (const RepoObject& object : contents.objects)
        if (object.kind == "unnamed" && ++shown <= kNamesShown)
            text += "not named by the ledger: " + printable(object.name) + "\n";
    if (shown > kNamesShown)
        text += fmt::format("and {} more\n", format_count(shown - kNamesShown));
    for (const std::string& path : contents.missing)
        text += "MISSING: " + printable(path) + "\n";
    return text;
}

nlohmann::ordered_json contents_json(const RepoContents& contents) {
    auto parts = [](const std::map<std::string, RepoContents::Part>& all) {
        nlohmann::ordered_json json = nlohmann::ordered_json::object();
        for (const auto& [name, part] : all)
            json[name] = {{"count", part.count}, {"bytes", part.bytes}};
        return json;
    };
    nlohmann::ordered_json json{{"object_count", contents.objects.size()},
                                {"object_bytes", contents.total_bytes},
                                {"kinds", parts(contents.kinds)},
                                {"classes", parts(contents.classes)}};
    json["oldest_base"] = nullptr;
    json["newest_base"] = nullptr;
    if (!contents.oldest_base.empty()) {
        json["oldest_base"] = contents.oldest_base;
        json["newest_base"] = contents.newest_base;
    }
    json["unnamed"] = nlohmann::ordered_json::array();
    for (const RepoObject& object : contents.objects)
        if (object.kind == "unnamed") json["unnamed"].push_back(object.name);
    json["missing"] = contents.missing;
    return json;
}

}  // namespace walvault::agent
