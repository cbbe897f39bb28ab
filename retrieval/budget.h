// Stage 5: how many tokens, and which?
//
// From the units' probabilities (averaged over query heads and asking queries) to the
// tokens that are read. Called only where the budget is smaller than the candidates.
//
// Thread safety: const; working memory is the calling thread's.

#ifndef KVTIER_RETRIEVAL_BUDGET_H_
#define KVTIER_RETRIEVAL_BUDGET_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "retrieval/head_view.h"

namespace kvtier::retrieval {

class BudgetStage {
 public:
  virtual ~BudgetStage() = default;

  // The chosen tokens, ascending, each a candidate.
  //   probabilities: per unit of the head's pages; only units that hold a candidate count
  //   budget_tokens: < head.candidates()
  virtual std::vector<uint32_t> Choose(const HeadView& head, uint32_t unit_tokens,
                                       absl::Span<const float> probabilities,
                                       uint32_t budget_tokens) const = 0;
};

// Best units first until exactly budget_tokens are there; the last unit is cut, its
// first tokens stay. Of equals the lower token goes first.
std::unique_ptr<const BudgetStage> FixedBudget();

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_BUDGET_H_
