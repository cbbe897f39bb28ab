#include "daemon/liveness.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kvtier/v1/admin.grpc.pb.h"

namespace kvtier::daemon {

std::function<absl::Status(absl::Duration)> LivenessCheck(
    const std::string& admin_socket) {
  // Connects with the first call.
  std::shared_ptr<v1::Admin::Stub> admin = v1::Admin::NewStub(grpc::CreateChannel(
      absl::StrCat("unix:", admin_socket), grpc::InsecureChannelCredentials()));
  return [admin](absl::Duration patience) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + patience));
    v1::StatsResponse response;
    const grpc::Status status = admin->Stats(&context, v1::StatsRequest(), &response);
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                        status.error_message());
  };
}

}  // namespace kvtier::daemon
