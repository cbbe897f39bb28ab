#include "tests/daemon/kvtierd_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "absl/time/clock.h"

extern char** environ;

namespace kvtier::testing {
namespace {

constexpr absl::Duration kLinePatience = absl::Seconds(20);

void AbortUnless(bool condition, const char* what) {
  if (condition) return;
  perror(what);
  abort();
}

int MillisecondsUntil(absl::Time deadline) {
  const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
  return left > 0 ? static_cast<int>(left) + 1 : 0;
}

}  // namespace

TempDir::TempDir() {
  char path[] = "/tmp/kvtier-test-XXXXXX";
  AbortUnless(mkdtemp(path) != nullptr, "mkdtemp");
  path_ = path;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

ChildProcess::ChildProcess(const std::vector<std::string>& arguments, Errors errors) {
  int pipe_fds[2];
  AbortUnless(pipe2(pipe_fds, O_CLOEXEC) == 0, "pipe2");
  output_ = pipe_fds[0];
  int error_fds[2] = {-1, -1};
  if (errors == Errors::kKept) {
    AbortUnless(pipe2(error_fds, O_CLOEXEC) == 0, "pipe2");
    errors_ = error_fds[0];
    AbortUnless(fcntl(errors_, F_SETFL, O_NONBLOCK) == 0, "fcntl");
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDOUT_FILENO);
  if (errors == Errors::kKept) {
    posix_spawn_file_actions_adddup2(&actions, error_fds[1], STDERR_FILENO);
  }
  std::vector<char*> argv;
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  errno = posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ);
  AbortUnless(errno == 0, argv[0]);
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_fds[1]);
  if (errors == Errors::kKept) close(error_fds[1]);
}

ChildProcess::~ChildProcess() {
  if (!waited_) {
    Signal(SIGKILL);
    Wait();
  }
  close(output_);
  if (errors_ >= 0) close(errors_);
}

const std::string& ChildProcess::Log() {
  char bytes[4096];
  ssize_t length;
  while ((length = read(errors_, bytes, sizeof(bytes))) > 0) log_.append(bytes, length);
  return log_;
}

void ChildProcess::Signal(int signal_number) const {
  if (!waited_) kill(pid_, signal_number);
}

std::string ChildProcess::ReadLine() {
  const absl::Time deadline = absl::Now() + kLinePatience;
  size_t end;
  while ((end = buffer_.find('\n')) == std::string::npos) {
    pollfd wanted = {output_, POLLIN, 0};
    if (poll(&wanted, 1, MillisecondsUntil(deadline)) <= 0) return "";
    char bytes[4096];
    const ssize_t length = read(output_, bytes, sizeof(bytes));
    if (length <= 0) return "";
    buffer_.append(bytes, length);
  }
  const std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  return line;
}

int ChildProcess::Wait(absl::Duration patience) {
  if (waited_) return exit_code_;
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  AbortUnless(pidfd >= 0, "pidfd_open");
  pollfd wanted = {pidfd, POLLIN, 0};
  const int ready = poll(&wanted, 1, MillisecondsUntil(absl::Now() + patience));
  close(pidfd);
  if (ready <= 0) return -1;
  int status = 0;
  AbortUnless(waitpid(pid_, &status, 0) == pid_, "waitpid");
  waited_ = true;
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return exit_code_;
}

KvtierdProcess::KvtierdProcess(const std::string& toml) : dir_(temp_.path() + "/run") {
  Start(toml);
}

KvtierdProcess::KvtierdProcess(const std::string& toml, const std::string& runtime_dir)
    : dir_(runtime_dir) {
  Start(toml);
}

KvtierdProcess::KvtierdProcess(const std::string& toml, std::vector<std::string> wrapper)
    : dir_(temp_.path() + "/run") {
  Start(toml, std::move(wrapper), ChildProcess::Errors::kKept);
}

void KvtierdProcess::Start(const std::string& toml, std::vector<std::string> command,
                           ChildProcess::Errors errors) {
  const std::string config_path = temp_.path() + "/kvtierd.toml";
  Configure(toml);
  command.insert(command.end(),
                 {KVTIERD_PATH, "--config", config_path, "--runtime-dir", dir_});
  process_ = std::make_unique<ChildProcess>(command, errors);
  ready_line_ = process_->ReadLine();
}

void KvtierdProcess::Configure(const std::string& toml) {
  std::ofstream(temp_.path() + "/kvtierd.toml") << toml;
}

uint64_t KvtierdProcess::MemoryBytes(const std::string& key) const {
  std::ifstream status("/proc/" + std::to_string(process_->pid()) + "/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.compare(0, key.size() + 1, key + ":") == 0) {
      return std::stoull(line.substr(key.size() + 1)) * 1024;
    }
  }
  return 0;
}

}  // namespace kvtier::testing
