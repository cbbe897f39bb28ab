// Quest (arXiv 2406.10774): spans of 16 tokens by the upper bound on q.k that the minimum
// and maximum of their keys give; the first two layers are dense.

#include "retrieval/pipeline.h"

namespace kvtier::retrieval {

Declaration QuestSystem() {
  return {.name = "quest",
          .default_dense_layers = 2,
          .trigger = EveryStep(),
          .query = WholeWindow(),
          .units = Spans(),
          .score = BoundScore(),
          .budget = FixedBudget(),
          .rest = Dropped()};
}

}  // namespace kvtier::retrieval
