// kvtierd: reads its configuration, takes the runtime directory, serves until SIGTERM.
//
// Exit codes: 0 stopped by SIGTERM or SIGINT; 1 it could not start; 2 the command line
// or the configuration is wrong; 3 another kvtierd serves the directory.
//
// --wipe empties the disk tier's directory instead: what is refused at the start, since
// it is damaged or of another format version, is never reformatted unasked.
//
// Without --config it reads the installed configuration, if there is one.
//
// Signals are blocked in all threads and taken by this one with sigwait; no work is done
// in a handler. SIGHUP reads the configuration again and takes over what can change. The
// second SIGTERM finds the default action restored and ends the process at once.

#include <malloc.h>
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
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "daemon/byte_size.h"
#include "daemon/config.h"
#include "daemon/disk_health.h"
#include "daemon/disk_stack.h"
#include "daemon/instance_lock.h"
#include "daemon/liveness.h"
#include "daemon/runtime_dir.h"
#include "daemon/server.h"
#include "daemon/service_manager.h"
#include "daemon/store.h"
#include "daemon/version.h"

namespace kvtier::daemon {
namespace {

enum ExitCode : int { kStopped = 0, kFailed = 1, kUsage = 2, kAlreadyServed = 3 };

struct CommandLine {
  std::string config_path;
  std::string runtime_dir;
  bool check_config = false;
  bool print_config = false;
  bool wipe = false;
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

sigset_t Signals() {
  sigset_t set = StopSignals();
  sigaddset(&set, SIGHUP);
  return set;
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

// Messages of some MiB come and go: malloc keeps their memory, where by default it would
// map each anew, which costs more than to fill it. In few arenas, so that it keeps
// little.
void KeepFreedMemory() {
  constexpr int kBytes = 32 << 20;  // glibc takes no more
  constexpr int kArenas = 4;
  mallopt(M_MMAP_THRESHOLD, kBytes);
  mallopt(M_TRIM_THRESHOLD, 2 * kBytes);
  mallopt(M_ARENA_MAX, kArenas);
}

void SetLogLevel(const Config& config) {
  spdlog::default_logger()->set_level(spdlog::level::from_str(config.log_level));
}

// The configuration that the command line asks for, with the directory that will be used.
absl::StatusOr<Config> ReadConfig(const CommandLine& command_line) {
  absl::StatusOr<Config> config = Config();
  std::string path = command_line.config_path;
  if (path.empty() && access(KVTIER_CONFIG_PATH, F_OK) == 0) path = KVTIER_CONFIG_PATH;
  if (!path.empty()) config = LoadConfig(path);
  if (!config.ok()) return config;
  if (!command_line.runtime_dir.empty()) config->runtime_dir = command_line.runtime_dir;
  if (config->runtime_dir.empty()) {
    const char* user_dir = std::getenv("XDG_RUNTIME_DIR");
    config->runtime_dir = DefaultRuntimeDir(user_dir == nullptr ? "" : user_dir);
  }
  return config;
}

std::string ReadyText(const Config& config) {
  std::string names;
  for (const NamespaceConfig& space : config.namespaces) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", space.name);
  }
  return absl::StrCat("namespaces ", names, " at ", config.runtime_dir);
}

// Takes over what can change. A wrong file changes nothing.
void Reload(const CommandLine& command_line, const Config& started, Config* config,
            Store* store) {
  absl::StatusOr<Config> wanted = ReadConfig(command_line);
  absl::Status status = wanted.status();
  if (status.ok()) status = store->Reconfigure(wanted->store);
  if (!status.ok()) {
    spdlog::error("the configuration stays as it was: {}", std::string(status.message()));
    return;
  }
  for (const std::string& key : NeedRestart(started, *wanted)) {
    spdlog::warn("{} was changed: that needs a restart", key);
  }
  *config = *std::move(wanted);
  SetLogLevel(*config);
  spdlog::info("the configuration was read again");
}

// Returns the signal to stop at.
int AwaitStop(const CommandLine& command_line, const Config& started, Config* config,
              Store* store, ServiceManager* manager) {
  const sigset_t set = Signals();
  while (true) {
    int signal_number = 0;
    if (sigwait(&set, &signal_number) != 0) continue;
    if (signal_number != SIGHUP) return signal_number;
    manager->Reloading();
    Reload(command_line, started, config, store);
    manager->Reloaded(ReadyText(started));
  }
}

// Says in the log what is not as it should be, and there and to the health service's
// clients when the disk tier begins and ceases to fail.
void WatchDisk(Store* store, Server* server) {
  for (const TierStats& tier : store->Tiers()) {
    for (const std::string& complaint : tier.complaints) {
      spdlog::warn("the {} tier: {}", tier.tier, complaint);
    }
  }
  store->WatchDisk([server](const DiskEvent& event) {
    if (event.kind == DiskEvent::Kind::kBegins) {
      spdlog::warn("the disk tier fails at {}: {}", event.what, event.message);
    } else {
      spdlog::info("the disk tier is over its failing at {}, which lasted {}", event.what,
                   absl::FormatDuration(absl::Trunc(event.lasted, absl::Seconds(1))));
    }
    server->SetDiskServing(event.all_well);
  });
}

int Serve(const CommandLine& command_line, const Config& started) {
  absl::StatusOr<InstanceLock> lock = InstanceLock::Take(started.runtime_dir);
  if (!lock.ok()) {
    return Fail(lock.status(),
                absl::IsAlreadyExists(lock.status()) ? kAlreadyServed : kFailed);
  }
  RaiseDescriptorLimit();
  absl::StatusOr<std::unique_ptr<Store>> store = Store::Create(started.store);
  if (!store.ok()) return Fail(store.status(), kFailed);
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(started, store->get());
  if (!server.ok()) return Fail(server.status(), kFailed);

  WatchDisk(store->get(), server->get());
  const std::string ready = ReadyText(started);
  std::printf("kvtierd %s ready: %s\n", kVersion, ready.c_str());
  std::fflush(stdout);
  ServiceManager manager;
  std::vector<std::string> worker_sockets;
  for (const NamespaceConfig& space : started.namespaces) {
    worker_sockets.push_back(WorkerSocket(started.runtime_dir, space.name));
  }
  manager.Ready(
      ready, LivenessCheck(AdminSocket(started.runtime_dir), std::move(worker_sockets)));

  Config config = started;
  const int signal_number =
      AwaitStop(command_line, started, &config, store->get(), &manager);
  const sigset_t stop_signals = StopSignals();
  pthread_sigmask(SIG_UNBLOCK, &stop_signals, nullptr);
  spdlog::info("stopping on signal {}", signal_number);
  manager.Stopping();
  (*store)->WatchDisk(nullptr);
  (*server)->Shutdown(config.stop_patience);
  spdlog::info("stopped");
  return kStopped;
}

void LogToStderr(const std::string& level) {
  auto logger = spdlog::stderr_logger_mt("kvtierd");
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  logger->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(logger);
}

int Wipe(const Config& config) {
  const std::string& directory = config.store.disk_directory;
  if (directory.empty()) {
    return Fail(
        absl::InvalidArgumentError(
            "there is nothing to wipe: the configuration has no [disk] directory"),
        kUsage);
  }
  const absl::StatusOr<uint64_t> freed = DiskStack::Wipe(directory);
  if (!freed.ok()) {
    return Fail(freed.status(),
                absl::IsFailedPrecondition(freed.status()) ? kAlreadyServed : kFailed);
  }
  std::printf("%s is empty: %s freed\n", directory.c_str(),
              FormatByteSize(*freed).c_str());
  return kStopped;
}

int Run(const CommandLine& command_line) {
  absl::StatusOr<Config> config = ReadConfig(command_line);
  if (!config.ok()) return Fail(config.status(), kUsage);
  if (command_line.print_config) {
    std::fputs(PrintConfig(*config).c_str(), stdout);
    return kStopped;
  }
  if (command_line.check_config) {
    std::printf("the configuration is right\n");
    return kStopped;
  }
  SetLogLevel(*config);
  if (command_line.wipe) return Wipe(*config);
  return Serve(command_line, *config);
}

}  // namespace
}  // namespace kvtier::daemon

int main(int argc, char** argv) {
  using namespace kvtier::daemon;
  // Some distributions' Abseil looks for deadlocks at each lock, in one table.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  CLI::App app("kvtierd keeps the KV cache of LLM sequences.");
  CommandLine command_line;
  app.add_option("--config", command_line.config_path,
                 "TOML file with the configuration; default: " KVTIER_CONFIG_PATH
                 ", if it is there");
  app.add_option("--runtime-dir", command_line.runtime_dir,
                 "directory of the sockets; overrides daemon.runtime_dir");
  app.add_flag("--check-config", command_line.check_config,
               "check the configuration and exit");
  app.add_flag("--print-config", command_line.print_config,
               "print every key with its value, as TOML, and exit");
  app.add_flag("--wipe", command_line.wipe,
               "empty the disk tier's directory, whatever its state, and exit: all that "
               "it holds is lost");
  app.set_version_flag("--version", std::string("kvtierd ") + kVersion);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kStopped : kUsage;
  }
  const sigset_t set = Signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);  // before any thread is there
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a file as large as allowed is the disk tier's to report
  KeepFreedMemory();
  LogToStderr("info");
  return Run(command_line);
}
