// Goal: descriptors are closed exactly once, errors of the kernel get the code callers
// act on. Method: pipes, whose other end tells whether one was closed.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/base/errno_status.h"
#include "kernels/base/unique_fd.h"

namespace kvtier {
namespace {

using ::testing::HasSubstr;

bool IsOpen(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

TEST(UniqueFd, ClosesWhenItEnds) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  UniqueFd reader(ends[0]);
  {
    UniqueFd writer(ends[1]);
    EXPECT_TRUE(IsOpen(ends[1]));
  }
  EXPECT_FALSE(IsOpen(ends[1]));
  EXPECT_TRUE(IsOpen(ends[0]));
}

TEST(UniqueFd, MovesOwnershipAndClosesWhatItHeld) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  UniqueFd a(ends[0]);
  UniqueFd b(ends[1]);
  a = std::move(b);
  EXPECT_FALSE(IsOpen(ends[0]));
  EXPECT_EQ(a.get(), ends[1]);
  EXPECT_FALSE(b.valid());  // NOLINT(bugprone-use-after-move): that is the test
}

TEST(UniqueFd, ReleaseGivesUp) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  {
    UniqueFd a(ends[0]);
    EXPECT_EQ(a.Release(), ends[0]);
  }
  EXPECT_TRUE(IsOpen(ends[0]));
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(ErrnoToStatus, SaysOperationPathAndReason) {
  const absl::Status status = ErrnoToStatus(ENOENT, "open", "/x/y");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(std::string(status.message()), "open /x/y: No such file or directory");
}

TEST(ErrnoToStatus, ChoosesTheCodeCallersActOn) {
  EXPECT_TRUE(absl::IsAlreadyExists(ErrnoToStatus(EEXIST, "mkdir")));
  EXPECT_TRUE(absl::IsPermissionDenied(ErrnoToStatus(EROFS, "open")));
  EXPECT_TRUE(absl::IsResourceExhausted(ErrnoToStatus(ENOSPC, "write")));
  EXPECT_TRUE(absl::IsUnavailable(ErrnoToStatus(ECONNREFUSED, "connect")));
  EXPECT_TRUE(absl::IsCancelled(ErrnoToStatus(EINTR, "wait")));
  EXPECT_TRUE(absl::IsDataLoss(ErrnoToStatus(EIO, "read")));
  EXPECT_TRUE(absl::IsInvalidArgument(ErrnoToStatus(EINVAL, "read")));
  EXPECT_TRUE(absl::IsInternal(ErrnoToStatus(ENOEXEC, "exec")));
}

TEST(ErrnoToStatus, NeverSaysOk) {
  const absl::Status status = ErrnoToStatus(0, "read");
  EXPECT_TRUE(absl::IsInternal(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("without an error number"));
}

}  // namespace
}  // namespace kvtier
