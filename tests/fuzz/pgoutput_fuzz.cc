#include "proto/pgoutput.h"

#include <algorithm>

#include "tests/fuzz/fuzz_target.h"

using namespace walvault;
using namespace walvault::pgoutput;

namespace {

bool lies_in(std::string_view view, ByteSpan whole) {
    const char* first = as_text(whole).data();
    return view.empty() ||
           (view.data() >= first && view.data() + view.size() <= first + whole.size());
}

void check(Tuple tuple, ByteSpan message) {
    WV_ASSERT(tuple.size() < message.size());
    for (const Value& value : tuple) {
        const bool has_bytes = value.kind == ValueKind::text || value.kind == ValueKind::binary;
        WV_ASSERT(has_bytes || value.bytes.empty());
        WV_ASSERT(lies_in(value.bytes, message));
    }
}

void check(const AnyMessage& any, ByteSpan message) {
    if (const auto* insert = std::get_if<Insert>(&any)) check(insert->row, message);
    if (const auto* gone = std::get_if<Delete>(&any)) check(gone->old_row, message);
    if (const auto* update = std::get_if<Update>(&any)) {
        check(update->row, message);
        check(update->old_row, message);
        WV_ASSERT(update->old_kind != OldRow::none || update->old_row.empty());
    }
    if (const auto* relation = std::get_if<Relation>(&any)) {
        WV_ASSERT(relation->columns.size() < message.size());
        for (const Column& column : relation->columns)
            WV_ASSERT(lies_in(column.name, message));
    }
    if (const auto* said = std::get_if<Message>(&any)) WV_ASSERT(lies_in(said->content, message));
    if (const auto* truncate = std::get_if<Truncate>(&any))
        WV_ASSERT(truncate->relations.size() < message.size());
}

}  // namespace

// The input is a session: messages, each led by its size in two bytes.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ByteReader in(fuzz_input(data, size));
    Decoder decoder;
    while (in.remaining() > 0) {
        const std::size_t wanted = in.be<std::uint16_t>();
        const ByteSpan message = in.bytes(std::min(wanted, in.remaining()));
        auto any = decoder.decode(message);
        if (!any) {
            WV_ASSERT(any.error().code == Errc::corrupt);
            return 0;
        }
        check(*any, message);
        WV_ASSERT(decoder.stream_xid() == 0 || decoder.in_transaction());
    }
    return 0;
}
