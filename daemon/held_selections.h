// What the worker holds of one layer, as far as the daemon remembers: the last selection
// and the one it was made from, in the order in which the worker has them. Two, because
// a worker that repeats a step still holds the one before.
//
// Thread safety: guarded by the sequence's lock.

#ifndef KVTIER_DAEMON_HELD_SELECTIONS_H_
#define KVTIER_DAEMON_HELD_SELECTIONS_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/base/types.h"
#include "tiers/memory_budget.h"

namespace kvtier::daemon {

// Immutable: shared by a fork.
struct HeldTokens {
  std::vector<std::vector<uint32_t>> of_head;
  tiers::Charge charge;

  static uint64_t BytesFor(const std::vector<std::vector<uint32_t>>& of_head);
  bool MentionsFrom(uint32_t token) const;
};

struct HeldSelection {
  StepIndex step;
  std::shared_ptr<const HeldTokens> tokens;  // null: not remembered
};

// How to make a selection from a held one.
struct SelectionDelta {
  std::vector<std::vector<uint32_t>> kept;   // [kv_head] indices into the held, ascending
  std::vector<std::vector<uint32_t>> added;  // [kv_head] tokens, ascending
  std::vector<std::vector<uint32_t>> order;  // [kv_head] kept tokens, then the added
};

//   held:     null means that nothing is held
//   selected: [kv_head], ascending
SelectionDelta MakeDelta(const HeldTokens* held,
                         std::vector<std::vector<uint32_t>> selected);

class HeldSelections {
 public:
  // Null if the selection of that step isn't remembered (or `step` is 0).
  const HeldTokens* Find(StepIndex step) const;

  // The newest; null if it isn't remembered.
  const std::shared_ptr<const HeldTokens>& current() const { return current_.tokens; }

  // Remembers the answer to `step` and, beside it, what it was made from: the selection
  // of `held_step` if that is remembered, else the newest. An answer given again for the
  // same step takes the place of the first one.
  void Remember(StepIndex step, StepIndex held_step,
                std::shared_ptr<const HeldTokens> tokens);

  // Returns whether one was forgotten because it has tokens from `token` on.
  bool ForgetFrom(uint32_t token);

 private:
  HeldSelection current_;
  HeldSelection previous_;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_HELD_SELECTIONS_H_
