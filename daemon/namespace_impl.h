// A Namespace: registered models and open sessions.
//
// Thread safety: internally synchronized. mu_ is never held while a session works.

#ifndef KVTIER_DAEMON_NAMESPACE_IMPL_H_
#define KVTIER_DAEMON_NAMESPACE_IMPL_H_

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "daemon/counters.h"
#include "daemon/session_impl.h"
#include "daemon/store.h"
#include "daemon/store_limits.h"
#include "kernels/base/mutex.h"
#include "tiers/directory.h"

namespace kvtier::daemon {

class NamespaceImpl final : public Namespace, public ModelTable {
 public:
  // What namespaces share. All of it outlives them.
  struct Environment {
    tiers::Directory* directory = nullptr;
    const tiers::DiskTier* disk = nullptr;  // null: there is none
    StoreCounters* store_counters = nullptr;
    std::atomic<uint64_t>* last_sequence = nullptr;
    const StoreLimits* limits = nullptr;
    const retrieval::Parallel* helpers = nullptr;
  };

  NamespaceImpl(std::string name, tiers::NamespaceIndex index, Environment environment)
      : name_(std::move(name)), index_(index), environment_(environment) {}

  const std::string& name() const override { return name_; }
  absl::StatusOr<retrieval::ModelDigest> RegisterModel(
      const retrieval::ModelSpec& model) override;
  absl::StatusOr<std::shared_ptr<Session>> OpenSession(std::string worker_label,
                                                       uint64_t worker_pid) override;
  absl::StatusOr<std::shared_ptr<Session>> FindSession(SessionId id) override;
  void CloseSession(SessionId id) override;
  std::vector<std::shared_ptr<Session>> Sessions() const override;
  std::vector<ModelInfo> Models() const override;
  absl::StatusOr<uint64_t> Pin(SequenceId sequence) override;
  size_t Unpin(SequenceId sequence) override;
  NamespaceStats Stats() const override;

  std::shared_ptr<const RegisteredModel> FindModel(
      const retrieval::ModelDigest& digest) const override;

 private:
  // What several sequences share counts once.
  struct PinCount {
    absl::flat_hash_set<const tiers::Chunk*> seen;
    uint64_t bytes = 0;
  };

  // Refers to the chunks of one sequence, so that they stay.
  class Pinned {
   public:
    Pinned() = default;
    Pinned(Pinned&&) = default;
    Pinned& operator=(Pinned&&) = default;
    ~Pinned() {
      // Last first: a chunk can go only before its parent.
      while (!chunks_.empty()) chunks_.pop_back();
    }
    // Those that aren't there yet; what a truncation has cut off since stays pinned.
    //   chunks: of a sequence, in order
    void Add(std::vector<tiers::ChunkRef> chunks);
    void CountInto(PinCount* count) const;

   private:
    std::vector<tiers::ChunkRef> chunks_;  // none before its parent
  };

  // Constant after construction.
  const std::string name_;
  const tiers::NamespaceIndex index_;
  const Environment environment_;

  // Internally synchronized.
  NamespaceCounters counters_;

  mutable Mutex mu_;
  std::map<retrieval::ModelDigest, std::shared_ptr<const RegisteredModel>> models_
      ABSL_GUARDED_BY(mu_);
  std::map<SessionId, std::shared_ptr<SessionImpl>> sessions_ ABSL_GUARDED_BY(mu_);
  std::map<SequenceId, Pinned> pinned_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_NAMESPACE_IMPL_H_
