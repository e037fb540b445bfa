#include "storage/index_totals.h"

#include <map>

#include "storage/index_journal.h"

namespace walvault::storage {
namespace {

std::string totals_key(const std::string& cluster) { return "totals/" + cluster; }

}  // namespace

Result<RepositoryView::Totals> totals_of(const IndexStore& store, const std::string& cluster) {
    WV_TRY(auto value, store.get(Family::state, totals_key(cluster)));
    RepositoryView::Totals totals;
    if (!value) return totals;
    ByteReader reader(as_bytes(*value));
    totals.wal_plain_bytes = reader.le<std::uint64_t>();
    totals.wal_stored_bytes = reader.le<std::uint64_t>();
    totals.base_plain_bytes = reader.le<std::uint64_t>();
    totals.base_stored_bytes = reader.le<std::uint64_t>();
    totals.journal_plain_bytes = reader.le<std::uint64_t>();
    totals.journal_stored_bytes = reader.le<std::uint64_t>();
    totals.chunk_count = reader.le<std::uint64_t>();
    totals.pack_count = reader.le<std::uint64_t>();
    if (!reader.ok()) return fail(Errc::corrupt, "index: the totals cannot be read");
    return totals;
}

Result<> add_to_totals(IndexStore& store, const std::vector<const pb::PackInfo*>& packs, int sign) {
    const auto signed_of = [sign](std::uint64_t number) { return sign > 0 ? number : 0 - number; };
    std::map<std::string, RepositoryView::Totals> sums;
    for (const pb::PackInfo* pack : packs) {
        auto [of, is_new] = sums.try_emplace(pack->cluster());
        if (is_new) {
            WV_TRY(of->second, totals_of(store, pack->cluster()));
        }
        RepositoryView::Totals& sum = of->second;
        const bool wal = pack->kind() == pb::PACK_KIND_WAL;
        const bool journal = is_of_journal(pack->kind());
        (wal       ? sum.wal_plain_bytes
         : journal ? sum.journal_plain_bytes
                   : sum.base_plain_bytes) += signed_of(pack->plain_bytes());
        (wal       ? sum.wal_stored_bytes
         : journal ? sum.journal_stored_bytes
                   : sum.base_stored_bytes) += signed_of(pack->stored_bytes());
        if (pack->kind() == pb::PACK_KIND_BASE) sum.chunk_count += signed_of(pack->frame_count());
        sum.pack_count += signed_of(1);
    }
    for (const auto& [cluster, sum] : sums) {
        ByteBuffer value;
        for (std::uint64_t number :
             {sum.wal_plain_bytes, sum.wal_stored_bytes, sum.base_plain_bytes,
              sum.base_stored_bytes, sum.journal_plain_bytes, sum.journal_stored_bytes,
              sum.chunk_count, sum.pack_count})
            append_le(value, number);
        store.put(Family::state, totals_key(cluster), std::string(as_text(value)));
    }
    return {};
}

}  // namespace walvault::storage
