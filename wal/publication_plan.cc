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
    std::string table_list(const std::vector<Oid>& oids) const;
    void add_statements();
    void add_statement(const std::string& name, const char* change, const std::vector<Oid>& oids);

    const PublicationRequest& request_;
    const TablePatterns& patterns_;
    std::map<Oid, const CatalogTable*> by_oid_;
    std::map<Oid, std::vector<const CatalogTable*>> trees_;
    std::set<Oid> all_;
    std::set<Oid> inserts_;
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
        if (held && checked && !has_replica_identity(table))
            plan_.in_danger.push_back(quoted_name(table));
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

// ONLY: what inherits from a table, without being a partition, has a verdict of its own.
std::string Planner::table_list(const std::vector<Oid>& oids) const {
    std::string list;
    for (Oid oid : oids)
        list += (list.empty() ? "ONLY " : ", ONLY ") + quoted_name(*by_oid_.at(oid));
    return list;
}

void Planner::add_statement(const std::string& name, const char* change,
                            const std::vector<Oid>& oids) {
    if (oids.empty()) return;
    plan_.statements.push_back(fmt::format("ALTER PUBLICATION {} {} TABLE {}",
                                           quote_identifier(name), change, table_list(oids)));
}

void Planner::add_statements() {
    struct Change {
        std::string name;
        const PublicationState& now;
        const std::set<Oid>& wanted;
        std::vector<Oid> gone = {};
        std::vector<Oid> added = {};
    };
    std::vector<Change> changes{{request_.name, request_.all_changes, all_},
                                {inserts_publication(request_.name), request_.inserts, inserts_}};
    for (Change& change : changes) {
        const std::set<Oid> now(change.now.members.begin(), change.now.members.end());
        for (Oid oid : now)
            if (!change.wanted.contains(oid) && by_oid_.contains(oid)) change.gone.push_back(oid);
        for (Oid oid : change.wanted)
            if (!now.contains(oid)) change.added.push_back(oid);
    }
    for (const Change& change : changes)
        add_statement(change.name, "DROP", change.gone);
    for (const Change& change : changes) {
        const std::string with = options(&change != &changes.front());
        if (!change.now.exists)
            plan_.statements.push_back(fmt::format("CREATE PUBLICATION {} WITH ({})",
                                                   quote_identifier(change.name), with));
        else if (!change.now.as_made_here)
            plan_.statements.push_back(
                fmt::format("ALTER PUBLICATION {} SET ({})", quote_identifier(change.name), with));
    }
    for (const Change& change : changes)
        add_statement(change.name, "ADD", change.added);
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
    add_statements();
    return std::move(plan_);
}

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
