// Goal: what an operator or a stranger can get wrong outside of a call is refused with a
// reason, and neither what is stored nor anybody else is harmed.
// Method: the real binary: files it may not use, another version's files, thousands of
// connections, names that are not UTF-8.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "kernels/base/unique_fd.h"
#include "tests/daemon/kvtierd_process.h"
#include "tests/daemon/raw_call.h"
#include "tests/daemon/test_model.h"
#include "tiers/disk/catalog_records.h"

namespace kvtier {
namespace {

using ::testing::AllOf;
using testing::ChildProcess;
using ::testing::HasSubstr;
using testing::KvtierdProcess;
using testing::OpenTestSequence;
using testing::TempDir;
using testing::TestTokens;

std::unique_ptr<client::Client> Connect(const KvtierdProcess& daemon) {
  auto client = client::Client::Connect({.socket = daemon.socket()});
  EXPECT_TRUE(client.ok()) << client.status();
  return client.ok() ? *std::move(client) : nullptr;
}

struct Refusal {
  int exit_code = -1;
  std::string output;  // both streams
};

// Runs kvtierd as one for whom permissions count: root is made to obey them.
Refusal RunAsPlainUser(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {"/bin/sh", "-c", "exec \"$0\" \"$@\" 2>&1"};
  if (geteuid() == 0) {
    command.insert(command.end(), {"/usr/bin/setpriv", "--bounding-set",
                                   "-dac_override,-dac_read_search"});
  }
  command.push_back(KVTIERD_PATH);
  command.insert(command.end(), arguments.begin(), arguments.end());
  ChildProcess process(command);
  Refusal refusal;
  for (std::string line = process.ReadLine(); !line.empty(); line = process.ReadLine()) {
    absl::StrAppend(&refusal.output, line, "\n");
    if (line.find(" ready: ") != std::string::npos) process.Signal(SIGTERM);
  }
  refusal.exit_code = process.Wait();
  return refusal;
}

// A directory in which its owner may not write.
class ReadOnlyDir {
 public:
  ReadOnlyDir() { chmod(dir_.path().c_str(), 0500); }
  ~ReadOnlyDir() { chmod(dir_.path().c_str(), 0700); }
  const std::string& path() const { return dir_.path(); }

 private:
  TempDir dir_;
};

TEST(BadInput, AnUnwritableRuntimeDirectoryIsNamed) {
  ReadOnlyDir dir;
  const Refusal below = RunAsPlainUser({"--runtime-dir", dir.path() + "/run"});
  EXPECT_EQ(below.exit_code, 1);
  EXPECT_THAT(below.output, AllOf(HasSubstr(dir.path() + "/run"),
                                  HasSubstr("choose another with --runtime-dir"),
                                  HasSubstr("Permission denied")));
  const Refusal itself = RunAsPlainUser({"--runtime-dir", dir.path()});
  EXPECT_EQ(itself.exit_code, 1);
  EXPECT_THAT(itself.output, AllOf(HasSubstr(dir.path() + "/kvtierd.lock"),
                                   HasSubstr("Permission denied")));
}

TEST(BadInput, AnUnwritableDiskDirectoryIsNamedAndNoSocketIsLeft) {
  ReadOnlyDir dir;
  TempDir run;
  const std::string config = run.path() + "/kvtierd.toml";
  std::ofstream(config) << "[disk]\ndirectory = \"" << dir.path() << "/disk\"\n";
  const Refusal refusal =
      RunAsPlainUser({"--config", config, "--runtime-dir", run.path()});
  EXPECT_EQ(refusal.exit_code, 1);
  EXPECT_THAT(refusal.output,
              AllOf(HasSubstr(dir.path() + "/disk"), HasSubstr("Permission denied")));
  EXPECT_FALSE(std::filesystem::exists(run.path() + "/default.sock"));
}

TEST(BadInput, AnUnreadableConfigurationIsNamed) {
  TempDir dir;
  const std::string config = dir.path() + "/kvtierd.toml";
  std::ofstream(config) << "[host]\n";
  ASSERT_EQ(chmod(config.c_str(), 0), 0);
  const Refusal refusal =
      RunAsPlainUser({"--config", config, "--runtime-dir", dir.path() + "/run"});
  EXPECT_EQ(refusal.exit_code, 2);
  EXPECT_THAT(refusal.output, AllOf(HasSubstr(config), HasSubstr("Permission denied")));
}

// Returns what was there before.
std::string ReplaceSuperblock(const std::string& disk, const std::string& superblock) {
  rocksdb::DB* db = nullptr;
  EXPECT_TRUE(rocksdb::DB::Open(rocksdb::Options(), disk + "/catalog", &db).ok());
  std::string before;
  EXPECT_TRUE(db->Get(rocksdb::ReadOptions(), "S", &before).ok());
  EXPECT_TRUE(db->Put(rocksdb::WriteOptions(), "S", superblock).ok());
  EXPECT_TRUE(db->Close().ok());
  delete db;
  return before;
}

// The configuration of a disk tier, and the directory as a daemon has left it.
class UsedDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(config_) << toml_;
    KvtierdProcess daemon(toml_);
    ASSERT_TRUE(daemon.ready());
    Fill(daemon);
    daemon.process().Signal(SIGTERM);
    ASSERT_EQ(daemon.process().Wait(), 0);
  }

  static void Fill(KvtierdProcess& daemon) {
    std::unique_ptr<client::Client> client = Connect(daemon);
    auto opened = OpenTestSequence(*client, TestTokens(128));
    ASSERT_TRUE(opened.ok()) << opened.status();
    ASSERT_TRUE(testing::AppendAll(*client, opened->sequence, 0, 128).ok());
    auto sealed = client->Seal(opened->sequence, /*durable=*/true);
    ASSERT_TRUE(sealed.ok()) << sealed.status();
  }

  Refusal Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(),
                     {"--config", config_, "--runtime-dir", dir_.path() + "/run"});
    return RunAsPlainUser(arguments);
  }

  const TempDir dir_;
  const std::string disk_ = dir_.path() + "/disk";
  const std::string config_ = dir_.path() + "/kvtierd.toml";
  const std::string toml_ =
      absl::StrCat("[disk]\ndirectory = \"", disk_, "\"\ncapacity = \"64MiB\"\n");
};

TEST_F(UsedDisk, WipedIsEmptyWhateverItsState) {
  ReplaceSuperblock(disk_, tiers::EncodeSuperblock({.version = 7, .starts = 1}));
  for (const auto& entry : std::filesystem::directory_iterator(disk_ + "/catalog")) {
    if (entry.path().filename().string().starts_with("MANIFEST")) {
      std::ofstream(entry.path()) << "nonsense";
    }
  }
  const Refusal damaged = Run({});
  EXPECT_EQ(damaged.exit_code, 1);
  EXPECT_THAT(damaged.output, HasSubstr("kvtierd --wipe"));
  std::ofstream(disk_ + "/notes") << "precious";
  std::ofstream(disk_ + "/new-segment") << "left over";
  const Refusal wiped = Run({"--wipe"});
  EXPECT_EQ(wiped.exit_code, 0) << wiped.output;
  EXPECT_THAT(wiped.output, AllOf(HasSubstr(disk_), HasSubstr("KiB freed")));
  std::filesystem::path left;
  for (const auto& entry : std::filesystem::directory_iterator(disk_)) {
    EXPECT_EQ(left, "") << "only the file that isn't ours stays";
    left = entry.path().filename();
  }
  EXPECT_EQ(left, "notes");
  KvtierdProcess daemon(toml_);
  ASSERT_TRUE(daemon.ready());
  auto opened = OpenTestSequence(*Connect(daemon), TestTokens(129));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->cached_tokens, 0u);
  Fill(daemon);
}

TEST_F(UsedDisk, WipingWhatIsInUseIsRefusedAndNothingIsLost) {
  KvtierdProcess daemon(toml_);
  ASSERT_TRUE(daemon.ready());
  const Refusal refusal = Run({"--wipe"});
  EXPECT_EQ(refusal.exit_code, 3);
  EXPECT_THAT(refusal.output, AllOf(HasSubstr("in use"), HasSubstr("stop it")));
  auto opened = OpenTestSequence(*Connect(daemon), TestTokens(129));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->cached_tokens, 128u);
}

TEST_F(UsedDisk, ALockFileThatCannotBeOpenedIsNotToldAsInUse) {
  const std::string lock = disk_ + "/catalog/LOCK";
  std::filesystem::remove(lock);
  std::filesystem::create_directory(lock);
  for (const std::vector<std::string>& how : {std::vector<std::string>{}, {"--wipe"}}) {
    const Refusal refusal = Run(how);
    EXPECT_EQ(refusal.exit_code, 1);
    EXPECT_THAT(refusal.output, AllOf(HasSubstr(lock), Not(HasSubstr("in use"))));
  }
}

TEST_F(UsedDisk, WipingNeedsADirectoryAndTakesOneThatIsNotThere) {
  std::filesystem::remove_all(disk_ + "/catalog");
  EXPECT_EQ(Run({}).exit_code, 1) << "segments, and nothing that names their chunks";
  EXPECT_EQ(Run({"--wipe"}).exit_code, 0);
  std::filesystem::remove_all(disk_);
  EXPECT_EQ(Run({"--wipe"}).exit_code, 0);
  std::ofstream(config_) << "[host]\n";
  const Refusal none = Run({"--wipe"});
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_THAT(none.output, HasSubstr("[disk] directory"));
}

TEST_F(UsedDisk, AnotherFormatVersionIsRefusedAndNothingIsLost) {
  const std::string before =
      ReplaceSuperblock(disk_, tiers::EncodeSuperblock({.version = 7, .starts = 1}));
  const Refusal refusal = Run({});
  EXPECT_EQ(refusal.exit_code, 1);
  EXPECT_THAT(refusal.output,
              AllOf(HasSubstr("format version 7"), HasSubstr("reads version 3")));
  ReplaceSuperblock(disk_, before);
  KvtierdProcess daemon(toml_);
  ASSERT_TRUE(daemon.ready());
  std::unique_ptr<client::Client> client = Connect(daemon);
  // The last token is always computed, so that there are logits.
  auto opened = OpenTestSequence(*client, TestTokens(129));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->cached_tokens, 128u);
  auto rows = testing::ReadLayer(*client, opened->sequence, 1, 0, 128);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_TRUE(*rows == testing::StoredRows(1, 0, 128));
}

// Invalid if the daemon takes no more within some seconds.
UniqueFd ConnectRaw(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval patience = {.tv_sec = 5, .tv_usec = 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    return UniqueFd();
  }
  return fd;
}

size_t OpenDescriptors(KvtierdProcess& daemon) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(
           absl::StrCat("/proc/", daemon.process().pid(), "/fd"))) {
    count += entry.is_symlink() ? 1 : 0;
  }
  return count;
}

void RaiseOwnDescriptorLimit() {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Calls, each an exchange with the daemon, until it has given the descriptors back.
bool GivesBackDescriptors(KvtierdProcess& daemon, client::Client& client,
                          size_t allowed) {
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (OpenDescriptors(daemon) > allowed) {
    if (absl::Now() > deadline) return false;
    EXPECT_EQ(client.Close(SequenceId(987654)).code(), absl::StatusCode::kNotFound);
  }
  return true;
}

TEST(BadInput, AFloodOfConnectionsHoldsNobodyUpAndIsGivenBack) {
  constexpr size_t kFlood = 3000;
  RaiseOwnDescriptorLimit();
  KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  std::unique_ptr<client::Client> client = Connect(daemon);
  ASSERT_NE(client, nullptr);
  auto opened = OpenTestSequence(*client, TestTokens(128));
  ASSERT_TRUE(opened.ok()) << opened.status();
  const size_t before = OpenDescriptors(daemon);
  {
    std::vector<UniqueFd> flood;
    for (size_t i = 0; i < kFlood; ++i) {
      flood.push_back(ConnectRaw(daemon.socket()));
      ASSERT_TRUE(flood.back().valid()) << i;
    }
    EXPECT_TRUE(testing::AppendAll(*client, opened->sequence, 0, 128).ok());
    auto rows = testing::ReadLayer(*client, opened->sequence, 0, 0, 128);
    ASSERT_TRUE(rows.ok()) << rows.status();
    EXPECT_TRUE(*rows == testing::StoredRows(0, 0, 128));
    EXPECT_NE(Connect(daemon), nullptr);  // one more comes in
  }
  EXPECT_TRUE(GivesBackDescriptors(daemon, *client, before + 16));
}

TEST(BadInput, NamesThatAreNotUtf8AreInvalid) {
  KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  auto worker = testing::RawChannel(daemon.socket());
  auto admin = testing::RawChannel(daemon.admin_socket());
  // Field 1 of each, 0xff: a model's label, a worker's label, a namespace's name.
  const absl::Status model =
      testing::RawUnary(worker, "/kvtier.v1.Worker/RegisterModel", "\x0a\x03\x0a\x01\xff")
          .status();
  EXPECT_EQ(model.code(), absl::StatusCode::kInvalidArgument) << model;
  EXPECT_THAT(std::string(model.message()), HasSubstr("UTF-8"));
  const absl::Status session =
      testing::RawExchange(worker, "/kvtier.v1.Worker/Session", "\x0a\x01\xff").status();
  EXPECT_EQ(session.code(), absl::StatusCode::kInvalidArgument) << session;
  EXPECT_THAT(std::string(session.message()), HasSubstr("UTF-8"));
  const absl::Status sessions =
      testing::RawUnary(admin, "/kvtier.v1.Admin/ListSessions", "\x0a\x01\xff").status();
  EXPECT_EQ(sessions.code(), absl::StatusCode::kInvalidArgument) << sessions;
  EXPECT_THAT(std::string(sessions.message()), HasSubstr("UTF-8"));
  EXPECT_NE(Connect(daemon), nullptr);
}

}  // namespace
}  // namespace kvtier
