#include "kernels/host/bounds.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "kernels/host/convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/bounds.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/host/f16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvtier::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::CappedTag<float, kRowPad>;
using DFour = hn::FixedTag<float, 4>;

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

// Bounds as they are stored, from the i-th on, `count` of them (the rest 0).
HWY_INLINE hn::Vec<DF> LoadBounds(DF d, const uint16_t* bounds, size_t count) {
  const hn::Rebind<uint16_t, DF> d16;
  if (count >= hn::Lanes(d)) {
    return F32FromF16Bits(d, hn::LoadU(d16, bounds));
  }
  alignas(64) uint16_t part[kRowPad] = {};
  std::copy_n(bounds, count, part);
  return F32FromF16Bits(d, hn::Load(d16, part));
}

// A vector of blocks of 4 floats: the sum of its blocks.
template <class D>
HWY_INLINE hn::Vec<DFour> SumOfBlocks(D, hn::Vec<D> v) {
  if constexpr (std::is_same_v<D, DFour>) {
    return v;
  } else {
    const hn::Half<D> half;
    return SumOfBlocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

// {sum of a, sum of b, sum of c, sum of e}: fewer steps than one by one.
HWY_INLINE hn::Vec<DFour> FourSums(hn::Vec<DF> a, hn::Vec<DF> b, hn::Vec<DF> c,
                                   hn::Vec<DF> e) {
  const DF d;
  const hn::Repartition<uint64_t, DF> d64;
  const auto ab = hn::BitCast(
      d64, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  const auto ce = hn::BitCast(
      d64, hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e)));
  return SumOfBlocks(d, hn::Add(hn::BitCast(d, hn::InterleaveLower(d64, ab, ce)),
                                hn::BitCast(d, hn::InterleaveUpper(d64, ab, ce))));
}

// Adds kSpans spans' shares of U, from span `first` on, for kHeads query heads. What
// there is one of per span and head is in registers only if its loops are written out.
//   queries: [kHeads][padded];  bounds: [4][low, high][dim];  sums: [4][kHeads]
template <size_t kHeads, size_t kSpans>
HWY_INLINE void ScoreSpans(const float* queries, size_t dim, size_t padded,
                           const uint16_t* bounds, const uint16_t* next, size_t first,
                           hn::Vec<DF> (*sums)[kHeads]) {
  const DF d;
  const auto largest = hn::Set(d, std::numeric_limits<float>::max());
  const auto least = hn::Neg(largest);
  hn::Vec<DF> sum[kSpans][kHeads];
  HWY_UNROLL(4)
  for (size_t s = 0; s < kSpans; ++s) {
    HWY_UNROLL(4)
    for (size_t h = 0; h < kHeads; ++h) sum[s][h] = hn::Zero(d);
  }
  for (size_t i = 0; i < dim; i += hn::Lanes(d)) {
    hn::Vec<DF> low[kSpans], high[kSpans];
    HWY_UNROLL(4)
    for (size_t s = 0; s < kSpans; ++s) {
      const size_t at = (first + s) * 2 * dim + i;
      // Into the second cache: a core waits for more of those lines at once.
      __builtin_prefetch(next + at, 0, 2);
      __builtin_prefetch(next + at + dim, 0, 2);
      // 0 times infinity is NaN: infinite bounds are taken as the largest finite value.
      low[s] = hn::Max(LoadBounds(d, bounds + at, dim - i), least);
      high[s] = hn::Min(LoadBounds(d, bounds + at + dim, dim - i), largest);
    }
    HWY_UNROLL(4)
    for (size_t h = 0; h < kHeads; ++h) {
      const auto q = hn::LoadU(d, queries + h * padded + i);
      const auto negative = hn::Lt(q, hn::Zero(d));
      HWY_UNROLL(4)
      for (size_t s = 0; s < kSpans; ++s) {
        const auto bound = hn::IfThenElse(negative, low[s], high[s]);
        sum[s][h] = hn::MulAdd(q, bound, sum[s][h]);
      }
    }
  }
  HWY_UNROLL(4)
  for (size_t s = 0; s < kSpans; ++s) {
    HWY_UNROLL(4)
    for (size_t h = 0; h < kHeads; ++h) sums[first + s][h] = sum[s][h];
  }
}

// U of a page's four spans, for kHeads query heads: bounds are widened once for all.
template <size_t kHeads>
void ScoreHeads(const float* queries, size_t dim, const uint16_t* bounds,
                const uint16_t* next, float* logits, size_t head_stride) {
  const size_t padded = PaddedRow(dim);
  hn::Vec<DF> sums[kBoundsSpans][kHeads];
  if constexpr (HWY_MAX_BYTES >= 64) {
    ScoreSpans<kHeads, 4>(queries, dim, padded, bounds, next, 0, sums);
  } else {  // fewer registers
    for (size_t s = 0; s < kBoundsSpans; ++s) {
      ScoreSpans<kHeads, 1>(queries, dim, padded, bounds, next, s, sums);
    }
  }
  HWY_UNROLL(4)
  for (size_t h = 0; h < kHeads; ++h) {
    hn::StoreU(FourSums(sums[0][h], sums[1][h], sums[2][h], sums[3][h]), DFour(),
               logits + h * head_stride);
  }
}

void ScoreBoundsKernel(const BoundsQuery& query, const uint16_t* bounds,
                       const uint16_t* next, float* logits, size_t head_stride) {
  for (size_t h = 0; h < query.heads; h += 4) {
    const auto score = [&](auto kernel) {
      // What follows is asked for once.
      kernel(query.queries.data() + h * PaddedRow(query.dim), query.dim, bounds,
             h == 0 ? next : bounds, logits + h * head_stride, head_stride);
    };
    const size_t together = std::min<size_t>(4, query.heads - h);
    if (together == 4) score(ScoreHeads<4>);
    if (together == 3) score(ScoreHeads<3>);
    if (together == 2) score(ScoreHeads<2>);
    if (together == 1) score(ScoreHeads<1>);
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

void PrepareBoundsQuery(const float* queries, size_t heads, size_t dim, float scale,
                        BoundsQuery* out) {
  const size_t padded = PaddedRow(dim);
  out->heads = heads;
  out->dim = dim;
  out->queries.assign(heads * padded, 0.0f);
  for (size_t h = 0; h < heads; ++h) {
    for (size_t i = 0; i < dim; ++i) {
      out->queries[h * padded + i] = scale * queries[h * dim + i];
    }
  }
}

void ScoreBounds(const BoundsQuery& query, const uint16_t* bounds, const uint16_t* next,
                 float* logits, size_t head_stride) {
  HWY_DYNAMIC_DISPATCH(ScoreBoundsKernel)(query, bounds, next, logits, head_stride);
}

}  // namespace kvtier::kernels
#endif  // HWY_ONCE
