// TablePatterns: which tables a list such as ["public.*", "!public.sessions"] selects.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace walvault::wal {

// A pattern is SCHEMA.TABLE, led by "!" where it leaves out. As in SQL, letters A to Z are folded
// to lower case unless they are in double quotes, and a double quote in quotes is written twice;
// outside of quotes "*" is any text and
// "?" one character. The last pattern that fits a table decides; one that none fits is not
// selected.
class TablePatterns {
public:
    // Errors: invalid_argument, with the pattern and what is wrong with it.
    static Result<TablePatterns> parse(const std::vector<std::string>& patterns);

    enum class Choice { unmentioned, selected, left_out };
    Choice choice(std::string_view schema, std::string_view table) const;
    bool select(std::string_view schema, std::string_view table) const {
        return choice(schema, table) == Choice::selected;
    }

private:
    // A character as it is, or what stands for some.
    struct Piece {
        enum class Kind { text, any_text, any_character } kind = Kind::text;
        char character = 0;
    };
    using Part = std::vector<Piece>;
    struct Pattern {
        bool leaves_out = false;
        Part schema;
        Part table;
    };
    static Result<Pattern> parse_one(const std::string& text);
    static bool fits(const Part& part, std::string_view name);

    std::vector<Pattern> patterns_;
};

}  // namespace walvault::wal
