// CephGateway: Ceph's RADOS gateway with an empty store, for as long as the object lives or the
// process does. Or another store, by hand: WALVAULT_S3_SCRIPT names a script with the commands of
// tests/support/ceph_rgw.sh, which then starts it.
#pragma once

#include <map>
#include <string>

#include "storage/s3_options.h"
#include "tests/support/scratch_directory.h"

namespace walvault::storage {

class CephGateway {
public:
    // "ceph_rgw", "swift_s3api": its script's name.
    static std::string kind();
    // Packages that it needs and that are not here, with a blank between two; empty: none.
    static std::string missing();

    CephGateway();
    ~CephGateway();
    CephGateway(const CephGateway&) = delete;
    CephGateway& operator=(const CephGateway&) = delete;

    // SIGKILL; what is stored is not touched.
    void kill();
    // Again on the same port.
    void start();

    // Of a bucket that is made by this.
    S3Options new_bucket(bool with_object_lock = false);
    // What DIR/endpoint says.
    const std::string& at(const std::string& name) const { return endpoint_.at(name); }
    // "file:…" with these keys.
    std::string credentials(const std::string& access_key, const std::string& secret_key);

private:
    ScratchDirectory scratch_;
    std::string directory_;
    std::map<std::string, std::string> endpoint_;
    int buckets_ = 0;
    int keys_ = 0;
};

// The one that all tests share.
CephGateway& gateway();

}  // namespace walvault::storage
