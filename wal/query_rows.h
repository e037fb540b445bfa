// Values of query results, which come as text, as what they are.
#pragma once

#include <charconv>
#include <string>

#include "proto/lsn.h"
#include "wal/connection.h"

namespace walvault::wal {

// Empty for a null, and where there is no such row or column.
inline std::string text_at(const QueryResult& result, std::size_t row, std::size_t column) {
    if (row >= result.rows.size() || column >= result.rows[row].size()) return {};
    return result.rows[row][column].value_or(std::string());
}

inline bool true_at(const QueryResult& result, std::size_t row, std::size_t column) {
    return text_at(result, row, column) == "t";
}

// Errors: corrupt.
template <class T>
Result<T> number_at(const QueryResult& result, std::size_t row, std::size_t column) {
    const std::string text = text_at(result, row, column);
    T value{};
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
        return fail(Errc::corrupt, "the server's value \"" + text + "\" is not a number");
    return value;
}

}  // namespace walvault::wal
