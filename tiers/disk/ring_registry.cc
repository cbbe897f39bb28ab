#include "tiers/disk/ring_registry.h"

#include <liburing.h>
#include <sys/uio.h>

#include <iterator>

namespace kvtier::tiers {

void RingRegistry::Start(io_uring* ring) {
  MutexLock lock(&mu_);
  ring_ = ring;
  const auto numbers = [](uint32_t count) {
    std::vector<int> free;
    for (uint32_t i = count; i > 0; --i) free.push_back(static_cast<int>(i - 1));
    return free;
  };
  if (io_uring_register_files_sparse(ring, kFiles) == 0) free_files_ = numbers(kFiles);
  if (io_uring_register_buffers_sparse(ring, kBuffers) == 0) {
    free_buffers_ = numbers(kBuffers);
  }
}

void RingRegistry::Stop() {
  MutexLock lock(&mu_);
  ring_ = nullptr;
  free_files_.clear();
  free_buffers_.clear();
  files_.clear();
  buffers_.clear();
}

void RingRegistry::AddBuffer(std::byte* data, size_t bytes) {
  MutexLock lock(&mu_);
  if (free_buffers_.empty()) return;
  const int number = free_buffers_.back();
  const iovec where = {.iov_base = data, .iov_len = bytes};
  const __u64 tag = 0;
  if (io_uring_register_buffers_update_tag(ring_, number, &where, &tag, 1) != 1) return;
  free_buffers_.pop_back();
  buffers_[data] = {.bytes = bytes, .number = number};
}

void RingRegistry::RemoveBuffer(std::byte* data) {
  MutexLock lock(&mu_);
  const auto found = buffers_.find(data);
  if (found == buffers_.end()) return;
  const iovec nothing = {.iov_base = nullptr, .iov_len = 0};
  const __u64 tag = 0;
  // A number that is not given back is lost, no more.
  if (io_uring_register_buffers_update_tag(ring_, found->second.number, &nothing, &tag,
                                           1) == 1) {
    free_buffers_.push_back(found->second.number);
  }
  buffers_.erase(found);
}

int RingRegistry::BufferOf(const std::byte* data, size_t bytes) const {
  MutexLock lock(&mu_);
  const auto after = buffers_.upper_bound(data);
  if (after == buffers_.begin()) return -1;
  const auto& [begin, buffer] = *std::prev(after);
  return data + bytes <= begin + buffer.bytes ? buffer.number : -1;
}

int RingRegistry::FileOf(SegmentNumber segment) const {
  MutexLock lock(&mu_);
  const auto found = files_.find(segment);
  return found == files_.end() ? -1 : found->second;
}

int RingRegistry::AddFile(SegmentNumber segment, int fd) {
  MutexLock lock(&mu_);
  if (fd < 0 || free_files_.empty()) return -1;
  const int number = free_files_.back();
  if (io_uring_register_files_update(ring_, number, &fd, 1) != 1) return -1;
  free_files_.pop_back();
  files_[segment] = number;
  return number;
}

void RingRegistry::RemoveFile(SegmentNumber segment) {
  MutexLock lock(&mu_);
  const auto found = files_.find(segment);
  if (found == files_.end()) return;
  const int none = -1;
  // Else the kernel would keep the file, and its blocks.
  if (io_uring_register_files_update(ring_, found->second, &none, 1) == 1) {
    free_files_.push_back(found->second);
  }
  files_.erase(found);
}

}  // namespace kvtier::tiers
