// Whether this daemon works, asked from outside: a Stats call on its admin socket, which
// needs gRPC's threads and the locks of store and tiers, and a call on each worker
// socket. Every check connects anew: gRPC stops listening on a socket where accepting
// failed once for want of a descriptor.
//
// Thread safety: any thread.

#ifndef KVTIER_DAEMON_LIVENESS_H_
#define KVTIER_DAEMON_LIVENESS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace kvtier::daemon {

// The function's errors: DeadlineExceeded and whatever else a call may end with.
std::function<absl::Status(absl::Duration)> LivenessCheck(
    std::string admin_socket, std::vector<std::string> worker_sockets);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_LIVENESS_H_
