// Goal: what befalls the disk - full, read-only, errors at writing and reading - costs
// the workers no more than what can't be done, is told by status, health and log, once,
// and is over by itself when its cause is.
// Method: the real binary, on a small file system of the test's own in a mount namespace
// of the test's own; a limit on the size of files; a segment that is cut.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/cpp/admin_client.h"
#include "client/cpp/client.h"
#include "kernels/base/unique_fd.h"
#include "tests/daemon/kvtierd_process.h"
#include "tests/daemon/raw_call.h"
#include "tests/daemon/test_model.h"

namespace kvtier {
namespace {

using ::testing::AllOf;
using testing::ChildProcess;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::KvtierdProcess;
using testing::OpenTestSequence;
using testing::TempDir;
using testing::TestTokens;

constexpr absl::Duration kPatience = absl::Seconds(30);
constexpr uint32_t kTokens = 128;  // two chunks of 128 KiB
const std::string kServing = "\x08\x01";
const std::string kNotServing = "\x08\x02";

// Into a mount namespace of one's own, as root of it. Before there are other threads.
bool EnterMountNamespace() {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  if (unshare(uid == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
  if (uid != 0) {
    std::ofstream("/proc/self/setgroups") << "deny";
    std::ofstream("/proc/self/uid_map") << "0 " << uid << " 1";
    std::ofstream("/proc/self/gid_map") << "0 " << gid << " 1";
  }
  return mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

class Degraded : public ::testing::Test {
 protected:
  ~Degraded() override {
    daemon_.reset();
    if (mounted_) umount2(dir_.path().c_str(), MNT_DETACH);
  }

  void MountSmall() {
    ASSERT_TRUE(EnterMountNamespace())
        << "not run, since this machine allows no mount namespaces: "
        << std::strerror(errno) << "; run it as root, or allow user namespaces";
    ASSERT_EQ(mount("kvtier-test", dir_.path().c_str(), "tmpfs", 0, "size=48m"), 0)
        << std::strerror(errno);
    mounted_ = true;
  }

  void Start(std::vector<std::string> wrapper = {}) {
    daemon_ = std::make_unique<KvtierdProcess>(
        absl::StrCat("[host]\ncapacity = \"256MiB\"\n[disk]\ndirectory = \"", disk_,
                     "\"\ncapacity = \"64MiB\"\n"),
        std::move(wrapper));
    ASSERT_TRUE(daemon_->ready()) << daemon_->process().Log();
    auto client = client::Client::Connect({.socket = daemon_->socket()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    admin_ = *client::AdminClient::Create({.socket = daemon_->admin_socket()});
    health_ = testing::RawChannel(daemon_->admin_socket());
  }

  // A sequence of two chunks that are nobody else's, written to memory.
  SequenceId Append() {
    auto opened = OpenTestSequence(*client_, TestTokens(kTokens, ++salt_ * 1000));
    EXPECT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(testing::AppendAll(*client_, opened->sequence, 0, kTokens),
              absl::OkStatus());
    return opened->sequence;
  }
  absl::Status SealDurably(SequenceId sequence) {
    return client_->Seal(sequence, /*durable=*/true).status();
  }
  // Sequences that stay open, one more each time, until one can't be made durable.
  absl::Status FillUntilRefused() {
    for (int i = 0; i < 300; ++i) {
      if (absl::Status s = SealDurably(Append()); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

  std::string Health(const std::string& service) {
    const std::string request =
        service.empty() ? ""
                        : absl::StrCat("\x0a", std::string(1, service.size()), service);
    auto answer = testing::RawUnary(health_, "/grpc.health.v1.Health/Check", request);
    return answer.ok() ? *answer : std::string(answer.status().message());
  }
  std::vector<std::string> Complaints() {
    auto stats = admin_->GetStats();
    EXPECT_TRUE(stats.ok()) << stats.status();
    for (const client::TierStats& tier : stats->tiers) {
      if (tier.tier == "disk") return tier.complaints;
    }
    return {"no disk tier"};
  }
  std::vector<std::string> LogLines(const std::string& part) {
    std::vector<std::string> lines = absl::StrSplit(daemon_->process().Log(), '\n');
    std::erase_if(lines, [&](const auto& one) { return !absl::StrContains(one, part); });
    return lines;
  }
  // Asks again, which is an exchange with the daemon, until it is so.
  template <typename F>
  static bool Eventually(F f) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (absl::Now() < deadline) {
      if (f()) return true;
    }
    return false;
  }

  // While the disk fails: `sequence` and new ones in memory are served, and all who ask
  // are told `cause`.
  void ExpectDegraded(SequenceId sequence, const std::string& what,
                      const std::string& cause) {
    EXPECT_TRUE(Eventually([&] { return Health("kvtier.disk") == kNotServing; }));
    EXPECT_EQ(Health(""), kServing);
    EXPECT_THAT(Complaints(), Each(HasSubstr(cause)));
    ChildProcess status({KVTIERCTL_PATH, "--socket", daemon_->admin_socket(), "status"});
    std::string text;
    for (std::string line; !(line = status.ReadLine()).empty() || text.empty();) {
      absl::StrAppend(&text, line, "\n");
    }
    while (status.Wait(absl::ZeroDuration()) < 0) {
      absl::StrAppend(&text, status.ReadLine(), "\n");
    }
    EXPECT_THAT(text, HasSubstr(cause));
    auto rows = testing::ReadLayer(*client_, sequence, 1, 0, kTokens);
    ASSERT_TRUE(rows.ok()) << rows.status();
    EXPECT_TRUE(*rows == testing::StoredRows(1, 0, kTokens));
    const SequenceId another = Append();
    EXPECT_TRUE(client_->Seal(another, /*durable=*/false).ok());
    EXPECT_THAT(LogLines(" warning "), Each(HasSubstr(cause)));
    EXPECT_THAT(LogLines(" warning "), Contains(HasSubstr("fails at " + what)));
    EXPECT_THAT(LogLines("is over"), IsEmpty());
  }
  // Once the cause is gone: nothing is to be done.
  void ExpectRecovered(const std::string& what) {
    EXPECT_TRUE(Eventually([&] { return Health("kvtier.disk") == kServing; }))
        << ::testing::PrintToString(Complaints());
    EXPECT_THAT(Complaints(), IsEmpty());
    EXPECT_EQ(SealDurably(Append()), absl::OkStatus());
    // One line each for the beginning and the end, not for each try.
    size_t failed = 0;
    for (const char* one : {"writing", "cataloging", "growing", "reading"}) {
      const size_t begun =
          LogLines(absl::StrCat(" warning the disk tier fails at ", one)).size();
      EXPECT_LE(begun, 1u) << daemon_->process().Log();
      EXPECT_EQ(LogLines(absl::StrCat("is over its failing at ", one)).size(), begun);
      failed += begun;
    }
    EXPECT_EQ(LogLines(" warning ").size(), failed);
    EXPECT_THAT(LogLines("is over"), Contains(HasSubstr(what)));
  }

  const TempDir dir_;
  const std::string disk_ = dir_.path() + "/kv";
  bool mounted_ = false;
  uint32_t salt_ = 0;
  std::unique_ptr<KvtierdProcess> daemon_;
  std::unique_ptr<client::Client> client_;
  std::unique_ptr<client::AdminClient> admin_;
  std::shared_ptr<grpc::Channel> health_;
};

TEST_F(Degraded, AFullFileSystem) {
  MountSmall();
  Start();
  const SequenceId before = Append();
  ASSERT_EQ(SealDurably(before), absl::OkStatus());
  EXPECT_EQ(Health("kvtier.disk"), kServing);
  const std::string filler = dir_.path() + "/filler";
  {
    std::ofstream file(filler);
    const std::string mebibyte(1 << 20, 'x');
    while (file.write(mebibyte.data(), mebibyte.size()).flush()) {
    }
  }
  const absl::Status refused = FillUntilRefused();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("No space left"), HasSubstr("free some space")));
  ExpectDegraded(before, "", "No space left");
  std::filesystem::remove(filler);
  ExpectRecovered("");
}

TEST_F(Degraded, ADirectoryGoneReadOnly) {
  MountSmall();
  Start();
  const SequenceId before = Append();
  ASSERT_EQ(SealDurably(before), absl::OkStatus());
  const char* dir = dir_.path().c_str();
  ASSERT_EQ(mount(dir, dir, nullptr, MS_BIND, nullptr), 0) << std::strerror(errno);
  ASSERT_EQ(mount(nullptr, dir, nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr), 0)
      << std::strerror(errno);
  const absl::Status refused = FillUntilRefused();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("Read-only file system"), HasSubstr("remount")));
  ExpectDegraded(before, "growing", "Read-only file system");
  // What is on the disk is served from there.
  ASSERT_TRUE(admin_->Evict(0).ok());
  auto rows = testing::ReadLayer(*client_, before, 0, 0, kTokens);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_TRUE(*rows == testing::StoredRows(0, 0, kTokens));
  ASSERT_EQ(umount2(dir, MNT_DETACH), 0) << std::strerror(errno);
  ExpectRecovered("growing");
}

TEST_F(Degraded, ErrorsAtWriting) {
  Start();
  const SequenceId before = Append();
  ASSERT_EQ(SealDurably(before), absl::OkStatus());
  const pid_t pid = daemon_->process().pid();
  rlimit limit = {};
  ASSERT_EQ(prlimit(pid, RLIMIT_FSIZE, nullptr, &limit), 0);
  const rlimit none = {.rlim_cur = 0, .rlim_max = limit.rlim_max};
  ASSERT_EQ(prlimit(pid, RLIMIT_FSIZE, &none, nullptr), 0);
  const absl::Status refused = FillUntilRefused();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("File too large"), HasSubstr("ulimit -f")));
  ExpectDegraded(before, "writing", "File too large");
  ASSERT_EQ(prlimit(pid, RLIMIT_FSIZE, &limit, nullptr), 0);
  ExpectRecovered("writing");
}

// A segment that was cut, and what it held.
class CutSegment {
 public:
  explicit CutSegment(const std::string& path)
      : path_(path), bytes_(std::filesystem::file_size(path), '\0') {
    std::ifstream(path).read(bytes_.data(), static_cast<std::streamsize>(bytes_.size()));
    std::filesystem::resize_file(path, 0);
  }
  // What was used only: the rest may have been written to meanwhile.
  void Restore() const {
    const UniqueFd file(open(path_.c_str(), O_WRONLY | O_CLOEXEC));
    constexpr size_t kUnit = 4096;
    for (size_t at = 0; at < bytes_.size(); at += kUnit) {
      const auto unit = bytes_.begin() + static_cast<ptrdiff_t>(at);
      if (std::all_of(unit, unit + kUnit, [](char byte) { return byte == 0; })) continue;
      ASSERT_EQ(pwrite(file.get(), &*unit, kUnit, static_cast<off_t>(at)),
                static_cast<ssize_t>(kUnit));
    }
    ASSERT_EQ(fsync(file.get()), 0);
  }

 private:
  const std::string path_;
  std::string bytes_;
};

TEST_F(Degraded, ErrorsAtReading) {
  Start();
  const SequenceId kept = Append();
  const SequenceId evicted = Append();
  ASSERT_EQ(SealDurably(evicted), absl::OkStatus());
  ASSERT_EQ(client_->Close(evicted), absl::OkStatus());
  ASSERT_TRUE(admin_->Evict(0).ok());
  std::vector<CutSegment> cut;
  for (const auto& entry : std::filesystem::directory_iterator(disk_)) {
    if (absl::StrContains(entry.path().string(), "/segment-"))
      cut.emplace_back(entry.path());
  }
  const auto cached = [&] {
    auto opened = OpenTestSequence(*client_, TestTokens(kTokens + 1, 2000));
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened->cached_tokens;
  };
  EXPECT_EQ(cached(), 0u) << "what can't be read is as if it weren't there";
  ExpectDegraded(kept, "reading", "ends before byte");
  for (const CutSegment& one : cut) one.Restore();
  ExpectRecovered("reading");
  EXPECT_EQ(cached(), kTokens);
}

TEST_F(Degraded, WithoutIoUringItSaysSoAndServes) {
  Start({KVTIER_TEST_REFUSING_PATH, "io_uring"});
  EXPECT_EQ(SealDurably(Append()), absl::OkStatus());
  EXPECT_THAT(Complaints(), ElementsAre(HasSubstr("io_uring is refused")));
  EXPECT_THAT(LogLines(" warning "), ElementsAre(HasSubstr("io_uring is refused")));
  EXPECT_EQ(Health("kvtier.disk"), kServing);
}

TEST_F(Degraded, WithoutDirectIoItSaysSoAndServes) {
  Start({KVTIER_TEST_REFUSING_PATH, "o_direct"});
  EXPECT_EQ(SealDurably(Append()), absl::OkStatus());
  EXPECT_THAT(Complaints(), ElementsAre(HasSubstr("O_DIRECT is refused")));
  EXPECT_THAT(LogLines(" warning "), ElementsAre(HasSubstr("O_DIRECT is refused")));
  EXPECT_EQ(Health("kvtier.disk"), kServing);
}

TEST_F(Degraded, WithoutADiskTierItsHealthIsUnknown) {
  const KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  health_ = testing::RawChannel(daemon.admin_socket());
  EXPECT_EQ(Health(""), kServing);
  EXPECT_THAT(Health("kvtier.disk"), HasSubstr("unknown"));
}

}  // namespace
}  // namespace kvtier
