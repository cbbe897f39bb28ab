// Buffers of I/O under way, within a fixed number of bytes, and kept for the next.
//
// Thread safety: none; the engine's mutex.

#ifndef KVTIER_TIERS_DISK_STAGING_H_
#define KVTIER_TIERS_DISK_STAGING_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "tiers/disk/block_io.h"

namespace kvtier::tiers {

class Staging {
 public:
  using Buffer = BlockIo::Buffer;

  Staging(BlockIo* io, uint64_t capacity_bytes)
      : io_(io), capacity_bytes_(capacity_bytes) {}

  // Takes a buffer of each size; all or none. ResourceExhausted: not now; something is
  // out, so a later Return makes room. What is larger than everything is given when
  // nothing else is out. Other errors are the I/O's.
  absl::Status Take(const std::vector<uint64_t>& sizes, std::vector<Buffer>* buffers);
  void Return(Buffer buffer);

  bool idle() const { return out_bytes_ == 0; }
  uint64_t memory_bytes() const { return out_bytes_ + kept_bytes_; }

 private:
  static uint64_t ClassBytes(uint64_t bytes) {
    return std::max<uint64_t>(std::bit_ceil(bytes), kIoUnit * 4);
  }

  BlockIo* const io_;
  const uint64_t capacity_bytes_;
  std::vector<Buffer> kept_;
  uint64_t kept_bytes_ = 0;
  uint64_t out_bytes_ = 0;
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_STAGING_H_
