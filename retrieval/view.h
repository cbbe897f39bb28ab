// What retrieval sees of one layer of one sequence: pages and their abstracts, wherever
// they lie. The daemon fills it from its tiers, a local client from its mappings.
//
// The one who makes a view keeps everything it points to alive and unchanged while a
// call uses it. Thread safety: const.

#ifndef KVTIER_RETRIEVAL_VIEW_H_
#define KVTIER_RETRIEVAL_VIEW_H_

#include <cstddef>

#include "absl/types/span.h"
#include "kernels/base/dtype.h"
#include "kernels/base/types.h"
#include "retrieval/abstract.h"
#include "retrieval/model_spec.h"

namespace kvtier::retrieval {

struct PageView {
  const std::byte* rows = nullptr;      // [64][K, V]
  const std::byte* abstract = nullptr;  // AbstractLayout
};

struct LayerView {
  const LayerSpec* spec = nullptr;
  const AbstractLayout* layout = nullptr;
  DType dtype = DType::kF32;
  LayerIndex layer;
  size_t chunk_count = 0;
  absl::Span<const PageView> pages;  // [kv_head][chunk]

  const PageView& page(uint32_t kv_head, size_t chunk) const {
    return pages[kv_head * chunk_count + chunk];
  }
};

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_VIEW_H_
