// What befalls a disk tier, told once when it begins and once when it is over, for the
// log and the health service.
//
// A fault that was absent for less than some seconds is the same one still: a tier that
// tries again may get a little done each time.
//
// Thread safety: Watch from any thread, Update from one.

#ifndef KVTIER_DAEMON_DISK_HEALTH_H_
#define KVTIER_DAEMON_DISK_HEALTH_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "kernels/base/mutex.h"
#include "tiers/disk/disk_tier.h"

namespace kvtier::daemon {

struct DiskEvent {
  enum class Kind { kBegins, kIsOver };
  Kind kind;
  std::string what{};       // that it can't do: "writing", ...
  std::string message{};    // of a beginning: why, and what to do
  absl::Duration lasted{};  // of an end
  bool all_well = false;    // nothing else is wrong
};

class DiskHealth {
 public:
  using Watcher = std::function<void(const DiskEvent&)>;

  // Absent for so long it is over.
  static constexpr absl::Duration kQuiet = absl::Seconds(2);

  // Nobody is told before; what is wrong already begins with the next Update. Null:
  // nobody from here on. When it returns, the watcher before is not called any more.
  void Watch(Watcher watcher) ABSL_LOCKS_EXCLUDED(mu_);

  // Calls the watcher, if there is something to tell. It must not call Watch.
  void Update(const std::vector<tiers::DiskDegraded>& degraded, absl::Time now)
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Fault {
    absl::Time since;
    absl::Time last_seen{};
  };

  Mutex mu_;
  Watcher watcher_ ABSL_GUARDED_BY(mu_);
  std::map<tiers::DiskFault, Fault> faults_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_DISK_HEALTH_H_
