// Keys, values and queries that fill a context: synthetic, or a model's own.
//
// Thread safety: const after construction.

#ifndef KVTIER_TESTS_BENCH_ROWS_H_
#define KVTIER_TESTS_BENCH_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kvtier::bench {

// `count` Gaussian numbers in the geometry's dtype.
std::vector<std::byte> GaussianRows(uint64_t count, uint64_t seed);

class ContextRows {
 public:
  virtual ~ContextRows() = default;

  // What they are, for the row: "synthetic", or whose.
  virtual std::string label() const = 0;

  // Keys, then values, of tokens [start, start + count) at a layer:
  // [K, V][kv_head][token][dim] in the geometry's dtype.
  virtual std::vector<std::byte> Rows(uint32_t layer, uint64_t start,
                                      uint32_t count) const = 0;

  // The queries of a step at a layer, [query_head][dim], of the token at `position`.
  virtual std::vector<float> Query(uint32_t layer, uint64_t step,
                                   uint64_t position) const = 0;
};

// Gaussian numbers. A step's query and the next have the cosine 0.95, about.
std::unique_ptr<ContextRows> SyntheticRows();

// From the file that keys.py writes:
//   "kvtkeys1", u32 heads, tokens, width (64), group, queries, passages
//   f32 [width / 2]                      RoPE's angle of one position
//   f16 [heads][tokens][width] keys, before RoPE; as many values
//   f16 [heads x group][queries][width]  of successive tokens, before RoPE
// Two of the model's heads side by side make one of the geometry's, their logits add up.
// A context that is longer than the passages begins them again: their rows come back,
// rotated to other positions. Further layers begin at other passages.
// NotFound, InvalidArgument: no such file, or not one that keys.py has written.
absl::StatusOr<std::unique_ptr<ContextRows>> RealRows(const std::string& path);

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_ROWS_H_
