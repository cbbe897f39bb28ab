#include "daemon/service_manager.h"

#include <spdlog/spdlog.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace kvtier::daemon {
namespace {

// Pings in one of systemd's periods: one that is late, or lost, is made up for.
constexpr int kPingsInPeriod = 3;

void Notify(const std::string& state) { sd_notify(0, state.c_str()); }

}  // namespace

ServiceManager::~ServiceManager() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  if (watchdog_.joinable()) watchdog_.join();
}

void ServiceManager::Ready(const std::string& status,
                           std::function<absl::Status(absl::Duration)> check) {
  Notify(absl::StrCat("READY=1\nSTATUS=", status));
  uint64_t period_us = 0;
  if (sd_watchdog_enabled(0, &period_us) <= 0) return;
  check_ = std::move(check);
  const absl::Duration interval =
      absl::Microseconds(static_cast<int64_t>(period_us)) / kPingsInPeriod;
  watchdog_ = std::thread([this, interval] { Feed(interval); });
}

void ServiceManager::Reloading() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  Notify(
      absl::StrCat("RELOADING=1\nMONOTONIC_USEC=",
                   static_cast<int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1'000));
}

void ServiceManager::Reloaded(const std::string& status) {
  Notify(absl::StrCat("READY=1\nSTATUS=", status));
}

void ServiceManager::Stopping() { Notify("STOPPING=1\nSTATUS=stopping"); }

void ServiceManager::Feed(absl::Duration interval) {
  absl::MutexLock lock(&mu_);
  do {
    mu_.Unlock();
    const absl::Status alive = check_(interval);
    if (alive.ok()) {
      Notify("WATCHDOG=1");
    } else {
      spdlog::error("the watchdog's check failed: {}", std::string(alive.message()));
    }
    mu_.Lock();
  } while (!mu_.AwaitWithTimeout(absl::Condition(&stopping_), interval));
}

}  // namespace kvtier::daemon
