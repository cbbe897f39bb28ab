// Elements of keys and values to f32 and back.
//
// Thread safety: pure functions. Run-time dispatch chooses the instruction set.

#ifndef KVTIER_KERNELS_HOST_CONVERT_H_
#define KVTIER_KERNELS_HOST_CONVERT_H_

#include <cstddef>
#include <cstdint>

#include "kernels/base/dtype.h"

namespace kvtier::kernels {

// Rows of f32 inside the kernels are padded with zeros to a multiple of this, so that
// inner loops have no tails.
inline constexpr size_t kRowPad = 16;

constexpr size_t PaddedRow(size_t elements) {
  return (elements + kRowPad - 1) / kRowPad * kRowPad;
}

// dst[i] = src[i]; `src` need not be aligned. NaN and infinity stay what they are.
void ToF32(DType dtype, const std::byte* src, size_t count, float* dst);

// The nearest value, ties to even; what is too large becomes infinite.
void FromF32(DType dtype, const float* src, size_t count, std::byte* dst);

// `rows` rows of `elements`, `row_stride_bytes` apart, into rows of PaddedRow(elements)
// floats. Elements that are not finite become 0, and so does the padding.
void RowsToF32(DType dtype, const std::byte* src, size_t row_stride_bytes, size_t rows,
               size_t elements, float* dst);

// Whether none of the elements is NaN or infinite.
bool AllFinite(DType dtype, const std::byte* src, size_t count);

// One element. The reference of the above.
float F32FromF16(uint16_t bits);
uint16_t F16FromF32(float value);
float F32FromBF16(uint16_t bits);
uint16_t BF16FromF32(float value);

}  // namespace kvtier::kernels

#endif  // KVTIER_KERNELS_HOST_CONVERT_H_
