// Goal: U is a bound. Method: random keys of each element type, including ones beyond
// f16's range, against every token's exact q.k.

#include "kernels/host/bounds.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tests/kernels/instruction_sets.h"
#include "tests/kernels/random.h"

namespace kvtier::kernels {
namespace {

class Bounds : public ::testing::TestWithParam<std::tuple<DType, size_t, float>> {};
INSTANTIATE_TEST_SUITE_P(Edges, Bounds,
                         ::testing::Combine(::testing::Values(DType::kF32, DType::kF16,
                                                              DType::kBF16),
                                            ::testing::Values(1, 3, 64, 80, 128, 256),
                                            ::testing::Values(1e-7f, 1.0f, 1e5f)));

TEST_P(Bounds, AreAboveEveryToken) {
  const auto [dtype, dim, magnitude] = GetParam();
  std::vector<float> keys =
      Decoded(dtype, Encoded(dtype, Gaussian(64 * dim, 21, magnitude)));
  for (float& k : keys) k = std::isfinite(k) ? k : 0.0f;
  constexpr size_t kHeads = 3;
  std::vector<float> queries = Gaussian(kHeads * dim, 22);
  queries[0] = 0.0f;  // times an infinite bound
  std::vector<uint16_t> bounds(8 * dim);
  std::vector<float> scratch;
  EncodeBounds(Padded(keys, dim).data(), dim, bounds.data(), &scratch);
  std::vector<float> upper(kHeads * 5);
  BoundsQuery query;
  PrepareBoundsQuery(queries.data(), kHeads, dim, 1.0f, &query);
  ScoreBounds(query, bounds.data(), bounds.data(), upper.data(), 5);
  for (size_t h = 0; h < kHeads; ++h) {
    for (size_t t = 0; t < 64; ++t) {
      const float* q = queries.data() + h * dim;
      const float* k = keys.data() + t * dim;
      double magnitude_sum = 0.0;
      for (size_t i = 0; i < dim; ++i) magnitude_sum += std::abs(double{q[i]} * k[i]);
      ASSERT_FALSE(std::isnan(upper[h * 5 + t / 16]));
      // The slack is what summing in f32 can lose.
      EXPECT_GE(upper[h * 5 + t / 16], Dot(q, k, dim) - 1e-6 * magnitude_sum);
    }
  }
}

class BoundsDims : public ::testing::TestWithParam<size_t> {};
INSTANTIATE_TEST_SUITE_P(Dims, BoundsDims,
                         ::testing::Values(1, 3, 8, 16, 17, 64, 80, 100, 128));

void ExpectTheDefinition(size_t dim) {
  std::vector<uint16_t> bounds(8 * dim);
  std::vector<float> scratch;
  EncodeBounds(Padded(Gaussian(64 * dim, 31), dim).data(), dim, bounds.data(), &scratch);
  const std::vector<uint16_t> next = bounds;
  for (const size_t heads : {1, 2, 3, 4, 5, 8, 11}) {
    const std::vector<float> queries = Gaussian(heads * dim, 32);
    BoundsQuery query;
    PrepareBoundsQuery(queries.data(), heads, dim, 0.5f, &query);
    std::vector<float> upper(heads * 7, -1.0f);
    ScoreBounds(query, bounds.data(), next.data(), upper.data(), 7);
    for (size_t h = 0; h < heads; ++h) {
      for (size_t s = 0; s < 4; ++s) {
        double want = 0.0;
        for (size_t i = 0; i < dim; ++i) {
          const double q = queries[h * dim + i];
          want += std::max(q * F32FromF16(bounds[s * 2 * dim + i]),
                           q * F32FromF16(bounds[(s * 2 + 1) * dim + i]));
        }
        EXPECT_NEAR(upper[h * 7 + s], 0.5 * want, 1e-4) << heads << " heads, head " << h;
      }
      EXPECT_EQ(upper[h * 7 + 4], -1.0f) << "only its own four are written";
    }
  }
}

TEST_P(BoundsDims, AreTheDefinition) {
  ForEachInstructionSet([] { ExpectTheDefinition(GetParam()); });
}

TEST(BoundsEncoding, RoundsOutwardByLessThanTwoUnits) {
  constexpr size_t kDim = 64;
  const std::vector<float> keys = Gaussian(64 * kDim, 23);
  std::vector<uint16_t> bounds(8 * kDim);
  std::vector<float> scratch;
  EncodeBounds(keys.data(), kDim, bounds.data(), &scratch);
  for (size_t s = 0; s < 4; ++s) {
    for (size_t i = 0; i < kDim; ++i) {
      float low = keys[s * 16 * kDim + i], high = low;
      for (size_t t = 1; t < 16; ++t) {
        low = std::min(low, keys[(s * 16 + t) * kDim + i]);
        high = std::max(high, keys[(s * 16 + t) * kDim + i]);
      }
      const float stored_low = F32FromF16(bounds[s * 2 * kDim + i]);
      const float stored_high = F32FromF16(bounds[(s * 2 + 1) * kDim + i]);
      EXPECT_LE(stored_low, low);
      EXPECT_GE(stored_high, high);
      EXPECT_NEAR(stored_low, low, std::abs(low) * 0x1p-9f + 0x1p-24f);
      EXPECT_NEAR(stored_high, high, std::abs(high) * 0x1p-9f + 0x1p-24f);
    }
  }
}

}  // namespace
}  // namespace kvtier::kernels
