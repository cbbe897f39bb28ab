// Every f16 as f32, on every instruction set. Below AVX2 there is no instruction for it,
// and Highway's way takes infinities and NaN for numbers from 65,536 on.
//
// Included by a kernel's file, after hwy/highway.h, once an instruction set.

#if defined(KVTIER_KERNELS_HOST_F16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifndef KVTIER_KERNELS_HOST_F16_INL_H_
#define KVTIER_KERNELS_HOST_F16_INL_H_
#else
#undef KVTIER_KERNELS_HOST_F16_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvtier::kernels::HWY_NAMESPACE {

// bits: f16, as many as D has lanes
template <class D, class V>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> F32FromF16Bits(D d, V bits) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<hwy::float16_t, D> df16;
  const auto value = hn::PromoteTo(d, hn::BitCast(df16, bits));
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX2
  const hn::RebindToUnsigned<D> du;
  const auto exponent = hn::BitCast(d, hn::Set(du, 0x7F800000u));
  const auto special = hn::Ge(hn::Abs(value), hn::Set(d, 65536.0f));
  return hn::Or(value, hn::IfThenElseZero(special, exponent));
#else
  return value;
#endif
}

}  // namespace kvtier::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
