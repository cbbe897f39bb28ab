#include "daemon/to_grpc_status.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace kvtier::daemon {

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message()));
}

absl::Status NotServed(const char* what) {
  return absl::UnimplementedError(
      absl::StrCat(what, " is specified but not served by this version"));
}

absl::Status ShuttingDown() {
  return absl::UnavailableError(
      "kvtierd is shutting down: connect again when it is back");
}

}  // namespace kvtier::daemon
