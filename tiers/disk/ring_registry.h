// Files and buffers that a ring's kernel side knows by number, so that a request need not
// look its file up and pin its memory again. What the kernel does not take (an old one, a
// limit on locked memory, no number left) is used as it is, a few percent slower.
//
// Thread safety: Start before all else; the rest from any thread. A segment or buffer
// that is removed has no request under way that was not yet given to the kernel.

#ifndef KVTIER_TIERS_DISK_RING_REGISTRY_H_
#define KVTIER_TIERS_DISK_RING_REGISTRY_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "kernels/base/mutex.h"
#include "tiers/disk/block_io.h"

struct io_uring;

namespace kvtier::tiers {

class RingRegistry {
 public:
  static constexpr uint32_t kFiles = 1024;
  static constexpr uint32_t kBuffers = 1024;

  // Until Stop(), `ring` is used.
  void Start(io_uring* ring) ABSL_LOCKS_EXCLUDED(mu_);
  // From here on nothing has a number; buffers may be removed still.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  void AddBuffer(std::byte* data, size_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  void RemoveBuffer(std::byte* data) ABSL_LOCKS_EXCLUDED(mu_);
  // The number of the buffer that holds [data, data + bytes); -1: none.
  int BufferOf(const std::byte* data, size_t bytes) const ABSL_LOCKS_EXCLUDED(mu_);

  // Gives the segment, which has none, a number; -1: there is none to give.
  int AddFile(SegmentNumber segment, int fd) ABSL_LOCKS_EXCLUDED(mu_);
  // The segment's number; -1: none.
  int FileOf(SegmentNumber segment) const ABSL_LOCKS_EXCLUDED(mu_);
  void RemoveFile(SegmentNumber segment) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Registered {
    size_t bytes = 0;
    int number = -1;
  };

  mutable Mutex mu_;
  io_uring* ring_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::vector<int> free_files_ ABSL_GUARDED_BY(mu_);
  std::vector<int> free_buffers_ ABSL_GUARDED_BY(mu_);
  std::map<SegmentNumber, int> files_ ABSL_GUARDED_BY(mu_);
  std::map<const std::byte*, Registered> buffers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_RING_REGISTRY_H_
