// kvtierd: reads its configuration, takes the runtime directory, serves until SIGTERM.
//
// Exit codes: 0 stopped by SIGTERM or SIGINT; 1 it could not start; 2 the command line
// or the configuration is wrong; 3 another kvtierd serves the directory.
//
// Signals are blocked in all threads and taken by this one with sigwait; no work is done
// in a handler. The second SIGTERM finds the default action restored and ends the
// process at once.

#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "daemon/config.h"
#include "daemon/instance_lock.h"
#include "daemon/runtime_dir.h"
#include "daemon/server.h"
#include "daemon/store.h"
#include "daemon/version.h"

namespace kvtier::daemon {
namespace {

// Ending lasting calls takes milliseconds; this is for the appends under way.
constexpr absl::Duration kShutdownPatience = absl::Seconds(3);

enum ExitCode : int { kStopped = 0, kFailed = 1, kUsage = 2, kAlreadyServed = 3 };

struct CommandLine {
  std::string config_path;
  std::string runtime_dir;
  bool check_config = false;
};

int Fail(const absl::Status& status, ExitCode code) {
  spdlog::error("{}", std::string(status.message()));
  return code;
}

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

int AwaitStopSignal() {
  const sigset_t set = StopSignals();
  int signal_number = 0;
  while (sigwait(&set, &signal_number) != 0) {
  }
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  return signal_number;
}

// Every region and every connection takes a descriptor; the usual soft limit of 1024 is
// for programs that use select().
void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    spdlog::warn("cannot raise the limit on open files: {}", std::strerror(errno));
  }
}

int Serve(const Config& config) {
  absl::StatusOr<InstanceLock> lock = InstanceLock::Take(config.runtime_dir);
  if (!lock.ok()) {
    return Fail(lock.status(),
                absl::IsAlreadyExists(lock.status()) ? kAlreadyServed : kFailed);
  }
  RaiseDescriptorLimit();
  absl::StatusOr<std::unique_ptr<Store>> store = Store::Create(config.store);
  if (!store.ok()) return Fail(store.status(), kFailed);
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(config, store->get());
  if (!server.ok()) return Fail(server.status(), kFailed);

  std::string names;
  for (const NamespaceConfig& space : config.namespaces) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", space.name);
  }
  std::printf("kvtierd %s ready: namespaces %s at %s\n", kVersion, names.c_str(),
              config.runtime_dir.c_str());
  std::fflush(stdout);

  const int signal_number = AwaitStopSignal();
  spdlog::info("stopping on signal {}", signal_number);
  (*server)->Shutdown(kShutdownPatience);
  spdlog::info("stopped");
  return kStopped;
}

void LogToStderr(const std::string& level) {
  auto logger = spdlog::stderr_logger_mt("kvtierd");
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  logger->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(logger);
}

int Run(const CommandLine& command_line) {
  absl::StatusOr<Config> config = Config();
  if (!command_line.config_path.empty()) config = LoadConfig(command_line.config_path);
  if (!config.ok()) return Fail(config.status(), kUsage);
  if (!command_line.runtime_dir.empty()) config->runtime_dir = command_line.runtime_dir;
  if (config->runtime_dir.empty()) {
    const char* user_dir = std::getenv("XDG_RUNTIME_DIR");
    config->runtime_dir = DefaultRuntimeDir(user_dir == nullptr ? "" : user_dir);
  }
  if (command_line.check_config) {
    std::printf("the configuration is right\n");
    return kStopped;
  }
  spdlog::default_logger()->set_level(spdlog::level::from_str(config->log_level));
  return Serve(*config);
}

}  // namespace
}  // namespace kvtier::daemon

int main(int argc, char** argv) {
  using namespace kvtier::daemon;
  CLI::App app("kvtierd keeps the KV cache of LLM sequences.");
  CommandLine command_line;
  app.add_option("--config", command_line.config_path,
                 "TOML file with the configuration");
  app.add_option("--runtime-dir", command_line.runtime_dir,
                 "directory of the sockets; overrides daemon.runtime_dir");
  app.add_flag("--check-config", command_line.check_config,
               "check the configuration and exit");
  app.set_version_flag("--version", std::string("kvtierd ") + kVersion);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kStopped : kUsage;
  }
  const sigset_t set = StopSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);  // before any thread is there
  signal(SIGPIPE, SIG_IGN);
  LogToStderr("info");
  return Run(command_line);
}
