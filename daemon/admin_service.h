// The admin service: what an operator sees and does. It never shows tokens, rows or
// queries. What may take long, or wait for a sequence that waits for the disk, has a
// thread of its own.
//
// Thread safety: as gRPC calls it, from any thread.

#ifndef KVTIER_DAEMON_ADMIN_SERVICE_H_
#define KVTIER_DAEMON_ADMIN_SERVICE_H_

#include <grpcpp/impl/codegen/service_type.h>

#include <memory>

#include "daemon/call_registry.h"
#include "daemon/store.h"

namespace kvtier::daemon {

// Both outlive the service.
std::unique_ptr<grpc::Service> MakeAdminService(Store* store, CallRegistry* calls);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_ADMIN_SERVICE_H_
