#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/host/convert.h"
#include "kernels/host/softmax.h"
#include "retrieval/rest.h"

namespace kvtier::retrieval {
namespace {

class PageMeansRest final : public RestStage {
 public:
  bool estimates() const override { return true; }
  AbstractSet needs() const override { return {.sketch = true, .bounds = false}; }
  size_t AbstractBytesPerPage(const LayerView& view) const override {
    return view.spec->value_dim * 2;
  }

  void Estimate(const HeadView& head, absl::Span<const uint32_t> selected, float* logits,
                size_t stride, float* output, float* lse) const override {
    constexpr float kNothing = -std::numeric_limits<float>::infinity();
    const uint32_t group = head.group_size();
    const uint32_t value_dim = head.layer->spec->value_dim;
    const uint32_t base = head.first_token();
    const size_t tokens = size_t{head.pages()} * kChunkTokens;
    thread_local std::vector<float> inverse;
    thread_local std::vector<float> mean;
    inverse.assign(group, 0.0f);
    mean.resize(kernels::PaddedRow(value_dim));
    std::fill_n(output, size_t{group} * value_dim, 0.0f);
    for (uint32_t h = 0; h < group; ++h) {
      float* l = logits + h * stride;
      std::fill(l, l + (head.begin - base), kNothing);
      std::fill(l + (head.end - base), l + tokens, kNothing);
      for (const uint32_t token : selected) l[token - base] = kNothing;
      float sum = 0.0f;
      lse[h] = kernels::ExpShifted(l, tokens, l, &sum);
      inverse[h] = sum > 0.0f ? 1.0f / sum : 0.0f;
    }
    for (uint32_t p = 0; p < head.pages(); ++p) {
      const std::byte* abstract = head.page(head.first_page() + p).abstract;
      kernels::ToF32(DType::kF16, abstract + head.layer->layout->value_mean_offset,
                     value_dim, mean.data());
      for (uint32_t h = 0; h < group; ++h) {
        const float* w = logits + h * stride + p * kChunkTokens;
        const float weight = std::accumulate(w, w + kChunkTokens, 0.0f) * inverse[h];
        float* out = output + size_t{h} * value_dim;
        for (uint32_t i = 0; i < value_dim; ++i) out[i] += weight * mean[i];
      }
    }
  }
};

}  // namespace

std::unique_ptr<const RestStage> PageMeans() { return std::make_unique<PageMeansRest>(); }

}  // namespace kvtier::retrieval
