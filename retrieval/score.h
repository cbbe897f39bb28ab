// Stage 4: how much would a query attend to a unit?
//
// A score is a logit on the scale of the model's attention: q.k times the softmax scale,
// estimated, bounded or exact. Softcap and softmax come after, and are the same for all.
// A choice scores units of one length and says which.
//
// Thread safety: const; working memory is the calling thread's.

#ifndef KVTIER_RETRIEVAL_SCORE_H_
#define KVTIER_RETRIEVAL_SCORE_H_

#include <cstddef>
#include <memory>

#include "retrieval/head_view.h"
#include "retrieval/model_spec.h"

namespace kvtier::retrieval {

class ScoreStage {
 public:
  virtual ~ScoreStage() = default;

  virtual uint32_t unit_tokens() const = 0;
  // The abstracts that it reads.
  virtual AbstractSet needs() const = 0;

  // Whether it reads rows, not only abstracts.
  virtual bool reads_rows() const { return false; }

  // What scoring one page reads.
  virtual size_t AbstractBytesPerPage(const LayerView& view) const = 0;
  virtual size_t RowBytesPerPage(const LayerView& view) const = 0;

  // Scores all units of the head's pages.
  //   queries: [group][key_dim], finite
  //   logits:  [group][stride], stride >= pages * 64 / unit_tokens; no NaN
  virtual void Score(const HeadView& head, const float* queries, float* logits,
                     size_t stride) const = 0;
};

// Tokens by the 2-bit key sketch.
std::unique_ptr<const ScoreStage> SketchScore();
// Spans of 16 by the upper bound that their keys' minimum and maximum give.
std::unique_ptr<const ScoreStage> BoundScore();
// Tokens by their keys: reads every row.
std::unique_ptr<const ScoreStage> ExactScore();

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_SCORE_H_
