// Worker.Read: stored rows, part after part, on a thread of its own. The next part is
// made when the last one is written: see retrieve_call.h.
//
// Owns itself until OnDone.

#ifndef KVTIER_DAEMON_READ_CALL_H_
#define KVTIER_DAEMON_READ_CALL_H_

#include <grpcpp/support/server_callback.h>

#include "daemon/worker_context.h"
#include "kvtier/v1/worker.pb.h"

namespace kvtier::daemon {

// `request` lives as long as the call.
grpc::ServerWriteReactor<v1::ReadResponse>* StartReadCall(
    const WorkerContext& context, grpc::CallbackServerContext* call,
    const v1::ReadRequest* request);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_READ_CALL_H_
