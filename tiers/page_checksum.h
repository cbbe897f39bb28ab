// Seeds of pages' checksums, and how to change the seed of a checksum that is computed.
//
// A page's CRC32C starts from a seed made of (chunk's name, layer, kv head), so that the
// bytes of another page never verify in its place. But a page is complete, and its CRC
// computed in the same pass as its abstract, before its chunk's name is known. CRCs are
// linear: crc(seed, page) = crc(0, page) ^ L(seed), where L depends on the page's length
// alone; so the seed is added when the chunk is sealed, without reading the page again.
// This holds whether or not the CRC's register is inverted before and after.
//
// Thread safety: const after construction.

#ifndef KVTIER_TIERS_PAGE_CHECKSUM_H_
#define KVTIER_TIERS_PAGE_CHECKSUM_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/base/types.h"
#include "tiers/chunk_name.h"

namespace kvtier::tiers {

uint32_t PageSeed(const ChunkName& name, LayerIndex layer, uint32_t kv_head);

// L for pages of one length.
class SeedShift {
 public:
  explicit SeedShift(size_t page_bytes);

  // The CRC of the same page from `seed`, given its CRC from 0.
  uint32_t Reseed(uint32_t crc_from_zero, uint32_t seed) const;

 private:
  // L(1 << bit).
  std::array<uint32_t, 32> columns_;
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_PAGE_CHECKSUM_H_
