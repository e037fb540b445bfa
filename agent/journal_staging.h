// JournalStaging: transactions in progress, as the server streams them, until it says that they are
// committed or not.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "base/blocking.h"
#include "proto/pgoutput.h"
#include "storage/staging_file.h"

namespace walvault::agent {

// On the loop; the disk's work is done by `disk`. Memory: about 1 MiB for each transaction.
// Nothing in it outlives the session: the server sends again what was not acknowledged.
class JournalStaging {
public:
    JournalStaging(Pool& disk, FileSystem& files, std::string directory, std::uint64_t bytes_max)
        : disk_(disk), files_(files), directory_(std::move(directory)), bytes_max_(bytes_max) {}

    // A message of the transaction `xid` that `subxid` sent, as it came. Errors: no_space where it
    // would take more than bytes_max, or the disk has no more; io.
    Task<Result<>> add(Xid xid, Xid subxid, ByteSpan message);
    // What `subxid` changed is void; all of it where it is the transaction itself.
    void abort(Xid xid, Xid subxid);
    // Hands out the messages that count, in order, and forgets the transaction. Each is given
    // decoded and as it came. Errors: corrupt, io; what `sink` returned.
    using Sink = std::function<Task<Result<>>(const pgoutput::AnyMessage&, ByteSpan)>;
    Task<Result<>> take(Xid xid, const Sink& sink);
    void clear() { transactions_.clear(); }

    std::size_t transaction_count() const { return transactions_.size(); }
    std::uint64_t stored_bytes() const;

private:
    struct Transaction {
        ByteBuffer open;  // records that no block has yet
        std::unique_ptr<storage::StagingFile> file;
        std::set<Xid> aborted;
    };
    Task<Result<>> write_block(Transaction& transaction);
    static Task<Result<>> replay(pgoutput::Decoder& decoder, const std::set<Xid>& aborted,
                                 ByteSpan block, const Sink& sink);

    Pool& disk_;
    FileSystem& files_;
    std::string directory_;
    std::uint64_t bytes_max_;
    std::map<Xid, Transaction> transactions_;
};

}  // namespace walvault::agent
