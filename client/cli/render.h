// What kvtierctl prints: each answer as tables for people and as one JSON object for
// programs. JSON's keys are the names of the proto's fields and only ever get more.
//
// Thread safety: pure functions.

#ifndef KVTIER_CLIENT_CLI_RENDER_H_
#define KVTIER_CLIENT_CLI_RENDER_H_

#include <string>
#include <vector>

#include "client/cpp/admin_client.h"

namespace kvtier::cli {

std::string StatusTables(const client::Stats& stats,
                         const std::vector<client::SessionInfo>& sessions);
std::string StatusJson(const client::Stats& stats,
                       const std::vector<client::SessionInfo>& sessions);

std::string SessionsTable(const std::vector<client::SessionInfo>& sessions);
std::string SessionsJson(const std::vector<client::SessionInfo>& sessions);

std::string SequencesTable(const std::vector<client::SequenceInfo>& sequences);
std::string SequencesJson(const std::vector<client::SequenceInfo>& sequences);

// What `tokens` tokens of each model cost in each tier; 0: one chunk.
std::string ModelsTable(const std::vector<client::ModelInfo>& models, uint64_t tokens);
std::string ModelsJson(const std::vector<client::ModelInfo>& models, uint64_t tokens);

// One line of `watch`; `before` is null for the first.
std::string WatchHeader();
std::string WatchLine(const client::Stats& stats, const client::Stats* before);
std::string StatsJson(const client::Stats& stats);

}  // namespace kvtier::cli

#endif  // KVTIER_CLIENT_CLI_RENDER_H_
