// The directory of sealed chunks, and the one door to the host tier's memory: whoever
// needs some asks here, because only the directory knows what may go to make room.
//
// A chunk is kept as long as an open sequence refers to it (ChunkRef), and after that
// until memory is needed. The coldest goes first, where heat is the time of last use;
// but never a chunk whose child is cached, so that a cached prefix has no hole: a parent
// becomes evictable when its last child is gone, as warm as that child was. A chunk that
// can't be found again (a random name) goes with its last reference.
//
// Invariants: a name stands for one chunk; a chunk's parent is in the directory as long
// as the chunk is; a referenced chunk is never evicted; memory use never exceeds the
// budget.
//
// Thread safety: internally synchronized. A ChunkRef belongs to one owner; the chunk it
// refers to is immutable. Lock order: Directory::mu_, then HostTier::mu_.

#ifndef KVTIER_TIERS_DIRECTORY_H_
#define KVTIER_TIERS_DIRECTORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/base/mutex.h"
#include "tiers/chunk.h"
#include "tiers/chunk_name.h"
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

struct DirectoryStats {
  uint64_t chunks = 0;
  uint64_t pages = 0;
  uint64_t evictable_chunks = 0;
  uint64_t evicted_chunks = 0;
  uint64_t duplicate_chunks = 0;  // commits that found their name taken
};

class Directory {
 public:
  // Both must outlive the directory.
  Directory(MemoryBudget* budget, HostTier* host) : budget_(budget), host_(host) {}
  Directory(const Directory&) = delete;  // references point to it
  Directory& operator=(const Directory&) = delete;
  // All references must be gone.
  ~Directory();

  // Reserves memory for tables, evicting if it must.
  // ResourceExhausted: the budget is full of what must not be evicted.
  absl::StatusOr<Charge> Reserve(uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);

  // Takes slots from the host tier, evicting if it must. All or none.
  // ResourceExhausted: as Reserve, or the system is out of memory or descriptors.
  absl::StatusOr<std::vector<Slot>> AllocateSlots(NamespaceIndex space, size_t slot_bytes,
                                                  size_t count) ABSL_LOCKS_EXCLUDED(mu_);

  // A chunk in the making, without blocks. ResourceExhausted as Reserve.
  absl::StatusOr<std::unique_ptr<Chunk>> NewChunk(
      std::shared_ptr<const ChunkGeometry> geometry) ABSL_LOCKS_EXCLUDED(mu_);

  std::optional<ChunkRef> Find(const ChunkName& name) ABSL_LOCKS_EXCLUDED(mu_);

  // Puts a named, complete chunk in the directory. If its name is taken, `chunk` is
  // dropped and the chunk that came first is referred to instead.
  //   parent: the chunk before it in its sequence; null for a sequence's first
  ChunkRef Commit(std::unique_ptr<Chunk> chunk, const ChunkRef* parent, Sharing sharing)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Evicts all that may go; returns how many chunks did.
  uint64_t EvictAll() ABSL_LOCKS_EXCLUDED(mu_);

  DirectoryStats Stats() const ABSL_LOCKS_EXCLUDED(mu_);
  // Chunks of one namespace.
  uint64_t ChunkCount(NamespaceIndex space) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  friend class ChunkRef;
  using Entry = ChunkRef::Entry;

  void AddReference(Entry* entry) ABSL_LOCKS_EXCLUDED(mu_);
  void Release(Entry* entry) ABSL_LOCKS_EXCLUDED(mu_);

  // Evicts the coldest; false if nothing may go.
  bool EvictOne() ABSL_LOCKS_EXCLUDED(mu_);
  void AddReferenceLocked(Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Called when `entry` lost its last reference or child. Chunks that go at once are
  // moved to `dropped`, to be destroyed without the lock.
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

  mutable Mutex mu_;
  absl::flat_hash_map<ChunkName, std::unique_ptr<Entry>> entries_ ABSL_GUARDED_BY(mu_);
  // By time of last use.
  absl::btree_map<uint64_t, Entry*> evictable_ ABSL_GUARDED_BY(mu_);
  std::vector<uint64_t> chunks_of_space_ ABSL_GUARDED_BY(mu_);
  uint64_t clock_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t pages_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t evicted_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t duplicates_ ABSL_GUARDED_BY(mu_) = 0;
};

// Guarded by the directory's mutex, but for `chunk`, which is constant.
struct ChunkRef::Entry {
  std::unique_ptr<Chunk> chunk;
  Entry* parent = nullptr;
  Sharing sharing = Sharing::kShared;
  uint32_t references = 0;
  uint32_t children = 0;
  // Unique among evictable entries, being a key there.
  uint64_t last_use = 0;
};

inline const Chunk& ChunkRef::operator*() const { return *entry_->chunk; }

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DIRECTORY_H_
