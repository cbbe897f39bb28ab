// A disk tier as kvtierd has it, and chunks for it: 32 layers of the benches'
// geometry.
//
// Thread safety: one thread at a time makes chunks; callbacks run on the executor's.

#ifndef KVTIER_TESTS_BENCH_DISK_LOAD_H_
#define KVTIER_TESTS_BENCH_DISK_LOAD_H_

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/disk_stack.h"
#include "tests/bench/own_directory.h"
#include "tiers/disk/disk_tier.h"

namespace kvtier::bench {

// Keeps `depth` asynchronous calls under way until `count` were made, and waits for all.
//   start: starts the i-th, and has its argument called when it has ended; called from
//          any thread, by several at a time
using Ended = std::function<void(absl::Status)>;
absl::Status InFlight(size_t count, size_t depth,
                      const std::function<void(size_t, Ended)>& start);

class DiskLoad {
 public:
  static constexpr uint32_t kLayers = 32;

  // In a directory of its own below `directory`.
  static absl::StatusOr<std::unique_ptr<DiskLoad>> Open(const std::string& directory,
                                                        uint64_t capacity_bytes);
  tiers::DiskTier& tier() { return *stack_->tier(); }
  const std::string& directory() const { return directory_->path(); }
  // Of one chunk: abstracts and pages, and as it lies on disk.
  uint64_t payload_bytes() const { return payload_bytes_; }
  uint64_t extent_bytes() const { return extent_bytes_; }
  uint32_t page_bytes() const { return geometry_->layers[0].page_bytes; }
  uint32_t heads() const { return geometry_->layers[0].kv_heads; }
  uint64_t abstracts_bytes() const {
    return uint64_t{kLayers} * geometry_->layers[0].abstract_bytes;
  }

  // A chunk that was never written before. Takes the time of its checksums.
  tiers::DiskWrite NewChunk();
  // Writes them, `depth` at a time, durably.
  absl::Status Write(const std::vector<tiers::DiskWrite>& chunks, size_t depth);
  // Pins those of the chunks that are there.
  std::vector<tiers::DiskChunk> Find(const std::vector<tiers::DiskWrite>& chunks);

 private:
  explicit DiskLoad(std::unique_ptr<const OwnDirectory> directory);

  const std::unique_ptr<const OwnDirectory> directory_;
  const std::shared_ptr<const tiers::DiskGeometry> geometry_;
  uint64_t payload_bytes_ = 0;
  uint64_t extent_bytes_ = 0;
  std::vector<std::byte> page_, abstract_;
  uint64_t chunks_made_ = 0;
  std::unique_ptr<daemon::DiskStack> stack_;
};

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_DISK_LOAD_H_
