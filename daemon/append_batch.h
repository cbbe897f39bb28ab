// One Append over several sequences: planned for all of them, then applied to all, so
// that it happens whole or not at all.
//
// Thread safety: belongs to one call. Run takes the locks of all its sequences in the
// order of their ids, which keeps two batches from waiting for each other.

#ifndef KVTIER_DAEMON_APPEND_BATCH_H_
#define KVTIER_DAEMON_APPEND_BATCH_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/sequence.h"

namespace kvtier::daemon {

class AppendBatch {
 public:
  // Runs and entries of one sequence, in the order of the request.
  struct Part {
    std::shared_ptr<Sequence> sequence;
    std::vector<const TokenRun*> runs;
    std::vector<const AppendEntry*> entries;
  };

  // The part of `sequence`, null if it has none yet.
  Part* Find(SequenceId sequence);
  Part* Add(std::shared_ptr<Sequence> sequence);

  // One answer for each part, in order of first mention.
  absl::StatusOr<std::vector<SequenceProgress>> Run();

 private:
  std::vector<Part> parts_;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_APPEND_BATCH_H_
