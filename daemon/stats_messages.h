// What the store says of itself, as messages of the admin service.
//
// Thread safety: pure functions over the store's own synchronization.

#ifndef KVTIER_DAEMON_STATS_MESSAGES_H_
#define KVTIER_DAEMON_STATS_MESSAGES_H_

#include <string>

#include "absl/time/time.h"
#include "daemon/session.h"
#include "daemon/store.h"
#include "kvtier/v1/admin.pb.h"

namespace kvtier::daemon {

void FillStats(const Store& store, absl::Time started, v1::StatsResponse* message);

void FillSession(const std::string& space, const SessionInfo& info,
                 v1::SessionInfo* message);

// Adds all of the namespace's models.
void FillModels(const Namespace& space, v1::ListModelsResponse* message);

// Adds all of the session's sequences.
void FillSequences(const std::string& space, const Session& session,
                   v1::ListSequencesResponse* message);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_STATS_MESSAGES_H_
