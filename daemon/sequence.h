// A sequence: token ids, sealed chunks, and the chunks in the making after them.
//
//   sealed_[0 .. s)   immutable, shared, referred to in the directory
//   making_[s .. m)   this sequence's own; several while a prompt is prefilled layer by
//                     layer; what is complete in them is the tail
//
// The first chunk in the making is sealed at once when its rows are there at all layers
// and its token ids are known. What a sequence computes is named with the system that
// chose its reads if any of its rows were computed by sparse attention.
//
// Memory: chunks, tables and remembered selections are charged to the store's budget,
// pages of chunks in the making also to the session's bound on unsealed bytes.
//
// A sealed chunk whose bytes on disk did not verify is a hole, until it is filled: by
// Refill, or by whoever commits a chunk of its name. Whatever needs pages of it takes
// over the chunk that filled it; before there is one, what is in memory is served, and
// what needs more fails.
//
// Invariants: a block exists in the making exactly for chunks below
// ceil(next token / 64) of its layer; a failed call changes nothing.
//
// Thread safety: as absl annotations say: what needs the lock takes it or requires it.
// No sink is called with the lock held. Append needs the locks of all its sequences,
// hence the public mutex(); they are taken in the order of ids.

#ifndef KVTIER_DAEMON_SEQUENCE_H_
#define KVTIER_DAEMON_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "daemon/counters.h"
#include "daemon/held_selections.h"
#include "daemon/registered_model.h"
#include "daemon/requests.h"
#include "daemon/row_source.h"
#include "daemon/session.h"
#include "kernels/base/mutex.h"
#include "retrieval/system.h"
#include "retrieval/view.h"
#include "tiers/directory.h"

namespace kvtier::daemon {

class SelectionParts;

// What a sequence uses and doesn't own alone. All of it is thread-safe or immutable.
struct SequenceContext {
  SessionId session;
  tiers::Directory* directory = nullptr;
  StoreCounters* store_counters = nullptr;
  NamespaceCounters* counters = nullptr;
  const retrieval::Parallel* helpers = nullptr;
  std::shared_ptr<const RegisteredModel> model;
  std::shared_ptr<const retrieval::System> system;
  // The session's bound on unsealed bytes.
  std::shared_ptr<tiers::MemoryBudget> unsealed;
  tiers::ChunkName root;
  // What a chunk computed with this sequence's selections has in its name.
  std::string computed_under;
  tiers::Sharing sharing = tiers::Sharing::kShared;
};

// Everything that one Append needs of one sequence, checked and allocated.
struct AppendPlan {
  struct Rows {
    const AppendEntry* entry;
    RowSource key;
    RowSource value;
  };
  struct NewBlock {
    uint64_t chunk;  // of the sequence
    LayerIndex layer;
    tiers::Block block;
    tiers::Charge unsealed;
  };
  std::vector<uint32_t> new_ids;
  std::vector<Rows> rows;
  std::vector<std::unique_ptr<tiers::Chunk>> chunks;
  std::vector<NewBlock> blocks;
  tiers::Charge tables;
};

class Sequence {
 public:
  // Refers to the longest cached prefix of the token ids: exact chunks, then from the
  // first miss those computed under this sequence's own system.
  static absl::StatusOr<std::shared_ptr<Sequence>> Open(
      SequenceId id, SequenceContext context, const OpenSequenceOptions& options);
  Sequence(const Sequence&) = delete;  // Fork copies
  Sequence& operator=(const Sequence&) = delete;
  ~Sequence();

  SequenceId id() const { return id_; }
  Mutex& mutex() ABSL_LOCK_RETURNED(mu_) { return mu_; }

  SequenceInfo Info() const ABSL_LOCKS_EXCLUDED(mu_);
  uint64_t cached_tokens() const { return cached_tokens_; }
  uint64_t exact_tokens() const { return exact_tokens_; }

  // Checks runs and entries, in order, and allocates for all of them.
  absl::StatusOr<AppendPlan> PlanAppend(absl::Span<const TokenRun* const> runs,
                                        absl::Span<const AppendEntry* const> entries)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Copies, and seals what became complete. Can't fail.
  SequenceProgress ApplyAppend(AppendPlan plan) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  SealedTokens Sealed() const ABSL_LOCKS_EXCLUDED(mu_);
  // To be dropped last first: a chunk can go only before its parent.
  std::vector<tiers::ChunkRef> SealedChunks() const ABSL_LOCKS_EXCLUDED(mu_);
  // Returns when what is sealed is on disk. Blocking. Errors: Directory::AwaitWritten.
  // FailedPrecondition: there is a hole. DataLoss: one was found.
  absl::StatusOr<SealedTokens> SealDurably() ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<SealedTokens> Truncate(uint64_t token_count) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<std::shared_ptr<Sequence>> Fork(SequenceId id) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // Blocking.
  absl::Status Refill(uint64_t chunk, absl::Span<const AppendEntry> entries)
      ABSL_LOCKS_EXCLUDED(mu_);

  absl::Status Retrieve(const RetrieveItem& item, uint64_t part_bytes_max,
                        absl::FunctionRef<bool(RetrievePart)> sink)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Read(const ReadRange& range, uint64_t part_bytes_max,
                    absl::FunctionRef<bool(ReadPart)> sink) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Making {
    std::unique_ptr<tiers::Chunk> chunk;
    tiers::Charge unsealed;
  };
  // Where retrieval finds a layer's sealed pages. Made at the layer's first Retrieve
  // and extended when chunks were sealed since.
  struct LayerPages {
    size_t chunk_count = 0;
    std::vector<retrieval::PageView> pages;  // [kv_head][chunk]
    tiers::Charge charge;
  };
  struct SealedPage {
    uint64_t chunk = 0;
    LayerIndex layer;
    uint32_t kv_head = 0;
  };
  struct Stretch;
  // What a layer remembers between steps.
  struct LayerMemory {
    std::unique_ptr<retrieval::LayerState> state;
    // As it was before `step` began, for a repeated step.
    std::unique_ptr<retrieval::LayerState> state_before;
    StepIndex step;
    HeldSelections held;
  };

  Sequence(SequenceId id, SequenceContext context);

  // Blocking, where chunks are on disk.
  absl::Status FindPrefix(const OpenSequenceOptions& options)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  std::vector<tiers::ChunkRef> ShareSealed() const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  // sequence_append.cc
  absl::Status PlanRun(const TokenRun& run, AppendPlan* plan) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  absl::Status PlanEntry(const AppendEntry& entry, std::vector<uint64_t>* next,
                         AppendPlan* plan) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  absl::Status CheckFinite(const AppendPlan::Rows& rows) const;
  absl::Status PlanMemory(const std::vector<uint64_t>& next, AppendPlan* plan)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Adds blocks without slots.
  absl::Status ChargeBlocks(LayerIndex layer, uint64_t chunk_begin, uint64_t chunk_end,
                            std::vector<AppendPlan::NewBlock>* blocks) const;
  // Takes slots for blocks of one layer.
  absl::Status FillBlocks(absl::Span<AppendPlan::NewBlock> blocks) const;
  // Takes one layer's slots for a chunk that lacks them.
  absl::Status AddBlock(LayerIndex layer, Making* making) const;
  void CopyRows(const AppendPlan::Rows& rows) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Copies rows [begin, begin + count) of the entry into the chunk, from its `row`-th on.
  void CopyRowsInto(const AppendPlan::Rows& rows, uint32_t begin, uint32_t count,
                    uint32_t row, tiers::Chunk* chunk) const;
  void CompletePages(LayerIndex layer, tiers::Chunk* chunk) const;
  void SealComplete() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // sequence_holes.cc
  // Makes pages of sealed chunks resident, as Directory::Load.
  // FailedPrecondition: one is of a hole. DataLoss: one was found.
  absl::Status LoadSealed(absl::Span<const SealedPage> pages, tiers::PagePins* pins,
                          uint64_t* disk_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static absl::Status FoundBad(uint64_t chunk, absl::string_view why);
  // Takes over the chunk that filled a hole. FailedPrecondition: none did.
  absl::Status ReplaceHole(uint64_t chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Puts another chunk of the same name in a sealed one's place.
  void Replace(uint64_t chunk, tiers::ChunkRef by) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // All of a sealed chunk's rows, one entry a layer.
  absl::StatusOr<std::vector<AppendPlan::Rows>> PlanRefill(
      uint64_t chunk, absl::Span<const AppendEntry> entries) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // A chunk with the name of a sealed one, made of those rows.
  absl::StatusOr<Making> MakeAgain(uint64_t chunk,
                                   absl::Span<const AppendPlan::Rows> rows) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // Null: it is the first.
  const tiers::ChunkRef* ParentOf(uint64_t chunk) const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return chunk == 0 ? nullptr : &sealed_[chunk - 1];
  }

  // sequence_edit.cc
  // All of its blocks' pages must be resident, and stay so.
  absl::StatusOr<Making> CopyChunk(const tiers::Chunk& chunk, uint32_t rows_max) const;
  void DropFrom(uint64_t token_count) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // sequence_read.cc
  // The parts of an answer, without rows.
  absl::StatusOr<std::vector<ReadPart>> PlanRead(const ReadRange& range,
                                                 uint64_t part_bytes_max,
                                                 uint64_t* truncations) const
      ABSL_LOCKS_EXCLUDED(mu_);
  // Starts to read a part.
  absl::StatusOr<std::unique_ptr<Stretch>> StartStretch(const ReadPart& part,
                                                        uint64_t truncations)
      ABSL_LOCKS_EXCLUDED(mu_);
  // FailedPrecondition: it is a hole, and one of the layer's pages is gone.
  absl::StatusOr<tiers::ChunkRef> ShareForRead(uint64_t chunk, LayerIndex layer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Waits until the part's rows are there.
  absl::Status EndStretch(Stretch* stretch) const;

  // sequence_retrieve.cc
  absl::Status Select(const RetrieveItem& item, SelectionParts* parts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<RetrievePart> NextPart(LayerIndex layer, SelectionParts* parts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Makes pages resident, as Directory::Load, and has the layer's view see them.
  //   pages: (kv_head, chunk)
  absl::Status LoadPages(LayerIndex layer,
                         absl::Span<const std::pair<uint32_t, uint32_t>> pages,
                         tiers::PagePins* pins, uint64_t* disk_bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckItem(const RetrieveItem& item) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  absl::StatusOr<retrieval::Selected> RunSystem(const retrieval::LayerView& view,
                                                const retrieval::Query& query,
                                                const RetrieveItem& item,
                                                LayerMemory* memory) const;
  // Returns how many tokens the selection has.
  uint64_t AnswerDelta(const RetrieveItem& item, retrieval::Selected* selected,
                       LayerMemory* memory, SelectionParts* parts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  retrieval::LayerView ViewOf(LayerIndex layer) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  absl::Status ExtendPages(LayerIndex layer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  uint64_t SealedTokenCount() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return sealed_.size() * kChunkTokens;
  }
  uint64_t CompleteTokens() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  const tiers::Chunk& ChunkAt(uint64_t chunk) const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return chunk < sealed_.size() ? *sealed_[chunk]
                                  : *making_[chunk - sealed_.size()].chunk;
  }
  tiers::Chunk* MakingAt(uint64_t chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return making_[chunk - sealed_.size()].chunk.get();
  }
  // Of this object and its vectors, with room for so many chunks.
  uint64_t TableBytes(uint64_t chunks) const;

  // Constant after construction.
  const SequenceId id_;
  const SequenceContext context_;
  uint64_t cached_tokens_ = 0;
  uint64_t exact_tokens_ = 0;

  mutable Mutex mu_;
  tiers::Charge tables_ ABSL_GUARDED_BY(mu_);
  std::vector<uint32_t> token_ids_ ABSL_GUARDED_BY(mu_);
  std::vector<tiers::ChunkRef> sealed_ ABSL_GUARDED_BY(mu_);
  std::vector<Making> making_ ABSL_GUARDED_BY(mu_);
  std::vector<uint64_t> next_token_ ABSL_GUARDED_BY(mu_);  // [layer]
  std::vector<LayerPages> pages_ ABSL_GUARDED_BY(mu_);     // [layer]
  std::vector<LayerMemory> memory_ ABSL_GUARDED_BY(mu_);   // [layer]
  StepIndex last_step_ ABSL_GUARDED_BY(mu_);
  // Counts Truncate calls: a call that streams rows sees whether they are still there.
  uint64_t truncations_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_SEQUENCE_H_
