#include "kernels/host/rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/base/types.h"
#include "kernels/host/convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/rows.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvtier::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::CappedTag<float, kRowPad>;

float DotKernel(const float* a, const float* b, size_t padded) {
  const DF d;
  auto sum = hn::Zero(d);
  for (size_t i = 0; i < padded; i += hn::Lanes(d)) {
    sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

// keys: [rows][padded]
void ScoreKeysKernel(const float* keys, size_t rows, size_t padded, const float* queries,
                     size_t heads, float scale, float* logits, size_t head_stride) {
  constexpr float kLargest = std::numeric_limits<float>::max() / 4;
  for (size_t t = 0; t < rows; ++t) {
    for (size_t h = 0; h < heads; ++h) {
      const float logit =
          scale * DotKernel(keys + t * padded, queries + h * padded, padded);
      // Overflows of both signs inside one sum give NaN: nothing is known, so 0.
      logits[h * head_stride + t] =
          std::isnan(logit) ? 0.0f : std::clamp(logit, -kLargest, kLargest);
    }
  }
}

}  // namespace kvtier::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvtier::kernels {

HWY_EXPORT(ScoreKeysKernel);

void ScoreRows(DType dtype, const std::byte* rows_data, size_t row_bytes, size_t rows,
               size_t dim, const float* queries, size_t heads, float scale, float* logits,
               size_t head_stride) {
  const size_t padded = PaddedRow(dim);
  // Few rows at a time: the keys stay in the first-level cache.
  constexpr size_t kScratchFloats = 4096;
  alignas(64) float keys[kScratchFloats];
  const size_t batch = std::max<size_t>(1, kScratchFloats / padded);
  for (size_t t = 0; t < rows; t += batch) {
    const size_t count = std::min(batch, rows - t);
    RowsToF32(dtype, rows_data + t * row_bytes, row_bytes, count, dim, keys);
    HWY_DYNAMIC_DISPATCH(ScoreKeysKernel)
    (keys, count, padded, queries, heads, scale, logits + t, head_stride);
  }
}

void GatherRows(absl::Span<const std::byte* const> pages, size_t row_bytes,
                absl::Span<const uint32_t> tokens, std::byte* dst) {
  for (const uint32_t token : tokens) {
    const std::byte* page = pages[token / kChunkTokens];
    std::memcpy(dst, page + token % kChunkTokens * row_bytes, row_bytes);
    dst += row_bytes;
  }
}

}  // namespace kvtier::kernels
#endif  // HWY_ONCE
