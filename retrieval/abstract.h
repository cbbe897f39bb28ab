// The abstract of a page: what retrieval knows of it without reading its rows. A
// function of the page's bytes alone, immutable, and part of the stored format.
//
// Layout of one page's abstract, little-endian, each part only if the model's set has
// it, each at a multiple of 16 bytes, the whole padded to 64:
//   sketch:  key mean    f16 [key_dim]
//            value mean  f16 [value_dim]
//            scales      u8  [64]          one per token, steps of 1/8 octave
//            high plane  u1  [D/32][64][32]  D = key_dim padded to a power of two, at
//            low plane   u1  [D/32][64][32]      least 32
//   bounds:  low, high   f16 [4][2][key_dim], per span of 16 tokens, rounded outward
// A plane's 32-bit word is 32 components of a token; which bit is whose is in
// kernels/host/sketch.h. Component code = 2 * high + low, standing for (code - 1.5) times
// the token's scale, in the rotated basis (kernels/host/rotate.h). The high plane alone
// is a 1-bit sketch.
//
// An abstract of a chunk is its pages' abstracts: layer by layer, kv heads in order.
//
// Thread safety: pure functions.

#ifndef KVTIER_RETRIEVAL_ABSTRACT_H_
#define KVTIER_RETRIEVAL_ABSTRACT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/base/dtype.h"
#include "retrieval/model_spec.h"

namespace kvtier::retrieval {

// Where the parts of one page's abstract lie. Offsets of absent parts are 0 and must
// not be used: ask the flags.
struct AbstractLayout {
  static AbstractLayout For(const LayerSpec& layer, AbstractSet set);

  AbstractSet set;
  uint32_t padded_key_dim = 0;
  size_t key_mean_offset = 0;
  size_t value_mean_offset = 0;
  size_t scales_offset = 0;
  size_t high_plane_offset = 0;
  size_t low_plane_offset = 0;
  size_t bounds_offset = 0;
  size_t page_abstract_bytes = 0;
};

// Builds the abstract of one page and returns the CRC32C of the page's bytes, in one
// pass over them.
//   page:      [64][key_dim + value_dim] of `dtype`
//   abstract:  layout.page_abstract_bytes, written whole (padding is zero)
//   crc_seed:  the CRC's start value; what a page's seed is made of is the caller's
// Values that are not finite are taken as 0 in the abstract; the page is not changed.
uint32_t BuildAbstract(const LayerSpec& layer, DType dtype, const AbstractLayout& layout,
                       const std::byte* page, uint32_t crc_seed, std::byte* abstract);

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_ABSTRACT_H_
