// Which of a tier's chunks goes when room is needed: segmented LRU.
//
// Chunks that were never found again since they came are new; they may fill kNewShare of
// the tier. While they fill more, the one of them that was used longest ago goes; else
// the one of all that was used longest ago. So what is read once, however much of it
// there is, pushes out only what nobody has asked for either; what was found again yields
// to what is found again.
//
// Every chunk is in the order; who may go is said by its owner, that is, no chunk with
// children or in use: a prefix has no hole.
//
// Compared with others on traces: tests/bench/eviction_bench.cc.
//
// Access says where a chunk keeps what the order knows of it:
//   Heat& heat(Handle), uint32_t& position(Handle): written by the order alone
//   uint64_t weight(Handle): its part of the tier; constant while it is in the order
//
// Thread safety: none; the owner's mutex. All calls take logarithmic time at most.

#ifndef KVTIER_TIERS_EVICTION_ORDER_H_
#define KVTIER_TIERS_EVICTION_ORDER_H_

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "tiers/heat.h"

namespace kvtier::tiers {

// A chunk that may not go has this position.
inline constexpr uint32_t kNotEvictable = UINT32_MAX;

template <typename Handle, typename Access>
class EvictionOrder {
 public:
  explicit EvictionOrder(Access access) : access_(std::move(access)) {}

  // The chunk comes; it may not go yet.
  void Add(Handle chunk, Heat heat) {
    access_.position(chunk) = kNotEvictable;
    access_.heat(chunk) = heat;
    weight_ += access_.weight(chunk);
    if (!heat.found()) new_weight_ += access_.weight(chunk);
  }
  // The chunk goes, or is no longer to be found.
  void Remove(Handle chunk) {
    SetEvictable(chunk, false);
    weight_ -= access_.weight(chunk);
    if (!access_.heat(chunk).found()) new_weight_ -= access_.weight(chunk);
  }

  void SetEvictable(Handle chunk, bool evictable) {
    if ((access_.position(chunk) != kNotEvictable) == evictable) return;
    Heap& heap = HeapOf(access_.heat(chunk));
    if (evictable) {
      Push(heap, chunk);
    } else {
      Pop(heap, chunk);
    }
  }

  void SetHeat(Handle chunk, Heat heat) {
    const bool evictable = access_.position(chunk) != kNotEvictable;
    SetEvictable(chunk, false);
    if (!access_.heat(chunk).found()) new_weight_ -= access_.weight(chunk);
    if (!heat.found()) new_weight_ += access_.weight(chunk);
    access_.heat(chunk) = heat;
    SetEvictable(chunk, evictable);
  }

  // Nothing: no chunk may go.
  std::optional<Handle> Coldest() const {
    const Heap &fresh = heaps_[0], &found = heaps_[1];
    if (fresh.empty() && found.empty()) return std::nullopt;
    if (found.empty()) return fresh.front();
    if (fresh.empty()) return found.front();
    const bool new_goes =
        new_weight_ > weight_ / kNewShare ||
        access_.heat(fresh.front()).last_use() < access_.heat(found.front()).last_use();
    return new_goes ? fresh.front() : found.front();
  }

  size_t evictable_count() const { return heaps_[0].size() + heaps_[1].size(); }
  size_t memory_bytes() const {
    return (heaps_[0].capacity() + heaps_[1].capacity()) * sizeof(Handle);
  }

 private:
  // Of the tier, what new chunks may fill: 1 / this.
  static constexpr uint64_t kNewShare = 3;

  // A binary heap, coldest first; chunks know their positions.
  using Heap = std::vector<Handle>;

  Heap& HeapOf(Heat heat) { return heaps_[heat.found() ? 1 : 0]; }
  bool Colder(Handle a, Handle b) const { return access_.heat(a) < access_.heat(b); }

  void Push(Heap& heap, Handle chunk) {
    // An eighth more, not twice as much: there are many chunks.
    if (heap.size() == heap.capacity()) heap.reserve(heap.size() + heap.size() / 8 + 16);
    heap.push_back(chunk);
    SiftUp(heap, heap.size() - 1);
  }
  void Pop(Heap& heap, Handle chunk) {
    const size_t position = access_.position(chunk);
    assert(heap[position] == chunk);
    access_.position(chunk) = kNotEvictable;
    const Handle moved = heap.back();
    heap.pop_back();
    if (moved != chunk) {
      Place(heap, position, moved);
      SiftUp(heap, position);
      SiftDown(heap, access_.position(moved));
    }
    // Chunks that moved to the other heap leave room behind.
    if (heap.size() < heap.capacity() / 2) heap.shrink_to_fit();
  }
  void Place(Heap& heap, size_t position, Handle chunk) {
    heap[position] = chunk;
    access_.position(chunk) = static_cast<uint32_t>(position);
  }
  void SiftUp(Heap& heap, size_t position) {
    const Handle chunk = heap[position];
    while (position > 0) {
      const size_t above = (position - 1) / 2;
      if (!Colder(chunk, heap[above])) break;
      Place(heap, position, heap[above]);
      position = above;
    }
    Place(heap, position, chunk);
  }
  void SiftDown(Heap& heap, size_t position) {
    const Handle chunk = heap[position];
    while (true) {
      size_t below = 2 * position + 1;
      if (below >= heap.size()) break;
      if (below + 1 < heap.size() && Colder(heap[below + 1], heap[below])) ++below;
      if (!Colder(heap[below], chunk)) break;
      Place(heap, position, heap[below]);
      position = below;
    }
    Place(heap, position, chunk);
  }

  Access access_;
  std::array<Heap, 2> heaps_;  // new ones, found ones
  uint64_t weight_ = 0;        // of all
  uint64_t new_weight_ = 0;
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_EVICTION_ORDER_H_
