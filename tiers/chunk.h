// A chunk: the pages of 64 tokens at all layers, their abstracts and checksums.
//
// It is made block by block: a layer's pages and abstract slot are added before its rows
// arrive, and its rows counted as they do. Once complete it is given to the Directory,
// gets its name and its contents never change again.
//
// Residency: abstracts are in memory as long as the chunk is. A page of a chunk that is
// on disk may be dropped while nobody has the chunk pinned, and loaded again; page() is
// null in between.
//
// Memory: the object and its tables are charged from the start, slots by their regions.
//
// Thread safety: in the making it belongs to one sequence, under that sequence's lock;
// in the Directory it is immutable but for residency, whose functions may be called from
// any thread. What page() returned stays there while the caller has the chunk pinned.

#ifndef KVTIER_TIERS_CHUNK_H_
#define KVTIER_TIERS_CHUNK_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "kernels/base/mutex.h"
#include "kernels/base/types.h"
#include "tiers/chunk_name.h"
#include "tiers/disk/disk_tier.h"
#include "tiers/host/host_tier.h"
#include "tiers/memory_budget.h"
#include "tiers/page_checksum.h"

namespace kvtier::tiers {

// One layer's share of a chunk.
struct BlockGeometry {
  uint32_t kv_heads = 0;
  size_t page_bytes = 0;
  size_t abstract_bytes = 0;  // of all kv heads; > 0
  uint32_t first_page = 0;    // among the chunk's pages
  SeedShift seed_shift;

  uint64_t rows_bytes() const { return uint64_t{kv_heads} * page_bytes; }
};

// What all chunks of one model in one namespace look like.
struct ChunkGeometry {
  ChunkGeometry(NamespaceIndex space_index) : space(space_index) {}

  // Layers are added in order.
  void AddLayer(uint32_t kv_heads, size_t page_bytes, size_t abstract_bytes);

  // What a chunk takes beside its slots, the directory's entry included.
  uint64_t table_bytes() const;

  NamespaceIndex space;
  // The same for the disk tier.
  std::shared_ptr<const DiskGeometry> disk;
  std::vector<BlockGeometry> layers;
  uint32_t page_count = 0;
  uint64_t rows_bytes = 0;
  uint64_t abstract_bytes = 0;
};

// The slots of one layer of one chunk.
struct Block {
  std::vector<Slot> pages;  // [kv_head]
  Slot abstract;
};

class Chunk {
 public:
  // `charge` covers geometry->table_bytes().
  Chunk(std::shared_ptr<const ChunkGeometry> geometry, Charge charge);
  Chunk(const Chunk&) = delete;  // owns slots
  Chunk& operator=(const Chunk&) = delete;

  const ChunkGeometry& geometry() const { return *geometry_; }

  bool has_block(LayerIndex layer) const { return abstracts_[layer.value()].valid(); }
  void SetBlock(LayerIndex layer, Block block);

  // Null: on disk only.
  std::byte* page(LayerIndex layer, uint32_t kv_head) const {
    return page_data_[PageOf(layer, kv_head)].load(std::memory_order_acquire);
  }
  std::byte* abstract(LayerIndex layer) const { return abstracts_[layer.value()].data(); }

  // Tokens whose rows are there, from the chunk's first.
  uint32_t rows(LayerIndex layer) const { return rows_[layer.value()]; }
  void set_rows(LayerIndex layer, uint32_t rows) {
    rows_[layer.value()] = static_cast<uint8_t>(rows);
  }
  // Every layer has all rows.
  bool complete() const;

  // From seed 0 while in the making; from PageSeed once named.
  uint32_t crc(LayerIndex layer, uint32_t kv_head) const {
    return crcs_[PageOf(layer, kv_head)];
  }
  void set_crc(LayerIndex layer, uint32_t kv_head, uint32_t crc) {
    crcs_[PageOf(layer, kv_head)] = crc;
  }

  // By checksum; both are named, and the names are the same.
  bool SameRows(const Chunk& other) const { return crcs_ == other.crcs_; }

  // Some of its rows, or of its ancestors', were computed by sparse attention.
  bool approximate() const { return approximate_; }
  void set_approximate() { approximate_ = true; }

  const ChunkName& name() const { return name_; }
  // Names the complete chunk and seeds its checksums. Once.
  void SetName(const ChunkName& name);

  // Residency.

  // Makes a chunk whose pages are on disk: complete and named, without pages.
  //   abstracts: [layer]; page_crcs: [layer][kv_head], seeded
  void SetOnDisk(const ChunkName& name, std::vector<Slot> abstracts,
                 std::vector<uint32_t> page_crcs, DiskChunk disk);
  // Once, when it was written. Thread-safe.
  void SetDisk(DiskChunk disk);
  // Null: not on disk.
  const DiskChunk* disk() const {
    return on_disk_.load(std::memory_order_acquire) ? &disk_ : nullptr;
  }

  // It was on disk, but what is there did not verify: pages that are not in memory are
  // gone. The chunk of its name that is computed again is another object.
  bool disk_lost() const {
    const DiskChunk* chunk = disk();
    return chunk != nullptr && chunk->lost();
  }

  // While pinned, no page is dropped. Counts.
  void Pin() const;
  void Unpin() const { pins_.fetch_sub(1, std::memory_order_release); }

  // Notes that a query selected the page.
  void Touch(LayerIndex layer, uint32_t kv_head) const {
    heat_[PageOf(layer, kv_head)].store(kHeatMax, std::memory_order_relaxed);
  }

  // Puts a page that was read in its place; false, and the slot is freed, if another
  // thread was first. The caller has the chunk pinned.
  bool SetPage(LayerIndex layer, uint32_t kv_head, Slot slot) const;

  // Takes out up to `max` pages that are cold, and cools the others. Nothing if somebody
  // has the chunk pinned, or it isn't on disk, or what is there did not verify.
  std::vector<Slot> DropColdPages(size_t max) const;

  uint32_t resident_pages() const {
    return resident_pages_.load(std::memory_order_relaxed);
  }

 private:
  static constexpr uint8_t kHeatMax = 2;
  // In pins_, while pages are dropped.
  static constexpr uint32_t kDropping = uint32_t{1} << 31;

  uint32_t PageOf(LayerIndex layer, uint32_t kv_head) const {
    return geometry_->layers[layer.value()].first_page + kv_head;
  }

  const std::shared_ptr<const ChunkGeometry> geometry_;
  // Before the slots: released after them.
  const Charge charge_;
  ChunkName name_;
  bool approximate_ = false;
  std::vector<Slot> abstracts_;
  std::vector<uint32_t> crcs_;
  std::vector<uint8_t> rows_;

  // Written once, before on_disk_ is set.
  DiskChunk disk_;
  std::atomic<bool> on_disk_{false};

  // Pages change hands under residency_mu_ (loading, pinned) or kDropping (nobody has
  // it pinned, hence nobody loads).
  mutable Mutex residency_mu_;
  mutable std::vector<Slot> pages_;
  mutable std::vector<std::atomic<std::byte*>> page_data_;
  mutable std::vector<std::atomic<uint8_t>> heat_;
  mutable std::atomic<uint32_t> pins_{0};
  mutable std::atomic<uint32_t> resident_pages_{0};
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_CHUNK_H_
