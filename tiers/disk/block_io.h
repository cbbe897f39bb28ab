// Asynchronous I/O on the segment files of one directory.
//
// A segment is a file of fixed size, zero where it was never written. The disk tier does
// all its I/O on chunks' bytes through this interface: RingIo (ring_io.h) is io_uring
// with O_DIRECT; the simulation has a virtual disk that can lose power.
//
// What a power failure does: a write whose completion was not followed by a completed
// Sync of its file may be there, absent, or there in some of its 4 KiB units. A Sync
// covers the writes that completed before it was submitted, no others. After a failed
// Sync nothing of what it covered may be assumed, and a later Sync's success does not
// change that.
//
// Thread safety: everything may be called from any thread. A callback runs on a thread
// of the implementation, does little, and may call Submit.

#ifndef KVTIER_TIERS_DISK_BLOCK_IO_H_
#define KVTIER_TIERS_DISK_BLOCK_IO_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/base/types.h"

namespace kvtier::tiers {

// Unit of offsets, lengths and buffer alignment.
inline constexpr size_t kIoUnit = 4096;

using SegmentNumber = StrongInt<struct SegmentNumberTag, uint32_t>;

enum class IoKind : uint8_t { kRead, kWrite, kSync };

// Higher first. Lower ones still progress while higher ones wait.
enum class IoPriority : uint8_t { kDemand, kPrefetch, kWriteBehind, kScrub };

struct IoRequest {
  IoKind kind = IoKind::kRead;
  IoPriority priority = IoPriority::kDemand;
  SegmentNumber segment;
  // All multiples of kIoUnit. Unused by kSync.
  uint64_t offset = 0;
  std::byte* data = nullptr;
  size_t bytes = 0;
  // Called once. OK means all bytes: short transfers are continued inside.
  // DeadlineExceeded: the device did not answer; the buffer stays in use until the
  // device gives it back, so the owner must not reuse it (`released` says when).
  std::function<void(absl::Status)> done;
  // Called once, after `done`, when the kernel no longer uses `data`. May be empty.
  std::function<void()> released;
};

class BlockIo {
 public:
  BlockIo() = default;
  BlockIo(const BlockIo&) = delete;  // owns files
  BlockIo& operator=(const BlockIo&) = delete;
  virtual ~BlockIo() = default;

  // Makes a segment whose blocks are allocated and written with zeros, durably.
  // Blocking: for a background thread.
  // ResourceExhausted: the file system is full. AlreadyExists, Unavailable (I/O error).
  virtual absl::Status CreateSegment(SegmentNumber segment, uint64_t bytes) = 0;
  // Segments that are there, ascending, with their sizes; opens them all.
  struct Segment {
    SegmentNumber number;
    uint64_t bytes = 0;
  };
  virtual absl::StatusOr<std::vector<Segment>> OpenSegments() = 0;
  // The segment must have no request under way. Durable when it returns.
  virtual absl::Status RemoveSegment(SegmentNumber segment) = 0;

  // Writes a unit to a file of its own, syncs and removes it: whether that works again.
  // Blocking. Errors: as Submit's.
  virtual absl::Status Probe() = 0;

  // Starts the requests, as one batch. Errors come by their callbacks:
  // Unavailable (I/O error, path and errno in the message), ResourceExhausted (disk
  // full), FailedPrecondition (read-only file system), DeadlineExceeded.
  virtual void Submit(std::vector<IoRequest> requests) = 0;

  // A buffer of this I/O, aligned to kIoUnit, registered with the kernel where that
  // helps. Freed with the returned object. ResourceExhausted.
  class Buffer {
   public:
    Buffer() = default;
    Buffer(std::byte* data, size_t bytes, std::function<void()> free)
        : data_(data), bytes_(bytes), free_(std::move(free)) {}
    Buffer(Buffer&& other) noexcept { *this = std::move(other); }
    Buffer& operator=(Buffer&& other) noexcept {
      if (this == &other) return *this;
      if (free_) free_();
      data_ = std::exchange(other.data_, nullptr);
      bytes_ = std::exchange(other.bytes_, 0);
      free_ = std::exchange(other.free_, nullptr);
      return *this;
    }
    Buffer(const Buffer&) = delete;  // freed once
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() {
      if (free_) free_();
    }
    std::byte* data() const { return data_; }
    size_t bytes() const { return bytes_; }

   private:
    std::byte* data_ = nullptr;
    size_t bytes_ = 0;
    std::function<void()> free_;
  };
  virtual absl::StatusOr<Buffer> NewBuffer(size_t bytes) = 0;

  // What is not as fast or safe as it could be, for people ("O_DIRECT refused: ...");
  // empty when all is well.
  virtual std::vector<std::string> Downgrades() const = 0;
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_BLOCK_IO_H_
