#include "agent/journal_router.h"

#include <fmt/format.h>

#include "base/invariant.h"

namespace walvault::agent {
namespace {

pb::JournalRelation::Identity identity_of(pgoutput::ReplicaIdentity identity) {
    switch (identity) {
        case pgoutput::ReplicaIdentity::by_default:
            return pb::JournalRelation::DEFAULT;
        case pgoutput::ReplicaIdentity::nothing:
            return pb::JournalRelation::NOTHING;
        case pgoutput::ReplicaIdentity::full:
            return pb::JournalRelation::FULL;
        case pgoutput::ReplicaIdentity::index:
            return pb::JournalRelation::INDEX;
    }
    return pb::JournalRelation::IDENTITY_UNSPECIFIED;
}

// The server says so of no table outside of pg_catalog.
std::string_view schema_of(const pgoutput::Relation& relation) {
    return relation.schema.empty() ? std::string_view("pg_catalog") : relation.schema;
}

constexpr std::size_t kRelationBytesMax = 1 << 20;

tl::unexpected<Error> bad_order() {
    return fail(Errc::corrupt, "the server sent transactions that do not follow one another");
}

tl::unexpected<Error> bad_tuple() {
    return fail(Errc::corrupt, "a change that the server sent does not fit to its table");
}

std::uint64_t take_be(ByteSpan& bytes, std::size_t count) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < count; ++i)
        value = value << 8 | std::to_integer<std::uint64_t>(bytes[i]);
    bytes = bytes.subspan(count);
    return value;
}

}  // namespace

std::size_t JournalCut::plain_bytes() const {
    std::size_t sum = 0;
    for (const auto& of_journal : batches)
        for (const JournalBatch& batch : of_journal)
            sum += batch.plain.size();
    return sum;
}

JournalRouter::JournalRouter(Options options, std::vector<Lsn> ends)
    : options_(std::move(options)), journals_(options_.journal_count) {
    WV_ASSERT(ends.size() == journals_.size());
    for (std::size_t i = 0; i < ends.size(); ++i)
        journals_[i].end_lsn = ends[i];
}

Result<> JournalRouter::take_relation(const pgoutput::Relation& relation, const TableFacts& facts) {
    Route route;
    const std::string_view schema = schema_of(relation);
    const TableNames names{std::string(schema), std::string(relation.name), facts.root_schema,
                           facts.root_table, facts.is_gone};
    pb::JournalRelation kept;
    kept.set_oid(relation.oid);
    kept.set_schema(std::string(schema));
    kept.set_table(std::string(relation.name));
    kept.set_identity(identity_of(relation.identity));
    for (const pgoutput::Column& column : relation.columns) {
        const ColumnRule rule = options_.rule_of(names, column.name);
        route.rules.push_back(rule);
        route.paths.push_back(rule == ColumnRule::mask
                                  ? fmt::format("{}.{}.{}", schema, relation.name, column.name)
                                  : std::string());
        route.is_changed = route.is_changed || rule != ColumnRule::keep;
        if (rule == ColumnRule::drop) continue;
        pb::JournalColumn& to = *kept.add_columns();
        to.set_name(std::string(column.name));
        to.set_type_oid(column.type);
        to.set_typmod(column.type_modifier);
        to.set_is_identity(column.in_key);
        to.set_is_primary_key(facts.primary_key.contains(std::string(column.name)));
        if (auto type = facts.type_names.find(column.type); type != facts.type_names.end())
            to.set_type_name(type->second);
        to.set_is_masked(rule == ColumnRule::mask);
        to.set_is_generated(facts.generated.contains(std::string(column.name)));
    }
    if (kept.ByteSizeLong() > kRelationBytesMax)
        return fail(Errc::corrupt, "the description of a table is larger than a batch can hold");
    route.journal = options_.journal_of(names);
    WV_ASSERT(route.journal < journals_.size());
    route.relation = RelationVersion::make(std::move(kept));
    routes_.insert_or_assign(relation.oid, std::move(route));
    return {};
}

// Begun in a journal when the first change comes that belongs there.
BatchWriter* JournalRouter::writer_for(std::size_t number) {
    Journal& journal = journals_[number];
    if (journal.skips || !begin_) return nullptr;
    if (!journal.in_transaction) {
        journal.writer.begin(*begin_);
        if (origin_) journal.writer.origin(origin_->first, origin_->second);
        journal.in_transaction = true;
    }
    return &journal.writer;
}

void JournalRouter::collect(std::size_t number) {
    Journal& journal = journals_[number];
    while (auto batch = journal.writer.take_full()) {
        journal.full.push_back(std::move(*batch));
        has_full_ = true;
    }
}

Result<const JournalRouter::Route*> JournalRouter::route_of(pgoutput::Oid oid) const {
    auto route = routes_.find(oid);
    if (route == routes_.end())
        return fail(Errc::corrupt, fmt::format("the server sent a change of table {} and has not "
                                               "told which table that is",
                                               oid));
    return &route->second;
}

Result<> JournalRouter::rewrite_tuple(const Route& route, ByteSpan& tuples) {
    if (tuples.size() < 2 || (std::to_integer<std::size_t>(tuples[0]) << 8 |
                              std::to_integer<std::size_t>(tuples[1])) != route.rules.size())
        return bad_tuple();
    tuples = tuples.subspan(2);
    append_be(rewritten_, static_cast<std::uint16_t>(route.relation->relation().columns_size()));
    for (std::size_t column = 0; column < route.rules.size(); ++column) {
        if (tuples.empty()) return bad_tuple();
        const char kind = static_cast<char>(tuples[0]);
        ByteSpan value;
        std::size_t size = 1;
        if (kind == 't') {
            ByteSpan rest = tuples.subspan(1);
            if (rest.size() < 4) return bad_tuple();
            const std::size_t length = take_be(rest, 4);
            if (rest.size() < length) return bad_tuple();
            value = rest.first(length);
            size = 5 + length;
        } else if (kind != 'n' && kind != 'u') {
            return bad_tuple();
        }
        const ByteSpan whole = tuples.first(size);
        tuples = tuples.subspan(size);
        if (route.rules[column] == ColumnRule::drop) continue;
        if (route.rules[column] == ColumnRule::keep || kind != 't') {
            rewritten_.insert(rewritten_.end(), whole.begin(), whole.end());
            continue;
        }
        const std::string masked = options_.mask(route.paths[column], as_text(value));
        rewritten_.push_back(static_cast<std::byte>('m'));
        append_be(rewritten_, static_cast<std::uint32_t>(masked.size()));
        append(rewritten_, as_bytes(masked));
    }
    return {};
}

// The same tuples without the columns that are left out, and with hashes of those that are masked.
Result<> JournalRouter::rewrite(const Route& route, JournalRecordKind kind, ByteSpan tuples) {
    rewritten_.clear();
    const int most = kind == JournalRecordKind::updated ? 2 : 1;
    for (int tuple = 0; tuple < most && !tuples.empty(); ++tuple) {
        rewritten_.push_back(tuples[0]);
        tuples = tuples.subspan(1);
        WV_CHECK(rewrite_tuple(route, tuples));
    }
    if (!tuples.empty()) return bad_tuple();
    return {};
}

Result<ByteSpan> JournalRouter::encode_row(pgoutput::Oid oid, pgoutput::Tuple row) {
    WV_TRY(const Route* route, route_of(oid));
    if (row.size() != route->rules.size()) return bad_tuple();
    rewritten_.clear();
    append_be(rewritten_, static_cast<std::uint16_t>(route->relation->relation().columns_size()));
    for (std::size_t column = 0; column < row.size(); ++column) {
        const pgoutput::Value& value = row[column];
        if (route->rules[column] == ColumnRule::drop) continue;
        if (value.kind == pgoutput::ValueKind::null) {
            rewritten_.push_back(static_cast<std::byte>('n'));
            continue;
        }
        if (value.kind != pgoutput::ValueKind::text) return bad_tuple();
        const bool masked = route->rules[column] == ColumnRule::mask;
        const std::string hash =
            masked ? options_.mask(route->paths[column], value.bytes) : std::string();
        const std::string_view text = masked ? std::string_view(hash) : value.bytes;
        rewritten_.push_back(static_cast<std::byte>(masked ? 'm' : 't'));
        append_be(rewritten_, static_cast<std::uint32_t>(text.size()));
        append(rewritten_, as_bytes(text));
    }
    return ByteSpan(rewritten_);
}

const RelationRef& JournalRouter::relation(pgoutput::Oid oid) const {
    auto route = routes_.find(oid);
    WV_ASSERT(route != routes_.end());
    return route->second.relation;
}

std::size_t JournalRouter::journal_of(pgoutput::Oid oid) const {
    auto route = routes_.find(oid);
    WV_ASSERT(route != routes_.end());
    return route->second.journal;
}

Result<> JournalRouter::change(JournalRecordKind kind, pgoutput::Oid oid, ByteSpan tuples) {
    WV_TRY(const Route* route, route_of(oid));
    BatchWriter* writer = writer_for(route->journal);
    ++change_count_;
    if (writer == nullptr) return {};
    if (route->is_changed) {
        WV_CHECK(rewrite(*route, kind, tuples));
        tuples = rewritten_;
    }
    writer->change(kind, route->relation, tuples);
    collect(route->journal);
    return {};
}

Result<> JournalRouter::truncate(const pgoutput::Truncate& truncate) {
    std::vector<std::vector<RelationRef>> of_journal(journals_.size());
    for (const pgoutput::Oid oid : truncate.relations) {
        WV_TRY(const Route* route, route_of(oid));
        of_journal[route->journal].push_back(route->relation);
    }
    ++change_count_;
    for (std::size_t i = 0; i < of_journal.size(); ++i) {
        if (of_journal[i].empty()) continue;
        BatchWriter* writer = writer_for(i);
        if (writer == nullptr) continue;
        writer->truncate(truncate.cascade, truncate.restart_identity, of_journal[i]);
        collect(i);
    }
    return {};
}

Result<> JournalRouter::commit(const pgoutput::Commit& commit) {
    if (!begin_ || commit.commit_lsn != begin_->commit_lsn || commit.end_lsn <= commit.commit_lsn ||
        commit.end_lsn <= end_lsn_)
        return bad_order();
    for (const Journal& journal : journals_)
        if (journal.in_transaction && commit.end_lsn <= journal.end_lsn) return bad_order();
    for (std::size_t i = 0; i < journals_.size(); ++i) {
        Journal& journal = journals_[i];
        if (journal.in_transaction) {
            journal.writer.commit(commit.commit_lsn, commit.end_lsn, commit.committed_at);
            journal.end_lsn = commit.end_lsn;
            collect(i);
        }
        journal.in_transaction = journal.skips = false;
    }
    begin_.reset();
    origin_.reset();
    end_lsn_ = commit.end_lsn;
    ++transaction_count_;
    return {};
}

Result<> JournalRouter::take(const pgoutput::AnyMessage& message, ByteSpan tuples) {
    if (const auto* begin = std::get_if<pgoutput::Begin>(&message)) {
        if (begin_) return bad_order();
        begin_ = JournalBegin{begin->commit_lsn, begin->committed_at, begin->xid};
        // A commit record that begins before a journal's end has its end there too.
        for (Journal& journal : journals_)
            journal.skips = begin->commit_lsn < journal.end_lsn;
        return {};
    }
    if (const auto* each = std::get_if<pgoutput::Insert>(&message))
        return change(JournalRecordKind::inserted, each->relation, tuples);
    if (const auto* each = std::get_if<pgoutput::Update>(&message))
        return change(JournalRecordKind::updated, each->relation, tuples);
    if (const auto* each = std::get_if<pgoutput::Delete>(&message))
        return change(JournalRecordKind::deleted, each->relation, tuples);
    if (const auto* each = std::get_if<pgoutput::Truncate>(&message)) return truncate(*each);
    if (const auto* each = std::get_if<pgoutput::Commit>(&message)) return commit(*each);
    if (const auto* each = std::get_if<pgoutput::ReplicationOrigin>(&message)) {
        origin_ = {each->commit_lsn, std::string(each->name)};
        return {};
    }
    if (const auto* each = std::get_if<pgoutput::Message>(&message)) {
        BatchWriter* writer = each->transactional ? writer_for(0) : nullptr;
        if (writer == nullptr) return {};
        writer->message(true, each->lsn, each->prefix, as_bytes(each->content));
        collect(0);
        return {};
    }
    if (std::holds_alternative<pgoutput::Type>(message)) return {};
    return fail(Errc::corrupt,
                "the server sent a message that has no place in a whole transaction");
}

bool JournalRouter::is_empty() const {
    for (const Journal& journal : journals_)
        if (!journal.full.empty() || journal.writer.plain_bytes() > 4) return false;
    return true;
}

JournalCut JournalRouter::take(bool all) {
    JournalCut cut;
    for (std::size_t i = 0; i < journals_.size(); ++i) {
        Journal& journal = journals_[i];
        if (all || i > 0)
            if (auto rest = journal.writer.take()) journal.full.push_back(std::move(*rest));
        cut.batches.push_back(std::exchange(journal.full, {}));
    }
    has_full_ = false;
    return cut;
}

JournalCut JournalRouter::take_full() { return take(false); }

JournalCut JournalRouter::take_all() {
    WV_ASSERT(!begin_);
    JournalCut cut = take(true);
    cut.end_lsn = end_lsn_;
    return cut;
}

}  // namespace walvault::agent
