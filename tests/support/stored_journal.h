// Writes a journal like the agent's capture: transactions into batches, batches into a tail, a
// sync, and closes.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "storage/repository.h"
#include "tests/support/journal_fixture.h"

namespace walvault::storage {

inline const RelationRef kOrders = RelationVersion::make(made_relation(16'400, "orders"));
inline const RelationRef kLines = RelationVersion::make(made_relation(16'500, "lines"));

class JournalKeeper {
public:
    explicit JournalKeeper(Repository& repository) : repository_(repository) {}

    // The journal of class `data_class` in database "shop", made where there is none.
    Result<> begin(const std::string& data_class = {}) {
        WV_TRY(cluster_, repository_.ensure_cluster({.name = "main",
                                                     .system_identifier = 7,
                                                     .segment_bytes = 16_MiB,
                                                     .server_version_num = 150020}));
        for (int tries = 0; tries < 2; ++tries) {
            WV_TRY(auto known, repository_.journals("main"));
            for (const JournalRecord& each : known)
                if (each.data_class == data_class) journal = each;
            if (journal.id != Id16{}) break;
            pb::JournalOpened opened;
            opened.set_cluster("main");
            opened.set_database("shop");
            opened.set_data_class(data_class);
            opened.set_slot("walvault_shop");
            opened.set_publication("walvault");
            opened.set_start_lsn(100);
            WV_TRY(Id16 id, repository_.open_journal(opened));
            (void)id;
        }
        end = synced = journal.end_lsn;
        return {};
    }

    // One transaction whose commit record begins at `lsn` and ends 40 bytes on.
    template <class Fill>
    void transaction(std::uint64_t lsn, Xid xid, Fill fill) {
        const JournalBegin head = made_begin(lsn, xid);
        writer.begin(head);
        fill(writer);
        writer.commit(head.commit_lsn, Lsn{lsn + 40}, head.at);
    }

    // Seals and appends what there is (`all`: not only full batches), and syncs.
    Result<> store(bool all = true) {
        while (auto full = writer.take_full())
            WV_CHECK(append(*full));
        if (all)
            if (auto last = writer.take()) WV_CHECK(append(*last));
        if (!tail) return {};
        WV_CHECK(tail->sync());
        synced = tail->end_lsn();
        return {};
    }
    Result<> store_quiet(std::uint64_t end_lsn, WallTime until) {
        WV_CHECK(open());
        WV_CHECK(tail->append(seal_quiet(tail->plan_quiet(Lsn{end_lsn}, until))));
        WV_CHECK(tail->sync());
        end = synced = tail->end_lsn();
        return {};
    }
    Result<> append(const JournalBatch& batch) {
        WV_CHECK(open());
        WV_TRY(auto frame, seal_batch(tail->plan_batch(batch), batch, 1));
        WV_CHECK(tail->append(std::move(frame)));
        end = tail->planned_end_lsn();
        return {};
    }
    Result<> open() {
        if (tail) return {};
        WV_TRY(tail, repository_.open_journal_tail(journal, cluster_, 1, end));
        return {};
    }
    Result<> close() {
        if (!tail) return {};
        WV_TRY(auto rewrite, repository_.begin_closing(std::move(tail)));
        auto done = rewrite->run();
        auto finished = repository_.finish_closing(std::move(rewrite));
        return done ? finished : done;
    }
    void drop() {
        if (tail) repository_.drop_journal_tail(std::move(tail));
    }
    Result<> snapshot(const RelationRef& table, std::uint64_t lsn,
                      const std::vector<MadeValues>& rows) {
        WV_TRY(auto taken, repository_.begin_snapshot(journal, cluster_, 1,
                                                      made_snapshot(table->relation().oid(), lsn)));
        BatchWriter batches;
        batches.mention(table);
        for (const MadeValues& row : rows) {
            batches.row(table, made_tuple(row));
            while (auto full = batches.take_full())
                WV_CHECK(taken->append(*full));
        }
        if (auto last = batches.take()) WV_CHECK(taken->append(*last));
        return repository_.take_snapshot(std::move(taken));
    }
    const ClusterRecord& cluster() const { return cluster_; }

    JournalRecord journal;
    BatchWriter writer;
    std::unique_ptr<JournalTail> tail;
    Lsn end;     // of what was appended
    Lsn synced;  // of what may have been acknowledged

private:
    Repository& repository_;
    ClusterRecord cluster_;
};

}  // namespace walvault::storage
