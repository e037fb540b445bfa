// SimulatedReceiver: an attachment to a simulated server, with the rules of wal::StreamState.
#pragma once

#include <functional>
#include <memory>

#include "tests/simulation/schedule.h"
#include "tests/simulation/server.h"
#include "wal/stream_state.h"

namespace walvault::simulation {

// What a connection meets on its way.
struct Network {
    const VirtualTime& time;
    Random& random;
    std::function<Server*()> target;  // who answers at the address; null: nobody
    // A status update arrived: the agent says that everything before `flushed` is safe.
    std::function<void(Session&, Lsn flushed)> on_status;
    std::function<bool()>
        breaks;  // asked at each command and message: is the connection lost here?
    int server_version_num = 150020;
    bool keepalives_are_doubled = false;
};

Task<Result<std::unique_ptr<wal::Receiver>>> attach_simulated(Network& network,
                                                              asio::any_io_executor executor,
                                                              wal::Receiver::Options options);

}  // namespace walvault::simulation
