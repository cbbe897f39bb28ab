// Queries with zeros behind each, as the row kernels take them.
//
// Thread safety: a pure function.

#ifndef KVTIER_RETRIEVAL_PADDED_QUERIES_H_
#define KVTIER_RETRIEVAL_PADDED_QUERIES_H_

#include <algorithm>
#include <cstddef>
#include <vector>

#include "kernels/host/convert.h"

namespace kvtier::retrieval {

// out: [count][PaddedRow(dim)], reusing its memory.
inline void PadQueries(const float* queries, size_t count, size_t dim,
                       std::vector<float>* out) {
  const size_t padded = kernels::PaddedRow(dim);
  out->assign(count * padded, 0.0f);
  for (size_t i = 0; i < count; ++i) {
    std::copy_n(queries + i * dim, dim, out->data() + i * padded);
  }
}

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_PADDED_QUERIES_H_
