// Goal: the service manager learns when the daemon serves, reloads and stops, and is told
// that it lives only if it does; SIGHUP takes over what can change, and a wrong file
// nothing. Method: a real kvtierd with systemd's variables, and the socket behind them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/admin_client.h"
#include "client/cpp/client.h"
#include "daemon/service_manager.h"
#include "tests/daemon/kvtierd_process.h"

namespace kvtier {
namespace {

using ::testing::HasSubstr;
using testing::KvtierdProcess;
using testing::TempDir;

constexpr absl::Duration kPatience = absl::Seconds(20);

// What systemd listens on.
class Manager {
 public:
  Manager() {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const std::string path = directory_.path() + "/notify";
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
  }
  ~Manager() {
    unsetenv("NOTIFY_SOCKET");
    close(fd_);
  }

  // The next message that has `text`, or nothing if none comes in time.
  std::string Await(const std::string& text) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (true) {
      const std::string message = Next(deadline - absl::Now());
      if (message.empty() || message.find(text) != std::string::npos) return message;
    }
  }

  // All that came already.
  std::string Drain() {
    std::string all;
    for (std::string next; !(next = Next(absl::ZeroDuration())).empty();) all += next;
    return all;
  }

 private:
  std::string Next(absl::Duration patience) {
    pollfd wanted = {fd_, POLLIN, 0};
    const auto left = std::max<int64_t>(0, absl::ToInt64Milliseconds(patience));
    if (poll(&wanted, 1, static_cast<int>(left)) <= 0) return "";
    char bytes[4096];
    const ssize_t length = recv(fd_, bytes, sizeof(bytes), 0);
    return std::string(bytes, length > 0 ? length : 0);
  }

  TempDir directory_;
  int fd_ = -1;
};

TEST(Service, SaysWhenItServesReloadsAndStops) {
  Manager manager;
  KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  EXPECT_THAT(manager.Await("READY=1"), HasSubstr("STATUS=namespaces default"));
  daemon.process().Signal(SIGHUP);
  EXPECT_THAT(manager.Await("RELOADING=1"), HasSubstr("MONOTONIC_USEC="));
  EXPECT_NE(manager.Await("READY=1"), "");
  daemon.process().Signal(SIGTERM);
  EXPECT_NE(manager.Await("STOPPING=1"), "");
  EXPECT_EQ(daemon.process().Wait(), 0);
}

TEST(Service, FeedsTheWatchdogAfterACallToItself) {
  Manager manager;
  setenv("WATCHDOG_USEC", "300000", 1);
  KvtierdProcess daemon;
  unsetenv("WATCHDOG_USEC");
  ASSERT_TRUE(daemon.ready());
  for (int i = 0; i < 3; ++i) EXPECT_NE(manager.Await("WATCHDOG=1"), "");
}

TEST(Service, DoesNotFeedTheWatchdogOfADaemonThatHangs) {
  Manager manager;
  setenv("WATCHDOG_USEC", "30000", 1);
  std::atomic<bool> hangs{true};
  std::atomic<int> checks{0};
  {
    daemon::ServiceManager service;
    service.Ready("ready", [&](absl::Duration patience) -> absl::Status {
      EXPECT_EQ(patience, absl::Milliseconds(10));
      ++checks;
      if (hangs) return absl::DeadlineExceededError("it hangs");
      return absl::OkStatus();
    });
    while (checks < 5) std::this_thread::yield();
    const std::string sent = manager.Drain();
    EXPECT_THAT(sent, HasSubstr("READY=1"));
    EXPECT_THAT(sent, ::testing::Not(HasSubstr("WATCHDOG=1")));
    hangs = false;
    EXPECT_NE(manager.Await("WATCHDOG=1"), "");
  }
  unsetenv("WATCHDOG_USEC");
}

uint64_t Capacity(client::AdminClient& admin, uint64_t wanted) {
  uint64_t capacity = 0;
  const absl::Time deadline = absl::Now() + kPatience;
  EXPECT_TRUE(admin
                  .WatchStats(absl::Milliseconds(100),
                              [&](const client::Stats& stats) {
                                capacity = stats.tiers[0].capacity_bytes;
                                return capacity != wanted && absl::Now() < deadline;
                              })
                  .ok());
  return capacity;
}

TEST(Service, SighupTakesOverWhatCanChangeAndAWrongFileNothing) {
  Manager manager;
  KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  ASSERT_NE(manager.Await("READY=1"), "");
  auto admin = *client::AdminClient::Create({.socket = daemon.admin_socket()});
  auto first = client::Client::Connect({.socket = daemon.socket()});
  ASSERT_TRUE(first.ok()) << first.status();

  daemon.Configure(
      "[host]\ncapacity = \"1GiB\"\n[limits]\nsessions_max = 1\nmessage_max = "
      "\"1MiB\"\n");
  daemon.process().Signal(SIGHUP);
  ASSERT_NE(manager.Await("READY=1"), "");
  EXPECT_EQ(Capacity(*admin, uint64_t{1} << 30), uint64_t{1} << 30);
  EXPECT_EQ(client::Client::Connect({.socket = daemon.socket()}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ((*first)->limits().message_bytes_max, uint64_t{16} << 20);

  daemon.Configure("[host]\ncapacity = \"2GiB\"\n[limits]\nsessions_mix = 9\n");
  daemon.process().Signal(SIGHUP);
  ASSERT_NE(manager.Await("READY=1"), "");
  EXPECT_EQ(admin->GetStats()->tiers[0].capacity_bytes, uint64_t{1} << 30);
  EXPECT_EQ(client::Client::Connect({.socket = daemon.socket()}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE((*first)->RegisterModel(retrieval::ModelSpec()).status().code() ==
              absl::StatusCode::kInvalidArgument)
      << "the session goes on";
}

}  // namespace
}  // namespace kvtier
