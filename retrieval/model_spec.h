// What a model's KV looks like, layer by layer, and the digest that names it.
//
// A page is one kv head of 64 tokens at one layer: [token][K: key_dim, V: value_dim],
// rows adjacent. A block is the pages of one layer, kv heads in order.
//
// Thread safety: plain values; immutable once registered.

#ifndef KVTIER_RETRIEVAL_MODEL_SPEC_H_
#define KVTIER_RETRIEVAL_MODEL_SPEC_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/base/dtype.h"
#include "kernels/base/types.h"

namespace kvtier::retrieval {

// SHA-256 of a model spec less its label.
using ModelDigest = std::array<uint8_t, 32>;

struct LayerSpec {
  uint32_t query_heads = 0;  // a multiple of kv_heads
  uint32_t kv_heads = 0;
  uint32_t key_dim = 0;
  uint32_t value_dim = 0;
  std::optional<uint32_t> value_offset_in_key;  // latent attention; not served yet
  float softmax_scale = 0;                      // 0: 1 / sqrt(key_dim)
  float softcap = 0;                            // 0: none
  bool sink_logits = false;                     // the worker's business; part of the name
  uint32_t window_tokens = 0;                   // 0: none; a window is not served yet

  uint32_t group_size() const { return query_heads / kv_heads; }
  uint32_t row_elements() const { return key_dim + value_dim; }
  size_t RowBytes(DType dtype) const { return row_elements() * ElementBytes(dtype); }
  size_t PageBytes(DType dtype) const { return RowBytes(dtype) * kChunkTokens; }
  // The factor on q.k, the default resolved.
  float Scale() const;
};

// Which abstracts are kept of each page.
struct AbstractSet {
  bool sketch = true;
  bool bounds = true;
};

enum class KeyPosition : uint8_t { kAfterRope = 1, kBeforeRope = 2 };

struct ModelSpec {
  std::string label;
  std::vector<LayerSpec> layers;
  DType dtype = DType::kF32;
  KeyPosition key_position = KeyPosition::kAfterRope;
  AbstractSet abstracts;
  std::string salt;

  // InvalidArgument, naming the field, the limit and what to do.
  absl::Status Validate() const;

  // Over a canonical serialisation of everything but the label.
  ModelDigest Digest() const;
};

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_MODEL_SPEC_H_
