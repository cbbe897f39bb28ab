// Attention over a part of the tokens, and the merge of parts. A part is its output and
// its log-sum-exp; parts merge in any order to what attention over all would give.
//
// Thread safety: pure functions.

#ifndef KVTIER_KERNELS_HOST_ATTENTION_H_
#define KVTIER_KERNELS_HOST_ATTENTION_H_

#include <cstddef>

#include "kernels/base/dtype.h"

namespace kvtier::kernels {

struct AttentionShape {
  size_t key_dim = 0;
  size_t value_dim = 0;
  float scale = 1.0f;
  float softcap = 0.0f;  // 0: none
};

// One query head over `rows` rows of [K, V].
//   output: [value_dim], zeros if there are no rows
// Returns the natural log-sum-exp of the logits, -infinity without rows.
float PartialAttention(const AttentionShape& shape, DType dtype,
                       const std::byte* rows_data, size_t rows, const float* query,
                       float* output);

// Adds part (other_output, other_lse) to (output, lse). Either may be empty (-infinity).
void MergePartial(const float* other_output, float other_lse, size_t value_dim,
                  float* output, float* lse);

}  // namespace kvtier::kernels

#endif  // KVTIER_KERNELS_HOST_ATTENTION_H_
