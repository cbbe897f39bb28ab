#include "tiers/chunk.h"

#include <algorithm>
#include <cassert>

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
  const uint64_t of_pages = uint64_t{page_count} * (sizeof(Slot) + sizeof(uint32_t));
  const uint64_t of_layers = layers.size() * (sizeof(Slot) + sizeof(uint8_t));
  return sizeof(Chunk) + of_pages + of_layers + kEntryBytes + 5 * kAllocationBytes;
}

Chunk::Chunk(std::shared_ptr<const ChunkGeometry> geometry, Charge charge)
    : geometry_(std::move(geometry)),
      charge_(std::move(charge)),
      pages_(geometry_->page_count),
      abstracts_(geometry_->layers.size()),
      crcs_(geometry_->page_count),
      rows_(geometry_->layers.size()) {}

void Chunk::SetBlock(LayerIndex layer, Block block) {
  const BlockGeometry& geometry = geometry_->layers[layer.value()];
  assert(block.pages.size() == geometry.kv_heads);
  std::move(block.pages.begin(), block.pages.end(), pages_.begin() + geometry.first_page);
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

}  // namespace kvtier::tiers
