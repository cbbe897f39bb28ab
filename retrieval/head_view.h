// What the stages see of one kv head: its pages and the candidate tokens among them.
//
// Thread safety: plain values.

#ifndef KVTIER_RETRIEVAL_HEAD_VIEW_H_
#define KVTIER_RETRIEVAL_HEAD_VIEW_H_

#include <cstddef>
#include <cstdint>

#include "kernels/base/types.h"
#include "retrieval/view.h"

namespace kvtier::retrieval {

// How far ahead of the page that is scored the memory is asked for one.
inline constexpr uint32_t kPagesAhead = 3;

// Arrays over units and tokens cover whole pages, from the first one that holds a
// candidate: entry 0 is token first_token(). Entries outside [begin, end) mean nothing.
struct HeadView {
  const LayerView* layer = nullptr;
  uint32_t kv_head = 0;
  uint32_t begin = 0;  // candidates, begin < end
  uint32_t end = 0;

  uint32_t candidates() const { return end - begin; }
  uint32_t first_page() const { return begin / kChunkTokens; }
  uint32_t page_end() const { return (end + kChunkTokens - 1) / kChunkTokens; }
  uint32_t pages() const { return page_end() - first_page(); }
  uint32_t first_token() const { return first_page() * kChunkTokens; }
  uint32_t group_size() const { return layer->spec->group_size(); }

  const PageView& page(uint32_t chunk) const { return layer->page(kv_head, chunk); }
};

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_HEAD_VIEW_H_
