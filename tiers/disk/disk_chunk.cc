// DiskChunk: here so that who holds one needs no RocksDB.

#include "tiers/disk/disk_tier.h"

namespace kvtier::tiers {

DiskChunk& DiskChunk::operator=(DiskChunk&& other) noexcept {
  if (this != &other) {
    Reset();
    tier_ = std::exchange(other.tier_, nullptr);
    entry_ = other.entry_;
  }
  return *this;
}

DiskChunk DiskChunk::Share() const {
  return tier_ == nullptr ? DiskChunk() : tier_->ShareEntry(entry_);
}

void DiskChunk::Reset() {
  if (DiskTier* tier = std::exchange(tier_, nullptr)) tier->ReleaseEntry(entry_);
}

}  // namespace kvtier::tiers
