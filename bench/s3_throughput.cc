// How fast files go to a bucket as objects, and come back: one line, for bench/s3.
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "storage/s3_store.h"
#include "storage/sealer.h"

namespace walvault::storage {
namespace {

using std::chrono::steady_clock;

struct Work {
    S3Store& store;
    std::string name;  // that of each object begins with it
    std::string file;
    std::uint64_t size_bytes;
};

// As the offloader does it: in pieces, from a file.
Result<> put(const Work& work, int number) {
    const ObjectSource source = [&work](std::uint64_t offset,
                                        MutableByteSpan into) -> Result<std::size_t> {
        WV_TRY(auto file, posix_file_system().open_read(work.file));
        return file->read_at(offset, into);
    };
    return work.store.put_from(work.name + std::to_string(number), work.size_bytes, source);
}

Result<> get(const Work& work, int number) {
    WV_TRY(ByteBuffer bytes,
           work.store.get(work.name + std::to_string(number), 0, work.size_bytes));
    if (bytes.size() == work.size_bytes) return {};
    return fail(Errc::corrupt, "the object is shorter");
}

double cpu_seconds(const rusage& used) {
    auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
}

int measure(const Work& work, bool puts, int count, int callers) {
    static_cast<void>(work.store.honours_create_only(work.size_bytes));
    std::atomic<int> next{0};
    std::atomic<int> failed{0};
    const auto began = steady_clock::now();
    {
        std::vector<std::jthread> running;
        for (int number = 0; number < callers; ++number)
            running.emplace_back([&] {
                for (int at; (at = next++) < count;)
                    if (auto done = puts ? put(work, at) : get(work, at); !done) {
                        ++failed;
                        std::fprintf(stderr, "%s\n", done.error().message.c_str());
                    }
            });
    }
    const double took = std::chrono::duration<double>(steady_clock::now() - began).count();
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    std::printf("%.1f MiB/s, %.1f objects/s, %.2f s CPU, %.1f MiB of memory\n",
                static_cast<double>(work.size_bytes) * count / took / (1 << 20), count / took,
                cpu_seconds(used), static_cast<double>(used.ru_maxrss) / 1024);
    return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace walvault::storage

int main(int count, char** arguments) {
    using namespace walvault::storage;
    if (count != 7) {
        std::fprintf(stderr, "usage: %s put|get URL NAME FILE COUNT CALLERS\n", arguments[0]);
        return 2;
    }
    auto options = parse_s3_url(arguments[2]);
    auto file = walvault::posix_file_system().info(arguments[4]);
    if (!options || !file) {
        std::fprintf(stderr, "%s\n", (!options ? options.error() : file.error()).message.c_str());
        return 2;
    }
    auto store = make_s3_store(walvault::posix_file_system(), *options).value();
    const Work work{*store, arguments[3], arguments[4], file->size_bytes};
    return measure(work, std::string(arguments[1]) == "put", std::atoi(arguments[5]),
                   std::atoi(arguments[6]));
}
