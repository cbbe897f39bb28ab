// The worker service of one namespace, as gRPC's callback API wants it. Unary methods
// run at once, on gRPC's thread: they copy or look up and never wait for a client.
// Lasting ones are in session_call, retrieve_call and read_call.
//
// Thread safety: as gRPC calls it, from any thread.

#ifndef KVTIER_DAEMON_WORKER_SERVICE_H_
#define KVTIER_DAEMON_WORKER_SERVICE_H_

#include <grpcpp/impl/codegen/service_type.h>

#include <memory>

#include "daemon/worker_context.h"

namespace kvtier::daemon {

std::unique_ptr<grpc::Service> MakeWorkerService(const WorkerContext& context);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_WORKER_SERVICE_H_
