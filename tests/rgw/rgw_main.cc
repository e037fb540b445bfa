#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "tests/rgw/ceph_gateway.h"

int main(int count, char** arguments) {
    std::string missing = walvault::storage::CephGateway::missing();
    if (!missing.empty()) {
        std::printf("SKIPPED no gateway to test with: apt-get install %s\n", missing.c_str());
        return 0;
    }
    doctest::Context context(count, arguments);
    for (const char* kind : {"ceph_rgw", "swift_s3api"})
        if (walvault::storage::CephGateway::kind() != kind)
            context.addFilter("test-suite-exclude", kind);
    return context.run();
}
