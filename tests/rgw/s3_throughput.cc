// How fast objects go to a bucket and come back, over loopback; prints a line for each size and
// concurrency.
#include <sys/resource.h>

#include <atomic>
#include <cstdio>
#include <thread>

#include "storage/s3_store.h"
#include "tests/rgw/ceph_gateway.h"

namespace walvault::storage {
namespace {

using std::chrono::steady_clock;

double cpu_seconds() {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
}

template <class Work>
void measure(const char* what, std::size_t size, int count, int threads, Work work) {
    std::atomic<int> next{0};
    auto began = steady_clock::now();
    double cpu = cpu_seconds();
    std::vector<std::thread> running;
    for (int number = 0; number < threads; ++number)
        running.emplace_back([&] {
            for (int at; (at = next++) < count;)
                if (!work(at)) std::printf("failed: %s %d\n", what, at);
        });
    for (std::thread& thread : running)
        thread.join();
    double took = std::chrono::duration<double>(steady_clock::now() - began).count();
    std::printf("%s %8zu KiB x %4d, %d at once: %8.1f MiB/s %8.1f objects/s, %.2f s CPU\n", what,
                size >> 10, count, threads, static_cast<double>(size) * count / took / (1 << 20),
                count / took, cpu_seconds() - cpu);
    std::fflush(stdout);
}

void measure_size(S3Store& store, const std::string& label, std::size_t size, int count,
                  int threads) {
    ByteBuffer bytes(size);
    for (std::size_t at = 0; at < size; ++at)
        bytes[at] = static_cast<std::byte>((at * 2654435761U) >> 11);
    std::string start = label + "/" + std::to_string(size) + "-" + std::to_string(threads) + "/";
    static_cast<void>(store.honours_create_only(size));
    measure((label + " put").c_str(), size, count, threads,
            [&](int at) { return store.put(start + std::to_string(at), bytes).has_value(); });
    measure((label + " get").c_str(), size, count, threads,
            [&](int at) { return store.get(start + std::to_string(at), 0, size).has_value(); });
    for (int at = 0; at < count; ++at)
        static_cast<void>(store.remove(start + std::to_string(at)));
}

}  // namespace
}  // namespace walvault::storage

int main() {
    using namespace walvault::storage;
    using walvault::operator""_MiB;
    S3Options options = gateway().new_bucket();
    std::printf("endpoint %s bucket %s\n", options.endpoint.c_str(), options.bucket.c_str());
    auto parts = make_s3_store(walvault::posix_file_system(), options).value();
    options.multipart_above_bytes = 128_MiB;
    auto whole = make_s3_store(walvault::posix_file_system(), options).value();
    for (int round = 0; round < 2; ++round)
        for (int threads : {1, 4}) {
            measure_size(*parts, "parts", 64_MiB, 8, threads);
            measure_size(*whole, "whole", 64_MiB, 8, threads);
            measure_size(*whole, "whole", 4096, 1000, threads);
        }
}
