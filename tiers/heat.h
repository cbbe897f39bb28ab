// What is known of a chunk's uses, in 8 bytes: when the last one was, and whether it was
// ever found again after it had come. Orders chunks: the lesser heat goes first, so that
// what was found again stays before all that came and was never asked for since.
//
// A use is of the whole prefix up to a chunk: whoever uses a chunk uses those before it
// too, which are thus never colder than what continues them, but for the order of the
// calls. Where a child goes, its parent takes over the greater heat of the two.
//
// Times are numbers that only grow, of a clock that its owner advances with each use; of
// one tier, never compared with another's.
//
// Thread safety: a value.

#ifndef KVTIER_TIERS_HEAT_H_
#define KVTIER_TIERS_HEAT_H_

#include <algorithm>
#include <compare>
#include <cstdint>

namespace kvtier::tiers {

enum class ChunkUse : uint8_t {
  kFound,  // by its name, after it had come: it was worth its room
  kStill,  // by whoever found it or brought it: read, or let go of
};

class Heat {
 public:
  static constexpr uint64_t kTimeMax = (uint64_t{1} << 63) - 1;

  // Never used.
  constexpr Heat() = default;
  // Of a chunk that comes now. `time` <= kTimeMax.
  static constexpr Heat New(uint64_t time) { return Heat(time); }
  // From bits(); any number is one.
  static constexpr Heat FromBits(uint64_t bits) { return Heat(bits); }

  constexpr Heat Used(uint64_t time, ChunkUse use) const {
    const uint64_t found = use == ChunkUse::kFound ? kFoundBit : bits_ & kFoundBit;
    return Heat(found | std::max(time, last_use()));
  }

  constexpr uint64_t last_use() const { return bits_ & kTimeMax; }
  constexpr bool found() const { return (bits_ & kFoundBit) != 0; }
  constexpr uint64_t bits() const { return bits_; }

  auto operator<=>(const Heat&) const = default;

 private:
  static constexpr uint64_t kFoundBit = uint64_t{1} << 63;

  explicit constexpr Heat(uint64_t bits) : bits_(bits) {}

  uint64_t bits_ = 0;
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_HEAT_H_
