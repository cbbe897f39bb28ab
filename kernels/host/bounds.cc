#include "kernels/host/bounds.h"

#include <algorithm>
#include <limits>

#include "kernels/host/convert.h"
#include "kernels/host/sketch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/bounds.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvtier::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::CappedTag<float, kRowPad>;

// low_high: [2][padded]
void SpanBoundsKernel(const float* keys, size_t padded, float* low_high) {
  const DF d;
  for (size_t i = 0; i < padded; i += hn::Lanes(d)) {
    auto low = hn::LoadU(d, keys + i);
    auto high = low;
    for (size_t t = 1; t < 16; ++t) {
      const auto v = hn::LoadU(d, keys + t * padded + i);
      low = hn::Min(low, v);
      high = hn::Max(high, v);
    }
    hn::StoreU(low, d, low_high + i);
    hn::StoreU(high, d, low_high + padded + i);
  }
}

float UpperBoundKernel(const float* query, const float* low_high, size_t padded) {
  const DF d;
  // 0 times infinity is NaN: infinite bounds are taken as the largest finite value.
  const auto largest = hn::Set(d, std::numeric_limits<float>::max());
  auto sum = hn::Zero(d);
  for (size_t i = 0; i < padded; i += hn::Lanes(d)) {
    const auto q = hn::LoadU(d, query + i);
    const auto low = hn::Max(hn::LoadU(d, low_high + i), hn::Neg(largest));
    const auto high = hn::Min(hn::LoadU(d, low_high + padded + i), largest);
    sum = hn::Add(sum, hn::Max(hn::Mul(q, low), hn::Mul(q, high)));
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

// One span.
void ScoreBoundsKernel(const float* queries, size_t heads, size_t padded,
                       const float* low_high, float scale, float* logits,
                       size_t head_stride) {
  for (size_t h = 0; h < heads; ++h) {
    logits[h * head_stride] =
        scale * UpperBoundKernel(queries + h * padded, low_high, padded);
  }
}

}  // namespace kvtier::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvtier::kernels {

HWY_EXPORT(SpanBoundsKernel);
HWY_EXPORT(ScoreBoundsKernel);

namespace {

// The next f16 below and above. Neither is asked beyond infinity.
uint16_t NextDown(uint16_t bits) {
  if ((bits & 0x7FFFu) == 0) return 0x8001u;
  return (bits & 0x8000u) != 0 ? bits + 1 : bits - 1;
}
uint16_t NextUp(uint16_t bits) {
  if ((bits & 0x7FFFu) == 0) return 0x0001u;
  return (bits & 0x8000u) != 0 ? bits - 1 : bits + 1;
}

}  // namespace

void EncodeBounds(const float* keys, size_t dim, uint16_t* out,
                  std::vector<float>* scratch) {
  const size_t padded = PaddedRow(dim);
  scratch->resize(4 * padded);
  float* exact = scratch->data();
  float* stored = exact + 2 * padded;
  for (size_t s = 0; s < kBoundsSpans; ++s) {
    HWY_DYNAMIC_DISPATCH(SpanBoundsKernel)(keys + s * 16 * padded, padded, exact);
    uint16_t* low = out + s * 2 * dim;
    uint16_t* high = low + dim;
    FromF32(DType::kF16, exact, dim, reinterpret_cast<std::byte*>(low));
    FromF32(DType::kF16, exact + padded, dim, reinterpret_cast<std::byte*>(high));
    ToF32(DType::kF16, reinterpret_cast<const std::byte*>(low), dim, stored);
    ToF32(DType::kF16, reinterpret_cast<const std::byte*>(high), dim, stored + padded);
    for (size_t i = 0; i < dim; ++i) {
      if (stored[i] > exact[i]) low[i] = NextDown(low[i]);
      if (stored[padded + i] < exact[padded + i]) high[i] = NextUp(high[i]);
    }
  }
}

void ScoreBounds(const float* queries, size_t heads, size_t dim, const uint16_t* bounds,
                 float scale, float* logits, size_t head_stride) {
  const size_t padded = PaddedRow(dim);
  alignas(64) float low_high[2 * PaddedRow(kSketchDimMax)];
  for (size_t s = 0; s < kBoundsSpans; ++s) {
    // RowsToF32 would make infinite bounds 0.
    const auto* span = reinterpret_cast<const std::byte*>(bounds + s * 2 * dim);
    ToF32(DType::kF16, span, dim, low_high);
    ToF32(DType::kF16, span + dim * 2, dim, low_high + padded);
    std::fill(low_high + dim, low_high + padded, 0.0f);
    std::fill(low_high + padded + dim, low_high + 2 * padded, 0.0f);
    HWY_DYNAMIC_DISPATCH(ScoreBoundsKernel)
    (queries, heads, padded, low_high, scale, logits + s, head_stride);
  }
}

}  // namespace kvtier::kernels
#endif  // HWY_ONCE
