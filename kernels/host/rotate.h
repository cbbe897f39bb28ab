// A fixed orthogonal rotation that spreads any vector evenly over its components:
// random signs, then a Hadamard transform of the next power of two, scaled by
// 1 / sqrt(D). Rotated components look Gaussian whatever the input, which is what makes
// one scale and four levels enough for a key.
//
// The signs are part of the stored format. Thread safety: pure functions.

#ifndef KVTIER_KERNELS_HOST_ROTATE_H_
#define KVTIER_KERNELS_HOST_ROTATE_H_

#include <cstddef>

namespace kvtier::kernels {

// D: the smallest power of two that is >= dim and >= 4.
size_t RotatedDim(size_t dim);

// +1 or -1, for component i before the transform.
float RotationSign(size_t i);

// out[D] = R in[dim].
void Rotate(const float* in, size_t dim, float* out);

// Rotates `columns` vectors at once, in place: m is [D][columns], vector by column.
// columns must be a multiple of 16. The signs must be applied already.
void HadamardColumns(float* m, size_t rotated_dim, size_t columns);

}  // namespace kvtier::kernels

#endif  // KVTIER_KERNELS_HOST_ROTATE_H_
