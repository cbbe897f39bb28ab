#include <algorithm>

#include "kernels/host/sketch.h"
#include "retrieval/score.h"

namespace kvtier::retrieval {
namespace {

class SketchScoreStage final : public ScoreStage {
 public:
  uint32_t unit_tokens() const override { return 1; }
  AbstractSet needs() const override { return {.sketch = true, .bounds = false}; }

  size_t AbstractBytesPerPage(const LayerView& view) const override {
    return view.spec->key_dim * 2 + kChunkTokens +
           2 * kernels::SketchPlaneBytes(view.spec->key_dim);
  }
  size_t RowBytesPerPage(const LayerView&) const override { return 0; }

  void Score(const HeadView& head, const float* queries, float* logits,
             size_t stride) const override {
    thread_local kernels::SketchQuery query;
    const LayerSpec& spec = *head.layer->spec;
    const AbstractLayout& layout = *head.layer->layout;
    kernels::PrepareSketchQuery(queries, head.group_size(), spec.key_dim, spec.Scale(),
                                &query);
    const auto parts = [&](uint32_t p) {
      const std::byte* abstract = head.page(head.first_page() + p).abstract;
      const auto* bytes = reinterpret_cast<const uint8_t*>(abstract);
      return kernels::SketchParts{.mean_f16 = reinterpret_cast<const uint16_t*>(
                                      abstract + layout.key_mean_offset),
                                  .scales = bytes + layout.scales_offset,
                                  .high = bytes + layout.high_plane_offset,
                                  .low = bytes + layout.low_plane_offset};
    };
    for (uint32_t p = 0; p < head.pages(); ++p) {
      const uint32_t next = std::min(p + kPagesAhead, head.pages() - 1);
      kernels::ScoreSketch(query, parts(p), parts(next), logits + p * kChunkTokens,
                           stride);
    }
  }
};

}  // namespace

std::unique_ptr<const ScoreStage> SketchScore() {
  return std::make_unique<SketchScoreStage>();
}

}  // namespace kvtier::retrieval
