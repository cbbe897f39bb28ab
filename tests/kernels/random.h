// Seeded random numbers for tests of kernels.

#ifndef KVTIER_TESTS_KERNELS_RANDOM_H_
#define KVTIER_TESTS_KERNELS_RANDOM_H_

#include <algorithm>
#include <random>
#include <vector>

#include "kernels/base/dtype.h"
#include "kernels/host/convert.h"

namespace kvtier::kernels {

inline std::vector<float> Gaussian(size_t count, uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

// Rows of `dim`, each padded with zeros.
inline std::vector<float> Padded(const std::vector<float>& rows, size_t dim) {
  const size_t count = rows.size() / dim;
  std::vector<float> padded(count * PaddedRow(dim));
  for (size_t r = 0; r < count; ++r) {
    std::copy_n(rows.data() + r * dim, dim, padded.data() + r * PaddedRow(dim));
  }
  return padded;
}

inline std::vector<std::byte> Encoded(DType dtype, const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * ElementBytes(dtype));
  FromF32(dtype, values.data(), values.size(), bytes.data());
  return bytes;
}

inline std::vector<float> Decoded(DType dtype, const std::vector<std::byte>& bytes) {
  std::vector<float> values(bytes.size() / ElementBytes(dtype));
  ToF32(dtype, bytes.data(), values.size(), values.data());
  return values;
}

inline double Dot(const float* a, const float* b, size_t dim) {
  double sum = 0.0;
  for (size_t i = 0; i < dim; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

}  // namespace kvtier::kernels

#endif  // KVTIER_TESTS_KERNELS_RANDOM_H_
