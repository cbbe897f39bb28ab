// Worker.Session: the stream that is a session's life. The worker's first message opens
// the session; whatever ends the stream (the worker's half-close, its death, a cancelled
// call, the daemon's shutdown) closes it, and with it all of its sequences.
//
// Owns itself until OnDone. Threads: gRPC's callbacks, an alarm, the registry's Stop.

#ifndef KVTIER_DAEMON_SESSION_CALL_H_
#define KVTIER_DAEMON_SESSION_CALL_H_

#include <grpcpp/support/server_callback.h>

#include "daemon/worker_context.h"
#include "kvtier/v1/worker.pb.h"

namespace kvtier::daemon {

grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>* StartSessionCall(
    const WorkerContext& context);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_SESSION_CALL_H_
