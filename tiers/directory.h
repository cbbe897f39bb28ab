// The directory of sealed chunks, and the one door to the host tier's memory: whoever
// needs some asks here, because only the directory knows what may go to make room.
//
// A chunk is kept as long as an open sequence refers to it (ChunkRef), and after that
// until memory is needed. The coldest goes first (tiers/eviction_order.h), but never a
// chunk whose child is cached, so that a cached prefix has no hole: a parent becomes
// evictable when its last child is gone, as warm as that child was. A chunk that can't be
// found again (a random name) goes with its last reference.
//
// With a disk tier, every chunk that can be found again is written behind its commit, in
// the order of commits. What is on disk is found there after it was evicted here, or
// after a restart: its abstracts are read at once (BringIn), its pages when a query
// selects them (Load). When there is nothing left to evict, cold pages of open sequences
// are dropped, and while writes are under way, room is waited for.
//
// A chunk whose bytes on disk turn out to be bad is a hole: it is not found, nor in a
// walk from the first chunk what continues it; those who refer to it keep what is in
// memory. A chunk of its name that is computed again and committed fills the hole: it
// takes over the name and the children. Who refers to the former one goes on with that,
// or looks the name up and brings the new one in.
//
// Invariants: a name is found as one chunk; a chunk's parent is in the directory as long
// as the chunk is; a referenced chunk is never evicted; memory use never exceeds the
// budget.
//
// Thread safety: internally synchronized. A ChunkRef belongs to one owner; the chunk it
// refers to is immutable. Lock order: write_order_mu_, mu_, HostTier::mu_. The disk tier
// is called without mu_. What says "blocking" waits for the disk.

#ifndef KVTIER_TIERS_DIRECTORY_H_
#define KVTIER_TIERS_DIRECTORY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/base/mutex.h"
#include "tiers/chunk.h"
#include "tiers/chunk_name.h"
#include "tiers/disk/disk_tier.h"
#include "tiers/eviction_order.h"
#include "tiers/heat.h"
#include "tiers/host/host_tier.h"
#include "tiers/memory_budget.h"

namespace kvtier::tiers {

class Directory;

// Whether a chunk's name can be found by others.
enum class Sharing : uint8_t { kShared, kPrivate };

// A reference to a sealed chunk, which stays as long as it has one.
class ChunkRef {
 public:
  ChunkRef() = default;
  ChunkRef(ChunkRef&& other) noexcept
      : directory_(other.directory_), entry_(std::exchange(other.entry_, nullptr)) {}
  ChunkRef& operator=(ChunkRef&& other) noexcept;
  ChunkRef(const ChunkRef&) = delete;  // Share() takes a lock: let it be seen
  ChunkRef& operator=(const ChunkRef&) = delete;
  ~ChunkRef() { Reset(); }

  ChunkRef Share() const;
  void Reset();

  const Chunk& operator*() const;
  const Chunk* operator->() const { return &**this; }

 private:
  friend class Directory;
  struct Entry;

  ChunkRef(Directory* directory, Entry* entry) : directory_(directory), entry_(entry) {}

  Directory* directory_ = nullptr;
  Entry* entry_ = nullptr;
};

// What a name stands for: a chunk here, or on disk, or nothing.
struct FoundChunk {
  ChunkName name;
  std::optional<ChunkRef> host;
  std::optional<DiskChunk> disk;

  explicit operator bool() const { return host.has_value() || disk.has_value(); }
};

struct PageNeed {
  const Chunk* chunk = nullptr;
  LayerIndex layer;
  uint32_t kv_head = 0;
};

// A page whose bytes are wanted, wherever they are.
struct PageCopy {
  const Chunk* chunk = nullptr;
  LayerIndex layer;
  uint32_t kv_head = 0;
  std::byte* data = nullptr;  // page_bytes
};

// Copies on their way. Ends when they have. For one caller.
class PageCopies {
 public:
  PageCopies() = default;
  PageCopies(const PageCopies&) = delete;  // reads point to it
  PageCopies& operator=(const PageCopies&) = delete;
  virtual ~PageCopies() = default;

  // Blocking. What came from disk is kept in memory too, if there is room that nothing
  // has to leave. Once.
  // DataLoss, Unavailable, DeadlineExceeded: what was copied means nothing.
  virtual absl::Status Wait() = 0;
};

// Keeps chunks pinned as long as it lives. The chunks must outlive it. For one Load.
class PagePins {
 public:
  PagePins() = default;
  PagePins(const PagePins&) = delete;  // unpins once
  PagePins& operator=(const PagePins&) = delete;
  ~PagePins();

 private:
  friend class Directory;

  void Add(const Chunk* chunk) {
    if (!chunks_.empty() && chunks_.back() == chunk) return;
    chunk->Pin();
    chunks_.push_back(chunk);
  }

  std::vector<const Chunk*> chunks_;
  Directory* directory_ = nullptr;
  uint64_t bytes_ = 0;  // of directory_'s pinned_bytes_
};

// What a chunk was evicted for: memory was needed, an operator asked, the budget was
// lowered.
enum class EvictReason : uint8_t { kRoom, kAsked, kCapacity };
inline constexpr size_t kEvictReasons = 3;

struct DirectoryStats {
  uint64_t chunks = 0;
  uint64_t pages = 0;
  uint64_t evictable_chunks = 0;
  uint64_t evicted_chunks = 0;
  std::array<uint64_t, kEvictReasons> evicted_for{};  // [reason]
  uint64_t duplicate_chunks = 0;  // commits that found their name taken
  uint64_t dropped_pages = 0;     // of chunks that are on disk
  uint64_t loaded_pages = 0;      // from disk
  uint64_t writing_chunks = 0;
  uint64_t unwritten_chunks = 0;  // whose write failed
};

class Directory {
 public:
  // All must outlive the directory.
  //   disk: null, if host memory is the last tier
  Directory(MemoryBudget* budget, HostTier* host, DiskTier* disk = nullptr)
      : budget_(budget), host_(host), disk_(disk) {}
  Directory(const Directory&) = delete;  // references point to it
  Directory& operator=(const Directory&) = delete;
  // All references must be gone. Blocking: waits for writes under way.
  ~Directory();

  // Refuses what could not be had if every chunk went that may go, so that it evicts
  // nothing. To be asked before a large request is made in parts. ResourceExhausted.
  absl::Status CheckFits(uint64_t bytes) const ABSL_LOCKS_EXCLUDED(mu_);

  // Reserves memory for tables, evicting if it must.
  // ResourceExhausted: the budget is full of what must not be evicted.
  absl::StatusOr<Charge> Reserve(uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);

  // Charges the memory that the disk tier takes as it was opened; once, before the first
  // use. ResourceExhausted: it does not fit.
  absl::Status ChargeDisk() ABSL_LOCKS_EXCLUDED(write_order_mu_, mu_);

  // Takes slots from the host tier, evicting if it must. All or none.
  // ResourceExhausted: as Reserve, or the system is out of memory or descriptors.
  absl::StatusOr<std::vector<Slot>> AllocateSlots(NamespaceIndex space, size_t slot_bytes,
                                                  size_t count) ABSL_LOCKS_EXCLUDED(mu_);

  // A chunk in the making, without blocks. ResourceExhausted as Reserve.
  absl::StatusOr<std::unique_ptr<Chunk>> NewChunk(
      std::shared_ptr<const ChunkGeometry> geometry) ABSL_LOCKS_EXCLUDED(mu_);

  std::optional<ChunkRef> Find(const ChunkName& name) ABSL_LOCKS_EXCLUDED(mu_);

  // As Find, also on disk.
  FoundChunk Lookup(const ChunkName& name) ABSL_LOCKS_EXCLUDED(mu_);

  // Brings what Lookup found, consecutive chunks of one sequence, into memory: all of
  // them, or as many as the disk gives. Blocking.
  //   parent: the chunk before them; null, if they are the sequence's first
  // ResourceExhausted: their abstracts don't fit.
  absl::StatusOr<std::vector<ChunkRef>> BringIn(
      std::vector<FoundChunk> found, std::shared_ptr<const ChunkGeometry> geometry,
      const ChunkRef* parent) ABSL_LOCKS_EXCLUDED(mu_);

  // Makes pages resident and keeps them so as long as `pins` lives. Blocking if some
  // are on disk only; adds the bytes read there to `disk_bytes`.
  // ResourceExhausted; DataLoss, Unavailable, DeadlineExceeded of the disk.
  absl::Status Load(absl::Span<const PageNeed> needs, PagePins* pins,
                    uint64_t* disk_bytes) ABSL_LOCKS_EXCLUDED(mu_);

  // Copies pages, from disk those that are not in memory: what is warm there stays.
  // The chunks and the data must outlive what is returned.
  std::unique_ptr<PageCopies> StartCopies(absl::Span<const PageCopy> copies)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Returns when all of them are on disk. Blocking. A write that failed is tried again.
  // FailedPrecondition: there is no disk tier. DataLoss: one was there and is no more.
  // Unavailable, ResourceExhausted: the disk's.
  absl::Status AwaitWritten(absl::Span<const ChunkRef> chunks) ABSL_LOCKS_EXCLUDED(mu_);

  // Returns when all that was committed before is on disk, or its write has failed again.
  // Blocking. Errors: AwaitWritten's.
  absl::Status Flush() ABSL_LOCKS_EXCLUDED(mu_);

  // Puts a named, complete chunk in the directory. If its name is taken, `chunk` is
  // dropped and the chunk that came first is referred to instead; but if that is a hole,
  // `chunk` fills it.
  //   parent: the chunk before it in its sequence; null for a sequence's first
  ChunkRef Commit(std::unique_ptr<Chunk> chunk, const ChunkRef* parent, Sharing sharing)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Evicts all that may go; returns how many chunks did.
  uint64_t EvictAll() ABSL_LOCKS_EXCLUDED(mu_);
  // Evicts, coldest first, until so many bytes of the budget came free, or nothing is
  // left that may go. Returns the bytes.
  uint64_t Evict(uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);

  // Evicts and drops what may go until the budget's use is within its capacity.
  void FitBudget() ABSL_LOCKS_EXCLUDED(mu_);

  // Computes the checksums of all pages in memory again and compares. Takes as long as
  // reading them; others go on.
  struct VerifyResult {
    uint64_t pages = 0;
    uint64_t bad_pages = 0;
  };
  VerifyResult Verify() ABSL_LOCKS_EXCLUDED(mu_);

  DirectoryStats Stats() const ABSL_LOCKS_EXCLUDED(mu_);
  // Chunks of one namespace.
  uint64_t ChunkCount(NamespaceIndex space) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  friend class ChunkRef;
  friend class PagePins;
  class DiskCopies;
  struct Incoming;
  using Entry = ChunkRef::Entry;

  ChunkRef CommitOnly(std::unique_ptr<Chunk> chunk, const ChunkRef* parent,
                      Sharing sharing) ABSL_LOCKS_EXCLUDED(mu_);
  void AddReference(Entry* entry) ABSL_LOCKS_EXCLUDED(mu_);
  void Release(Entry* entry) ABSL_LOCKS_EXCLUDED(mu_);
  void Use(Entry* entry, ChunkUse use) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Tells the disk tier of a use here, of a chunk that the caller refers to.
  void UseOnDisk(const Entry* entry, ChunkUse use) ABSL_LOCKS_EXCLUDED(mu_);
  // Of an entry in order_.
  bool in_order(const Entry* entry) const;

  // Evicts, drops pages, or waits for a write; false if nothing of that is possible.
  bool MakeRoom() ABSL_LOCKS_EXCLUDED(mu_);
  // Evicts the coldest; false if nothing may go.
  bool EvictOne(EvictReason reason) ABSL_LOCKS_EXCLUDED(mu_);
  // Drops some pages that are cold and on disk; false if there are none.
  bool DropPages() ABSL_LOCKS_EXCLUDED(mu_);
  // Makes pages resident whose bytes were read, as many as there is room for.
  void Keep(absl::Span<const PageCopy> copies) ABSL_LOCKS_EXCLUDED(mu_);
  // False if no write is under way.
  bool AwaitAnyWrite() ABSL_LOCKS_EXCLUDED(mu_);
  // Brings in chunks that are all on disk.
  absl::Status StartBringIn(absl::Span<FoundChunk> found,
                            const std::shared_ptr<const ChunkGeometry>& geometry,
                            std::deque<std::unique_ptr<Incoming>>* incoming)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status EndBringIn(Incoming& incoming, const ChunkRef* parent,
                          std::vector<ChunkRef>* chunks) ABSL_LOCKS_EXCLUDED(mu_);
  // Waits for its turn to pin so many bytes of pages. What is pinned at a time is
  // bounded, so that those who load always find something to drop.
  void AwaitPinTurn(uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  void EndPins(uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  // Counts a reference that lasts until FinishWrite.
  void QueueWrite(Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Queues a write that failed, and those before it.
  void RetryWrite(Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StartWrites() ABSL_LOCKS_EXCLUDED(write_order_mu_, mu_);
  // Charges what the disk tier takes with so many chunks more, evicting if it must, but
  // waiting for nothing: writes may wait for the caller.
  absl::Status ChargeDiskFor(uint64_t more_chunks)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_order_mu_) ABSL_LOCKS_EXCLUDED(mu_);
  void FinishWrite(Entry* entry, absl::StatusOr<DiskChunk> written)
      ABSL_LOCKS_EXCLUDED(mu_);
  void AddToDroppable(Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddReferenceLocked(Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // An entry is busy while it, or what continues it, is referred to. Called when one
  // that was not becomes it, and back; tells its parents.
  void BecomeBusy(Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void BecomeIdle(Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes a hole's entry out of entries_: another chunk has come for its name.
  std::unique_ptr<Entry> TakeHole(const ChunkName& name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Gives the children of `former` to the entry that took its name; `former` goes with
  // its last reference.
  void Supersede(std::unique_ptr<Entry> former, Entry* entry,
                 std::vector<std::unique_ptr<Chunk>>* dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The entry that has the name now; `entry` itself if there is none.
  Entry* Current(Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Chunks that go at once are moved to `dropped`, to be destroyed without the lock.
  //   is_use: the chunk is then the warmest
  void ReleaseLocked(Entry* entry, std::vector<std::unique_ptr<Chunk>>* dropped,
                     bool is_use) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Called when `entry` lost its last reference or child.
  void MaybeEvictable(Entry* entry, std::vector<std::unique_ptr<Chunk>>* dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes an unreferenced, childless entry out. Returns its parent, if that became
  // childless.
  Entry* Remove(Entry* entry, std::vector<std::unique_ptr<Chunk>>* dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status NothingToEvict(const absl::Status& cause) const;

  // Constant after construction.
  MemoryBudget* const budget_;
  HostTier* const host_;
  DiskTier* const disk_;

  // Held while chunks go from to_write_ to the disk tier, which wants parents first.
  Mutex write_order_mu_;
  // Of what the disk tier takes in memory; never shrinks.
  Charge disk_charge_ ABSL_GUARDED_BY(write_order_mu_);

  mutable Mutex mu_;
  absl::flat_hash_map<ChunkName, std::unique_ptr<Entry>> entries_ ABSL_GUARDED_BY(mu_);
  // Former holes that somebody refers to. Their names stand for others in entries_.
  absl::flat_hash_map<Entry*, std::unique_ptr<Entry>> superseded_ ABSL_GUARDED_BY(mu_);
  // Of busy entries, all pages counted.
  uint64_t busy_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  struct OrderAccess {
    Heat& heat(Entry* entry) const;
    uint32_t& position(Entry* entry) const;
    // In bytes, as if all pages were in memory.
    uint64_t weight(Entry* entry) const;
  };
  // Of all that others can find.
  EvictionOrder<Entry*, OrderAccess> order_ ABSL_GUARDED_BY(mu_){OrderAccess()};
  std::vector<uint64_t> chunks_of_space_ ABSL_GUARDED_BY(mu_);
  uint64_t clock_ ABSL_GUARDED_BY(mu_) = 0;  // of uses
  uint64_t pages_ ABSL_GUARDED_BY(mu_) = 0;
  std::array<uint64_t, kEvictReasons> evicted_ ABSL_GUARDED_BY(mu_) = {};
  uint64_t duplicates_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<Entry*> to_write_ ABSL_GUARDED_BY(mu_);
  // Entries whose chunk is on disk, in any order, and where DropPages goes on.
  std::vector<Entry*> droppable_ ABSL_GUARDED_BY(mu_);
  size_t drop_hand_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t dropped_pages_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t loaded_pages_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t writing_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t finished_writes_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t unwritten_ ABSL_GUARDED_BY(mu_) = 0;
  CondVar write_finished_;
  uint64_t pinned_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  // Turns to pin, in the order of asking.
  uint64_t last_pin_turn_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t next_pin_turn_ ABSL_GUARDED_BY(mu_) = 1;
  CondVar pins_changed_;
};

// Guarded by the directory's mutex, but for `chunk`, which is constant.
struct ChunkRef::Entry {
  std::unique_ptr<Chunk> chunk;
  Entry* parent = nullptr;
  Sharing sharing = Sharing::kShared;
  bool superseded = false;
  uint32_t references = 0;
  uint32_t children = 0;
  uint32_t busy_children = 0;
  enum class Write : uint8_t { kNone, kUnderWay, kFailed } write = Write::kNone;
  absl::Status write_error;
  std::optional<size_t> droppable;  // index in droppable_
  // Directory::order_'s.
  Heat heat;
  uint32_t order_position = kNotEvictable;
};

inline const Chunk& ChunkRef::operator*() const { return *entry_->chunk; }

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DIRECTORY_H_
