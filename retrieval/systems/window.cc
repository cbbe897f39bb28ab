// Sinks and the recent window alone, which the worker keeps: nothing is read here.

#include "retrieval/pipeline.h"

namespace kvtier::retrieval {

Declaration WindowSystem() {
  return {.name = "window",
          .reach = Reach::kNothing,
          .trigger = EveryStep(),
          .query = LastToken()};
}

}  // namespace kvtier::retrieval
