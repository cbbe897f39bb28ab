// Kernels over a page's rows: exact scores, and gathering the rows of chosen tokens.
//
// Thread safety: pure functions.

#ifndef KVTIER_KERNELS_HOST_ROWS_H_
#define KVTIER_KERNELS_HOST_ROWS_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/base/dtype.h"

namespace kvtier::kernels {

// logits[h * head_stride + t] = scale * q_h.k_t, for `rows` rows.
//   rows_data: key first in each row, row_bytes apart
//   queries:   [heads][PaddedRow(dim)] finite, padded with zeros
// Key elements that are not finite count as 0; a logit that overflows is clamped to a
// large finite value.
void ScoreRows(DType dtype, const std::byte* rows_data, size_t row_bytes, size_t rows,
               size_t dim, const float* queries, size_t heads, float scale, float* logits,
               size_t head_stride);

// Copies the rows of `tokens`, in that order, to dst, one after another.
//   pages: of 64 rows each; token t is row t % 64 of pages[t / 64]
void GatherRows(absl::Span<const std::byte* const> pages, size_t row_bytes,
                absl::Span<const uint32_t> tokens, std::byte* dst);

}  // namespace kvtier::kernels

#endif  // KVTIER_KERNELS_HOST_ROWS_H_
