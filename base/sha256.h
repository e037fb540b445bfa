// SHA-256 as its bytes come in.
#pragma once

#include <memory>

#include "base/bytes.h"

namespace walvault {

class Sha256 {
public:
    Sha256();
    ~Sha256();
    void update(ByteSpan bytes);
    // The digest of all bytes given; nothing may be added afterwards.
    Id32 finish();

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace walvault
