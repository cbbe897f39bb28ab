// The disk tier with what it runs on: threads, I/O, a clock. Ends in the right order.
//
// Thread safety: tier(), Complaints and Watch may be used from any thread; the rest by
// one owner.

#ifndef KVTIER_DAEMON_DISK_STACK_H_
#define KVTIER_DAEMON_DISK_STACK_H_

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/disk_health.h"
#include "daemon/thread_pool.h"
#include "kernels/base/mutex.h"
#include "tiers/disk/block_io.h"
#include "tiers/disk/disk_tier.h"

namespace kvtier::daemon {

class DiskStack {
 public:
  struct Options {
    std::string directory;
    uint64_t capacity_bytes = 0;
    // What its own memory is charged to: small buffers where that is small.
    uint64_t host_capacity_bytes = 0;
    absl::Duration deadline;  // of one request to the device
    uint64_t scrub_bytes_per_second = 0;
  };
  // Blocking. Errors: OpenRingIo, DiskTier::Open.
  static absl::StatusOr<std::unique_ptr<DiskStack>> Open(const Options& options);
  // Removes all that a disk tier has in `directory`, and nothing else, without reading
  // it. Returns the bytes of its segments. FailedPrecondition: in use. Errors: Catalog,
  // SegmentFiles.
  static absl::StatusOr<uint64_t> Wipe(const std::string& directory);
  DiskStack(const DiskStack&) = delete;  // owns a thread
  DiskStack& operator=(const DiskStack&) = delete;
  ~DiskStack();

  tiers::DiskTier* tier() const { return tier_.get(); }
  // What is not as it should be, for people; empty when all is well.
  std::vector<std::string> Complaints() const;
  // Whom to tell what befalls the tier, on the clock's thread. As DiskHealth::Watch.
  void Watch(DiskHealth::Watcher watcher) { health_.Watch(std::move(watcher)); }

 private:
  DiskStack();
  void Tick() ABSL_LOCKS_EXCLUDED(mu_);

  // Each is used by what stands below it.
  ThreadPool threads_;
  std::unique_ptr<tiers::BlockIo> io_;
  std::unique_ptr<tiers::DiskTier> tier_;
  DiskHealth health_;

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;

  std::thread ticker_;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_DISK_STACK_H_
