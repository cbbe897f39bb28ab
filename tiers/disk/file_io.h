// Inside RingIo: what io_uring's way and the threads' way of doing I/O on segments share.
//
// Thread safety: as BlockIo says.

#ifndef KVTIER_TIERS_DISK_FILE_IO_H_
#define KVTIER_TIERS_DISK_FILE_IO_H_

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "tiers/disk/block_io.h"
#include "tiers/disk/io_queue.h"
#include "tiers/disk/ring_io.h"
#include "tiers/disk/segment_files.h"

namespace kvtier::tiers {

// "reading", "writing" or "syncing".
const char* NameOf(IoKind kind);

// What a read, write or fdatasync returned (a negative error number): true if the flight
// has ended, with `status`; false if it has to go on.
bool Continue(int result, const SegmentFiles& files, IoFlight* flight,
              absl::Status* status);

class FileIo : public BlockIo {
 public:
  FileIo(const RingIoOptions& options, std::unique_ptr<SegmentFiles> files)
      : options_(options), files_(std::move(files)) {}

  absl::Status CreateSegment(SegmentNumber segment, uint64_t bytes) override;
  absl::StatusOr<std::vector<Segment>> OpenSegments() override;
  absl::Status RemoveSegment(SegmentNumber segment) override;
  absl::Status Probe() override;
  absl::StatusOr<Buffer> NewBuffer(size_t bytes) override;
  std::vector<std::string> Downgrades() const override;

 protected:
  // To be called with what is submitted: segments are made slowly beside demand.
  void NoteDemand(const std::vector<IoRequest>& requests);
  // The answer to one that the device did not serve in time.
  absl::Status Overdue(const IoFlight& flight) const;

  // Constant after construction.
  const RingIoOptions options_;
  const std::unique_ptr<SegmentFiles> files_;

 private:
  void LeaveToDemand() const;

  std::atomic<absl::Time> last_demand_{absl::InfinitePast()};
};

// With threads, pread and pwrite. One that hangs in the kernel is given up on as a ring's
// request is: the caller has its answer, the thread and the buffer come back when they
// do.
//   reason: why, for Downgrades()
std::unique_ptr<BlockIo> NewThreadIo(const RingIoOptions& options,
                                     std::unique_ptr<SegmentFiles> files,
                                     std::string reason);

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_FILE_IO_H_
