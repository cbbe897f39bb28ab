#include "daemon/disk_health.h"

#include <utility>

namespace kvtier::daemon {

void DiskHealth::Watch(Watcher watcher) {
  MutexLock lock(&mu_);
  watcher_ = std::move(watcher);
  faults_.clear();
}

void DiskHealth::Update(const std::vector<tiers::DiskDegraded>& degraded,
                        absl::Time now) {
  MutexLock lock(&mu_);
  if (!watcher_) return;
  for (const tiers::DiskDegraded& one : degraded) {
    const auto [fault, is_new] = faults_.emplace(one.fault, Fault{.since = now});
    fault->second.last_seen = now;
    if (!is_new) continue;
    watcher_({.kind = DiskEvent::Kind::kBegins,
              .what = NameOf(one.fault),
              .message = one.message});
  }
  for (auto it = faults_.begin(); it != faults_.end();) {
    const auto [name, fault] = *it;
    if (now - fault.last_seen < kQuiet) {
      ++it;
      continue;
    }
    it = faults_.erase(it);
    watcher_({.kind = DiskEvent::Kind::kIsOver,
              .what = NameOf(name),
              .lasted = fault.last_seen - fault.since,
              .all_well = faults_.empty()});
  }
}

}  // namespace kvtier::daemon
