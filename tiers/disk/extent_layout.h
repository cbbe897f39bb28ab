// How a chunk lies in its extent, and the extent's header.
//
//   0                header: fixed part, then the CRCs of all pages; zeros to a unit
//   abstracts_offset all layers' abstracts, contiguous; zeros to a unit
//   pages_offset     [layer][kv_head], each with zeros to a unit
//
// The header's CRC32C covers the header whole and, like the abstracts', starts from a
// seed made of (name, generation): what an earlier tenant of the extent left never
// verifies. Pages' CRCs are seeded by PageSeed and kept in the header.
//
// Numbers are little-endian. Thread safety: values and pure functions.

#ifndef KVTIER_TIERS_DISK_EXTENT_LAYOUT_H_
#define KVTIER_TIERS_DISK_EXTENT_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/base/types.h"
#include "tiers/chunk_name.h"
#include "tiers/disk/block_io.h"
#include "tiers/disk/disk_tier.h"

namespace kvtier::tiers {

constexpr uint64_t RoundUpToUnit(uint64_t bytes) {
  return (bytes + kIoUnit - 1) / kIoUnit * kIoUnit;
}

// An extent: the index-th of its segment, whose extents are all of one size.
struct ExtentPlace {
  SegmentNumber segment;
  uint32_t index = 0;

  bool operator==(const ExtentPlace&) const = default;
};

class ExtentLayout {
 public:
  explicit ExtentLayout(const DiskGeometry& geometry);

  uint64_t header_bytes() const { return header_bytes_; }
  uint64_t abstracts_offset() const { return header_bytes_; }
  uint64_t abstract_bytes() const { return abstract_bytes_; }  // without padding
  uint64_t pages_offset() const { return header_bytes_ + RoundUpToUnit(abstract_bytes_); }
  uint64_t extent_bytes() const { return extent_bytes_; }

  uint32_t page_count() const { return page_count_; }
  uint32_t PageIndex(LayerIndex layer, uint32_t kv_head) const {
    return layers_[layer.value()].first_page + kv_head;
  }
  uint64_t PageOffset(LayerIndex layer, uint32_t kv_head) const {
    const Layer& l = layers_[layer.value()];
    return l.offset + kv_head * RoundUpToUnit(l.page_bytes);
  }
  uint32_t layer_count() const { return static_cast<uint32_t>(layers_.size()); }
  uint32_t kv_heads(LayerIndex layer) const { return layers_[layer.value()].kv_heads; }
  uint32_t page_bytes(LayerIndex layer) const {
    return layers_[layer.value()].page_bytes;
  }

 private:
  struct Layer {
    uint64_t offset = 0;
    uint32_t first_page = 0;
    uint32_t kv_heads = 0;
    uint32_t page_bytes = 0;
  };
  std::vector<Layer> layers_;
  uint32_t page_count_ = 0;
  uint64_t header_bytes_ = 0;
  uint64_t abstract_bytes_ = 0;
  uint64_t extent_bytes_ = 0;
};

struct ExtentHeader {
  ChunkName name;
  std::optional<ChunkName> parent;
  bool approximate = false;
  uint32_t geometry = 0;
  uint64_t generation = 0;
  uint32_t abstracts_crc = 0;
  std::vector<uint32_t> page_crcs;

  bool operator==(const ExtentHeader&) const = default;
};

uint32_t HeaderSeed(const ChunkName& name, uint64_t generation);
uint32_t AbstractsSeed(const ChunkName& name, uint64_t generation);

// Fills `out`, of layout.header_bytes() zeros, with a header.
void EncodeExtentHeader(const ExtentHeader& header, const ExtentLayout& layout,
                        absl::Span<std::byte> out);

// Takes any bytes. DataLoss: they are no header, or don't verify.
absl::StatusOr<ExtentHeader> DecodeExtentHeader(absl::Span<const std::byte> bytes);

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_EXTENT_LAYOUT_H_
