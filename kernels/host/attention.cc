#include "kernels/host/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/host/convert.h"
#include "kernels/host/rows.h"
#include "kernels/host/softmax.h"

namespace kvtier::kernels {

float PartialAttention(const AttentionShape& shape, DType dtype,
                       const std::byte* rows_data, size_t rows, const float* query,
                       float* output) {
  std::fill_n(output, shape.value_dim, 0.0f);
  const size_t row_bytes = (shape.key_dim + shape.value_dim) * ElementBytes(dtype);
  std::vector<float> padded_query(PaddedRow(shape.key_dim));
  std::copy_n(query, shape.key_dim, padded_query.begin());
  std::vector<float> weights(rows);
  ScoreRows(dtype, rows_data, row_bytes, rows, shape.key_dim, padded_query.data(), 1,
            shape.scale, weights.data(), rows);
  Softcap(shape.softcap, weights.data(), rows);
  float sum = 0.0f;
  const float shift = ExpShifted(weights.data(), rows, &sum);
  std::vector<float> value(PaddedRow(shape.value_dim));
  for (size_t t = 0; t < rows; ++t) {
    ToF32(dtype, rows_data + t * row_bytes + shape.key_dim * ElementBytes(dtype),
          shape.value_dim, value.data());
    const float weight = weights[t] / sum;
    for (size_t i = 0; i < shape.value_dim; ++i) output[i] += weight * value[i];
  }
  return LogSumExp(shift, sum);
}

void MergePartial(const float* other_output, float other_lse, size_t value_dim,
                  float* output, float* lse) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const float max = std::max(other_lse, *lse);
  if (max == kNothing) return;
  const float mine = std::exp(*lse - max);
  const float other = std::exp(other_lse - max);
  const float total = mine + other;
  for (size_t i = 0; i < value_dim; ++i) {
    output[i] = (mine * output[i] + other * other_output[i]) / total;
  }
  *lse = max + std::log(total);
}

}  // namespace kvtier::kernels
