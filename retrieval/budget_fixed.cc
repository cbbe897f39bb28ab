#include <algorithm>

#include "kernels/host/select.h"
#include "retrieval/budget.h"

namespace kvtier::retrieval {
namespace {

class FixedBudgetStage final : public BudgetStage {
 public:
  std::vector<uint32_t> Choose(const HeadView& head, uint32_t unit_tokens,
                               absl::Span<const float> probabilities,
                               uint32_t budget_tokens) const override {
    const uint32_t base = head.first_token();
    const uint32_t first = (head.begin - base) / unit_tokens;
    const uint32_t last = (head.end - base + unit_tokens - 1) / unit_tokens;
    const absl::Span<const float> candidates = probabilities.subspan(first, last - first);
    std::vector<uint32_t> chosen;
    if (unit_tokens == 1) {
      chosen.reserve(budget_tokens);
      kernels::SelectLargest(candidates, budget_tokens, head.begin, &chosen);
      return chosen;
    }
    // Only the first and the last unit can be cut by the range: two more than full
    // units would need are always enough.
    std::vector<uint32_t> units;
    kernels::SelectLargest(candidates, budget_tokens / unit_tokens + 3, first, &units);
    std::stable_sort(units.begin(), units.end(), [&](uint32_t a, uint32_t b) {
      return probabilities[a] > probabilities[b];
    });
    chosen.reserve(budget_tokens);
    for (const uint32_t unit : units) {
      const uint32_t begin = std::max(base + unit * unit_tokens, head.begin);
      const uint32_t end = std::min(base + (unit + 1) * unit_tokens, head.end);
      for (uint32_t t = begin; t < end && chosen.size() < budget_tokens; ++t) {
        chosen.push_back(t);
      }
    }
    std::sort(chosen.begin(), chosen.end());
    return chosen;
  }
};

}  // namespace

std::unique_ptr<const BudgetStage> FixedBudget() {
  return std::make_unique<FixedBudgetStage>();
}

}  // namespace kvtier::retrieval
