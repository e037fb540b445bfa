#include "agent/row_versions.h"

#include "proto/journal_keys.h"

namespace walvault::agent {

void RowVersions::begin_with(const pb::JournalRelation& relation, Row row) {
    if (key_names(relation) != key_.names) return;
    relation_ = relation;
    row_ = std::move(row);
}

void RowVersions::forget() { row_.reset(); }

bool RowVersions::is_key(const pb::JournalRelation& relation, const Row& row) const {
    const auto columns = key_columns(relation);
    if (columns.size() != key_.values.size() || key_names(relation) != key_.names) return false;
    for (std::size_t i = 0; i < columns.size(); ++i) {
        if (columns[i] >= row.size()) return false;
        const RowValue& value = row[columns[i]];
        if (value.kind != RowValue::Kind::text || value.text != key_.values[i]) return false;
    }
    return true;
}

Row RowVersions::before_in(const pb::JournalRelation& relation) const {
    if (!row_ || row_->empty()) return {};
    return as_in(*row_, relation_, relation);
}

Result<std::optional<RowVersion>> RowVersions::add(const storage::JournalTransaction& transaction,
                                                   const storage::JournalChange& change) {
    RowVersion version{.transaction = transaction, .kind = change.kind};
    if (change.kind == JournalRecordKind::truncated) {
        if (row_ && row_->empty()) return std::optional<RowVersion>{};
        version.relation = row_ || change.truncated.empty() ? relation_ : *change.truncated.front();
        if (row_) version.change.before = *row_;
        row_ = Row{};
        return std::optional<RowVersion>(std::move(version));
    }
    version.relation = *change.relation;
    if (key_names(version.relation) != key_.names) {
        other_key_ = OtherKey{version.relation, transaction.end_lsn};
        forget();
        return std::optional<RowVersion>{};
    }
    WV_TRY(version.change, read_change(change));
    RowChange& read = version.change;
    const bool was_it = is_key(version.relation, read.before);
    const bool is_it = is_key(version.relation, read.now);
    if (change.kind == JournalRecordKind::updated) {
        version.came = is_it && !was_it;
        version.went = was_it && !is_it;
    }
    // An update from another key tells of another row until then.
    if (was_it) {
        fill_unknown(read.before, before_in(version.relation));
        resolve_unchanged(read.now, read.before);
    }
    if (is_it || was_it || change.kind == JournalRecordKind::deleted) {
        relation_ = version.relation;
        row_ = is_it ? read.now : Row{};
        if (is_it)
            for (RowValue& value : *row_)
                if (value.kind == RowValue::Kind::unchanged) value = RowValue{};
    }
    return std::optional<RowVersion>(std::move(version));
}

}  // namespace walvault::agent
