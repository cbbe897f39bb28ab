#include <algorithm>
#include <vector>

#include "kernels/host/convert.h"
#include "kernels/host/rows.h"
#include "retrieval/score.h"

namespace kvtier::retrieval {
namespace {

class ExactScoreStage final : public ScoreStage {
 public:
  uint32_t unit_tokens() const override { return 1; }
  AbstractSet needs() const override { return {.sketch = false, .bounds = false}; }

  bool reads_rows() const override { return true; }
  size_t AbstractBytesPerPage(const LayerView&) const override { return 0; }
  size_t RowBytesPerPage(const LayerView& view) const override {
    return view.spec->key_dim * ElementBytes(view.dtype) * kChunkTokens;
  }

  void Score(const HeadView& head, const float* queries, float* logits,
             size_t stride) const override {
    thread_local std::vector<float> padded;
    const LayerSpec& spec = *head.layer->spec;
    const size_t padded_dim = kernels::PaddedRow(spec.key_dim);
    padded.assign(head.group_size() * padded_dim, 0.0f);
    for (uint32_t h = 0; h < head.group_size(); ++h) {
      std::copy_n(queries + h * spec.key_dim, spec.key_dim,
                  padded.data() + h * padded_dim);
    }
    for (uint32_t p = 0; p < head.pages(); ++p) {
      kernels::ScoreRows(head.layer->dtype, head.page(head.first_page() + p).rows,
                         spec.RowBytes(head.layer->dtype), kChunkTokens, spec.key_dim,
                         padded.data(), head.group_size(), spec.Scale(),
                         logits + p * kChunkTokens, stride);
    }
  }
};

}  // namespace

std::unique_ptr<const ScoreStage> ExactScore() {
  return std::make_unique<ExactScoreStage>();
}

}  // namespace kvtier::retrieval
