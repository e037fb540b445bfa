// Journaled: a repository as the agent leaves it, for questions of the row journal: WAL, a base
// backup, and a journal with packs and an open tail; and what verbs print of it.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/journal_moment.h"
#include "agent/verbs.h"
#include "tests/support/journal_fixture.h"
#include "tests/unit/storage/life.h"

namespace walvault::agent {

// One change, as a test says it.
struct Step {
    JournalRecordKind kind{};
    std::optional<MadeValues> before = {};
    std::optional<MadeValues> now = {};
    std::string table = "orders";
    std::string prefix = {}, content = {};  // of a message
    Lsn lsn = {};                           // of a message; zero: where its transaction ends
};

struct Written {
    storage::MadeCommit commit;
    Lsn end_lsn;
};

class Journaled : public storage::Stage {
public:
    storage::MadeWal wal;
    std::unique_ptr<storage::Repository> repository;
    RelationRef orders = RelationVersion::make(made_relation(100, "orders", 3));
    RelationRef lines;
    std::vector<Written> written;
    std::string key_path = directory / "key";

    Journaled() {
        pb::JournalRelation whole = made_relation(200, "order lines");
        whole.set_identity(pb::JournalRelation::FULL);
        whole.mutable_columns(0)->set_is_primary_key(false);
        lines = RelationVersion::make(whole);
        create();
        storage::must(master.write_file(posix_file_system(), key_path));
        wal.grow(5, 400'000);
        repository = storage::must(open());
        storage::HistoryWriter writer(*repository, wal);
        storage::must(writer.begin());
        storage::must(writer.store(150'000, 600'000));
        storage::must(writer.close());
        REQUIRE(wal.commits.size() > 40);
        storage::must(storage::make_base(*repository, writer.history(), wal.commits[0],
                                         wal.commits[2], {"content"}));
        pb::JournalOpened opened;
        opened.set_cluster("main");
        opened.set_database("shop");
        opened.set_slot("walvault_journal_shop");
        opened.set_start_lsn(wal.commits[3].start_lsn.value);
        storage::must(repository->open_journal(opened));
        next_commit_ = 4;
        open_tail(Lsn{opened.start_lsn()});
    }

    // The rows of a table behind the transactions written until now.
    void snapshot(const RelationRef& relation, const std::vector<MadeValues>& rows) {
        const storage::ClusterRecord cluster = *repository->cluster("main");
        auto taken = storage::must(repository->begin_snapshot(
            record(), cluster, 1, made_snapshot(relation->relation().oid(), end_.value, 5)));
        BatchWriter batches;
        batches.mention(relation);
        for (const MadeValues& row : rows)
            batches.row(relation, made_tuple(row));
        while (auto batch = batches.take_full())
            storage::must(taken->append(*batch));
        if (auto batch = batches.take()) storage::must(taken->append(*batch));
        storage::must(repository->take_snapshot(std::move(taken)));
    }

    // A transaction of the made WAL, as the server would have decoded it.
    const Written& write(const std::vector<Step>& steps) {
        const storage::MadeCommit& commit = wal.commits.at(next_commit_++);
        const Lsn end = end_of(commit);
        BatchWriter batches;
        batches.begin({.commit_lsn = commit.start_lsn, .at = commit.at, .xid = commit.xid});
        for (const Step& step : steps)
            change(batches, step);
        batches.commit(commit.start_lsn, end, commit.at);
        while (auto batch = batches.take_full())
            append(*batch);
        if (auto batch = batches.take()) append(*batch);
        written.push_back({commit, end});
        end_ = end;
        return written.back();
    }

    // The next transactions are not decoded.
    void skip(std::size_t count) {
        rewrite_tail();
        const Lsn from = end_;
        next_commit_ += count;
        pb::JournalGap gap;
        gap.set_cluster("main");
        gap.set_journal_id(storage::text_of(record().id));
        gap.set_from_lsn(from.value);
        gap.set_to_lsn(end_of(wal.commits.at(next_commit_ - 1)).value);
        gap.set_cause("the slot was lost");
        storage::must(repository->enter_journal_gap(gap));
        open_tail(Lsn{gap.to_lsn()});
    }
    // Everything behind is quiet: the journal is whole up to the end of the WAL.
    void quiet() {
        end_ = wal.builder.end();
        storage::must(tail_->append(seal_quiet(tail_->plan_quiet(end_, wal.commits.back().at))));
        storage::must(tail_->sync());
    }
    void close_tail() {
        rewrite_tail();
        open_tail(end_);
    }

    // What a verb prints, and its exit code.
    template <class Verb, class Arguments>
    std::pair<int, std::string> ask(Verb verb, Arguments arguments, Output output = Output::json) {
        Globals globals;
        globals.from = "file://" + root;
        globals.key_path = key_path;
        globals.output = output;
        const std::string path = directory / "answer";
        std::fflush(stdout);
        const int kept = ::dup(1);
        const int file = ::open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
        REQUIRE(file >= 0);
        ::dup2(file, 1);
        const int code = verb(globals, arguments);
        std::fflush(stdout);
        ::dup2(kept, 1);
        ::close(kept);
        ::close(file);
        return {code, std::string(as_text(raw_file(path)))};
    }
    template <class Verb, class Arguments>
    nlohmann::ordered_json json(Verb verb, Arguments arguments) {
        auto [code, text] = ask(verb, arguments);
        INFO(text);
        REQUIRE(code == 0);
        auto parsed = nlohmann::ordered_json::parse(text, nullptr, false);
        REQUIRE_FALSE(parsed.is_discarded());
        return parsed;
    }

private:
    void rewrite_tail() {
        auto rewrite = storage::must(repository->begin_closing(std::move(tail_)));
        storage::must(rewrite->run());
        storage::must(repository->finish_closing(std::move(rewrite)));
    }
    storage::JournalRecord record() { return storage::must(repository->journals("main")).front(); }
    void open_tail(Lsn start) {
        const storage::ClusterRecord cluster = *repository->cluster("main");
        tail_ = storage::must(repository->open_journal_tail(record(), cluster, 1, start));
        end_ = start;
    }
    Lsn end_of(const storage::MadeCommit& commit) {
        auto looked_at = view();
        auto history = storage::must(looked_at->current_history("main"));
        auto found = storage::must(looked_at->find_xid(*history, commit.xid));
        REQUIRE(found.size() == 1);
        return journal_end_of(found.front());
    }
    void append(const JournalBatch& batch) {
        storage::must(tail_->append(storage::must(seal_batch(tail_->plan_batch(batch), batch, 1))));
        storage::must(tail_->sync());
    }
    void change(BatchWriter& batches, const Step& step) {
        const RelationRef& relation = step.table == "orders" ? orders : lines;
        const char old_kind = step.table == "orders" ? 'K' : 'O';
        switch (step.kind) {
            case JournalRecordKind::inserted:
                batches.change(step.kind, relation, made_insert(*step.now));
                break;
            case JournalRecordKind::updated:
                batches.change(step.kind, relation, made_update(*step.now, step.before, old_kind));
                break;
            case JournalRecordKind::deleted:
                batches.change(step.kind, relation, made_delete(*step.before, old_kind));
                break;
            case JournalRecordKind::message:
                batches.message(true, step.lsn ? step.lsn : end_, step.prefix,
                                as_bytes(step.content));
                break;
            default:
                batches.truncate(false, false, {relation});
        }
    }

    std::unique_ptr<storage::JournalTail> tail_;
    std::size_t next_commit_ = 0;
    Lsn end_;
};

inline Step insert(MadeValues now) { return {JournalRecordKind::inserted, {}, std::move(now)}; }
inline Step update(MadeValues now) { return {JournalRecordKind::updated, {}, std::move(now)}; }
inline Step remove(const std::string& id) {
    return {JournalRecordKind::deleted, MadeValues{id, std::nullopt, std::nullopt}, {}};
}
inline Step message(std::string prefix, std::string content, Lsn lsn = {}) {
    return {JournalRecordKind::message, {}, {}, "orders", std::move(prefix),
            std::move(content),         lsn};
}
inline std::string xid_of(const Written& written) {
    return "xid:" + std::to_string(written.commit.xid);
}

}  // namespace walvault::agent
