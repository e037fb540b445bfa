// A library for LD_PRELOAD that makes the Nth call of a kind fail, tear or end the process; used by
// tests/integration/test_nth_fault.py.
//
//   FAULT_CALL       write | sync | rename | remove | receive
//   FAULT_AT         N, counted over all threads from 1
//   FAULT_ACTION     error: the call fails with EIO; full: with ENOSPC; kill: the process dies
//   before it;
//                    torn: half of a write is done, then the process dies;
//                    hang: a sync waits until FAULT_ARMED is removed, and is done then
//   FAULT_DIRECTORY  only calls on files below it count (receive: only sockets, wherever)
//   FAULT_REPORT     a file that gets one line when the fault has fired
//   FAULT_STICKY     set: every call from the Nth on fails, as on a disk that stays broken
//   FAULT_ARMED      a file: calls count only from when it is there
//   FAULT_COUNT      a file that gets the number of calls when the process ends

// Both names of pwrite are wanted here, as the two functions that they are in the C library.
#undef _FILE_OFFSET_BITS
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

std::atomic<long> calls_seen{0};

template <class Function>
Function* next(const char* name) {
    return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

bool is_setting(const char* name, const char* value) {
    const char* set = getenv(name);
    return set != nullptr && std::strcmp(set, value) == 0;
}

bool is_below(const char* path) {
    const char* directory = getenv("FAULT_DIRECTORY");
    return directory != nullptr && std::strncmp(path, directory, std::strlen(directory)) == 0;
}

bool is_below(int descriptor) {
    char link[64];
    char path[4096];
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    const ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length <= 0) return false;
    path[length] = '\0';
    return is_below(path);
}

void report() {
    const char* path = getenv("FAULT_REPORT");
    if (path == nullptr) return;
    const int file =
        static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0600));
    syscall(SYS_write, file, "fired\n", 6);
    syscall(SYS_close, file);
}

bool is_armed() {
    const char* path = getenv("FAULT_ARMED");
    return path == nullptr || syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}

// Counts the call; true at the Nth, and where the fault is sticky at every one after it.
bool is_the_one() {
    const char* at = getenv("FAULT_AT");
    if (at == nullptr || !is_armed()) return false;
    const long call = calls_seen.fetch_add(1) + 1;
    if (call == std::atol(at)) report();
    return call == std::atol(at) || (call > std::atol(at) && getenv("FAULT_STICKY") != nullptr);
}

[[gnu::destructor]] void write_count() {
    const char* path = getenv("FAULT_COUNT");
    if (path == nullptr) return;
    char text[32];
    const int length = std::snprintf(text, sizeof text, "%ld\n", calls_seen.load());
    const int file =
        static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0600));
    syscall(SYS_write, file, text, length);
    syscall(SYS_close, file);
}

[[noreturn]] void die() {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;)
        pause();
}

// What the caller is to see; does not return when the action is to die.
int act() {
    if (is_setting("FAULT_ACTION", "kill") || is_setting("FAULT_ACTION", "torn")) die();
    errno = is_setting("FAULT_ACTION", "full") ? ENOSPC : EIO;
    return -1;
}

// Like a disk that says nothing for a while.
bool hangs() {
    if (!is_setting("FAULT_ACTION", "hang")) return false;
    while (is_armed())
        poll(nullptr, 0, 10);
    return true;
}

bool hits(const char* call, int descriptor) {
    return is_setting("FAULT_CALL", call) && is_below(descriptor) && is_the_one();
}

bool hits(const char* call, const char* path) {
    return is_setting("FAULT_CALL", call) && is_below(path) && is_the_one();
}

bool is_stream_socket(int descriptor) {
    int type = 0;
    socklen_t size = sizeof type;
    return getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

bool hits_receive(int descriptor) {
    return is_setting("FAULT_CALL", "receive") && is_stream_socket(descriptor) && is_the_one();
}

void tear(int descriptor, const void* bytes, size_t count) {
    if (is_setting("FAULT_ACTION", "torn")) syscall(SYS_write, descriptor, bytes, count / 2);
}

}  // namespace

extern "C" {

ssize_t write(int descriptor, const void* bytes, size_t count) {
    static auto* real = next<ssize_t(int, const void*, size_t)>("write");
    if (!hits("write", descriptor)) return real(descriptor, bytes, count);
    tear(descriptor, bytes, count);
    return act();
}

ssize_t writev(int descriptor, const iovec* parts, int count) {
    static auto* real = next<ssize_t(int, const iovec*, int)>("writev");
    if (!hits("write", descriptor)) return real(descriptor, parts, count);
    if (count > 0) tear(descriptor, parts[0].iov_base, parts[0].iov_len);
    return act();
}

ssize_t pwrite(int descriptor, const void* bytes, size_t count, off_t offset) {
    static auto* real = next<ssize_t(int, const void*, size_t, off_t)>("pwrite");
    if (!hits("write", descriptor)) return real(descriptor, bytes, count, offset);
    if (is_setting("FAULT_ACTION", "torn"))
        syscall(SYS_pwrite64, descriptor, bytes, count / 2, offset);
    return act();
}

ssize_t pwrite64(int descriptor, const void* bytes, size_t count, off64_t offset) {
    return pwrite(descriptor, bytes, count, offset);
}

int fsync(int descriptor) {
    static auto* real = next<int(int)>("fsync");
    return hits("sync", descriptor) && !hangs() ? act() : real(descriptor);
}

int fdatasync(int descriptor) {
    static auto* real = next<int(int)>("fdatasync");
    return hits("sync", descriptor) && !hangs() ? act() : real(descriptor);
}

int syncfs(int descriptor) {
    static auto* real = next<int(int)>("syncfs");
    return hits("sync", descriptor) ? act() : real(descriptor);
}

int renameat(int from_directory, const char* from, int to_directory, const char* to) {
    static auto* real = next<int(int, const char*, int, const char*)>("renameat");
    return hits("rename", to_directory) ? act() : real(from_directory, from, to_directory, to);
}

int unlinkat(int directory, const char* path, int flags) {
    static auto* real = next<int(int, const char*, int)>("unlinkat");
    return hits("remove", directory) ? act() : real(directory, path, flags);
}

int rename(const char* from, const char* to) {
    static auto* real = next<int(const char*, const char*)>("rename");
    return hits("rename", to) ? act() : real(from, to);
}

int link(const char* from, const char* to) {
    static auto* real = next<int(const char*, const char*)>("link");
    return hits("rename", to) ? act() : real(from, to);
}

int unlink(const char* path) {
    static auto* real = next<int(const char*)>("unlink");
    return hits("remove", path) ? act() : real(path);
}

int remove(const char* path) {
    static auto* real = next<int(const char*)>("remove");
    return hits("remove", path) ? act() : real(path);
}

// A lost connection, as the other side's reset shows it.
ssize_t recv(int descriptor, void* into, size_t count, int flags) {
    static auto* real = next<ssize_t(int, void*, size_t, int)>("recv");
    if (!hits_receive(descriptor)) return real(descriptor, into, count, flags);
    act();
    errno = ECONNRESET;
    return -1;
}

}  // extern "C"
