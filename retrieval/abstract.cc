#include "retrieval/abstract.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/types.h"
#include "kernels/host/bounds.h"
#include "kernels/host/checksum.h"
#include "kernels/host/convert.h"
#include "kernels/host/rotate.h"
#include "kernels/host/sketch.h"

namespace kvtier::retrieval {
namespace {

constexpr size_t kPartAlignment = 16;
constexpr size_t kAbstractAlignment = 64;
constexpr float kF16Max = 65504.0f;

constexpr size_t AlignUp(size_t bytes, size_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// One thread's working memory: grows to the largest page seen.
struct Scratch {
  std::vector<float> keys;    // [64][padded key_dim]
  std::vector<float> values;  // [16][padded value_dim]
  std::vector<float> mean;    // [padded value_dim]
  std::vector<float> encode;
};

}  // namespace

AbstractLayout AbstractLayout::For(const LayerSpec& layer, AbstractSet set) {
  AbstractLayout layout;
  layout.set = set;
  layout.padded_key_dim = static_cast<uint32_t>(kernels::RotatedDim(layer.key_dim));
  size_t end = 0;
  const auto place = [&end](size_t bytes) {
    const size_t offset = AlignUp(end, kPartAlignment);
    end = offset + bytes;
    return offset;
  };
  if (set.sketch) {
    const size_t plane_bytes = kernels::SketchPlaneBytes(layer.key_dim);
    layout.key_mean_offset = place(layer.key_dim * 2);
    layout.value_mean_offset = place(layer.value_dim * 2);
    layout.scales_offset = place(kChunkTokens);
    layout.high_plane_offset = place(plane_bytes);
    layout.low_plane_offset = place(plane_bytes);
  }
  if (set.bounds) {
    layout.bounds_offset = place(kernels::kBoundsSpans * 2 * layer.key_dim * 2);
  }
  layout.page_abstract_bytes = AlignUp(end, kAbstractAlignment);
  return layout;
}

uint32_t BuildAbstract(const LayerSpec& layer, DType dtype, const AbstractLayout& layout,
                       const std::byte* page, uint32_t crc_seed, std::byte* abstract) {
  thread_local Scratch scratch;
  const size_t row_bytes = layer.RowBytes(dtype);
  const size_t key_padded = kernels::PaddedRow(layer.key_dim);
  const size_t value_padded = kernels::PaddedRow(layer.value_dim);
  scratch.keys.resize(kChunkTokens * key_padded);
  scratch.values.resize(kSpanTokens * value_padded);
  scratch.mean.assign(value_padded, 0.0f);

  // Memory is read once: each span is summed and converted while it is in the cache.
  uint32_t crc = crc_seed;
  for (uint32_t t = 0; t < kChunkTokens; t += kSpanTokens) {
    const std::byte* rows = page + t * row_bytes;
    crc = kernels::Crc32c(crc, rows, kSpanTokens * row_bytes);
    kernels::RowsToF32(dtype, rows, row_bytes, kSpanTokens, layer.key_dim,
                       scratch.keys.data() + t * key_padded);
    if (!layout.set.sketch) continue;
    kernels::RowsToF32(dtype, rows + layer.key_dim * ElementBytes(dtype), row_bytes,
                       kSpanTokens, layer.value_dim, scratch.values.data());
    for (uint32_t s = 0; s < kSpanTokens; ++s) {
      const float* value = scratch.values.data() + s * value_padded;
      for (size_t i = 0; i < value_padded; ++i) {
        scratch.mean[i] += value[i] * (1.0f / kChunkTokens);
      }
    }
  }

  if (layout.page_abstract_bytes == 0) return crc;  // `abstract` may be null
  std::memset(abstract, 0, layout.page_abstract_bytes);
  if (layout.set.sketch) {
    kernels::EncodeSketch(scratch.keys.data(), layer.key_dim,
                          reinterpret_cast<uint16_t*>(abstract + layout.key_mean_offset),
                          reinterpret_cast<uint8_t*>(abstract + layout.scales_offset),
                          reinterpret_cast<uint8_t*>(abstract + layout.high_plane_offset),
                          reinterpret_cast<uint8_t*>(abstract + layout.low_plane_offset),
                          &scratch.encode);
    for (float& v : scratch.mean) v = std::clamp(v, -kF16Max, kF16Max);
    kernels::FromF32(DType::kF16, scratch.mean.data(), layer.value_dim,
                     abstract + layout.value_mean_offset);
  }
  if (layout.set.bounds) {
    kernels::EncodeBounds(scratch.keys.data(), layer.key_dim,
                          reinterpret_cast<uint16_t*>(abstract + layout.bounds_offset),
                          &scratch.encode);
  }
  return crc;
}

}  // namespace kvtier::retrieval
