// A Session: the table of its open sequences and their bound on unsealed bytes.
//
// Closing empties the table; a sequence in the middle of a call lives until that call
// is over, and then gives its memory back.
//
// Thread safety: internally synchronized. mu_ is never held while a sequence works.

#ifndef KVTIER_DAEMON_SESSION_IMPL_H_
#define KVTIER_DAEMON_SESSION_IMPL_H_

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "daemon/sequence.h"
#include "daemon/session.h"
#include "daemon/store.h"
#include "kernels/base/mutex.h"

namespace kvtier::daemon {

// What a session asks of the namespace that it belongs to, which outlives it.
class ModelTable {
 public:
  virtual ~ModelTable() = default;
  // Null: not registered.
  virtual std::shared_ptr<const RegisteredModel> FindModel(
      const retrieval::ModelDigest& digest) const = 0;
};

class SessionImpl final : public Session {
 public:
  struct Environment {
    std::string space;
    const ModelTable* models = nullptr;
    tiers::Directory* directory = nullptr;
    StoreCounters* store_counters = nullptr;
    NamespaceCounters* counters = nullptr;
    std::atomic<uint64_t>* last_sequence = nullptr;  // ids are of the whole store
    const StoreLimits* limits = nullptr;
    const retrieval::Parallel* helpers = nullptr;
  };

  SessionImpl(SessionId id, std::string worker_label, uint64_t worker_pid,
              Environment environment);

  SessionId id() const override { return id_; }
  SessionInfo Info() const override;
  std::vector<SequenceInfo> Sequences() const override;

  absl::StatusOr<OpenedSequence> OpenSequence(
      const OpenSequenceOptions& options) override;
  absl::StatusOr<std::vector<SequenceProgress>> Append(
      absl::Span<const TokenRun> tokens, absl::Span<const AppendEntry> entries) override;
  absl::StatusOr<SealedTokens> Seal(SequenceId sequence, Durability durability) override;
  absl::Status Retrieve(const RetrieveItem& item, uint64_t part_bytes_max,
                        absl::FunctionRef<bool(RetrievePart)> sink) override;
  absl::Status Read(const ReadRange& range, uint64_t part_bytes_max,
                    absl::FunctionRef<bool(ReadPart)> sink) override;
  absl::Status Refill(SequenceId sequence, uint64_t chunk,
                      absl::Span<const AppendEntry> entries) override;
  absl::StatusOr<SealedTokens> Truncate(SequenceId sequence,
                                        uint64_t token_count) override;
  absl::StatusOr<SequenceId> Fork(SequenceId sequence) override;
  absl::Status Close(SequenceId sequence) override;

  // Of one of its sequences, which stay as long as they are referred to. NotFound.
  absl::StatusOr<std::vector<tiers::ChunkRef>> SealedChunks(SequenceId sequence) const;

  // Closes all sequences; the session answers NotFound from now on.
  void CloseAll() ABSL_LOCKS_EXCLUDED(mu_);
  uint64_t unsealed_bytes() const { return unsealed_->used_bytes(); }
  uint32_t sequence_count() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::StatusOr<std::shared_ptr<Sequence>> Find(SequenceId sequence) const
      ABSL_LOCKS_EXCLUDED(mu_);
  // ResourceExhausted: too many sequences. NotFound: closed.
  absl::Status CheckRoom() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  absl::Status Insert(std::shared_ptr<Sequence> sequence) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<std::shared_ptr<Sequence>> All() const ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  const SessionId id_;
  const std::string worker_label_;
  const uint64_t worker_pid_;
  const absl::Time opened_;
  const Environment environment_;
  // Shared with sequences, which may outlive the session by a call.
  const std::shared_ptr<tiers::MemoryBudget> unsealed_;

  mutable Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  std::map<SequenceId, std::shared_ptr<Sequence>> sequences_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_SESSION_IMPL_H_
