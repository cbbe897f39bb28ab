#include "retrieval/rest.h"

namespace kvtier::retrieval {
namespace {

class DroppedRest final : public RestStage {
 public:
  bool estimates() const override { return false; }
  AbstractSet needs() const override { return {.sketch = false, .bounds = false}; }
  size_t AbstractBytesPerPage(const LayerView&) const override { return 0; }
  void Estimate(const HeadView&, absl::Span<const uint32_t>, float*, size_t, const float*,
                float*, float*) const override {}
};

}  // namespace

std::unique_ptr<const RestStage> Dropped() { return std::make_unique<DroppedRest>(); }

}  // namespace kvtier::retrieval
