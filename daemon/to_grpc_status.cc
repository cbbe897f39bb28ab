#include "daemon/to_grpc_status.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace kvtier::daemon {
namespace {

constexpr char kSpeaker[] = "kvtierd ";

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message(status.message());
  const bool like_a_lost_connection =
      absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
  if (like_a_lost_connection && !absl::StartsWith(message, kSpeaker)) {
    message = absl::StrCat(kSpeaker, "can't: ", message);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message);
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
