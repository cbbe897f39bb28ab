#include "kernels/host/bounds.h"

#include <algorithm>
#include <limits>

#include "kernels/host/convert.h"

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

// Bounds as they are stored, from the i-th on, `count` of them (the rest 0). 0 times
// infinity is NaN: infinite bounds are taken as the largest finite value.
template <class D, class Clamp>
HWY_INLINE hn::Vec<D> LoadBounds(D d, const uint16_t* bounds, size_t count, Clamp clamp) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<hwy::float16_t, D> df16;
  if (count >= hn::Lanes(d)) {
    return clamp(hn::PromoteTo(d, hn::BitCast(df16, hn::LoadU(d16, bounds))));
  }
  alignas(64) uint16_t part[kRowPad] = {};
  std::copy_n(bounds, count, part);
  return clamp(hn::PromoteTo(d, hn::BitCast(df16, hn::Load(d16, part))));
}

// U of two spans that follow one another, for kHeads query heads (1 or 4): the bounds are
// widened once for all of them.
//   positive, negative: [kHeads][padded];  bounds: [2][low, high][dim]
template <size_t kHeads>
void ScoreTwoSpans(const float* positive, const float* negative, size_t dim,
                   size_t padded, const uint16_t* bounds, const uint16_t* next,
                   float scale, float* logits, size_t head_stride) {
  const DF d;
  const auto largest = hn::Set(d, std::numeric_limits<float>::max());
  const auto least = hn::Neg(largest);
  const auto not_less = [&](auto v) { return hn::Max(v, least); };
  const auto not_more = [&](auto v) { return hn::Min(v, largest); };
  auto a0 = hn::Zero(d), a1 = hn::Zero(d), b0 = hn::Zero(d), b1 = hn::Zero(d);
  auto c0 = hn::Zero(d), c1 = hn::Zero(d), e0 = hn::Zero(d), e1 = hn::Zero(d);
  for (size_t i = 0; i < dim; i += hn::Lanes(d)) {
    for (size_t row = 0; row < 4; ++row) __builtin_prefetch(next + row * dim + i);
    const auto low0 = LoadBounds(d, bounds + i, dim - i, not_less);
    const auto high0 = LoadBounds(d, bounds + dim + i, dim - i, not_more);
    const auto low1 = LoadBounds(d, bounds + 2 * dim + i, dim - i, not_less);
    const auto high1 = LoadBounds(d, bounds + 3 * dim + i, dim - i, not_more);
    const auto add = [&](size_t h, auto& first, auto& second) {
      const auto p = hn::LoadU(d, positive + h * padded + i);
      const auto n = hn::LoadU(d, negative + h * padded + i);
      first = hn::MulAdd(n, low0, hn::MulAdd(p, high0, first));
      second = hn::MulAdd(n, low1, hn::MulAdd(p, high1, second));
    };
    add(0, a0, a1);
    if constexpr (kHeads == 4) {
      add(1, b0, b1);
      add(2, c0, c1);
      add(3, e0, e1);
    }
  }
  const auto store = [&](size_t h, auto first, auto second) {
    logits[h * head_stride] = scale * hn::GetLane(hn::SumOfLanes(d, first));
    logits[h * head_stride + 1] = scale * hn::GetLane(hn::SumOfLanes(d, second));
  };
  store(0, a0, a1);
  if constexpr (kHeads == 4) {
    store(1, b0, b1);
    store(2, c0, c1);
    store(3, e0, e1);
  }
}

void ScoreBoundsKernel(const BoundsQuery& query, const uint16_t* bounds,
                       const uint16_t* next, float scale, float* logits,
                       size_t head_stride) {
  const size_t dim = query.dim;
  const size_t padded = PaddedRow(dim);
  for (size_t s = 0; s < kBoundsSpans; s += 2) {
    size_t h = 0;
    const auto score = [&](auto kernel) {
      kernel(query.positive.data() + h * padded, query.negative.data() + h * padded, dim,
             padded, bounds + s * 2 * dim, (h == 0 ? next : bounds) + s * 2 * dim, scale,
             logits + h * head_stride + s, head_stride);
    };
    for (; h + 4 <= query.heads; h += 4) score(ScoreTwoSpans<4>);
    for (; h < query.heads; ++h) score(ScoreTwoSpans<1>);
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

void PrepareBoundsQuery(const float* queries, size_t heads, size_t dim,
                        BoundsQuery* out) {
  const size_t padded = PaddedRow(dim);
  out->heads = heads;
  out->dim = dim;
  out->positive.assign(heads * padded, 0.0f);
  out->negative.assign(heads * padded, 0.0f);
  for (size_t h = 0; h < heads; ++h) {
    for (size_t i = 0; i < dim; ++i) {
      const float q = queries[h * dim + i];
      out->positive[h * padded + i] = std::max(q, 0.0f);
      out->negative[h * padded + i] = std::min(q, 0.0f);
    }
  }
}

void ScoreBounds(const BoundsQuery& query, const uint16_t* bounds, const uint16_t* next,
                 float scale, float* logits, size_t head_stride) {
  HWY_DYNAMIC_DISPATCH(ScoreBoundsKernel)
  (query, bounds, next, scale, logits, head_stride);
}

}  // namespace kvtier::kernels
#endif  // HWY_ONCE
