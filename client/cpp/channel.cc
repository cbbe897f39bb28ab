#include "client/cpp/channel.h"

#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <sys/un.h>

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/types.h"

namespace kvtier::client {
namespace {

constexpr char kUnreachedUrl[] = "kvtier/unreached";

absl::Status Unreached(absl::Status status) {
  status.SetPayload(kUnreachedUrl, absl::Cord());
  return status;
}

}  // namespace

bool WasReached(const absl::Status& status) {
  return !status.GetPayload(kUnreachedUrl).has_value();
}

Channel::Channel(std::string socket, absl::Duration deadline,
                 std::shared_ptr<grpc::Channel> channel)
    : socket_(std::move(socket)), deadline_(deadline), channel_(std::move(channel)) {}

absl::StatusOr<Channel> Channel::Open(const std::string& socket,
                                      absl::Duration deadline) {
  // Never undone: gRPC's own shutdown, which the last channel's end would start, at times
  // waits 10 s for a thread that polls.
  [[maybe_unused]] static const bool initialized = (grpc_init(), true);
  constexpr size_t kMax = sizeof(sockaddr_un::sun_path) - 1;
  if (socket.empty() || socket.size() > kMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the socket path '", socket, "' must have 1 to ", kMax, " bytes"));
  }
  grpc::ChannelArguments arguments;
  // A connection of its own: clients of one process don't share flow control.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // The daemon's limit is what counts; it has told its clients.
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  return Channel(
      socket, deadline,
      grpc::CreateCustomChannel(absl::StrCat("unix:", socket),
                                grpc::InsecureChannelCredentials(), arguments));
}

absl::Time Channel::Deadline() const { return absl::Now() + deadline_; }

void Channel::SetDeadline(grpc::ClientContext* context, absl::Duration longer) const {
  context->set_deadline(absl::ToChronoTime(Deadline() + longer));
}

absl::Status Channel::TooLate() const {
  return Unreached(absl::DeadlineExceededError(absl::StrCat(
      "kvtierd at ", socket_, " did not answer within ", absl::FormatDuration(deadline_),
      ": is it overloaded or stopped? A longer deadline may help")));
}

absl::Status Channel::ToStatus(const grpc::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  const std::string& message = status.error_message();
  const bool from_daemon = absl::StartsWith(message, "kvtierd ");
  // Some ways of losing the connection are Unknown to gRPC.
  const bool lost = status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                    (status.error_code() == grpc::StatusCode::UNKNOWN &&
                     absl::StrContains(message, "Stream removed"));
  if (lost && !from_daemon) {
    return Unreached(absl::UnavailableError(absl::StrCat(
        "no kvtierd at ", socket_, ": start it, then connect again (", message, ")")));
  }
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED && !from_daemon) {
    return TooLate();
  }
  if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED &&
      absl::StrContains(message, "larger than max")) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the message is over the daemon's limits.message_max: send fewer rows or tokens "
        "in one call, or raise it (",
        message, ")"));
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), message);
}

}  // namespace kvtier::client
