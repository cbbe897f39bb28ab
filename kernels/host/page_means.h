// The part of the attention that pages have which nobody reads: each token counts with
// its own weight and with its page's mean value.
//
// Thread safety: pure functions.

#ifndef KVTIER_KERNELS_HOST_PAGE_MEANS_H_
#define KVTIER_KERNELS_HOST_PAGE_MEANS_H_

#include <cstddef>
#include <cstdint>

namespace kvtier::kernels {

// sums[h] += w and output[h] += w * mean, w the sum of the page's 64 weights for head h.
//   weights: the page's, head h's at h * head_stride
//   mean:    f16 [dim], of the page's values
//   next:    of the page that comes next, or any: the memory is asked for it meanwhile
//   output:  [heads][dim];  sums: [heads]
void AddPageMean(const float* weights, size_t head_stride, size_t heads,
                 const uint16_t* mean, const uint16_t* next, size_t dim, float* output,
                 float* sums);

}  // namespace kvtier::kernels

#endif  // KVTIER_KERNELS_HOST_PAGE_MEANS_H_
