// Strong integer types for what crosses a boundary: an index or an id of one kind can't
// be passed where another is wanted, and nothing converts silently.
//
// Thread safety: plain values.

#ifndef KVTIER_KERNELS_BASE_TYPES_H_
#define KVTIER_KERNELS_BASE_TYPES_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>

namespace kvtier {

template <typename Tag, typename Int>
class StrongInt {
 public:
  using ValueType = Int;

  constexpr StrongInt() = default;
  explicit constexpr StrongInt(Int value) : value_(value) {}

  constexpr Int value() const { return value_; }
  constexpr auto operator<=>(const StrongInt&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, StrongInt v) {
    return H::combine(std::move(h), v.value_);
  }
  friend std::ostream& operator<<(std::ostream& os, StrongInt v) {
    return os << +v.value_;
  }

 private:
  Int value_ = 0;
};

// Position of a token in its sequence.
using TokenIndex = StrongInt<struct TokenIndexTag, uint64_t>;
// Layer of a model, from 0.
using LayerIndex = StrongInt<struct LayerIndexTag, uint32_t>;
// Position of a chunk in its sequence.
using ChunkIndex = StrongInt<struct ChunkIndexTag, uint32_t>;
using SessionId = StrongInt<struct SessionIdTag, uint64_t>;
using SequenceId = StrongInt<struct SequenceIdTag, uint64_t>;
// A worker's decode step at a sequence, from 1; 0 means none.
using StepIndex = StrongInt<struct StepIndexTag, uint64_t>;

// Tokens of a chunk and of each of its pages. Part of every stored format.
inline constexpr uint32_t kChunkTokens = 64;
// Tokens of a span, over which key bounds are kept.
inline constexpr uint32_t kSpanTokens = 16;

}  // namespace kvtier

#endif  // KVTIER_KERNELS_BASE_TYPES_H_
