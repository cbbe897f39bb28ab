// BlockIo on files of one directory, by io_uring and O_DIRECT.
//
// One thread submits and reaps; callers put requests into queues, one per priority, and
// wake it. Demand goes first, though not always (io_queue.h); of write-behind and scrub
// only a bounded number is under way, and few for a while after a query waited for a
// page, so that the next finds the device's queue short.
//
// A request that the device does not answer in time gives DeadlineExceeded, also when it
// was queued behind others while the device answered nothing; its buffer is let go of
// when the kernel lets go of it. What is short, interrupted or refused for the moment is
// continued until then. The destructor answers all that was submitted, and waits for what
// the kernel still has.
//
// Where io_uring is refused (a container), threads do the same with pread and pwrite;
// where O_DIRECT is refused (tmpfs), files are buffered. Both are told by Downgrades().
//
// Thread safety: as BlockIo says. Callbacks run on the ring's thread: what takes longer
// than some microseconds they post.

#ifndef KVTIER_TIERS_DISK_RING_IO_H_
#define KVTIER_TIERS_DISK_RING_IO_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tiers/disk/block_io.h"

namespace kvtier::tiers {

class IoFaults;

struct RingIoOptions {
  std::string directory;
  // Requests that the kernel has at a time, and how many of them may be write-behind or
  // scrub. A consumer NVMe is at its speed with 32 of 32 KiB.
  uint32_t depth = 128;
  uint32_t background_depth = 32;
  // The same in the `demand_pause` after a demand request came.
  uint32_t background_depth_beside_demand = 1;
  absl::Duration demand_pause = absl::Milliseconds(100);
  absl::Duration deadline = absl::Seconds(30);
  // For tests.
  bool refuse_ring = false;
  bool refuse_direct = false;
  IoFaults* faults = nullptr;  // outlives the I/O
};

// Makes the directory, 0700, if it isn't there.
// PermissionDenied, ResourceExhausted, ...: it can't be made or used.
absl::StatusOr<std::unique_ptr<BlockIo>> OpenRingIo(const RingIoOptions& options);

// The error of an I/O operation: `what` names the operation and the file.
absl::Status IoErrorToStatus(int error_number, const std::string& what);

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_RING_IO_H_
