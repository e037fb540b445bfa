#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "tests/rgw/ceph_gateway.h"

int main(int count, char** arguments) {
    std::string missing = walvault::storage::CephGateway::missing();
    if (!missing.empty()) {
        std::printf(
            "SKIPPED no Ceph gateway to test with: apt-get install %s(tests/packages.txt)\n",
            missing.c_str());
        return 0;
    }
    return doctest::Context(count, arguments).run();
}
