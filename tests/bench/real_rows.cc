#include <cmath>
#include <cstring>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/host/convert.h"
#include "tests/bench/geometry.h"
#include "tests/bench/rows.h"

namespace kvtier::bench {
namespace {

constexpr char kMagic[] = "kvtkeys1";
constexpr uint32_t kWidth = kDim / 2;

struct Shape {
  uint32_t heads, tokens, width, group, queries, passages;
};

// Cosine and sine of each pair of components at one position.
struct Turn {
  Turn(absl::Span<const float> frequencies, uint64_t position) {
    for (uint32_t i = 0; i < kWidth / 2; ++i) {
      const double angle = static_cast<double>(position) * frequencies[i];
      cosine[i] = static_cast<float>(std::cos(angle));
      sine[i] = static_cast<float>(std::sin(angle));
    }
  }
  // RoPE as Llama has it: component i turns with i + kWidth / 2.
  void Apply(float* row) const {
    for (uint32_t i = 0; i < kWidth / 2; ++i) {
      const float a = row[i], b = row[i + kWidth / 2];
      row[i] = a * cosine[i] - b * sine[i];
      row[i + kWidth / 2] = b * cosine[i] + a * sine[i];
    }
  }
  float cosine[kWidth / 2];
  float sine[kWidth / 2];
};

class Real final : public ContextRows {
 public:
  Real(const Shape& shape, std::vector<float> frequencies, std::vector<std::byte> rows)
      : shape_(shape), frequencies_(std::move(frequencies)), rows_(std::move(rows)) {}

  std::string label() const override {
    return absl::StrCat("real: SmolLM2-135M, ", shape_.passages, " passages of ",
                        shape_.tokens / shape_.passages,
                        " tokens, re-rotated, two heads of 64 side by side");
  }

  std::vector<std::byte> Rows(uint32_t layer, uint64_t start,
                              uint32_t count) const override {
    const uint64_t values = uint64_t{kKvHeads} * count * kDim;
    std::vector<std::byte> out(2 * values * ElementBytes(kDType));
    float row[kDim];
    for (uint32_t t = 0; t < count; ++t) {
      const Turn turn(frequencies_, start + t);
      for (uint32_t h = 0; h < kKvHeads; ++h) {
        std::byte* const to =
            out.data() + (uint64_t{h} * count + t) * kDim * ElementBytes(kDType);
        for (const uint32_t half : {0u, 1u}) {
          const uint32_t head = HeadOf(layer, h, half);
          const uint64_t token = TokenOf(layer, h, start + t);
          Load(RowOf(head, token), row + half * kWidth);
          turn.Apply(row + half * kWidth);
          std::memcpy(
              to + values * ElementBytes(kDType) + half * kWidth * ElementBytes(kDType),
              RowOf(shape_.heads + head, token), kWidth * ElementBytes(kDType));
        }
        kernels::FromF32(kDType, row, kDim, to);
      }
    }
    return out;
  }

  std::vector<float> Query(uint32_t layer, uint64_t step,
                           uint64_t position) const override {
    // The model's logits are scaled for its width, the geometry's for twice that.
    const float scale = std::sqrt(2.0f);
    const Turn turn(frequencies_, position);
    std::vector<float> query(kKvHeads * kGroup * kDim);
    for (uint32_t q = 0; q < kKvHeads * kGroup; ++q) {
      for (const uint32_t half : {0u, 1u}) {
        float* const out = query.data() + q * kDim + half * kWidth;
        const uint32_t head = HeadOf(layer, q / kGroup, half);
        // Of three query heads a kv head four pairs are made: the last crosses them.
        const uint32_t member =
            (q % kGroup + (q % kGroup) / shape_.group * half) % shape_.group;
        Load(QueryOf(head * shape_.group + member, step % shape_.queries), out);
        turn.Apply(out);
        for (uint32_t i = 0; i < kWidth; ++i) out[i] *= scale;
      }
    }
    return query;
  }

 private:
  static constexpr size_t kRowBytes = kWidth * 2;

  uint64_t Pair(uint32_t layer, uint32_t kv_head) const {
    return uint64_t{layer} * kKvHeads + kv_head;
  }
  uint32_t HeadOf(uint32_t layer, uint32_t kv_head, uint32_t half) const {
    return (2 * Pair(layer, kv_head) + half) % shape_.heads;
  }
  uint64_t TokenOf(uint32_t layer, uint32_t kv_head, uint64_t position) const {
    // Each time that the heads have been used up, from the next passage on.
    const uint64_t again = 2 * Pair(layer, kv_head) / shape_.heads;
    return (position + again * (shape_.tokens / shape_.passages)) % shape_.tokens;
  }
  // head: below shape_.heads a key's, then a value's
  const std::byte* RowOf(uint32_t head, uint64_t token) const {
    return rows_.data() + (uint64_t{head} * shape_.tokens + token) * kRowBytes;
  }
  const std::byte* QueryOf(uint32_t head, uint64_t query) const {
    return RowOf(2 * shape_.heads, 0) +
           (uint64_t{head} * shape_.queries + query) * kRowBytes;
  }
  static void Load(const std::byte* row, float* out) {
    kernels::ToF32(DType::kF16, row, kWidth, out);
  }

  const Shape shape_;
  const std::vector<float> frequencies_;
  const std::vector<std::byte> rows_;  // keys, values, queries
};

absl::Status NotOurs(const std::string& path) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, " is not what keys.py writes: make it anew"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ContextRows>> RealRows(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat("cannot read ", path, ": tests/bench/keys.py makes it"));
  }
  char magic[8];
  Shape shape;
  file.read(magic, sizeof(magic));
  file.read(reinterpret_cast<char*>(&shape), sizeof(shape));
  const bool fits =
      file && std::memcmp(magic, kMagic, sizeof(magic)) == 0 && shape.width == kWidth &&
      shape.heads > 1 && shape.heads <= 4096 && shape.group > 0 && shape.group <= 64 &&
      shape.tokens > 0 && shape.tokens <= (1u << 20) && shape.queries > 0 &&
      shape.queries <= (1u << 20) && shape.passages > 0 && shape.passages <= shape.tokens;
  if (!fits) return NotOurs(path);
  std::vector<float> frequencies(kWidth / 2);
  file.read(reinterpret_cast<char*>(frequencies.data()), kWidth / 2 * sizeof(float));
  const uint64_t row_count =
      uint64_t{shape.heads} *
      (2 * uint64_t{shape.tokens} + uint64_t{shape.group} * shape.queries);
  const auto begin = file.tellg();
  file.seekg(0, std::ios::end);
  if (!file || static_cast<uint64_t>(file.tellg() - begin) != row_count * kWidth * 2) {
    return NotOurs(path);
  }
  file.seekg(begin);
  std::vector<std::byte> rows(row_count * kWidth * 2);
  file.read(reinterpret_cast<char*>(rows.data()),
            static_cast<std::streamsize>(rows.size()));
  if (!file) return NotOurs(path);
  return std::make_unique<Real>(shape, std::move(frequencies), std::move(rows));
}

}  // namespace kvtier::bench
