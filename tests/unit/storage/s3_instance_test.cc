#include "storage/s3_instance.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <thread>
#include <vector>

#include "storage/s3_options.h"

namespace walvault::storage {
namespace {

struct Reply {
    int status = 200;
    std::string body = {};
};

// A metadata service on a port of loopback; connections one after the other.
class MetadataService {
public:
    using Handler = std::function<Reply(const std::string& request)>;
    explicit MetadataService(Handler handler) : handler_(std::move(handler)) {
        listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        REQUIRE(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0);
        REQUIRE(::listen(listener_, 16) == 0);
        REQUIRE(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
        port_ = ntohs(address.sin_port);
        thread_ = std::thread([this] { serve(); });
    }
    ~MetadataService() {
        ::shutdown(listener_, SHUT_RDWR);
        thread_.join();
        ::close(listener_);
    }
    std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
    std::vector<std::string> requests;  // read it when no call runs

private:
    void serve() {
        for (int socket; (socket = ::accept(listener_, nullptr, nullptr)) >= 0; ::close(socket)) {
            std::string text;
            char piece[4096];
            while (text.find("\r\n\r\n") == std::string::npos) {
                ssize_t count = ::recv(socket, piece, sizeof piece, 0);
                if (count <= 0) break;
                text.append(piece, static_cast<std::size_t>(count));
            }
            requests.push_back(text);
            const Reply reply = handler_(text);
            const std::string out = "HTTP/1.1 " + std::to_string(reply.status) +
                                    " Said\r\nConnection: close\r\nContent-Length: " +
                                    std::to_string(reply.body.size()) + "\r\n\r\n" + reply.body;
            static_cast<void>(::send(socket, out.data(), out.size(), MSG_NOSIGNAL));
        }
    }

    Handler handler_;
    int listener_ = -1;
    int port_ = 0;
    std::thread thread_;
};

const std::string kRoles = "/latest/meta-data/iam/security-credentials/";
const std::string kGood =
    R"({"Code":"Success","AccessKeyId":"AK","SecretAccessKey":"SeCrEt","Token":"T/+=",)"
    R"("Expiration":"2030-01-01T00:00:00Z"})";

// As Amazon's: a token by PUT, then the role, then its keys.
Reply as_amazon(const std::string& request, const std::string& keys) {
    if (request.starts_with("PUT /latest/api/token "))
        return request.find("X-aws-ec2-metadata-token-ttl-seconds: ") != std::string::npos
                   ? Reply{200, "TOKEN=="}
                   : Reply{400};
    if (request.find("X-aws-ec2-metadata-token: TOKEN==\r\n") == std::string::npos) return {401};
    if (request.starts_with("GET " + kRoles + " ")) return {200, "my-role"};
    if (request.starts_with("GET " + kRoles + "my-role ")) return {200, keys};
    return {404};
}

}  // namespace

TEST_CASE("the keys of a machine's role are those its metadata service tells, by a token") {
    MetadataService service([](const std::string& text) { return as_amazon(text, kGood); });
    auto read = read_s3_credentials(posix_file_system(), "imds:" + service.url());
    REQUIRE_MESSAGE(read.has_value(), read.error().message);
    CHECK(read->access_key == "AK");
    CHECK(as_text(read->secret_key.view()) == "SeCrEt");
    CHECK(as_text(read->session_token.view()) == "T/+=");
    CHECK(service.requests.size() == 3);
}

TEST_CASE(
    "a machine without a role, a service that refuses, and answers that are none are errors") {
    struct Row {
        std::string at;  // the request that is answered so
        Reply reply;
        Errc expected;
    };
    for (const Row& row :
         {Row{"PUT ", {403}, Errc::unavailable}, Row{"PUT ", {500}, Errc::unavailable},
          Row{"PUT ", {200, "a\r\nX: y"}, Errc::unavailable},
          Row{"GET " + kRoles + " ", {404}, Errc::wrong_key},
          Row{"GET " + kRoles + " ", {200, ""}, Errc::wrong_key},
          Row{"GET " + kRoles + "my-role ", {200, "SeCrEt"}, Errc::wrong_key},
          Row{"GET " + kRoles + "my-role ", {200, R"({"Code":"Failed"})"}, Errc::wrong_key},
          Row{"GET " + kRoles + "my-role ",
              {200, R"({"AccessKeyId":"A K","SecretAccessKey":"SeCrEt","Token":""})"},
              Errc::wrong_key}}) {
        INFO("at " << row.at << " " << row.reply.status << " " << row.reply.body);
        MetadataService service([&](const std::string& text) {
            return text.starts_with(row.at) ? row.reply : as_amazon(text, kGood);
        });
        auto read = read_s3_credentials(posix_file_system(), "imds:" + service.url());
        REQUIRE_FALSE(read.has_value());
        CHECK(read.error().code == row.expected);
        CHECK((read.error().message + read.error().hint).find("SeCrEt") == std::string::npos);
    }
    auto nobody = read_s3_credentials(posix_file_system(), "imds:http://127.0.0.1:1");
    CHECK(nobody.error().code == Errc::unavailable);
    CHECK(nobody.error().hint.find("imds:") != std::string::npos);
}

TEST_CASE("a service that fails once is asked again") {
    int failures = 2;
    MetadataService service([&](const std::string& text) {
        return failures-- > 0 ? Reply{503} : as_amazon(text, kGood);
    });
    CHECK(read_instance_credentials(service.url()).value().access_key == "AK");
}

TEST_CASE("only Amazon's address and loopback are asked for keys") {
    CHECK(is_instance_service(""));
    CHECK(is_instance_service("http://127.0.0.1:8080"));
    for (const char* url : {"http://example.org", "http://127.0.0.1", "http://127.0.0.1:",
                            "https://127.0.0.1:1", "http://127.0.0.1:80@evil", "x"})
        CHECK_FALSE_MESSAGE(is_instance_service(url), url);
}

}  // namespace walvault::storage
