// Full attention: every token is read, the result is exact.

#include "retrieval/pipeline.h"

namespace kvtier::retrieval {

Declaration FullSystem() {
  return {.name = "full",
          .reach = Reach::kEverything,
          .trigger = EveryStep(),
          .query = LastToken()};
}

}  // namespace kvtier::retrieval
