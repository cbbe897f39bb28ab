#include <algorithm>
#include <cmath>

#include "kernels/host/convert.h"
#include "tests/bench/geometry.h"
#include "tests/bench/rows.h"

namespace kvtier::bench {
namespace {

// The sum of four bytes of a counter's hash, scaled to variance 1: a thousand times
// faster than an exact Gaussian is needed here, a gigabyte at a time.
class GaussianSource {
 public:
  explicit GaussianSource(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u) {}

  // Two numbers a call.
  void Next(float* out) {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    for (int i = 0; i < 2; ++i, z >>= 32) {
      const uint32_t sum = (z & 255) + (z >> 8 & 255) + (z >> 16 & 255) + (z >> 24 & 255);
      out[i] = (static_cast<float>(sum) - 510.0f) * (1.0f / 147.8f);
    }
  }

 private:
  uint64_t state_;
};

class Synthetic final : public ContextRows {
 public:
  std::string label() const override { return "synthetic"; }

  std::vector<std::byte> Rows(uint32_t layer, uint64_t start,
                              uint32_t count) const override {
    return GaussianRows(count * kTokenBytes / ElementBytes(kDType),
                        (uint64_t{layer} << 32) + start);
  }

  // On a circle through two directions: a step is an angle of 18 degrees, and every five
  // steps one of the two is new.
  std::vector<float> Query(uint32_t layer, uint64_t step, uint64_t) const override {
    constexpr uint64_t kQuarter = 5;
    const std::vector<float> from = Direction(layer, step / kQuarter);
    const std::vector<float> to = Direction(layer, step / kQuarter + 1);
    const float angle = static_cast<float>(step % kQuarter) * 0.31416f;
    std::vector<float> query(from.size());
    for (size_t i = 0; i < query.size(); ++i) {
      query[i] = std::cos(angle) * from[i] + std::sin(angle) * to[i];
    }
    return query;
  }

 private:
  static std::vector<float> Direction(uint32_t layer, uint64_t index) {
    std::vector<float> direction(kKvHeads * kGroup * kDim);
    GaussianSource source(~((uint64_t{layer} << 32) + index));
    for (size_t i = 0; i < direction.size(); i += 2) source.Next(direction.data() + i);
    return direction;
  }
};

}  // namespace

std::vector<std::byte> GaussianRows(uint64_t count, uint64_t seed) {
  constexpr size_t kPart = 4096;
  std::vector<std::byte> bytes(count * ElementBytes(kDType));
  GaussianSource source(seed);
  float part[kPart];
  for (uint64_t done = 0; done < count; done += kPart) {
    for (size_t i = 0; i < kPart; i += 2) source.Next(part + i);
    const size_t now = std::min<uint64_t>(kPart, count - done);
    kernels::FromF32(kDType, part, now, bytes.data() + done * ElementBytes(kDType));
  }
  return bytes;
}

std::unique_ptr<ContextRows> SyntheticRows() { return std::make_unique<Synthetic>(); }

}  // namespace kvtier::bench
