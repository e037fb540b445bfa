#include "wal/table_pattern.h"

#include <fmt/format.h>

namespace walvault::wal {
namespace {

Error wrong(const std::string& text, std::string_view what) {
    return Error{
        Errc::invalid_argument, fmt::format("the table pattern \"{}\" {}", text, what),
        "Write schema.table as in SQL, such as public.orders, public.*, !public.sessions or "
        "\"Shop\".\"Order Lines\"."};
}

char folded(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// Bytes of the UTF-8 character that begins at `at`; 1 where there is none.
std::size_t character_bytes(std::string_view text, std::size_t at) {
    std::size_t end = at + 1;
    const bool leads = (static_cast<unsigned char>(text[at]) & 0xC0) == 0xC0;
    while (leads && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
        ++end;
    return end - at;
}

}  // namespace

Result<TablePatterns> TablePatterns::parse(const std::vector<std::string>& patterns) {
    TablePatterns parsed;
    for (const std::string& text : patterns) {
        WV_TRY(Pattern pattern, parse_one(text));
        parsed.patterns_.push_back(std::move(pattern));
    }
    return parsed;
}

Result<TablePatterns::Pattern> TablePatterns::parse_one(const std::string& text) {
    Pattern pattern;
    pattern.leaves_out = text.starts_with('!');
    std::vector<Part> parts(1);
    bool quoted = false;
    for (std::size_t i = pattern.leaves_out ? 1 : 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '\0') return fail(wrong(text, "holds a NUL byte"));
        if (c == '"') {
            const bool doubled = quoted && i + 1 < text.size() && text[i + 1] == '"';
            if (doubled)
                parts.back().push_back({Piece::Kind::text, text[++i]});
            else
                quoted = !quoted;
        } else if (quoted) {
            parts.back().push_back({Piece::Kind::text, c});
        } else if (c == '.') {
            parts.emplace_back();
        } else if (c == '*') {
            parts.back().push_back({Piece::Kind::any_text, 0});
        } else if (c == '?') {
            parts.back().push_back({Piece::Kind::any_character, 0});
        } else if (c == ' ' || c == '\t' || c == '\n' || c == '!' || c == ',') {
            return fail(wrong(text, fmt::format("has '{}' outside of quotes", c)));
        } else {
            parts.back().push_back({Piece::Kind::text, folded(c)});
        }
    }
    if (quoted) return fail(wrong(text, "has a quote that does not end"));
    if (parts.size() != 2) return fail(wrong(text, "does not name a schema and a table"));
    if (parts[0].empty() || parts[1].empty()) return fail(wrong(text, "has an empty name"));
    pattern.schema = std::move(parts[0]);
    pattern.table = std::move(parts[1]);
    return pattern;
}

// Greedy with one place to come back to: at most pattern × name steps.
bool TablePatterns::fits(const Part& part, std::string_view name) {
    std::size_t at = 0;
    std::size_t piece = 0;
    std::size_t star = part.size();
    std::size_t star_at = 0;
    while (at < name.size()) {
        if (piece < part.size() && part[piece].kind == Piece::Kind::any_text) {
            star = piece++;
            star_at = at;
        } else if (piece < part.size() && part[piece].kind == Piece::Kind::any_character) {
            at += character_bytes(name, at);
            ++piece;
        } else if (piece < part.size() && part[piece].character == name[at]) {
            ++at;
            ++piece;
        } else if (star < part.size()) {
            star_at += character_bytes(name, star_at);
            at = star_at;
            piece = star + 1;
        } else {
            return false;
        }
    }
    while (piece < part.size() && part[piece].kind == Piece::Kind::any_text)
        ++piece;
    return piece == part.size();
}

TablePatterns::Choice TablePatterns::choice(std::string_view schema, std::string_view table) const {
    for (auto pattern = patterns_.rbegin(); pattern != patterns_.rend(); ++pattern)
        if (fits(pattern->schema, schema) && fits(pattern->table, table))
            return pattern->leaves_out ? Choice::left_out : Choice::selected;
    return Choice::unmentioned;
}

}  // namespace walvault::wal
