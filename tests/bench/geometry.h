// The shape that all benches share: a layer as 8B models have it.

#ifndef KVTIER_TESTS_BENCH_GEOMETRY_H_
#define KVTIER_TESTS_BENCH_GEOMETRY_H_

#include <cstddef>
#include <cstdint>

#include "kernels/base/dtype.h"
#include "retrieval/model_spec.h"

namespace kvtier::bench {

inline constexpr uint32_t kKvHeads = 8;
inline constexpr uint32_t kGroup = 4;  // query heads per kv head
inline constexpr uint32_t kDim = 128;  // of a key and of a value
inline constexpr DType kDType = DType::kF16;
// Of one token at one layer, keys and values of all kv heads.
inline constexpr uint64_t kTokenBytes = uint64_t{kKvHeads} * 2 * kDim * 2;
inline constexpr char kGeometryText[] =
    "one layer of 8 kv heads x 128, f16; 4 query heads per kv head";

inline retrieval::LayerSpec Layer() {
  retrieval::LayerSpec layer;
  layer.kv_heads = kKvHeads;
  layer.query_heads = kKvHeads * kGroup;
  layer.key_dim = kDim;
  layer.value_dim = kDim;
  return layer;
}

inline retrieval::ModelSpec Model(uint32_t layers) {
  retrieval::ModelSpec model;
  model.label = "bench";
  model.layers.assign(layers, Layer());
  model.dtype = kDType;
  return model;
}

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_GEOMETRY_H_
