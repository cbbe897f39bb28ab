// A session: one worker's connection and the sequences it has open. It is the unit of
// cleaning up: when the worker's stream ends, Namespace::CloseSession closes all of it,
// and what was unsealed gives its memory back.
//
// Every method may be called from any thread. Calls on different sequences run in
// parallel, calls on one sequence one after another. A session that was closed answers
// NotFound; calls under way when it closes finish first, on memory that stays valid.
//
// Lock order: Namespace::mu_, Session::mu_, Sequence::mu_, then tiers (tiers/README.md).

#ifndef KVTIER_DAEMON_SESSION_H_
#define KVTIER_DAEMON_SESSION_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "daemon/requests.h"
#include "kernels/base/types.h"

namespace kvtier::daemon {

struct SessionInfo {
  SessionId session;
  std::string worker_label;
  uint64_t worker_pid = 0;
  uint64_t age_seconds = 0;
  uint32_t sequences = 0;
  uint64_t unsealed_bytes = 0;
};

struct SequenceInfo {
  SequenceId sequence;
  SessionId session;
  std::string model_label;
  std::string system;
  uint32_t budget_tokens = 0;
  uint64_t sealed_tokens = 0;
  uint64_t tail_tokens = 0;
  uint64_t cached_tokens = 0;
};

class Session {
 public:
  virtual ~Session() = default;

  virtual SessionId id() const = 0;
  virtual SessionInfo Info() const = 0;
  virtual std::vector<SequenceInfo> Sequences() const = 0;

  // NotFound: the model. FailedPrecondition: the system needs an abstract the model
  // lacks. InvalidArgument: the retrieval options. ResourceExhausted: too many
  // sequences, or no memory for its tables.
  virtual absl::StatusOr<OpenedSequence> OpenSequence(
      const OpenSequenceOptions& options) = 0;

  // Whole or not at all: everything is checked and all memory is taken before the
  // first byte is copied. The buffers are only read during the call.
  // ResourceExhausted: over the session's unsealed_bytes_max, or the host budget is
  // full of chunks of open sequences; the message says which key to raise.
  virtual absl::StatusOr<std::vector<SequenceProgress>> Append(
      absl::Span<const TokenRun> tokens, absl::Span<const AppendEntry> entries) = 0;

  virtual absl::StatusOr<SealedTokens> Seal(SequenceId sequence,
                                            Durability durability) = 0;

  // Calls `sink` with the parts of the result, in order, the last one marked. A part
  // carries at most `part_bytes_max` of rows (at least one token's). A sink that
  // returns false ends the call with Cancelled.
  virtual absl::Status Retrieve(const RetrieveItem& item, uint64_t part_bytes_max,
                                absl::FunctionRef<bool(RetrievePart)> sink) = 0;

  // As Retrieve, for stored rows. One part at a time is in memory.
  virtual absl::Status Read(const ReadRange& range, uint64_t part_bytes_max,
                            absl::FunctionRef<bool(ReadPart)> sink) = 0;

  // Writes a hole of a sequence again, from the rows of its 64 tokens, one entry for each
  // layer. Whole or not at all. The same again does nothing.
  // InvalidArgument: no such chunk; entries that are not just that. FailedPrecondition:
  // it is no hole, and has other rows. ResourceExhausted: as Append.
  virtual absl::Status Refill(SequenceId sequence, uint64_t chunk,
                              absl::Span<const AppendEntry> entries) = 0;

  virtual absl::StatusOr<SealedTokens> Truncate(SequenceId sequence,
                                                uint64_t token_count) = 0;
  virtual absl::StatusOr<SequenceId> Fork(SequenceId sequence) = 0;
  virtual absl::Status Close(SequenceId sequence) = 0;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_SESSION_H_
