#include "kernels/host/page_means.h"

#include "kernels/base/types.h"
#include "kernels/host/convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/page_means.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvtier::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::CappedTag<float, kRowPad>;

float SumOfPage(const float* weights) {
  const DF d;
  auto sum = hn::LoadU(d, weights);
  for (size_t t = hn::Lanes(d); t < kChunkTokens; t += hn::Lanes(d)) {
    sum = hn::Add(sum, hn::LoadU(d, weights + t));
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

void AddPageMeanKernel(const float* weights, size_t head_stride, size_t heads,
                       const uint16_t* mean, size_t dim, float* output, float* sums) {
  const DF d;
  const hn::Rebind<uint16_t, DF> d16;
  const hn::Rebind<hwy::float16_t, DF> df16;
  const size_t lanes = hn::Lanes(d);
  const size_t whole = dim / lanes * lanes;
  for (size_t h = 0; h < heads; ++h) {
    const float weight = SumOfPage(weights + h * head_stride);
    sums[h] += weight;
    float* out = output + h * dim;
    const auto w = hn::Set(d, weight);
    for (size_t i = 0; i < whole; i += lanes) {
      const auto m = hn::PromoteTo(d, hn::BitCast(df16, hn::LoadU(d16, mean + i)));
      hn::StoreU(hn::MulAdd(w, m, hn::LoadU(d, out + i)), d, out + i);
    }
    for (size_t i = whole; i < dim; ++i) out[i] += weight * F32FromF16(mean[i]);
  }
}

}  // namespace kvtier::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvtier::kernels {

HWY_EXPORT(AddPageMeanKernel);

void AddPageMean(const float* weights, size_t head_stride, size_t heads,
                 const uint16_t* mean, const uint16_t* next, size_t dim, float* output,
                 float* sums) {
  for (size_t i = 0; i < dim; i += 32) __builtin_prefetch(next + i);
  HWY_DYNAMIC_DISPATCH(AddPageMeanKernel)
  (weights, head_stride, heads, mean, dim, output, sums);
}

}  // namespace kvtier::kernels
#endif  // HWY_ONCE
