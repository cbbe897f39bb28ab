#include "daemon/liveness.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kvtier/v1/admin.grpc.pb.h"
#include "kvtier/v1/worker.grpc.pb.h"

namespace kvtier::daemon {
namespace {

std::shared_ptr<grpc::Channel> FreshChannel(const std::string& socket) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(absl::StrCat("unix:", socket),
                                   grpc::InsecureChannelCredentials(), arguments);
}

absl::Status Failed(const std::string& socket, const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      absl::StrCat(socket, ": ", status.error_message()));
}

}  // namespace

std::function<absl::Status(absl::Duration)> LivenessCheck(
    std::string admin_socket, std::vector<std::string> worker_sockets) {
  return [admin_socket = std::move(admin_socket),
          worker_sockets = std::move(worker_sockets)](absl::Duration patience) {
    const auto deadline = absl::ToChronoTime(absl::Now() + patience);
    grpc::ClientContext stats_call;
    stats_call.set_deadline(deadline);
    v1::StatsResponse stats;
    grpc::Status status = v1::Admin::NewStub(FreshChannel(admin_socket))
                              ->Stats(&stats_call, v1::StatsRequest(), &stats);
    if (!status.ok()) return Failed(admin_socket, status);
    for (const std::string& socket : worker_sockets) {
      grpc::ClientContext call;
      call.set_deadline(deadline);
      v1::CloseResponse closed;
      // Of no session: that it says so is the answer of a daemon that works.
      status = v1::Worker::NewStub(FreshChannel(socket))
                   ->Close(&call, v1::CloseRequest(), &closed);
      if (status.error_code() != grpc::StatusCode::NOT_FOUND) {
        return Failed(socket, status);
      }
    }
    return absl::OkStatus();
  };
}

}  // namespace kvtier::daemon
