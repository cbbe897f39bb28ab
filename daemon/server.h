// The daemon's sockets: one gRPC server per namespace, so that the socket a worker may
// open decides the namespace it is in, and one for the operator, with health and
// reflection beside the admin service.
//
//   <runtime_dir>/<namespace>.sock   kvtier.v1.Worker              namespace's mode
//   <runtime_dir>/admin.sock         kvtier.v1.Admin, health,      0600
//                                    reflection
//
// Health says SERVING of the service "" as long as the daemon serves, and, if there is a
// disk tier, of "kvtier.disk" as long as nothing of it fails; it is NOT_SERVING else.
//
// The caller holds the directory's instance lock as long as the server lives.
//
// Thread safety: Start and Shutdown from one thread; SetDiskServing from any in between.

#ifndef KVTIER_DAEMON_SERVER_H_
#define KVTIER_DAEMON_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/config.h"
#include "daemon/store.h"

namespace kvtier::daemon {

class Server {
 public:
  // Adds the configured namespaces to the store and serves. `store` outlives the server.
  // FailedPrecondition: a socket's path is taken. Unavailable: gRPC could not listen.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const Config& config,
                                                       Store* store);

  virtual ~Server() = default;

  // What health says of the disk tier; it begins with SERVING.
  virtual void SetDiskServing(bool serving) = 0;

  // Accepts no more, ends lasting calls with Unavailable, lets short ones finish until
  // `patience` is over and cancels the rest; then removes the sockets. Once.
  virtual void Shutdown(absl::Duration patience) = 0;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_SERVER_H_
