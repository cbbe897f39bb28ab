// Goal: an error of the daemon's own reads as it was written, and only a lost connection
// says "no kvtierd".
// Method: statuses made by the daemon's own conversion, and by hand as gRPC makes them.

#include "client/cpp/channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/cpp/types.h"
#include "daemon/to_grpc_status.h"

namespace kvtier::client {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class ChannelStatus : public ::testing::Test {
 protected:
  ChannelStatus() : channel_(*Channel::Open("/nowhere/kvtier.sock", absl::Seconds(3))) {}

  absl::Status OfDaemon(const absl::Status& status) const {
    return channel_.ToStatus(daemon::ToGrpcStatus(status));
  }

  const Channel channel_;
};

TEST_F(ChannelStatus, ADiskThatFailsIsNotADaemonThatIsGone) {
  const absl::Status disk = OfDaemon(absl::UnavailableError("the disk is read-only"));
  EXPECT_EQ(disk.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(disk.message()), HasSubstr("the disk is read-only"));
  EXPECT_THAT(std::string(disk.message()), StartsWith("kvtierd "));
  EXPECT_TRUE(WasReached(disk));
}

TEST_F(ChannelStatus, ADiskThatHangsIsNotADaemonThatHangs) {
  const absl::Status disk = OfDaemon(absl::DeadlineExceededError("no answer in 30 s"));
  EXPECT_EQ(disk.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(disk.message()), HasSubstr("no answer in 30 s"));
  EXPECT_TRUE(WasReached(disk));
}

TEST_F(ChannelStatus, OtherMessagesAreKeptAsTheyAre) {
  EXPECT_EQ(OfDaemon(daemon::ShuttingDown()), daemon::ShuttingDown());
  EXPECT_EQ(OfDaemon(absl::NotFoundError("no such")), absl::NotFoundError("no such"));
  EXPECT_TRUE(OfDaemon(absl::OkStatus()).ok());
}

TEST_F(ChannelStatus, ALostConnectionSaysSo) {
  for (const grpc::Status& lost :
       {grpc::Status(grpc::StatusCode::UNAVAILABLE, "Socket closed"),
        grpc::Status(grpc::StatusCode::UNKNOWN, "Stream removed")}) {
    const absl::Status status = channel_.ToStatus(lost);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("no kvtierd at /nowhere/kvtier.sock: start it"));
    EXPECT_FALSE(WasReached(status));
  }
}

TEST_F(ChannelStatus, ALateAnswerSaysSo) {
  const absl::Status status = channel_.ToStatus(
      grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "Deadline Exceeded"));
  EXPECT_EQ(status, channel_.TooLate());
  EXPECT_THAT(std::string(status.message()), HasSubstr("did not answer within 3s"));
  EXPECT_FALSE(WasReached(status));
}

TEST_F(ChannelStatus, AMessageOverTheLimitNamesTheKey) {
  EXPECT_THAT(std::string(channel_
                              .ToStatus(grpc::Status(
                                  grpc::StatusCode::RESOURCE_EXHAUSTED,
                                  "Received message larger than max (9 vs. 8)"))
                              .message()),
              HasSubstr("limits.message_max"));
}

}  // namespace
}  // namespace kvtier::client
