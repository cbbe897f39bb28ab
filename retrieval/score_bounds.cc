#include <algorithm>

#include "kernels/host/bounds.h"
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
    thread_local kernels::BoundsQuery query;
    const LayerSpec& spec = *head.layer->spec;
    kernels::PrepareBoundsQuery(queries, head.group_size(), spec.key_dim, spec.Scale(),
                                &query);
    const auto bounds = [&](uint32_t p) {
      return reinterpret_cast<const uint16_t*>(head.page(head.first_page() + p).abstract +
                                               head.layer->layout->bounds_offset);
    };
    for (uint32_t p = 0; p < head.pages(); ++p) {
      const uint32_t next = std::min(p + kPagesAhead, head.pages() - 1);
      kernels::ScoreBounds(query, bounds(p), bounds(next),
                           logits + p * kernels::kBoundsSpans, stride);
    }
  }
};

}  // namespace

std::unique_ptr<const ScoreStage> BoundScore() {
  return std::make_unique<BoundScoreStage>();
}

}  // namespace kvtier::retrieval
