// SlotGuard: the slot's last limit is kept also by an agent whose repository cannot be opened.
#pragma once

#include <functional>
#include <memory>

#include "agent/config.h"
#include "storage/repository.h"

namespace walvault::agent {

using OpenRepository = std::function<Result<std::unique_ptr<storage::Repository>>()>;

// `open`, and where that fails because of the disk (no_space, io) and slot_give_up is set, again
// every few seconds, while the slot is looked at and given up when it is time. Blocking. Errors: as
// `open`; cancelled when SIGTERM or SIGINT came meanwhile.
Result<std::unique_ptr<storage::Repository>> open_and_guard_slot(const OpenRepository& open,
                                                                 const ServerConfig& server);

}  // namespace walvault::agent
