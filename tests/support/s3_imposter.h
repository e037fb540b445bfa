// S3Imposter: a store of one bucket in memory, on a port of loopback, that fails where a test says.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace walvault::storage {

struct ImposterRequest {
    std::string method;
    std::string bucket;
    std::string key;  // decoded
    std::map<std::string, std::string> query;
    std::map<std::string, std::string> headers;  // names in lower case
    std::string body;

    bool has(const std::string& name) const { return query.contains(name); }
};

struct ImposterFault {
    enum class Kind {
        none,
        answer,               // `status` and `code` instead of what would be done
        cut_body,             // half of the body, then the end of the connection
        wrong_range,          // a Content-Range of one byte further on
        too_long,             // more bytes than were asked for
        no_xml,               // a good status with a body that is none
        hang,                 // nothing, until the imposter ends
        close_before,         // the connection ends, nothing was done
        carry_out_and_close,  // done, and the connection ends instead of an answer
    };
    Kind kind = Kind::none;
    int status = 500;
    std::string code = {};
    std::string more_headers = {};  // each with its \r\n
};

// Connections are served by a thread each. Requests whose digests do not fit their bodies are
// refused; signatures are not looked at.
class S3Imposter {
public:
    using Chooser = std::function<ImposterFault(const ImposterRequest&)>;
    S3Imposter();
    ~S3Imposter();
    S3Imposter(const S3Imposter&) = delete;
    S3Imposter& operator=(const S3Imposter&) = delete;

    std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(port_); }
    // Asked once for each request, one at a time.
    void set_faults(Chooser chooser);
    // What it would refuse with If-None-Match; both at first.
    void set_create_only(bool whole, bool in_parts);
    // Objects can be locked in it, which this does not do; its bucket was made without; or it does
    // not know of locks, and takes what asks for one for something else, as Swift does. The first
    // at first.
    enum class ObjectLock { enabled, absent, unknown };
    void set_object_lock(ObjectLock lock);
    // Refuses bodies without Content-MD5, as where objects are locked; not so at first.
    void set_wants_md5(bool wants);
    void set_page_keys(std::size_t count);
    // Bodies of more are checked and then forgotten, so that much can be put there.
    void set_kept_bytes(std::size_t most);

    std::vector<ImposterRequest> requests() const;
    std::size_t count(const std::string& method) const;
    std::map<std::string, std::string> objects() const;
    std::size_t open_uploads() const;
    void place(const std::string& key, const std::string& body);

    // Objects whose key begins so are of this class from now on; as by a rule of the bucket.
    void move_to_class(const std::string& prefix, const std::string& storage_class);
    // How long a thaw takes; 4 hours at first. Negative: the store archives by name only and does
    // not know RestoreObject, as Ceph's gateway.
    void set_thaw_time(std::chrono::seconds time);
    // Its clock is the machine's, moved on by these; each HEAD moves it by `tick`.
    void advance(std::chrono::seconds time);
    void set_tick(std::chrono::seconds tick);
    // Requests that were accepted and cost a retrieval, by key.
    std::map<std::string, int> retrievals() const;

private:
    struct Object {
        std::string body;
        std::map<std::string, std::string> meta;
        std::string storage_class = {};
        // Of a thawed copy, in seconds; zero: none was asked for.
        std::int64_t thawed_at = 0;
        std::int64_t thawed_until = 0;
    };
    struct Upload {
        std::string key;
        std::map<std::string, std::string> meta;
        std::map<int, std::string> parts;
        std::string storage_class = {};
    };
    struct Reply {
        int status = 200;
        std::string headers = {};
        std::string body = {};
        std::string object_bytes = {};  // of HEAD: the length that is told
    };

    void accept_all();
    void serve(int socket);
    bool answer_one(int socket, std::string& buffered);
    bool send_faulty(int socket, const ImposterRequest& request, const ImposterFault& fault);
    bool send_reply(int socket, const ImposterRequest& request, const Reply& reply,
                    bool cut = false);
    Reply carry_out(const ImposterRequest& request);
    std::string kept(const std::string& body) const;
    Reply tell_object_lock() const;
    Reply put_object(const ImposterRequest& request);
    Reply get_object(const ImposterRequest& request);
    Reply list_objects(const ImposterRequest& request);
    Reply list_uploads(const ImposterRequest& request);
    Reply begin_upload(const ImposterRequest& request);
    Reply put_part(const ImposterRequest& request);
    Reply complete_upload(const ImposterRequest& request);
    Reply restore_object(const ImposterRequest& request);
    std::int64_t now() const;  // in seconds
    bool is_readable(Object& object);
    std::string class_lines(Object& object);
    static Reply refusal(int status, const std::string& code);

    int listener_ = -1;
    int port_ = 0;
    mutable std::mutex mutex_;
    std::condition_variable ended_;
    bool ending_ = false;
    Chooser chooser_;
    bool create_only_ = true;
    bool create_only_in_parts_ = true;
    ObjectLock object_lock_ = ObjectLock::enabled;
    bool wants_md5_ = false;
    std::size_t page_keys_ = 1000;
    std::size_t kept_bytes_ = ~std::size_t{0};
    std::chrono::seconds thaw_time_{4 * 3600};
    std::chrono::seconds ahead_{0};
    std::chrono::seconds tick_{0};
    std::map<std::string, int> retrievals_;
    std::map<std::string, Object> objects_;
    std::map<std::string, Upload> uploads_;
    std::vector<ImposterRequest> requests_;
    std::list<int> sockets_;
    std::list<std::thread> threads_;
    std::thread acceptor_;
};

}  // namespace walvault::storage
