#include "kernels/host/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/softmax.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// After highway.h.
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvtier::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;

void SoftcapKernel(float softcap, float* x, size_t count) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  const auto cap = hn::Set(d, softcap);
  const auto inverse = hn::Set(d, 1.0f / softcap);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto v = hn::LoadU(d, x + i);
    hn::StoreU(hn::Mul(cap, hn::Tanh(d, hn::Mul(v, inverse))), d, x + i);
  }
  for (; i < count; ++i) x[i] = softcap * std::tanh(x[i] / softcap);
}

float MaxKernel(const float* x, size_t count) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  float result = -std::numeric_limits<float>::infinity();
  size_t i = 0;
  if (count >= lanes) {
    auto top = hn::LoadU(d, x);
    for (; i + lanes <= count; i += lanes) top = hn::Max(top, hn::LoadU(d, x + i));
    result = hn::GetLane(hn::MaxOfLanes(d, top));
  }
  for (; i < count; ++i) result = std::max(result, x[i]);
  return result;
}

// x becomes exp(x - max); returns the sum.
float ExpSumKernel(float* x, size_t count, float max) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  const auto top = hn::Set(d, max);
  // exp(-infinity) is not promised to be 0; this argument's is, in f32.
  const auto least = hn::Set(d, -150.0f);
  auto sum = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto e =
        hn::Exp(d, hn::Max(hn::Sub(hn::Min(hn::LoadU(d, x + i), top), top), least));
    hn::StoreU(e, d, x + i);
    sum = hn::Add(sum, e);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < count; ++i) {
    x[i] = std::exp(std::min(x[i], max) - max);
    total += x[i];
  }
  return total;
}

void AddScaledKernel(const float* x, size_t count, float factor, float* out) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  const auto f = hn::Set(d, factor);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(hn::MulAdd(f, hn::LoadU(d, x + i), hn::LoadU(d, out + i)), d, out + i);
  }
  for (; i < count; ++i) out[i] += factor * x[i];
}

}  // namespace kvtier::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvtier::kernels {

HWY_EXPORT(SoftcapKernel);
HWY_EXPORT(MaxKernel);
HWY_EXPORT(ExpSumKernel);
HWY_EXPORT(AddScaledKernel);

void Softcap(float softcap, float* logits, size_t count) {
  if (softcap > 0.0f) HWY_DYNAMIC_DISPATCH(SoftcapKernel)(softcap, logits, count);
}

float ExpShifted(float* logits, size_t count, float* weight_sum) {
  float shift = HWY_DYNAMIC_DISPATCH(MaxKernel)(logits, count);
  if (shift == -std::numeric_limits<float>::infinity()) {
    std::fill_n(logits, count, 0.0f);
    *weight_sum = 0.0f;
    return shift;
  }
  // Infinity less infinity is NaN: infinite logits count as the largest finite one.
  shift = std::min(shift, std::numeric_limits<float>::max());
  *weight_sum = HWY_DYNAMIC_DISPATCH(ExpSumKernel)(logits, count, shift);
  return shift;
}

float LogSumExp(float shift, float weight_sum) { return shift + std::log(weight_sum); }

float AddSoftmax(float* logits, size_t count, float factor, float* probabilities) {
  float sum = 0.0f;
  const float shift = ExpShifted(logits, count, &sum);
  if (sum > 0.0f) {
    HWY_DYNAMIC_DISPATCH(AddScaledKernel)(logits, count, factor / sum, probabilities);
  }
  return shift;
}

}  // namespace kvtier::kernels
#endif  // HWY_ONCE
