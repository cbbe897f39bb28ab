#include "kernels/host/bounds.h"
#include "retrieval/padded_queries.h"
#include "retrieval/score.h"

namespace kvtier::retrieval {
namespace {

class BoundScoreStage final : public ScoreStage {
 public:
  uint32_t unit_tokens() const override { return kSpanTokens; }
  AbstractSet needs() const override { return {.sketch = false, .bounds = true}; }

  size_t AbstractBytesPerPage(const LayerView& view) const override {
    return kernels::kBoundsSpans * 2 * view.spec->key_dim * 2;
  }
  size_t RowBytesPerPage(const LayerView&) const override { return 0; }

  void Score(const HeadView& head, const float* queries, float* logits,
             size_t stride) const override {
    thread_local std::vector<float> padded;
    const LayerSpec& spec = *head.layer->spec;
    PadQueries(queries, head.group_size(), spec.key_dim, &padded);
    for (uint32_t p = 0; p < head.pages(); ++p) {
      const std::byte* abstract = head.page(head.first_page() + p).abstract;
      kernels::ScoreBounds(
          padded.data(), head.group_size(), spec.key_dim,
          reinterpret_cast<const uint16_t*>(abstract + head.layer->layout->bounds_offset),
          spec.Scale(), logits + p * kernels::kBoundsSpans, stride);
    }
  }
};

}  // namespace

std::unique_ptr<const ScoreStage> BoundScore() {
  return std::make_unique<BoundScoreStage>();
}

}  // namespace kvtier::retrieval
