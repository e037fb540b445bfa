// SecretBytes: key material in locked memory, wiped on destruction, without a way to print it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/bytes.h"

namespace walvault {

// Owns sodium_malloc memory: guarded, excluded from core dumps, locked where the limit allows.
class SecretBytes {
public:
    SecretBytes() = default;
    explicit SecretBytes(std::size_t size);  // zeros
    static SecretBytes copy_of(ByteSpan bytes);
    ~SecretBytes();
    SecretBytes(SecretBytes&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    SecretBytes& operator=(SecretBytes&& other) noexcept;
    SecretBytes(const SecretBytes&) = delete;
    SecretBytes& operator=(const SecretBytes&) = delete;

    SecretBytes clone() const { return copy_of(view()); }
    ByteSpan view() const { return {data_, size_}; }
    MutableByteSpan mutable_view() { return {data_, size_}; }
    bool empty() const { return size_ == 0; }

private:
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

// libsodium made ready; ends the process if that fails. Cheap after the first call.
void require_sodium();
// From the system's generator, as all ids and keys.
std::uint64_t random_number();
// No core dumps of this process and no ptrace by others of the same user.
void forbid_core_dumps();
// Overwrites `bytes` in a way the compiler cannot leave out.
void wipe(MutableByteSpan bytes);

}  // namespace walvault
