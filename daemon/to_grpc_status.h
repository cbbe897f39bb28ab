// The one place where absl::Status becomes grpc::Status. The codes are the same numbers.
// Messages are kept, but those of Unavailable and DeadlineExceeded begin with "kvtierd ":
// a client tells by it that the daemon, and not a lost connection, speaks (errors in
// worker.proto).
//
// Thread safety: pure functions.

#ifndef KVTIER_DAEMON_TO_GRPC_STATUS_H_
#define KVTIER_DAEMON_TO_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace kvtier::daemon {

grpc::Status ToGrpcStatus(const absl::Status& status);

// Of a method that the contract specifies and this version doesn't serve.
absl::Status NotServed(const char* what);

// What every call gets while the daemon shuts down.
absl::Status ShuttingDown();

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_TO_GRPC_STATUS_H_
