#include "tests/rgw/ceph_gateway.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <stdexcept>

#include "storage/s3_client.h"

namespace walvault::storage {
namespace {

const char* script() {
    const char* other = ::getenv("WALVAULT_S3_SCRIPT");
    return other == nullptr ? WALVAULT_RGW_SCRIPT : other;
}

// The words are paths and names of this file's making: nothing in them is for the shell to read.
std::string run(const std::string& words) {
    std::string command = std::string(script()) + " " + words + " 2>&1";
    FILE* pipe = ::popen(command.c_str(), "r");
    WV_ASSERT(pipe != nullptr);
    std::string output;
    std::array<char, 4096> piece;
    while (std::size_t count = std::fread(piece.data(), 1, piece.size(), pipe))
        output.append(piece.data(), count);
    if (::pclose(pipe) != 0)
        throw std::runtime_error(CephGateway::kind() + " " + words + ": " + output);
    return output;
}

}  // namespace

std::string CephGateway::kind() { return std::filesystem::path(script()).stem(); }

std::string CephGateway::missing() {
    std::string packages = run("missing");
    for (char& c : packages)
        if (c == '\n') c = ' ';
    return packages;
}

CephGateway::CephGateway() : directory_(scratch_ / "gateway") {
    ::setenv("GATEWAY_OWNER", std::to_string(::getpid()).c_str(), 1);
    ::setenv("no_proxy", "127.0.0.1,localhost,.localhost", 1);
    run("start " + directory_);
    std::ifstream lines(directory_ + "/endpoint");
    for (std::string line; std::getline(lines, line);) {
        std::size_t equals = line.find('=');
        endpoint_[line.substr(0, equals)] = line.substr(equals + 1);
    }
}

CephGateway::~CephGateway() {
    try {
        run("wipe " + directory_);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
    }
}

void CephGateway::kill() { run("kill-gateway " + directory_); }
void CephGateway::start() { run("start-gateway " + directory_); }

std::string CephGateway::credentials(const std::string& access_key, const std::string& secret_key) {
    std::string path = scratch_ / ("key" + std::to_string(++keys_));
    write_raw_file(path,
                   as_bytes("access_key = " + access_key + "\nsecret_key = " + secret_key + "\n"));
    WV_ASSERT(::chmod(path.c_str(), 0600) == 0);
    return "file:" + path;
}

S3Options CephGateway::new_bucket(bool with_object_lock) {
    S3Options options;
    options.bucket = "bucket" + std::to_string(++buckets_);
    options.endpoint = at("URL");
    options.region = at("REGION");
    options.credentials = credentials(at("ACCESS_KEY"), at("SECRET_KEY"));
    S3Client client(posix_file_system(), options, s3_endpoint(options).value());
    S3Request request{.method = "PUT"};
    if (with_object_lock) request.headers = {{"x-amz-bucket-object-lock-enabled", "true"}};
    auto made = client.perform(request);
    if (!made || !made->ok()) throw std::runtime_error("the bucket cannot be made");
    return options;
}

CephGateway& gateway() {
    static CephGateway one;
    return one;
}

}  // namespace walvault::storage
