#include <algorithm>
#include <vector>

#include "kernels/host/page_means.h"
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

  void Estimate(const HeadView& head, absl::Span<const uint32_t> selected, float* weights,
                size_t stride, const float* shift, float* output,
                float* lse) const override {
    const uint32_t group = head.group_size();
    const uint32_t value_dim = head.layer->spec->value_dim;
    const uint32_t base = head.first_token();
    const size_t tokens = size_t{head.pages()} * kChunkTokens;
    for (uint32_t h = 0; h < group; ++h) {
      float* w = weights + h * stride;
      std::fill(w, w + (head.begin - base), 0.0f);
      std::fill(w + (head.end - base), w + tokens, 0.0f);
      for (const uint32_t token : selected) w[token - base] = 0.0f;
    }
    const auto mean = [&](uint32_t p) {
      return reinterpret_cast<const uint16_t*>(head.page(head.first_page() + p).abstract +
                                               head.layer->layout->value_mean_offset);
    };
    thread_local std::vector<float> sums;
    sums.assign(group, 0.0f);
    std::fill_n(output, size_t{group} * value_dim, 0.0f);
    for (uint32_t p = 0; p < head.pages(); ++p) {
      kernels::AddPageMean(weights + size_t{p} * kChunkTokens, stride, group, mean(p),
                           mean(std::min(p + 1, head.pages() - 1)), value_dim, output,
                           sums.data());
    }
    for (uint32_t h = 0; h < group; ++h) {
      lse[h] = kernels::LogSumExp(shift[h], sums[h]);
      const float inverse = sums[h] > 0.0f ? 1.0f / sums[h] : 0.0f;
      for (uint32_t i = 0; i < value_dim; ++i) output[h * value_dim + i] *= inverse;
    }
  }
};

}  // namespace

std::unique_ptr<const RestStage> PageMeans() { return std::make_unique<PageMeansRest>(); }

}  // namespace kvtier::retrieval
