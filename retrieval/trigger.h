// Stage 1: is a new selection needed at this step?
//
// A trigger that says no makes the last selection stand. What it must remember (the
// query of the last retrieval, say) belongs to the sequence, so it lives in the
// LayerState that the trigger makes; a trigger itself is const and shared.
//
// Thread safety: const; calls with different states may run at once.

#ifndef KVTIER_RETRIEVAL_TRIGGER_H_
#define KVTIER_RETRIEVAL_TRIGGER_H_

#include <memory>

#include "retrieval/system.h"

namespace kvtier::retrieval {

class Trigger {
 public:
  virtual ~Trigger() = default;

  // Null: nothing to remember.
  virtual std::unique_ptr<LayerState> NewState() const { return nullptr; }

  // True: select anew. The same state and query give the same answer.
  virtual bool Fires(const LayerView& view, const Query& query,
                     LayerState* state) const = 0;
};

// Always fires.
std::unique_ptr<const Trigger> EveryStep();

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_TRIGGER_H_
