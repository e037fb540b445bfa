#include "wal/publication_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "wal/connection.h"

namespace walvault::wal {
namespace {

using Oid = std::uint32_t;
using Kind = CatalogTable::Kind;
using Persistence = CatalogTable::Persistence;
using Choice = TablePatterns::Choice;

std::string alter(const CatalogTable& table, const std::string& how) {
    return "ALTER TABLE " + quoted_name(table) + " " + how;
}

// The cheapest identity that the table can have at once.
std::string mend_of_identity(const CatalogTable& table) {
    if (table.primary_key) return alter(table, "REPLICA IDENTITY DEFAULT");
    if (!table.candidate_index.empty())
        return alter(table,
                     "REPLICA IDENTITY USING INDEX " + quote_identifier(table.candidate_index));
    if (table.virtual_columns) return alter(table, "ADD PRIMARY KEY (COLUMNS)");
    return alter(table, "REPLICA IDENTITY FULL");
}

std::string reason_of_identity(const CatalogTable& table) {
    switch (table.identity) {
        case 'n':
            return "its replica identity is NOTHING";
        case 'i':
            return "the index of its replica identity is gone or cannot be used";
        case 'f':
            return "REPLICA IDENTITY FULL does not go with virtual generated columns";
        default:
            break;
    }
    if (table.deferrable_primary_key)
        return "its primary key is deferrable, which makes it no replica identity";
    return "it has no primary key and no other replica identity";
}

TableVerdict verdict_of(const CatalogTable& table, Journaled journaled, std::string reason = {},
                        std::string mend = {}) {
    TableVerdict verdict;
    verdict.oid = table.oid;
    verdict.root = table.root;
    verdict.partitioned = table.kind == Kind::partitioned;
    verdict.schema = table.schema;
    verdict.name = table.name;
    verdict.table = quoted_name(table);
    verdict.journaled = journaled;
    verdict.reason = std::move(reason);
    verdict.mend = std::move(mend);
    return verdict;
}

class Planner {
public:
    Planner(const PublicationRequest& request, const TablePatterns& patterns)
        : request_(request), patterns_(patterns) {
        for (const CatalogTable& table : request.tables)
            by_oid_[table.oid] = &table;
        for (const CatalogTable& table : request.tables)
            if (table.root != 0 && by_oid_.contains(table.root))
                trees_[table.root].push_back(&table);
    }

    PublicationPlan plan();

private:
    bool rooted(const CatalogTable& table) const {
        return table.root != 0 && by_oid_.contains(table.root);
    }
    // Whether the table can be published at all; else a verdict is given.
    bool publishable(const CatalogTable& table);
    void judge(const CatalogTable& table);
    void judge_tree(const CatalogTable& root);
    void judge_partition(const CatalogTable& partition, bool covered_by_root);
    bool tree_is_whole(const CatalogTable& root) const;
    void find_danger();

    std::string options(bool inserts_only) const;
    void add_publications();
    void add_changes();

    const PublicationRequest& request_;
    const TablePatterns& patterns_;
    std::map<Oid, const CatalogTable*> by_oid_;
    std::map<Oid, std::vector<const CatalogTable*>> trees_;
    std::set<Oid> all_;
    std::set<Oid> inserts_;
    std::set<Oid> endangered_;  // and their roots
    PublicationPlan plan_;
};

bool Planner::publishable(const CatalogTable& table) {
    std::string reason;
    std::string mend;
    if (table.kind == Kind::foreign) reason = "it is a foreign table: its rows are elsewhere";
    if (table.kind == Kind::view) reason = "it is a view: it holds no rows";
    if (table.kind == Kind::materialized_view)
        reason = "it is a materialized view: its changes are not decoded";
    if (reason.empty() && table.persistence == Persistence::temporary)
        reason = "it is temporary: it is not in WAL";
    if (reason.empty() && table.persistence == Persistence::unlogged) {
        reason = "it is unlogged: it is not in WAL";
        mend = alter(table, "SET LOGGED");
    }
    if (reason.empty() && !table.owned) {
        reason = fmt::format("it belongs to {}, and only its owner may publish it",
                             quote_identifier(table.owner));
        mend = fmt::format("GRANT {} TO {}", quote_identifier(table.owner),
                           quote_identifier(request_.role));
    }
    if (reason.empty()) return true;
    plan_.verdicts.push_back(verdict_of(table, Journaled::left_out, reason, mend));
    return false;
}

void Planner::judge(const CatalogTable& table) {
    if (!publishable(table)) return;
    if (has_replica_identity(table)) {
        all_.insert(table.oid);
        plan_.verdicts.push_back(verdict_of(table, Journaled::all_changes));
    } else {
        inserts_.insert(table.oid);
        plan_.verdicts.push_back(verdict_of(table, Journaled::inserts_only,
                                            reason_of_identity(table), mend_of_identity(table)));
    }
}

bool Planner::tree_is_whole(const CatalogTable& root) const {
    auto tree = trees_.find(root.oid);
    if (tree == trees_.end()) return true;
    return std::none_of(tree->second.begin(), tree->second.end(), [&](const CatalogTable* table) {
        return patterns_.choice(table->schema, table->name) == Choice::left_out;
    });
}

// A partition that is published by itself, beside or instead of its root.
void Planner::judge_partition(const CatalogTable& partition, bool covered_by_root) {
    if (partition.kind == Kind::partitioned) return;
    if (!covered_by_root) {
        if (patterns_.choice(partition.schema, partition.name) == Choice::left_out)
            plan_.verdicts.push_back(
                verdict_of(partition, Journaled::left_out, "the patterns leave it out"));
        else
            judge(partition);
        return;
    }
    if (partition.kind != Kind::ordinary || partition.persistence != Persistence::permanent) {
        publishable(partition);
    } else if (!has_replica_identity(partition)) {
        plan_.verdicts.push_back(verdict_of(partition, Journaled::inserts_only,
                                            reason_of_identity(partition),
                                            mend_of_identity(partition)));
    } else if (publishable(partition)) {
        all_.insert(partition.oid);
        plan_.verdicts.push_back(verdict_of(partition, Journaled::all_changes));
    }
}

void Planner::judge_tree(const CatalogTable& root) {
    const auto& partitions = trees_[root.oid];
    if (!tree_is_whole(root)) {
        plan_.verdicts.push_back(verdict_of(
            root, Journaled::left_out,
            "the patterns leave a partition of it out: the others are published by themselves"));
        for (const CatalogTable* partition : partitions)
            judge_partition(*partition, false);
        return;
    }
    if (!publishable(root)) return;
    const CatalogTable* weak = nullptr;
    for (const CatalogTable* partition : partitions)
        if (weak == nullptr && partition->kind == Kind::ordinary &&
            !has_replica_identity(*partition))
            weak = partition;
    if (root.primary_key && weak == nullptr) {
        all_.insert(root.oid);
        plan_.verdicts.push_back(verdict_of(root, Journaled::all_changes));
        for (const CatalogTable* partition : partitions) {
            if (partition->kind == Kind::partitioned) continue;
            const bool told = partition->kind == Kind::ordinary &&
                              partition->persistence == Persistence::permanent;
            if (told)
                plan_.verdicts.push_back(verdict_of(*partition, Journaled::all_changes));
            else
                publishable(*partition);
        }
        return;
    }
    inserts_.insert(root.oid);
    if (root.primary_key)
        plan_.verdicts.push_back(
            verdict_of(root, Journaled::inserts_only,
                       "of its partition " + quoted_name(*weak) + ": " + reason_of_identity(*weak),
                       mend_of_identity(*weak)));
    else
        plan_.verdicts.push_back(
            verdict_of(root, Journaled::inserts_only,
                       "a new partition of it has no replica identity, as it has no primary key",
                       alter(root, "ADD PRIMARY KEY (COLUMNS)")));
    for (const CatalogTable* partition : partitions)
        judge_partition(*partition, true);
}

// What counts is whether the publication holds the table or anything above it.
void Planner::find_danger() {
    const std::set<Oid> members(request_.all_changes.members.begin(),
                                request_.all_changes.members.end());
    for (const CatalogTable& table : request_.tables) {
        const bool held = members.contains(table.oid) || members.contains(table.root);
        const bool checked =
            table.kind == Kind::ordinary && table.persistence == Persistence::permanent;
        if (!held || !checked || has_replica_identity(table)) continue;
        plan_.in_danger.push_back(quoted_name(table));
        endangered_.insert({table.oid, table.root});
    }
}

std::string Planner::options(bool inserts_only) const {
    std::string text =
        fmt::format("publish = '{}', publish_via_partition_root = false",
                    inserts_only ? "insert, truncate" : "insert, update, delete, truncate");
    // Without it 18 refuses an UPDATE whose identity has a generated column. Both alike, as a table
    // can be in both.
    if (request_.server_major >= 18) text += ", publish_generated_columns = stored";
    return text;
}

void Planner::add_publications() {
    for (bool inserts_only : {false, true}) {
        const PublicationState& now = inserts_only ? request_.inserts : request_.all_changes;
        const std::string name =
            quote_identifier(inserts_only ? inserts_publication(request_.name) : request_.name);
        if (!now.exists)
            plan_.first.push_back(
                fmt::format("CREATE PUBLICATION {} WITH ({})", name, options(inserts_only)));
        if (!now.exists || now.as_made_here) continue;
        // The rest of the options can be refused for a member that is narrowed.
        if (inserts_only)
            plan_.first.push_back(
                fmt::format("ALTER PUBLICATION {} SET (publish = 'insert, truncate')", name));
        plan_.options.push_back(
            fmt::format("ALTER PUBLICATION {} SET ({})", name, options(inserts_only)));
    }
}

void Planner::add_changes() {
    std::map<Oid, MembershipChange> changes;
    for (bool inserts_only : {false, true}) {
        const PublicationState& state = inserts_only ? request_.inserts : request_.all_changes;
        const std::set<Oid>& wanted = inserts_only ? inserts_ : all_;
        const std::set<Oid> now(state.members.begin(), state.members.end());
        const std::set<Oid> narrowed(state.narrowed.begin(), state.narrowed.end());
        for (Oid oid : now)
            if (by_oid_.contains(oid) && (!wanted.contains(oid) || narrowed.contains(oid)))
                (inserts_only ? changes[oid].leaves_inserts : changes[oid].leaves_all_changes) =
                    true;
        for (Oid oid : wanted)
            if (!now.contains(oid) || narrowed.contains(oid))
                (inserts_only ? changes[oid].joins_inserts : changes[oid].joins_all_changes) = true;
    }
    const std::set<Oid> narrowed(request_.all_changes.narrowed.begin(),
                                 request_.all_changes.narrowed.end());
    for (auto& [oid, change] : changes) {
        change.oid = oid;
        change.table = quoted_name(*by_oid_.at(oid));
        change.in_danger =
            change.leaves_all_changes && (endangered_.contains(oid) || narrowed.contains(oid));
        (change.leaves() ? plan_.leaving : plan_.joining).push_back(std::move(change));
    }
    std::stable_partition(plan_.leaving.begin(), plan_.leaving.end(),
                          [](const MembershipChange& change) { return change.in_danger; });
}

PublicationPlan Planner::plan() {
    for (const CatalogTable& table : request_.tables) {
        if (rooted(table)) continue;
        const Choice choice = patterns_.choice(table.schema, table.name);
        if (table.kind == Kind::partitioned) {
            if (choice == Choice::selected)
                judge_tree(table);
            else
                for (const CatalogTable* partition : trees_[table.oid])
                    if (partition->kind != Kind::partitioned &&
                        patterns_.select(partition->schema, partition->name))
                        judge(*partition);
        } else if (choice == Choice::selected) {
            judge(table);
        }
    }
    std::sort(plan_.verdicts.begin(), plan_.verdicts.end(),
              [&](const TableVerdict& a, const TableVerdict& b) {
                  const CatalogTable& x = *by_oid_.at(a.oid);
                  const CatalogTable& y = *by_oid_.at(b.oid);
                  return std::tie(x.schema, x.name) < std::tie(y.schema, y.name);
              });
    plan_.all_changes.assign(all_.begin(), all_.end());
    plan_.inserts.assign(inserts_.begin(), inserts_.end());
    find_danger();
    add_publications();
    add_changes();
    return std::move(plan_);
}

// What a publication holds, whole or at all, by the tables' own names or their roots'.
class Coverage {
public:
    explicit Coverage(const PublicationState& state)
        : any_(state.members.begin(), state.members.end()), whole_(any_) {
        for (Oid oid : state.narrowed)
            whole_.erase(oid);
    }
    bool any(Oid oid, Oid root) const { return any_.contains(oid) || any_.contains(root); }
    bool whole(Oid oid, Oid root) const { return whole_.contains(oid) || whole_.contains(root); }

private:
    std::set<Oid> any_;
    std::set<Oid> whole_;
};

}  // namespace

std::string quoted_name(const CatalogTable& table) {
    return quote_identifier(table.schema) + "." + quote_identifier(table.name);
}

bool has_replica_identity(const CatalogTable& table) {
    switch (table.identity) {
        case 'd':
            return table.primary_key;
        case 'i':
            return table.identity_index;
        case 'f':
            return !table.virtual_columns;
        default:
            return false;
    }
}

std::string inserts_publication(const std::string& name) { return name + "_inserts"; }

// ONLY: what inherits from a table, without being a partition, has a verdict of its own.
std::vector<std::string> statements_of(const std::string& name,
                                       const std::vector<MembershipChange>& changes) {
    std::vector<std::string> statements;
    auto add = [&](const std::string& publication, const char* what,
                   bool MembershipChange::*wanted) {
        std::string list;
        for (const MembershipChange& change : changes)
            if (change.*wanted) list += (list.empty() ? "ONLY " : ", ONLY ") + change.table;
        if (!list.empty())
            statements.push_back(fmt::format("ALTER PUBLICATION {} {} TABLE {}",
                                             quote_identifier(publication), what, list));
    };
    add(name, "DROP", &MembershipChange::leaves_all_changes);
    add(inserts_publication(name), "DROP", &MembershipChange::leaves_inserts);
    add(name, "ADD", &MembershipChange::joins_all_changes);
    add(inserts_publication(name), "ADD", &MembershipChange::joins_inserts);
    return statements;
}

void judge_as_published(const PublicationRequest& now, const std::vector<Oid>& locked,
                        PublicationPlan& plan) {
    const Coverage all(now.all_changes);
    const Coverage inserts(now.inserts);
    const std::set<Oid> waiting(locked.begin(), locked.end());
    for (TableVerdict& verdict : plan.verdicts) {
        const bool has_all = all.whole(verdict.oid, verdict.root);
        const bool has_inserts = has_all || inserts.whole(verdict.oid, verdict.root);
        const Journaled wanted = verdict.journaled;
        if (wanted == Journaled::left_out || (wanted == Journaled::all_changes && has_all) ||
            (wanted == Journaled::inserts_only && has_inserts))
            continue;
        verdict.journaled = has_inserts ? Journaled::inserts_only : Journaled::left_out;
        verdict.reason = waiting.contains(verdict.oid) || waiting.contains(verdict.root)
                             ? "it is locked by another session; it joins when the lock is gone"
                             : "it came or was altered meanwhile: it joins the next time";
        verdict.mend.clear();
    }
    plan.all_changes = now.all_changes.members;
    plan.inserts = now.inserts.members;
    std::sort(plan.all_changes.begin(), plan.all_changes.end());
    std::sort(plan.inserts.begin(), plan.inserts.end());
}

MembershipDifference compare_members(const PublicationRequest& before,
                                     const PublicationRequest& after) {
    const Coverage past(before.all_changes);
    const Coverage present(after.all_changes);
    std::map<Oid, Oid> roots;
    for (const CatalogTable& table : before.tables)
        roots[table.oid] = table.root;
    MembershipDifference difference;
    for (const CatalogTable& table : after.tables) {
        if (table.kind != Kind::ordinary) continue;
        auto known = roots.find(table.oid);
        const Oid root_before = known == roots.end() ? table.root : known->second;
        const bool was_there = past.any(table.oid, root_before);
        const bool was_whole = past.whole(table.oid, root_before);
        const bool is_whole = present.whole(table.oid, table.root);
        const bool joined = is_whole && !was_whole;
        if (joined) difference.joined.push_back(table.oid);
        if (was_there && (joined || !present.any(table.oid, table.root)))
            difference.left.push_back(table.oid);
    }
    std::sort(difference.joined.begin(), difference.joined.end());
    std::sort(difference.left.begin(), difference.left.end());
    return difference;
}

Result<PublicationPlan> plan_publication(const PublicationRequest& request,
                                         const TablePatterns& patterns) {
    for (const PublicationState* state : {&request.all_changes, &request.inserts})
        if (state->exists && !state->names_tables)
            return fail(
                Errc::refused,
                fmt::format("the publication \"{}\" holds all tables or whole schemas: it was not "
                            "made here",
                            state == &request.all_changes ? request.name
                                                          : inserts_publication(request.name)),
                "Drop it, or name the journal's publication otherwise.");
    return Planner(request, patterns).plan();
}

}  // namespace walvault::wal
