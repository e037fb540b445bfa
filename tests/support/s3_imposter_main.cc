// A bucket of S3Imposter for the real program: prints its endpoint, then obeys a line at a time.
//
//   class PREFIX CLASS     objects whose key begins so are of this class
//   thaw SECONDS           how long a thaw takes
//   advance SECONDS        moves its clock
//   forget BYTES           bodies of more are checked and not kept
//   tick SECONDS           moves its clock at each HEAD
//   retrievals             answers "OBJECTS PAID": how many were thawed, and how often in all
//   counts                 answers METHOD=COUNT …, with the kinds of POST and GET apart
//   reset                  what `counts` counts begins anew
#include <iostream>
#include <sstream>

#include "tests/support/s3_imposter.h"

namespace {

using walvault::storage::ImposterRequest;
using walvault::storage::S3Imposter;

std::string kind_of(const ImposterRequest& request) {
    if (request.method == "GET") return request.key.empty() ? "LIST" : "GET";
    if (request.method == "PUT") return request.has("partNumber") ? "PART" : "PUT";
    if (request.method != "POST") return request.method;
    return request.has("restore") ? "RESTORE" : request.has("uploads") ? "BEGIN" : "COMPLETE";
}

std::string obey(S3Imposter& imposter, std::size_t& seen, const std::string& line) {
    std::istringstream words(line);
    std::string verb, first, second;
    words >> verb >> first >> second;
    if (verb == "class") imposter.move_to_class(first, second);
    if (verb == "thaw") imposter.set_thaw_time(std::chrono::seconds(std::stoll(first)));
    if (verb == "advance") imposter.advance(std::chrono::seconds(std::stoll(first)));
    if (verb == "forget") imposter.set_kept_bytes(std::stoull(first));
    if (verb == "tick") imposter.set_tick(std::chrono::seconds(std::stoll(first)));
    if (verb == "reset") seen = imposter.requests().size();
    std::ostringstream answer;
    if (verb == "retrievals") {
        int paid = 0;
        for (const auto& [key, times] : imposter.retrievals())
            paid += times;
        answer << imposter.retrievals().size() << " " << paid;
    }
    if (verb == "counts") {
        std::map<std::string, int> counts;
        const auto requests = imposter.requests();
        for (std::size_t i = seen; i < requests.size(); ++i)
            ++counts[kind_of(requests[i])];
        for (const auto& [kind, count] : counts)
            answer << kind << "=" << count << " ";
    }
    return answer.str();
}

}  // namespace

int main() {
    S3Imposter imposter;
    std::cout << imposter.endpoint() << std::endl;
    std::size_t seen = 0;
    for (std::string line; std::getline(std::cin, line);)
        std::cout << obey(imposter, seen, line) << std::endl;
}
