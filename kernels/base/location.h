// Where a slot lies in memory that the daemon shares with workers: one 64-bit word, which
// whoever maps the regions of its namespace turns into an address. All zeros: nowhere,
// what was there is on another tier or gone.
//
//   bit 63        in host memory
//   bits 24..47   region, a number of its namespace
//   bits 0..23    slot of the region; it starts at slot * the region's slot_bytes
// The other bits are zero.
//
// Thread safety: a value. Words in shared memory are std::atomic<uint64_t>.

#ifndef KVTIER_KERNELS_BASE_LOCATION_H_
#define KVTIER_KERNELS_BASE_LOCATION_H_

#include <cstddef>
#include <cstdint>

#include "kernels/base/types.h"

namespace kvtier {

using RegionIndex = StrongInt<struct RegionIndexTag, uint32_t>;
using SlotIndex = StrongInt<struct SlotIndexTag, uint32_t>;

class Location {
 public:
  static constexpr uint32_t kRegionsMax = uint32_t{1} << 24;
  static constexpr uint32_t kSlotsMax = uint32_t{1} << 24;

  // Nowhere.
  constexpr Location() = default;
  constexpr Location(RegionIndex region, SlotIndex slot)
      : bits_(kHost | uint64_t{region.value()} << kRegionShift | slot.value()) {}
  // From a word in shared memory; any number is one.
  static constexpr Location FromBits(uint64_t bits) { return Location(bits); }

  constexpr bool in_host() const { return (bits_ & kHost) != 0; }
  constexpr RegionIndex region() const {
    return RegionIndex(static_cast<uint32_t>(bits_ >> kRegionShift) & (kRegionsMax - 1));
  }
  constexpr SlotIndex slot() const {
    return SlotIndex(static_cast<uint32_t>(bits_) & (kSlotsMax - 1));
  }
  constexpr uint64_t bits() const { return bits_; }

  constexpr bool operator==(const Location&) const = default;

 private:
  static constexpr uint64_t kHost = uint64_t{1} << 63;
  static constexpr int kRegionShift = 24;

  explicit constexpr Location(uint64_t bits) : bits_(bits) {}

  uint64_t bits_ = 0;
};

// Where, in the slot of a block's abstracts, its pages' words are: [kv_heads], atomic.
//   abstract_bytes: of all its kv heads
constexpr size_t PageLocationsOffset(size_t abstract_bytes) {
  return (abstract_bytes + sizeof(uint64_t) - 1) / sizeof(uint64_t) * sizeof(uint64_t);
}

}  // namespace kvtier

#endif  // KVTIER_KERNELS_BASE_LOCATION_H_
