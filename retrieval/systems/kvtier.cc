// kvtier's own: tokens by the rotated 2-bit key sketch; what is not read is estimated
// from the sketched logits and the pages' mean values.

#include "retrieval/pipeline.h"

namespace kvtier::retrieval {

Declaration KvtierSystem() {
  return {.name = "kvtier",
          .default_dense_layers = 2,
          .trigger = EveryStep(),
          .query = WholeWindow(),
          .units = Tokens(),
          .score = SketchScore(),
          .budget = FixedBudget(),
          .rest = PageMeans()};
}

}  // namespace kvtier::retrieval
