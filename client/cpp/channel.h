// Inside the client library: the gRPC channel to one Unix socket, and the one place
// where grpc::Status becomes absl::Status.
//
// Thread safety: const.

#ifndef KVTIER_CLIENT_CPP_CHANNEL_H_
#define KVTIER_CLIENT_CPP_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace kvtier::client {

class Channel {
 public:
  // InvalidArgument: the path is longer than a Unix socket's may be.
  static absl::StatusOr<Channel> Open(const std::string& socket, absl::Duration deadline);

  const std::shared_ptr<grpc::Channel>& grpc() const { return channel_; }
  const std::string& socket() const { return socket_; }
  absl::Time Deadline() const;
  // For a unary call.
  //   longer: what it may take beyond the usual
  void SetDeadline(grpc::ClientContext* context,
                   absl::Duration longer = absl::ZeroDuration()) const;

  // Messages say what to do where gRPC's own don't.
  absl::Status ToStatus(const grpc::Status& status) const;
  // What a call gets that ran out of time.
  absl::Status TooLate() const;

 private:
  Channel(std::string socket, absl::Duration deadline,
          std::shared_ptr<grpc::Channel> channel);

  std::string socket_;
  absl::Duration deadline_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace kvtier::client

#endif  // KVTIER_CLIENT_CPP_CHANNEL_H_
