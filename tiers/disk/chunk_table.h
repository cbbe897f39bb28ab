// What is kept in memory of each chunk on disk: at most 96 bytes, its share of the
// containers included.
//
// An entry is live (found by its name) or dead (removed, or the former extent of a hole
// that was filled); a dead one keeps its index until the engine frees it, because readers
// and a delete under way still refer to it.
//
// Eviction: the live entries of a geometry are in an order (tiers/eviction_order.h).
// Evictable means live, without children and not held; the engine says what is held.
//
// Thread safety: none; the engine's mutex.

#ifndef KVTIER_TIERS_DISK_CHUNK_TABLE_H_
#define KVTIER_TIERS_DISK_CHUNK_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "tiers/chunk_name.h"
#include "tiers/disk/extent_layout.h"
#include "tiers/eviction_order.h"
#include "tiers/heat.h"

namespace kvtier::tiers {

class ChunkTable {
 public:
  using Index = uint32_t;
  static constexpr Index kNone = UINT32_MAX;

  struct Entry {
    ChunkName name;
    uint64_t generation = 0;
    Heat heat;  // once it was added, changed by SetHeat only
    Index parent = kNone;
    uint32_t children = 0;  // on disk, and those being written; a write that fills it
    ExtentPlace place;
    uint32_t order_position = kNotEvictable;
    uint16_t geometry = 0;
    bool in_use : 1 = false;
    bool live : 1 = false;
    bool held : 1 = false;  // not evictable: somebody has it pinned
    bool approximate : 1 = false;
    bool unreadable : 1 = false;   // left out until it reads again
    bool hole : 1 = false;         // did not verify: left out until it is written anew
    bool owns_extent : 1 = false;  // its extent is not free yet
    bool deleted : 1 = false;      // the catalog's record is gone, durably
    bool leaving : 1 =
        false;  // nothing but the catalog keeps its extent from being freed
    bool heat_changed : 1 = false;  // since the catalog was told
  };
  static_assert(sizeof(Entry) <= 72);

  ChunkTable() : by_name_(0, Hash{this}, Equal{this}) {}
  ChunkTable(const ChunkTable&) = delete;  // its hash functions point to it
  ChunkTable& operator=(const ChunkTable&) = delete;

  void Reserve(size_t chunks) { by_name_.reserve(chunks); }

  // Adds a live entry; UpdateOrder is the caller's. Its name must not be there. The
  // parent's children are not counted.
  Index Add(const Entry& entry);
  // kNone: no live entry of that name.
  Index Find(const ChunkName& name) const;
  // Takes a live entry from what is found.
  void MakeDead(Index index);
  // Makes a dead entry of what a live one is now, without family, and returns its index;
  // the live one keeps its own.
  Index Retire(Index index);
  // Forgets a dead entry; its index may be used again.
  void Free(Index index);

  Entry& operator[](Index index) { return blocks_[index / kBlock][index % kBlock]; }
  const Entry& operator[](Index index) const {
    return blocks_[index / kBlock][index % kBlock];
  }
  // Indices are below; some are not in use.
  Index index_end() const { return end_; }
  size_t live_count() const { return by_name_.size(); }

  // Puts an entry where its state says: call after a change of held or children.
  void UpdateOrder(Index index);
  // Of a live entry.
  void SetHeat(Index index, Heat heat);
  // kNone: nothing of this geometry is evictable.
  Index Coldest(uint16_t geometry) const;

  // Whether `index`, or one of its ancestors, satisfies `pick`, for all entries in use:
  // [index]. One pass. `pick` is asked once for each.
  template <typename Pick>
  std::vector<bool> WithDescendants(Pick pick) const;

  // The live ones of those picked, [index], children before parents. Those whose parents
  // go round in a circle are left out. One pass.
  std::vector<Index> ChildrenFirst(const std::vector<bool>& picked) const;

  size_t memory_bytes() const;

 private:
  static constexpr size_t kBlock = 1024;

  struct Hash {
    using is_transparent = void;
    size_t operator()(Index index) const { return (*this)((*table)[index].name); }
    size_t operator()(const ChunkName& name) const {
      return absl::Hash<ChunkName>()(name);
    }
    const ChunkTable* table;
  };
  struct Equal {
    using is_transparent = void;
    bool operator()(Index a, Index b) const { return a == b; }
    bool operator()(Index a, const ChunkName& b) const { return (*table)[a].name == b; }
    bool operator()(const ChunkName& a, Index b) const { return (*table)[b].name == a; }
    const ChunkTable* table;
  };

  Index NewIndex();

  struct Access {
    Heat& heat(Index index) const { return (*table)[index].heat; }
    uint32_t& position(Index index) const { return (*table)[index].order_position; }
    uint64_t weight(Index) const { return 1; }
    ChunkTable* table;
  };
  using Order = EvictionOrder<Index, Access>;

  std::vector<std::unique_ptr<Entry[]>> blocks_;
  Index end_ = 0;
  std::vector<Index> free_;
  absl::flat_hash_set<Index, Hash, Equal> by_name_;
  std::vector<Order> orders_;  // [geometry]
};

template <typename Pick>
std::vector<bool> ChunkTable::WithDescendants(Pick pick) const {
  std::vector<bool> known(end_), picked(end_);
  std::vector<Index> path;
  for (Index start = 0; start < end_; ++start) {
    if (!(*this)[start].in_use || known[start]) continue;
    Index at = start;
    for (; at != kNone && !known[at]; at = (*this)[at].parent) path.push_back(at);
    bool above = at != kNone && picked[at];
    for (; !path.empty(); path.pop_back()) {
      const Index index = path.back();
      above = pick(index, (*this)[index]) || above;
      known[index] = true;
      picked[index] = above;
    }
  }
  return picked;
}

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_CHUNK_TABLE_H_
