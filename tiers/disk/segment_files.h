// The segment files of one directory: made, opened, removed; what RingIo reads and
// writes.
//
// Thread safety: internally synchronized. A descriptor stays valid until Remove.

#ifndef KVTIER_TIERS_DISK_SEGMENT_FILES_H_
#define KVTIER_TIERS_DISK_SEGMENT_FILES_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/base/mutex.h"
#include "kernels/base/unique_fd.h"
#include "tiers/disk/block_io.h"

namespace kvtier::tiers {

class SegmentFiles {
 public:
  // O_DIRECT is tried unless `buffered`.
  SegmentFiles(std::string directory, bool buffered)
      : directory_(std::move(directory)), direct_(!buffered) {}

  // Makes the directory if it isn't there, and finds out about O_DIRECT.
  absl::Status Prepare() ABSL_LOCKS_EXCLUDED(mu_);

  // Writes, syncs and removes a file: whether the directory can be written to.
  absl::Status Probe() ABSL_LOCKS_EXCLUDED(mu_);

  // ResourceExhausted: the file system would have too little left for the catalog.
  //   pause: called between writes of a MiB, to leave the device to others for a while
  absl::Status Create(SegmentNumber segment, uint64_t bytes,
                      const std::function<void()>& pause) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<std::vector<BlockIo::Segment>> OpenAll() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Remove(SegmentNumber segment) ABSL_LOCKS_EXCLUDED(mu_);
  // Removes all segments, and what is left over of one that was being made. Returns their
  // bytes. Of a directory that isn't there: 0.
  absl::StatusOr<uint64_t> RemoveAll() ABSL_LOCKS_EXCLUDED(mu_);

  // -1: there is no such segment.
  int fd(SegmentNumber segment) const ABSL_LOCKS_EXCLUDED(mu_);
  std::string Path(SegmentNumber segment) const;
  // For people; empty when all is well.
  std::vector<std::string> Downgrades() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::StatusOr<UniqueFd> Open(const std::string& path, int flags)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status SyncDirectory() const;

  // Constant after construction.
  const std::string directory_;

  // Held while a segment is made, which takes seconds. Before mu_.
  Mutex create_mu_;

  mutable Mutex mu_;
  bool direct_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> foreign_ ABSL_GUARDED_BY(mu_);
  std::map<SegmentNumber, UniqueFd> files_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_SEGMENT_FILES_H_
