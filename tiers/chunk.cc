#include "tiers/chunk.h"

#include <algorithm>
#include <cassert>
#include <thread>

namespace kvtier::tiers {
namespace {

// The directory's entry: its node and share of the table, and its place among the
// evictable, with the allocator's overhead. Generous; a test holds it against sizeof.
constexpr uint64_t kEntryBytes = 256;
// malloc's header and rounding, for each of the vectors.
constexpr uint64_t kAllocationBytes = 32;

}  // namespace

void ChunkGeometry::AddLayer(uint32_t kv_heads, size_t page_bytes,
                             size_t abstract_bytes_of_block) {
  layers.push_back(BlockGeometry{.kv_heads = kv_heads,
                                 .page_bytes = page_bytes,
                                 .abstract_bytes = abstract_bytes_of_block,
                                 .first_page = page_count,
                                 .seed_shift = SeedShift(page_bytes)});
  page_count += kv_heads;
  rows_bytes += uint64_t{kv_heads} * page_bytes;
  abstract_bytes += abstract_bytes_of_block;
}

uint64_t ChunkGeometry::table_bytes() const {
  const uint64_t of_pages = uint64_t{page_count} * (sizeof(Slot) + sizeof(uint32_t) +
                                                    sizeof(std::byte*) + sizeof(uint8_t));
  const uint64_t of_layers = layers.size() * (sizeof(Slot) + sizeof(uint8_t));
  return sizeof(Chunk) + of_pages + of_layers + kEntryBytes + 7 * kAllocationBytes;
}

Chunk::Chunk(std::shared_ptr<const ChunkGeometry> geometry, Charge charge)
    : geometry_(std::move(geometry)),
      charge_(std::move(charge)),
      abstracts_(geometry_->layers.size()),
      crcs_(geometry_->page_count),
      rows_(geometry_->layers.size()),
      pages_(geometry_->page_count),
      page_data_(geometry_->page_count),
      heat_(geometry_->page_count) {}

void Chunk::SetBlock(LayerIndex layer, Block block) {
  const BlockGeometry& geometry = geometry_->layers[layer.value()];
  assert(block.pages.size() == geometry.kv_heads);
  for (uint32_t head = 0; head < geometry.kv_heads; ++head) {
    const uint32_t page = geometry.first_page + head;
    pages_[page] = std::move(block.pages[head]);
    page_data_[page].store(pages_[page].data(), std::memory_order_release);
  }
  resident_pages_.fetch_add(geometry.kv_heads, std::memory_order_relaxed);
  abstracts_[layer.value()] = std::move(block.abstract);
}

bool Chunk::complete() const {
  return std::all_of(rows_.begin(), rows_.end(),
                     [](uint8_t rows) { return rows == kChunkTokens; });
}

void Chunk::SetName(const ChunkName& name) {
  name_ = name;
  for (uint32_t l = 0; l < geometry_->layers.size(); ++l) {
    const BlockGeometry& layer = geometry_->layers[l];
    for (uint32_t head = 0; head < layer.kv_heads; ++head) {
      uint32_t& crc = crcs_[layer.first_page + head];
      crc = layer.seed_shift.Reseed(crc, PageSeed(name, LayerIndex(l), head));
    }
  }
}

void Chunk::SetOnDisk(const ChunkName& name, std::vector<Slot> abstracts,
                      std::vector<uint32_t> page_crcs, DiskChunk disk) {
  assert(abstracts.size() == abstracts_.size() && page_crcs.size() == crcs_.size());
  name_ = name;
  abstracts_ = std::move(abstracts);
  crcs_ = std::move(page_crcs);
  std::fill(rows_.begin(), rows_.end(), static_cast<uint8_t>(kChunkTokens));
  SetDisk(std::move(disk));
}

void Chunk::SetDisk(DiskChunk disk) {
  assert(!on_disk_.load());
  disk_ = std::move(disk);
  on_disk_.store(true, std::memory_order_release);
}

void Chunk::Pin() const {
  uint32_t pins = pins_.load(std::memory_order_relaxed);
  while (true) {
    if ((pins & kDropping) != 0) {
      // Dropping only moves slots out: it is over in microseconds.
      std::this_thread::yield();
      pins = pins_.load(std::memory_order_relaxed);
      continue;
    }
    if (pins_.compare_exchange_weak(pins, pins + 1, std::memory_order_acquire)) return;
  }
}

bool Chunk::SetPage(LayerIndex layer, uint32_t kv_head, Slot slot) const {
  const uint32_t page = PageOf(layer, kv_head);
  MutexLock lock(&residency_mu_);
  if (pages_[page].valid()) return false;
  pages_[page] = std::move(slot);
  heat_[page].store(kHeatMax, std::memory_order_relaxed);
  page_data_[page].store(pages_[page].data(), std::memory_order_release);
  resident_pages_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

std::vector<Slot> Chunk::DropColdPages(size_t max) const {
  std::vector<Slot> dropped;
  if (disk() == nullptr || disk_lost() || resident_pages() == 0) return dropped;
  uint32_t unpinned = 0;
  if (!pins_.compare_exchange_strong(unpinned, kDropping, std::memory_order_acquire)) {
    return dropped;
  }
  for (size_t page = 0; page < pages_.size() && dropped.size() < max; ++page) {
    if (!pages_[page].valid()) continue;
    const uint8_t heat = heat_[page].load(std::memory_order_relaxed);
    if (heat > 0) {
      heat_[page].store(heat - 1, std::memory_order_relaxed);
      continue;
    }
    page_data_[page].store(nullptr, std::memory_order_relaxed);
    dropped.push_back(std::move(pages_[page]));
  }
  resident_pages_.fetch_sub(static_cast<uint32_t>(dropped.size()),
                            std::memory_order_relaxed);
  pins_.store(0, std::memory_order_release);
  return dropped;
}

}  // namespace kvtier::tiers
