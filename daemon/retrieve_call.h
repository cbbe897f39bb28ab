// Worker.Retrieve: queries in, selections out, on a thread of its own (see
// stream_threads.h for why). The next request is read while the last answer is written.
//
// Back-pressure: results are gathered into one message until it reaches the part target;
// then it is written, and the next part is made only when that write is done. So a
// client that never reads holds one message in memory, and nobody else up.
//
// Owns itself until OnDone. Reads, writes and the end are started by its thread alone;
// gRPC's callbacks only report to the gate.

#ifndef KVTIER_DAEMON_RETRIEVE_CALL_H_
#define KVTIER_DAEMON_RETRIEVE_CALL_H_

#include <grpcpp/support/server_callback.h>

#include "daemon/worker_context.h"
#include "kvtier/v1/worker.pb.h"

namespace kvtier::daemon {

grpc::ServerBidiReactor<v1::RetrieveRequest, v1::RetrieveResponse>* StartRetrieveCall(
    const WorkerContext& context, grpc::CallbackServerContext* call);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_RETRIEVE_CALL_H_
