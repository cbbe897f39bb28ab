// Bounds of the keys of a span of 16 tokens, channel by channel, and what follows for a
// query: q.k <= U = sum over channels of max(q lo, q hi), for every key of the span.
//
// Thread safety: pure functions.

#ifndef KVTIER_KERNELS_HOST_BOUNDS_H_
#define KVTIER_KERNELS_HOST_BOUNDS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvtier::kernels {

inline constexpr size_t kBoundsSpans = 4;  // of 16 tokens, in a page of 64

// keys: [64][PaddedRow(dim)] finite f32; out: f16 [4][low, high][dim], rounded outward
// (beyond f16's range to infinity, so that the bound still holds).
void EncodeBounds(const float* keys, size_t dim, uint16_t* out,
                  std::vector<float>* scratch);

// Query heads made ready to score pages: U is the sum over channels of the query times
// the lower bound where it is negative and the upper where it is not.
struct BoundsQuery {
  size_t heads = 0;
  size_t dim = 0;
  std::vector<float> queries;  // [heads][PaddedRow(dim)]
};

// queries: [heads][dim], finite;  scale: of all logits, not negative. Reuses the memory
// of `out`.
void PrepareBoundsQuery(const float* queries, size_t heads, size_t dim, float scale,
                        BoundsQuery* out);

// logits[h * head_stride + s] = scale * U of head h and span s, for 4 spans.
//   bounds: of the page
//   next:   of a page that will be scored soon, or any: the memory is asked for it
//           meanwhile
// A bound beyond f32's range is infinite.
void ScoreBounds(const BoundsQuery& query, const uint16_t* bounds, const uint16_t* next,
                 float* logits, size_t head_stride);

}  // namespace kvtier::kernels

#endif  // KVTIER_KERNELS_HOST_BOUNDS_H_
