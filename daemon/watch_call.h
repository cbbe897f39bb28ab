// Admin.WatchStats: the stats at once, then once per interval, driven by an alarm. A
// client that doesn't read delays its own next message and nothing else.
//
// Owns itself until OnDone.

#ifndef KVTIER_DAEMON_WATCH_CALL_H_
#define KVTIER_DAEMON_WATCH_CALL_H_

#include <grpcpp/support/server_callback.h>

#include <cstdint>

#include "absl/time/time.h"
#include "daemon/call_registry.h"
#include "daemon/store.h"
#include "kvtier/v1/admin.pb.h"

namespace kvtier::daemon {

grpc::ServerWriteReactor<v1::StatsResponse>* StartWatchCall(const Store& store,
                                                            absl::Time started,
                                                            CallRegistry* calls,
                                                            uint32_t interval_ms);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_WATCH_CALL_H_
