// One layer of one sequence, filled with random keys and values, its abstracts built as
// the daemon builds them.

#ifndef KVTIER_TESTS_RETRIEVAL_FAKE_LAYER_H_
#define KVTIER_TESTS_RETRIEVAL_FAKE_LAYER_H_

#include <vector>

#include "retrieval/system.h"
#include "tests/kernels/random.h"

namespace kvtier::retrieval {

class FakeLayer {
 public:
  FakeLayer(LayerSpec spec, DType dtype, size_t chunks, uint32_t seed)
      : FakeLayer(
            spec, dtype, chunks,
            kernels::Gaussian(spec.kv_heads * chunks * kChunkTokens * spec.row_elements(),
                              seed)) {}

  // values: [kv_head][chunk][64][K, V]
  FakeLayer(LayerSpec spec, DType dtype, size_t chunks, const std::vector<float>& values)
      : spec_(spec),
        layout_(AbstractLayout::For(spec, AbstractSet())),
        bytes_(kernels::Encoded(dtype, values)) {
    const size_t page_bytes = spec_.PageBytes(dtype);
    abstracts_.resize(spec.kv_heads * chunks * layout_.page_abstract_bytes);
    for (size_t p = 0; p < spec.kv_heads * chunks; ++p) {
      std::byte* abstract = abstracts_.data() + p * layout_.page_abstract_bytes;
      BuildAbstract(spec_, dtype, layout_, bytes_.data() + p * page_bytes, 0, abstract);
      pages_.push_back({bytes_.data() + p * page_bytes, abstract});
    }
    view_ = {.spec = &spec_,
             .layout = &layout_,
             .dtype = dtype,
             .layer = LayerIndex(5),
             .chunk_count = chunks,
             .pages = pages_};
  }

  FakeLayer(const FakeLayer&) = delete;  // the view points inside

  const LayerView& view() const { return view_; }

  // The row as stored, in f32: [K, V].
  std::vector<float> Row(uint32_t kv_head, uint32_t token) const {
    std::vector<float> row(spec_.row_elements());
    const PageView& page = view_.page(kv_head, token / kChunkTokens);
    kernels::ToF32(view_.dtype,
                   page.rows + token % kChunkTokens * spec_.RowBytes(view_.dtype),
                   row.size(), row.data());
    return row;
  }

 private:
  const LayerSpec spec_;
  const AbstractLayout layout_;
  const std::vector<std::byte> bytes_;
  std::vector<std::byte> abstracts_;
  std::vector<PageView> pages_;
  LayerView view_;
};

inline LayerSpec SmallSpec(uint32_t kv_heads, uint32_t group, uint32_t key_dim = 64,
                           uint32_t value_dim = 48) {
  LayerSpec spec;
  spec.kv_heads = kv_heads;
  spec.query_heads = kv_heads * group;
  spec.key_dim = key_dim;
  spec.value_dim = value_dim;
  return spec;
}

inline Query MakeQuery(const std::vector<float>& values, uint32_t count, uint32_t begin,
                       uint32_t end) {
  return {.values = values,
          .query_count = count,
          .candidates_begin = TokenIndex(begin),
          .candidates_end = TokenIndex(end)};
}

}  // namespace kvtier::retrieval

#endif  // KVTIER_TESTS_RETRIEVAL_FAKE_LAYER_H_
