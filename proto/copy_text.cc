#include "proto/copy_text.h"

namespace walvault {
namespace {

// Behind a backslash; what is not special stands for itself.
char unescaped(char c) {
    switch (c) {
        case 'b':
            return '\b';
        case 'f':
            return '\f';
        case 'n':
            return '\n';
        case 'r':
            return '\r';
        case 't':
            return '\t';
        case 'v':
            return '\v';
        default:
            return c;
    }
}

Error wrong(std::size_t bytes, const std::string& what) {
    return Error{Errc::corrupt,
                 "a row of a table, of " + std::to_string(bytes) + " bytes, " + what};
}

}  // namespace

Result<pgoutput::Tuple> CopyTextReader::read(ByteSpan line, std::size_t columns) {
    values_.clear();
    unescaped_.clear();
    if (line.empty() || as_text(line).back() != '\n')
        return fail(wrong(line.size(), "does not end"));
    std::string_view text = as_text(line).substr(0, line.size() - 1);
    // Never more than this: what is written stays where it is, and views into it stay good.
    unescaped_.reserve(text.size());
    const std::size_t bytes = line.size();
    for (bool more = columns > 0 || !text.empty(); more;) {
        const std::size_t end = std::min(text.find('\t'), text.size());
        std::string_view field = text.substr(0, end);
        more = end < text.size();
        text.remove_prefix(more ? end + 1 : end);
        if (values_.size() == columns)
            return fail(wrong(bytes, "has more than " + std::to_string(columns) + " values"));
        pgoutput::Value& value = values_.emplace_back();
        if (field == "\\N") continue;
        value.kind = pgoutput::ValueKind::text;
        value.bytes = field;
        if (field.find('\\') == std::string_view::npos) continue;
        const std::size_t begin = unescaped_.size();
        for (std::size_t i = 0; i < field.size(); ++i) {
            if (field[i] != '\\')
                unescaped_ += field[i];
            else if (++i < field.size())
                unescaped_ += unescaped(field[i]);
            else
                return fail(wrong(bytes, "ends a value with a backslash"));
        }
        value.bytes = std::string_view(unescaped_).substr(begin);
    }
    if (values_.size() != columns)
        return fail(wrong(bytes, "has " + std::to_string(values_.size()) + " values instead of " +
                                     std::to_string(columns)));
    return values_;
}

}  // namespace walvault
