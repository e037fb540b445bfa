// A stop point, and what WAL told of transactions, for people and for programs.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "agent/stop_point.h"

namespace walvault::agent {

// Names of relation files, as far as a server that answers knows them.
using RelationNames = std::map<std::string, std::string>;

// "target", "kept", "left out" and "base" lines, each indented by two blanks and ending with '\n'.
std::string stop_point_text(const StopPoint& stop, const std::string& zone,
                            const RelationNames& names = {});
nlohmann::ordered_json stop_point_json(const StopPoint& stop);

// "12 rows inserted, 3 updated, most in 1663/5/16397", "removes 2 relation files"; empty when
// nothing is known.
std::string describe_transaction(const WalFinding& finding, const RelationNames& names);
std::string relation_text(const std::string& file, const RelationNames& names);

// Asks the server's own database; whatever cannot be had within a second stays a number.
RelationNames ask_relation_names(const std::string& conninfo,
                                 const std::vector<std::string>& files);

}  // namespace walvault::agent
