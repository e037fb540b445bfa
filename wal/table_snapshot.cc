#include "wal/table_snapshot.h"

#include <fmt/format.h>

#include "proto/copy_text.h"
#include "wal/query_rows.h"
#include "wal/walsender.h"

namespace walvault::wal {
namespace {

class PqTableSnapshot final : public TableSnapshot {
public:
    PqTableSnapshot(Options options, std::unique_ptr<Connection> connection, unsigned major)
        : options_(std::move(options)), connection_(std::move(connection)), major_(major) {}

    Task<Result<pgoutput::Relation>> begin(pgoutput::Oid table) override;
    const TableForm& form() const override { return form_; }
    Task<Result<std::optional<pgoutput::Tuple>>> next() override;
    void close() override { connection_->close(); }

private:
    Task<Result<>> begin_transaction();
    Task<Result<>> describe(pgoutput::Oid table);
    Task<Result<>> lock(pgoutput::Oid table, std::string name);
    Task<Result<>> start_copy();
    Result<> take_columns(const QueryResult& columns);
    Error changed(Error error) const;

    Options options_;
    std::unique_ptr<Connection> connection_;
    unsigned major_;
    bool in_transaction_ = false;
    bool copying_ = false;
    QueryResult described_;  // what the relation's names are views of
    QueryResult columns_text_;
    std::vector<pgoutput::Column> columns_;
    pgoutput::Relation relation_;
    TableForm form_;
    std::string quoted_;
    std::optional<CopyMessage> message_;
    CopyTextReader reader_;
};

// What the catalogue had at the snapshot is gone or otherwise now.
Error PqTableSnapshot::changed(Error error) const {
    const std::string state = connection_->sqlstate();
    if (state == "42P01" || state == "42703" || state == "3F000") {
        error.code = Errc::busy;
        error.message = fmt::format("the table {} was altered or dropped since the snapshot: {}",
                                    quoted_, error.message);
        error.hint = "A new snapshot is needed.";
    }
    // A snapshot of that name, or the transaction that exported it, is gone.
    if (state == "22023" || state == "42704") error.code = Errc::unavailable;
    return error;
}

// A transaction for each table, so that no lock outlives the reading of its table.
Task<Result<>> PqTableSnapshot::begin_transaction() {
    if (in_transaction_) WV_CO_CHECK(co_await connection_->query("ROLLBACK"));
    in_transaction_ = true;
    auto begun = co_await connection_->query(
        fmt::format("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}; "
                    "SET LOCAL lock_timeout = {}",
                    quote_literal(options_.snapshot_name), options_.lock_timeout.count()));
    if (!begun) {
        Error error = changed(std::move(begun).error());
        // Nothing is known of it any more.
        if (error.code == Errc::invalid_argument) error.code = Errc::unavailable;
        co_return fail_while("read tables under the snapshot \"" + options_.snapshot_name + "\"",
                             std::move(error));
    }
    co_return Result<>();
}

Result<> PqTableSnapshot::take_columns(const QueryResult& columns) {
    columns_.clear();
    for (std::size_t row = 0; row < columns.rows.size(); ++row) {
        pgoutput::Column column;
        if (!columns.rows[row].at(0)) return fail(Errc::corrupt, "a column without a name");
        column.name = *columns.rows[row].at(0);
        WV_TRY(column.type, number_at<pgoutput::Oid>(columns, row, 1));
        WV_TRY(column.type_modifier, number_at<std::int32_t>(columns, row, 2));
        column.in_key = true_at(columns, row, 3);
        columns_.push_back(column);
    }
    return {};
}

Task<Result<>> PqTableSnapshot::describe(pgoutput::Oid table) {
    WV_CO_TRY(described_,
              co_await connection_->query_one(fmt::format(
                  "SELECT n.nspname, c.relname, c.relreplident, c.relkind FROM pg_catalog.pg_class "
                  "c JOIN "
                  "pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {}",
                  table)));
    const bool readable = !described_.rows.empty() && text_at(described_, 0, 3) == "r";
    if (!readable)
        co_return fail(
            Errc::not_found,
            fmt::format("the snapshot \"{}\" shows no table with rows of its own that has the "
                        "oid {}",
                        options_.snapshot_name, table));
    // The key as RelationGetIdentityKeyBitmap() has it; FULL makes all columns part of it.
    WV_CO_TRY(columns_text_, co_await connection_->query_one(fmt::format(
                                 "SELECT a.attname, a.atttypid, a.atttypmod, c.relreplident = 'f' "
                                 "OR EXISTS (SELECT FROM "
                                 "pg_catalog.pg_index x WHERE x.indrelid = c.oid AND a.attnum = "
                                 "ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1]) AND x.indisvalid "
                                 "AND x.indimmediate AND (c.relreplident = 'd' AND x.indisprimary "
                                 "OR c.relreplident = 'i' AND "
                                 "x.indisreplident)) FROM pg_catalog.pg_class c JOIN "
                                 "pg_catalog.pg_attribute a ON a.attrelid = c.oid "
                                 "WHERE c.oid = {} AND a.attnum > 0 AND NOT a.attisdropped AND "
                                 "a.attgenerated IN ('', {}) ORDER BY "
                                 "a.attnum",
                                 table, major_ >= 18 ? "'s'" : "''")));
    WV_CO_CHECK(take_columns(columns_text_));
    std::vector<std::uint32_t> only{table};
    WV_CO_TRY(auto forms, co_await table_forms(*connection_, std::move(only)));
    form_ = forms[table];
    relation_ = {};
    relation_.oid = table;
    // As pgoutput names it.
    const std::string& schema = *described_.rows[0][0];
    relation_.schema = schema == "pg_catalog" ? std::string_view() : std::string_view(schema);
    relation_.name = *described_.rows[0][1];
    relation_.identity = static_cast<pgoutput::ReplicaIdentity>(text_at(described_, 0, 2).at(0));
    relation_.columns = columns_;
    quoted_ = quote_identifier(schema) + "." + quote_identifier(*described_.rows[0][1]);
    co_return Result<>();
}

// TRUNCATE and rewrites take rows from older snapshots without a word. With the lock nothing of
// that happens any more, and what has happened shows: a row of the catalogue is as of the snapshot,
// a function looks at it as it is.
Task<Result<>> PqTableSnapshot::lock(pgoutput::Oid table, std::string name) {
    auto locked = co_await connection_->query("LOCK TABLE ONLY " + name + " IN ACCESS SHARE MODE");
    if (!locked) co_return fail(changed(std::move(locked).error()));
    WV_CO_TRY(auto same, co_await connection_->query_one(fmt::format(
                             "SELECT relfilenode = pg_catalog.pg_relation_filenode(oid) AND "
                             "pg_catalog.to_regclass({}) = oid "
                             "FROM pg_catalog.pg_class WHERE oid = {}",
                             quote_literal(name), table)));
    if (!true_at(same, 0, 0))
        co_return fail(
            Errc::busy,
            fmt::format("the table {} was truncated, rewritten or renamed since the snapshot",
                        name),
            "A new snapshot is needed.");
    co_return Result<>();
}

Task<Result<>> PqTableSnapshot::start_copy() {
    std::string list;
    for (const pgoutput::Column& column : columns_)
        list += (list.empty() ? "" : ", ") + quote_identifier(std::string(column.name));
    // COPY of a table takes no generated column, which 18 publishes; of a query it does.
    std::string command =
        "COPY " + quoted_ + (list.empty() ? "" : " (" + list + ")") + " TO STDOUT";
    if (major_ >= 18) command = "COPY (SELECT " + list + " FROM ONLY " + quoted_ + ") TO STDOUT";
    auto results = co_await connection_->query(command);
    if (!results) co_return fail(changed(std::move(results).error()));
    if (results->empty() || results->back().kind != QueryResult::Kind::copy_out)
        co_return fail(Errc::corrupt, "the server does not copy " + quoted_);
    copying_ = true;
    co_return Result<>();
}

Task<Result<pgoutput::Relation>> PqTableSnapshot::begin(pgoutput::Oid table) {
    if (copying_)
        co_return fail(Errc::invalid_argument, "the table before was not read to its end");
    message_.reset();
    WV_CO_CHECK(co_await begin_transaction());
    WV_CO_CHECK(co_await describe(table));
    WV_CO_CHECK(co_await lock(table, quoted_));
    auto started = co_await start_copy();
    if (!started) co_return fail_while("read the table " + quoted_, std::move(started).error());
    co_return relation_;
}

Task<Result<std::optional<pgoutput::Tuple>>> PqTableSnapshot::next() {
    if (!copying_) co_return fail(Errc::invalid_argument, "no table is being read");
    message_.reset();
    auto message = co_await connection_->next_copy_data();
    if (!message) co_return fail_while("read the table " + quoted_, std::move(message).error());
    if (!*message) {
        copying_ = false;
        auto ended = co_await connection_->results_after_copy();
        if (!ended) co_return fail_while("read the table " + quoted_, std::move(ended).error());
        WV_CO_CHECK(co_await connection_->query("COMMIT"));
        in_transaction_ = false;
        co_return std::nullopt;
    }
    message_.emplace(std::move(**message));
    WV_CO_TRY(pgoutput::Tuple row, reader_.read(message_->bytes(), columns_.size()));
    co_return row;
}

}  // namespace

Task<Result<std::unique_ptr<TableSnapshot>>> TableSnapshot::open(Options options) {
    WV_CO_TRY(auto session, co_await connect_to_database(options.database, Connection::Mode::sql));
    WV_CO_TRY(const ServerVersion* version, server_version_of(*session.connection));
    co_return std::make_unique<PqTableSnapshot>(std::move(options), std::move(session.connection),
                                                version->major);
}

}  // namespace walvault::wal
