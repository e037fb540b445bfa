// Connection: libpq on the loop; no thread ever blocks on the socket. Owns the PGconn.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/asio.h"
#include "base/bytes.h"
#include "wal/hangup.h"

namespace walvault::wal {

// One result of a query. Values are copies; a null is nullopt.
struct QueryResult {
    enum class Kind { rows, command, copy_in, copy_out, copy_both } kind = Kind::command;
    std::vector<std::string> columns;
    std::vector<std::vector<std::optional<std::string>>> rows;
};

// A CopyData message in libpq's own buffer, freed with this object.
class CopyMessage {
public:
    CopyMessage(char* buffer, std::size_t size);
    ~CopyMessage();
    CopyMessage(CopyMessage&& other) noexcept;
    CopyMessage& operator=(CopyMessage&& other) noexcept;
    ByteSpan bytes() const { return {reinterpret_cast<const std::byte*>(buffer_), size_}; }

private:
    char* buffer_;
    std::size_t size_;
};

// One of the servers that a conninfo can lead to, in libpq's words.
struct ServerAddress {
    std::string host;      // name, address or directory of the socket; empty: libpq's default
    std::string hostaddr;  // where `host` is; empty: as it resolves
    std::string port;      // empty: libpq's default
    bool operator==(const ServerAddress&) const = default;
};

class Connection {
public:
    enum class Mode { sql, physical_replication, database_replication };
    struct Options {
        std::string conninfo;  // libpq's; passwords come from where libpq finds them
        Mode mode = Mode::sql;
        std::string database = {};  // instead of the conninfo's
        std::string application_name = "walvault";
        std::chrono::seconds connect_timeout{10};  // for each server that is tried
        // Of the conninfo's servers this one alone, whatever its role.
        std::optional<ServerAddress> only;
        // Of several servers, one that takes writes, whatever the conninfo says of roles.
        bool writable = false;
        Hangup hangup;  // ends the connecting and the connection
    };
    // Errors: unavailable (nothing answers, starting up, too many connections), refused (role, pg_hba,
    // password), invalid_argument (conninfo), cancelled (hung up). Messages never hold a password.
    static Task<Result<std::unique_ptr<Connection>>> connect(Options options);
    virtual ~Connection() = default;

    // All results of `sql`, drained to the last one; stops early at a copy, which then is the last.
    // Errors: unavailable when the connection is lost; else by SQLSTATE, with `sqlstate()` set: 42501
    // and 28xxx refused, 55006 busy, 58P01 gap, 42704 not_found, XX001 and XX002 corrupt, the rest of
    // 42xxx and 0A, 22, 3D, 3F invalid_argument, all others unavailable; with the server's message.
    virtual Task<Result<std::vector<QueryResult>>> query(std::string sql) = 0;
    // The first result's rows only; a convenience.
    virtual Task<Result<QueryResult>> query_one(std::string sql) = 0;
    // After a copy began: the next message, or nullopt when the server ended the copy. Errors as query.
    virtual Task<Result<std::optional<CopyMessage>>> next_copy_data() = 0;
    // Like next_copy_data without waiting for the socket: nullopt when nothing is complete in memory.
    virtual Result<std::optional<CopyMessage>> poll_copy_data() = 0;
    // After poll_copy_data gave nothing: waits until the server sent more or ended the copy, for at most
    // `timeout`. Wake-ups may be spurious.
    enum class CopyWait { readable, ended, timed_out };
    virtual Task<Result<CopyWait>> wait_copy_data(std::chrono::steady_clock::duration timeout) = 0;
    // After a wake-up: what the server sends gathers for so long, and wakes the loop not once; epoll
    // would wake it for each message. Other operations go on meanwhile.
    virtual Task<> gather(std::chrono::steady_clock::duration duration) = 0;
    // Where the server has closed the connection nothing is sent, and that is no error: it may have
    // ended the copy before, and whoever reads on finds out which it was. Errors: cancelled.
    virtual Task<Result<>> put_copy_data(ByteSpan bytes) = 0;
    // The same without waiting: false where the socket does not take all of it now; the next
    // put_copy_data() sends the rest first.
    virtual Result<bool> try_put_copy_data(ByteSpan bytes) = 0;
    virtual Task<Result<>> put_copy_end() = 0;
    // The results after a copy, drained. If the server ended the copy and waits for put_copy_end(), one
    // result of kind copy_in. A server that closes the connection after its last command completed, as
    // a clean shutdown does, is no error here.
    virtual Task<Result<std::vector<QueryResult>>> results_after_copy() = 0;

    virtual int server_version_num() const = 0;            // 150020
    // The one of the conninfo's servers that answered.
    virtual ServerAddress address() const = 0;
    virtual std::string sqlstate() const = 0;              // of the last error, or empty
    // Every pending and later operation returns cancelled. Does not block.
    virtual void close() = 0;
};

// 'quoted' for SQL and for the replication grammar. `text` holds no NUL.
std::string quote_literal(const std::string& text);
std::string quote_identifier(const std::string& text);

}  // namespace walvault::wal
