// PrivateDirectory: a new directory that nobody else can look into; removed with everything in it
// when it goes.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"

namespace walvault::storage {

class PrivateDirectory {
public:
    // In `parent`, which is made where it is not there; its name begins with `name`. Errors: io.
    static Result<std::unique_ptr<PrivateDirectory>> make(const std::string& parent,
                                                          const std::string& name);
    explicit PrivateDirectory(std::string path) : path_(std::move(path)) {}
    ~PrivateDirectory();
    PrivateDirectory(const PrivateDirectory&) = delete;
    PrivateDirectory& operator=(const PrivateDirectory&) = delete;

    const std::string& path() const { return path_; }

private:
    std::string path_;
};

}  // namespace walvault::storage
