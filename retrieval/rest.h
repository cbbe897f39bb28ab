// Stage 6: what of the tokens that are not selected?
//
// Either they are dropped, or their part of the attention is estimated from abstracts,
// per query and query head, as an output and a log-sum-exp that the worker merges with
// its own attention over what it reads.
//
// Thread safety: const; working memory is the calling thread's.

#ifndef KVTIER_RETRIEVAL_REST_H_
#define KVTIER_RETRIEVAL_REST_H_

#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "retrieval/head_view.h"
#include "retrieval/model_spec.h"

namespace kvtier::retrieval {

class RestStage {
 public:
  virtual ~RestStage() = default;

  virtual bool estimates() const = 0;
  virtual AbstractSet needs() const = 0;
  virtual size_t AbstractBytesPerPage(const LayerView& view) const = 0;

  // One query's estimate for a kv head's group. Not called if estimates() is false.
  //   selected: ascending
  //   weights:  [group][stride] per token, exp(logit - shift[its head]); overwritten
  //   shift:    [group]
  //   output:   [group][value_dim];  lse: [group], -infinity (and output zero) where
  //             nothing is left
  virtual void Estimate(const HeadView& head, absl::Span<const uint32_t> selected,
                        float* weights, size_t stride, const float* shift, float* output,
                        float* lse) const = 0;
};

std::unique_ptr<const RestStage> Dropped();
// Every unselected token counts with its own estimated logit and with its page's mean
// value. Needs scores per token.
std::unique_ptr<const RestStage> PageMeans();

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_REST_H_
