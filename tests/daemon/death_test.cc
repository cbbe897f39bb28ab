// Goal: a worker's death leaves nothing behind but whole chunks; the daemon's death gives
// its clients a clear error, at once.
// Method: real processes and SIGKILL; what follows is awaited, with a deadline.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <optional>

#include "absl/time/clock.h"
#include "client/cpp/admin_client.h"
#include "client/cpp/client.h"
#include "tests/daemon/kvtierd_process.h"
#include "tests/daemon/test_model.h"

namespace kvtier {
namespace {

using testing::ChildProcess;
using ::testing::HasSubstr;
using testing::KvtierdProcess;
using testing::OpenTestSequence;
using testing::TestTokens;

std::unique_ptr<client::Client> Connect(const KvtierdProcess& daemon,
                                        absl::Duration deadline = absl::Seconds(10)) {
  client::ClientOptions options;
  options.socket = daemon.socket();
  options.deadline = deadline;
  auto client = client::Client::Connect(options);
  EXPECT_TRUE(client.ok()) << client.status();
  return client.ok() ? *std::move(client) : nullptr;
}

// The first stats for which `wanted` holds.
template <typename Wanted>
std::optional<client::Stats> AwaitStats(const KvtierdProcess& daemon, Wanted wanted) {
  auto admin = client::AdminClient::Create({.socket = daemon.admin_socket()});
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  std::optional<client::Stats> found;
  absl::Status status =
      (*admin)->WatchStats(absl::Milliseconds(100), [&](const client::Stats& stats) {
        if (wanted(stats)) found = stats;
        return !found.has_value() && absl::Now() < deadline;
      });
  EXPECT_TRUE(status.ok()) << status;
  return found;
}

TEST(WorkerDeath, LeavesWholeChunksAndGivesItsMemoryBack) {
  KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  const auto idle = AwaitStats(daemon, [](const client::Stats&) { return true; });
  {
    ChildProcess worker({KVTIER_TEST_WORKER_PATH, daemon.socket()});
    ASSERT_EQ(worker.ReadLine(), "appending");
    // Half chunks are there, unsealed, while it is alive.
    ASSERT_TRUE(AwaitStats(daemon, [](const client::Stats& stats) {
      return stats.namespaces.at(0).unsealed_bytes > 0;
    }));
    worker.Signal(SIGKILL);
    ASSERT_EQ(worker.Wait(), 128 + SIGKILL);
  }
  const auto after = AwaitStats(daemon, [](const client::Stats& stats) {
    const client::NamespaceStats& space = stats.namespaces.at(0);
    return space.sessions == 0 && space.unsealed_bytes == 0;
  });
  ASSERT_TRUE(after.has_value());
  EXPECT_EQ(after->namespaces.at(0).sequences, 0u);
  EXPECT_EQ(after->tiers.at(0).chunks, 1u);
  // The one chunk's two regions, of 8 MiB, and its tables.
  EXPECT_LT(after->tiers.at(0).used_bytes,
            idle->tiers.at(0).used_bytes + (uint64_t{17} << 20));
  std::unique_ptr<client::Client> other = Connect(daemon);
  auto opened = OpenTestSequence(*other, TestTokens(4096));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->cached_tokens, 64u);
  auto rows = testing::ReadLayer(*other, opened->sequence, 1, 0, 64);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_TRUE(*rows == testing::StoredRows(1, 0, 64));
}

TEST(WorkerDeath, HalfCloseEndsTheSessionToo) {
  KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  std::unique_ptr<client::Client> client = Connect(daemon);
  auto opened = OpenTestSequence(*client, TestTokens(32));
  ASSERT_TRUE(opened.ok()) << opened.status();
  ASSERT_TRUE(testing::AppendAll(*client, opened->sequence, 0, 32).ok());
  client.reset();
  EXPECT_TRUE(AwaitStats(daemon, [](const client::Stats& stats) {
    const client::NamespaceStats& space = stats.namespaces.at(0);
    return space.sessions == 0 && space.unsealed_bytes == 0;
  }));
}

TEST(DaemonDeath, PendingAndLaterCallsAreUnavailableAtOnce) {
  KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  std::unique_ptr<client::Client> client = Connect(daemon);
  auto opened = OpenTestSequence(*client, TestTokens(8192));
  ASSERT_TRUE(opened.ok()) << opened.status();
  ASSERT_TRUE(testing::AppendAll(*client, opened->sequence, 0, 8192).ok());
  client::ReadRange range;
  range.sequence = opened->sequence;
  range.token_count = 8192;
  absl::Time killed;
  int parts = 0;
  // Killed while it sends: the client is in the call.
  absl::Status pending = client->Read(range, [&](client::ReadPart) {
    if (parts++ == 0) {
      daemon.process().Signal(SIGKILL);
      daemon.process().Wait();
      killed = absl::Now();
    }
    return absl::OkStatus();
  });
  EXPECT_EQ(pending.code(), absl::StatusCode::kUnavailable) << pending;
  EXPECT_THAT(std::string(pending.message()), HasSubstr("start it"));
  const std::vector<float> query = testing::TestQuery();
  client::RetrieveItem item;
  item.sequence = opened->sequence;
  item.query = query;
  absl::Status later = client->Retrieve(
      StepIndex(1), {item}, [](client::RetrievePart) { return absl::OkStatus(); });
  EXPECT_EQ(later.code(), absl::StatusCode::kUnavailable) << later;
  EXPECT_EQ(client->Seal(opened->sequence, false).status().code(),
            absl::StatusCode::kUnavailable);
  client.reset();
  EXPECT_LT(absl::Now() - killed, absl::Seconds(2));
}

TEST(DaemonDeath, WhatWasSealedDurablySurvivesIt) {
  testing::TempDir dir;
  const std::string config =
      "[disk]\ndirectory = \"" + dir.path() + "/disk\"\ncapacity = \"64MiB\"\n";
  for (const uint32_t cached : {0u, 1024u}) {
    KvtierdProcess daemon(config, dir.path());
    ASSERT_TRUE(daemon.ready());
    std::unique_ptr<client::Client> client = Connect(daemon);
    auto opened = OpenTestSequence(*client, TestTokens(1024));
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(opened->cached_tokens, cached);
    if (cached == 0) {
      ASSERT_TRUE(testing::AppendAll(*client, opened->sequence, 0, 1024).ok());
      auto sealed = client->Seal(opened->sequence, true);
      ASSERT_TRUE(sealed.ok()) << sealed.status();
      EXPECT_EQ(sealed->sealed_tokens, 1024u);
    }
    for (uint32_t layer = 0; layer < testing::kLayers; ++layer) {
      auto rows = testing::ReadLayer(*client, opened->sequence, layer, 0, 1024);
      ASSERT_TRUE(rows.ok()) << rows.status();
      EXPECT_TRUE(*rows == testing::StoredRows(layer, 0, 1024));
    }
    daemon.process().Signal(SIGKILL);
    daemon.process().Wait();
  }
}

TEST(DaemonDeath, AStoppedDaemonRunsIntoTheDeadline) {
  KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  std::unique_ptr<client::Client> client = Connect(daemon, absl::Milliseconds(300));
  auto opened = OpenTestSequence(*client, TestTokens(128));
  ASSERT_TRUE(opened.ok()) << opened.status();
  ASSERT_TRUE(testing::AppendAll(*client, opened->sequence, 0, 128).ok());
  daemon.process().Signal(SIGSTOP);
  // All its threads have stopped only when the kernel says so.
  int stopped = 0;
  ASSERT_EQ(waitpid(daemon.process().pid(), &stopped, WUNTRACED), daemon.process().pid());
  ASSERT_TRUE(WIFSTOPPED(stopped));
  const absl::Time start = absl::Now();
  EXPECT_EQ(client->Seal(opened->sequence, false).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  const std::vector<float> query = testing::TestQuery();
  client::RetrieveItem item;
  item.sequence = opened->sequence;
  item.query = query;
  item.candidates_end = TokenIndex(128);
  const auto retrieve = [&] {
    return client->Retrieve(StepIndex(1), {item},
                            [](client::RetrievePart part) { return part.error; });
  };
  EXPECT_EQ(retrieve().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  // The session is still there, and the next call opens a new stream.
  daemon.process().Signal(SIGCONT);
  absl::Status status = retrieve();
  EXPECT_TRUE(status.ok() || absl::IsDeadlineExceeded(status)) << status;
}

TEST(DaemonDeath, NoDaemonAtAllSaysWhatToDo) {
  auto client = client::Client::Connect({.socket = "/tmp/kvtier-nobody.sock"});
  EXPECT_EQ(client.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(
      std::string(client.status().message()),
      ::testing::AllOf(HasSubstr("/tmp/kvtier-nobody.sock"), HasSubstr("start it")));
  EXPECT_EQ(client::Client::Connect({.socket = std::string(200, 'x')}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvtier
