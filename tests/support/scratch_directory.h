// ScratchDirectory: an empty directory of its own for a test, removed with all in it at the end.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/bytes.h"

namespace walvault {

class ScratchDirectory {
public:
    ScratchDirectory() {
        std::string pattern = std::filesystem::temp_directory_path() / "walvault-test-XXXXXX";
        WV_ASSERT(::mkdtemp(pattern.data()) != nullptr);
        path_ = pattern;
    }
    ~ScratchDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    ScratchDirectory(const ScratchDirectory&) = delete;
    ScratchDirectory& operator=(const ScratchDirectory&) = delete;

    const std::string& path() const { return path_; }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }

private:
    std::string path_;
};

// Past every check of the code under test: to damage files and to look at them.
inline ByteBuffer raw_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    return {as_bytes(text).begin(), as_bytes(text).end()};
}
inline void write_raw_file(const std::string& path, ByteSpan bytes) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(as_text(bytes).data(), static_cast<std::streamsize>(bytes.size()));
    out.close();
    WV_ASSERT(out.good());
}

}  // namespace walvault
