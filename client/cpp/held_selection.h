// The selection that a worker holds at one layer of one sequence, kept up to date with
// the deltas that Retrieve answers. Say the step of the last selection as the next
// request's held_step, and only what is new is sent.
//
// A new selection is built beside the old one and replaces it with its last part, so an
// error in mid-answer, or a call that is cut off there, leaves the old one whole.
//
// Thread safety: none; one owner.

#ifndef KVTIER_CLIENT_CPP_HELD_SELECTION_H_
#define KVTIER_CLIENT_CPP_HELD_SELECTION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/cpp/types.h"

namespace kvtier::client {

class HeldSelection {
 public:
  struct Head {
    std::vector<uint32_t> tokens;
    std::string rows;  // [token][K, V], in the order of `tokens`
  };

  // row_bytes: of one token's key and value; 0 for selections without rows
  HeldSelection(uint32_t kv_heads, size_t row_bytes);

  // Applies the next part of the answer to `step`.
  // InvalidArgument: the part's counts and bytes don't fit together, or it keeps what
  // isn't held. The part's own error is returned. Both leave the selection as it was.
  absl::Status Apply(StepIndex step, const RetrievePart& part);

  // Forgets everything; the next request must say held_step 0.
  void Clear();

  // 0: nothing is held.
  StepIndex step() const { return step_; }
  const std::vector<Head>& heads() const { return heads_; }

 private:
  absl::Status Check(const RetrievePart& part) const;

  // Constant after construction.
  const size_t row_bytes_;

  StepIndex step_;
  std::vector<Head> heads_;
  // Of an answer whose last part has not come.
  std::vector<Head> next_;
};

}  // namespace kvtier::client

#endif  // KVTIER_CLIENT_CPP_HELD_SELECTION_H_
