// Exact scores of every token, the best ones read: what a selection of this size can at
// best be. Reads every key, so it is for tests and comparisons.

#include "retrieval/pipeline.h"

namespace kvtier::retrieval {

Declaration OracleSystem() {
  return {.name = "oracle",
          .trigger = EveryStep(),
          .query = WholeWindow(),
          .units = Tokens(),
          .score = ExactScore(),
          .budget = FixedBudget(),
          .rest = Dropped()};
}

}  // namespace kvtier::retrieval
