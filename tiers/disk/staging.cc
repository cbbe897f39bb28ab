#include "tiers/disk/staging.h"

namespace kvtier::tiers {

absl::Status Staging::Take(const std::vector<uint64_t>& sizes,
                           std::vector<Buffer>* buffers) {
  uint64_t wanted = 0;
  for (const uint64_t size : sizes) wanted += ClassBytes(size);
  if (!idle() && out_bytes_ + wanted > capacity_bytes_) {
    return absl::ResourceExhaustedError("staging is full");
  }
  std::vector<Buffer> taken;
  for (const uint64_t size : sizes) {
    const uint64_t bytes = ClassBytes(size);
    const auto kept = std::find_if(kept_.begin(), kept_.end(), [&](const Buffer& buffer) {
      return buffer.bytes() == bytes;
    });
    if (kept != kept_.end()) {
      kept_bytes_ -= bytes;
      out_bytes_ += bytes;
      taken.push_back(std::move(*kept));
      *kept = std::move(kept_.back());
      kept_.pop_back();
      continue;
    }
    while (!kept_.empty() && out_bytes_ + kept_bytes_ + bytes > capacity_bytes_) {
      kept_bytes_ -= kept_.front().bytes();
      kept_.erase(kept_.begin());
    }
    absl::StatusOr<Buffer> buffer = io_->NewBuffer(bytes);
    if (!buffer.ok()) {
      for (Buffer& back : taken) Return(std::move(back));
      // Without memory, but what is out comes back: wait for that.
      if (!idle()) return absl::ResourceExhaustedError("staging is full");
      return absl::UnavailableError(buffer.status().message());
    }
    out_bytes_ += bytes;
    taken.push_back(*std::move(buffer));
  }
  *buffers = std::move(taken);
  return absl::OkStatus();
}

void Staging::Return(Buffer buffer) {
  out_bytes_ -= buffer.bytes();
  kept_bytes_ += buffer.bytes();
  kept_.push_back(std::move(buffer));
}

}  // namespace kvtier::tiers
