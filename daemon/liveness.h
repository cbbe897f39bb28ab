// Whether this daemon works, asked from outside: a Stats call through its own admin
// socket, which needs gRPC's threads and the locks of store and tiers.
//
// Thread safety: as the channel that it keeps: any thread.

#ifndef KVTIER_DAEMON_LIVENESS_H_
#define KVTIER_DAEMON_LIVENESS_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace kvtier::daemon {

// The function's errors: DeadlineExceeded and whatever else a call may end with.
std::function<absl::Status(absl::Duration)> LivenessCheck(
    const std::string& admin_socket);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_LIVENESS_H_
