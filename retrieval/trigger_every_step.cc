#include "retrieval/trigger.h"

namespace kvtier::retrieval {
namespace {

class EveryStepTrigger final : public Trigger {
 public:
  bool Fires(const LayerView&, const Query&, LayerState*) const override { return true; }
};

}  // namespace

std::unique_ptr<const Trigger> EveryStep() {
  return std::make_unique<EveryStepTrigger>();
}

}  // namespace kvtier::retrieval
