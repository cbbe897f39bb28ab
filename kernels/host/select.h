// Choosing and comparing: the best of many, and what changed since the last choice.
//
// Thread safety: pure functions.

#ifndef KVTIER_KERNELS_HOST_SELECT_H_
#define KVTIER_KERNELS_HOST_SELECT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace kvtier::kernels {

// Appends first + i for the `count` largest values[i] (all, if there are fewer) to
// `chosen`, ascending. Of equal values the lower index wins; NaN loses to everything.
void SelectLargest(absl::Span<const float> values, size_t count, uint32_t first,
                   std::vector<uint32_t>* chosen);

// Compares two ascending lists.
//   kept:  indices into `held` of what is in `next` too, ascending
//   added: what is in `next` alone, ascending
// Both are appended to.
void DiffSelection(absl::Span<const uint32_t> held, absl::Span<const uint32_t> next,
                   std::vector<uint32_t>* kept, std::vector<uint32_t>* added);

}  // namespace kvtier::kernels

#endif  // KVTIER_KERNELS_HOST_SELECT_H_
