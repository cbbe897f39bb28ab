#include "kernels/host/rotate.h"

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/host/convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/rotate.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvtier::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::CappedTag<float, kRowPad>;

void HadamardColumnsKernel(float* m, size_t rotated_dim, size_t columns) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  for (size_t half = 1; half < rotated_dim; half *= 2) {
    // The scale goes with the last stage.
    const bool last = half * 2 == rotated_dim;
    const auto scale =
        hn::Set(d, last ? 1.0f / std::sqrt(static_cast<float>(rotated_dim)) : 1.0f);
    for (size_t block = 0; block < rotated_dim; block += 2 * half) {
      for (size_t i = block; i < block + half; ++i) {
        float* a = m + i * columns;
        float* b = m + (i + half) * columns;
        for (size_t c = 0; c < columns; c += lanes) {
          const auto va = hn::LoadU(d, a + c);
          const auto vb = hn::LoadU(d, b + c);
          hn::StoreU(hn::Mul(scale, hn::Add(va, vb)), d, a + c);
          hn::StoreU(hn::Mul(scale, hn::Sub(va, vb)), d, b + c);
        }
      }
    }
  }
}

}  // namespace kvtier::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvtier::kernels {

HWY_EXPORT(HadamardColumnsKernel);

size_t RotatedDim(size_t dim) { return std::bit_ceil(dim < 4 ? size_t{4} : dim); }

float RotationSign(size_t i) {
  // splitmix64 of the index.
  uint64_t z = (i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return ((z ^ (z >> 31)) & 1u) != 0 ? -1.0f : 1.0f;
}

void Rotate(const float* in, size_t dim, float* out) {
  const size_t rotated_dim = RotatedDim(dim);
  for (size_t i = 0; i < dim; ++i) out[i] = in[i] * RotationSign(i);
  for (size_t i = dim; i < rotated_dim; ++i) out[i] = 0.0f;
  for (size_t half = 1; half < rotated_dim; half *= 2) {
    for (size_t block = 0; block < rotated_dim; block += 2 * half) {
      for (size_t i = block; i < block + half; ++i) {
        const float a = out[i];
        const float b = out[i + half];
        out[i] = a + b;
        out[i + half] = a - b;
      }
    }
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(rotated_dim));
  for (size_t i = 0; i < rotated_dim; ++i) out[i] *= scale;
}

void HadamardColumns(float* m, size_t rotated_dim, size_t columns) {
  HWY_DYNAMIC_DISPATCH(HadamardColumnsKernel)(m, rotated_dim, columns);
}

}  // namespace kvtier::kernels
#endif  // HWY_ONCE
