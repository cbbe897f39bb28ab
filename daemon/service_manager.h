// What systemd is told, where it started the daemon (Type=notify), and its watchdog.
//
// The watchdog is fed only after a check that the daemon really works; one that hangs is
// not fed, and systemd restarts it. Without systemd's variables in the environment all of
// this does nothing.
//
// Thread safety: one owner; the watchdog has a thread of its own.

#ifndef KVTIER_DAEMON_SERVICE_MANAGER_H_
#define KVTIER_DAEMON_SERVICE_MANAGER_H_

#include <functional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace kvtier::daemon {

class ServiceManager {
 public:
  ServiceManager() = default;
  ServiceManager(const ServiceManager&) = delete;  // owns a thread
  ServiceManager& operator=(const ServiceManager&) = delete;
  ~ServiceManager();

  // The daemon serves. Starts the watchdog, where systemd wants one.
  //   check: within the time given, or an error
  void Ready(const std::string& status,
             std::function<absl::Status(absl::Duration)> check);
  // Around a reload of the configuration.
  void Reloading();
  void Reloaded(const std::string& status);
  void Stopping();

 private:
  void Feed(absl::Duration interval) ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after Ready.
  std::function<absl::Status(absl::Duration)> check_;
  std::thread watchdog_;

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_SERVICE_MANAGER_H_
