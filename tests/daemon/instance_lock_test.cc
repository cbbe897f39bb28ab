// Goal: one daemon per directory, and only a dead one's sockets are removed.
// Method: two locks in one process (flock is per open file); real sockets.

#include "daemon/instance_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/daemon/kvtierd_process.h"

namespace kvtier::daemon {
namespace {

using ::testing::HasSubstr;

int Bind(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(listen(fd, 1), 0);
  return fd;
}

TEST(InstanceLock, RefusesASecondOwnerAndNamesTheFirst) {
  testing::TempDir dir;
  const std::string run = dir.path() + "/run";
  absl::StatusOr<InstanceLock> first = InstanceLock::Take(run);
  ASSERT_TRUE(first.ok()) << first.status();
  absl::StatusOr<InstanceLock> second = InstanceLock::Take(run);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(std::to_string(getpid())));
}

TEST(InstanceLock, IsFreeOnceItsOwnerIsGone) {
  testing::TempDir dir;
  EXPECT_TRUE(InstanceLock::Take(dir.path()).ok());
  EXPECT_TRUE(InstanceLock::Take(dir.path()).ok());
}

TEST(InstanceLock, SaysWhichDirectoryCannotBeMade) {
  absl::StatusOr<InstanceLock> lock = InstanceLock::Take("/nowhere/at/all");
  EXPECT_EQ(lock.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(lock.status().message()), HasSubstr("--runtime-dir"));
}

TEST(RemoveStaleSocket, RemovesADeadOne) {
  testing::TempDir dir;
  const std::string path = dir.path() + "/a.sock";
  close(Bind(path));
  EXPECT_TRUE(RemoveStaleSocket(path).ok());
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_TRUE(RemoveStaleSocket(path).ok());  // nothing is there
}

TEST(RemoveStaleSocket, KeepsALiveOne) {
  testing::TempDir dir;
  const std::string path = dir.path() + "/a.sock";
  const int fd = Bind(path);
  EXPECT_EQ(RemoveStaleSocket(path).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(std::filesystem::exists(path));
  close(fd);
}

TEST(RemoveStaleSocket, KeepsWhatIsNoSocket) {
  testing::TempDir dir;
  const std::string path = dir.path() + "/a.sock";
  std::ofstream(path) << "precious";
  EXPECT_EQ(RemoveStaleSocket(path).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace kvtier::daemon
