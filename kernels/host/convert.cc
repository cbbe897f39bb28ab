#include "kernels/host/convert.h"

#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/convert.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/host/f16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvtier::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::CappedTag<float, kRowPad>;
using DU16 = hn::Rebind<uint16_t, DF>;
using DU32 = hn::RebindToUnsigned<DF>;

// One vector's worth of elements to f32. Elements may be unaligned.
struct LoadF32Elements {
  static constexpr size_t kBytes = 4;
  hn::Vec<DF> operator()(DF d, const std::byte* p) const {
    const hn::Repartition<uint8_t, DF> d8;
    return hn::BitCast(d, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(p)));
  }
  static float One(const std::byte* p) {
    float value;
    std::memcpy(&value, p, sizeof(value));
    return value;
  }
};

inline hn::Vec<DU16> LoadU16(const std::byte* p) {
  const hn::Repartition<uint8_t, DU16> d8;
  return hn::BitCast(DU16(), hn::LoadU(d8, reinterpret_cast<const uint8_t*>(p)));
}

inline uint16_t One16(const std::byte* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return bits;
}

struct LoadF16Elements {
  static constexpr size_t kBytes = 2;
  hn::Vec<DF> operator()(DF d, const std::byte* p) const {
    return F32FromF16Bits(d, LoadU16(p));
  }
  static float One(const std::byte* p) { return F32FromF16(One16(p)); }
};

struct LoadBF16Elements {
  static constexpr size_t kBytes = 2;
  hn::Vec<DF> operator()(DF d, const std::byte* p) const {
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(DU32(), LoadU16(p))));
  }
  static float One(const std::byte* p) { return F32FromBF16(One16(p)); }
};

template <typename Function>
void VisitLoader(DType dtype, Function function) {
  switch (dtype) {
    case DType::kF32:
      return function(LoadF32Elements());
    case DType::kF16:
      return function(LoadF16Elements());
    case DType::kBF16:
      return function(LoadBF16Elements());
  }
}

void ToF32Kernel(DType dtype, const std::byte* src, size_t count, float* dst) {
  VisitLoader(dtype, [&](auto load) {
    const DF d;
    const size_t lanes = hn::Lanes(d);
    size_t i = 0;
    for (; i + lanes <= count; i += lanes) {
      hn::StoreU(load(d, src + i * load.kBytes), d, dst + i);
    }
    for (; i < count; ++i) dst[i] = load.One(src + i * load.kBytes);
  });
}

bool AllFiniteKernel(DType dtype, const std::byte* src, size_t count) {
  bool finite = true;
  VisitLoader(dtype, [&](auto load) {
    const DF d;
    const size_t lanes = hn::Lanes(d);
    // x - x is 0, or NaN where x is not finite; a NaN stays in the sum.
    auto sum = hn::Zero(d);
    size_t i = 0;
    for (; i + lanes <= count; i += lanes) {
      const auto v = load(d, src + i * load.kBytes);
      sum = hn::Add(sum, hn::Sub(v, v));
    }
    finite = hn::AllTrue(d, hn::Eq(sum, hn::Zero(d)));
    for (; i < count; ++i) finite &= std::isfinite(load.One(src + i * load.kBytes));
  });
  return finite;
}

void RowsToF32Kernel(DType dtype, const std::byte* src, size_t row_stride_bytes,
                     size_t rows, size_t elements, float* dst) {
  VisitLoader(dtype, [&](auto load) {
    const DF d;
    const size_t lanes = hn::Lanes(d);
    const size_t padded = PaddedRow(elements);
    // NaN < infinity is false, so one comparison rejects both.
    const auto infinity = hn::Set(d, INFINITY);
    for (size_t r = 0; r < rows; ++r, src += row_stride_bytes, dst += padded) {
      size_t i = 0;
      for (; i + lanes <= elements; i += lanes) {
        const auto v = load(d, src + i * load.kBytes);
        hn::StoreU(hn::IfThenElseZero(hn::Lt(hn::Abs(v), infinity), v), d, dst + i);
      }
      for (; i < elements; ++i) {
        const float v = load.One(src + i * load.kBytes);
        dst[i] = std::isfinite(v) ? v : 0.0f;
      }
      for (; i < padded; ++i) dst[i] = 0.0f;
    }
  });
}

void FromF32Kernel(DType dtype, const float* src, size_t count, std::byte* dst) {
  if (dtype == DType::kF32) {
    std::memcpy(dst, src, count * sizeof(float));
    return;
  }
  size_t i = 0;
#if !HWY_ARCH_X86 || HWY_TARGET <= HWY_AVX2
  // Without the processor's instruction for it, Highway truncates.
  if (dtype == DType::kF16) {
    const DF d;
    const hn::Rebind<hwy::float16_t, DF> d16;
    const hn::Repartition<uint8_t, DU16> d8;
    for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d)) {
      const auto bits = hn::BitCast(DU16(), hn::DemoteTo(d16, hn::LoadU(d, src + i)));
      hn::StoreU(hn::BitCast(d8, bits), d8, reinterpret_cast<uint8_t*>(dst + i * 2));
    }
  }
#endif
  for (; i < count; ++i) {
    const uint16_t bits = dtype == DType::kF16 ? F16FromF32(src[i]) : BF16FromF32(src[i]);
    std::memcpy(dst + i * 2, &bits, sizeof(bits));
  }
}

}  // namespace kvtier::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvtier::kernels {

HWY_EXPORT(ToF32Kernel);
HWY_EXPORT(FromF32Kernel);
HWY_EXPORT(RowsToF32Kernel);
HWY_EXPORT(AllFiniteKernel);

void ToF32(DType dtype, const std::byte* src, size_t count, float* dst) {
  HWY_DYNAMIC_DISPATCH(ToF32Kernel)(dtype, src, count, dst);
}

void FromF32(DType dtype, const float* src, size_t count, std::byte* dst) {
  HWY_DYNAMIC_DISPATCH(FromF32Kernel)(dtype, src, count, dst);
}

void RowsToF32(DType dtype, const std::byte* src, size_t row_stride_bytes, size_t rows,
               size_t elements, float* dst) {
  HWY_DYNAMIC_DISPATCH(RowsToF32Kernel)
  (dtype, src, row_stride_bytes, rows, elements, dst);
}

bool AllFinite(DType dtype, const std::byte* src, size_t count) {
  return HWY_DYNAMIC_DISPATCH(AllFiniteKernel)(dtype, src, count);
}

}  // namespace kvtier::kernels
#endif  // HWY_ONCE
