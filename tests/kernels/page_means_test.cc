// Goal: pages' weights and means add up, at every tail of a vector.
// Method: the definition in double.

#include "kernels/host/page_means.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tests/kernels/instruction_sets.h"
#include "tests/kernels/random.h"

namespace kvtier::kernels {
namespace {

class PageMean : public ::testing::TestWithParam<size_t> {};
INSTANTIATE_TEST_SUITE_P(Dims, PageMean, ::testing::Values(1, 3, 8, 17, 64, 80, 128));

TEST_P(PageMean, IsAddedByItsWeight) {
  ForEachInstructionSet([] {
    const size_t dim = GetParam();
    constexpr size_t kPages = 3;
    constexpr size_t kStride = kPages * 64 + 5;
    for (const size_t heads : {1, 3, 4}) {
      std::vector<float> weights = Gaussian(heads * kStride, 51);
      for (float& w : weights) w = std::abs(w);
      std::vector<uint16_t> means(kPages * dim);
      const std::vector<float> values = Gaussian(kPages * dim, 52);
      FromF32(DType::kF16, values.data(), values.size(),
              reinterpret_cast<std::byte*>(means.data()));
      std::vector<float> output(heads * dim, 1.0f), sums(heads, 2.0f);
      for (size_t p = 0; p < kPages; ++p) {
        AddPageMean(weights.data() + p * 64, kStride, heads, means.data() + p * dim,
                    means.data(), dim, output.data(), sums.data());
      }
      for (size_t h = 0; h < heads; ++h) {
        double sum = 2.0;
        std::vector<double> want(dim, 1.0);
        for (size_t t = 0; t < kPages * 64; ++t) {
          const double w = weights[h * kStride + t];
          sum += w;
          for (size_t i = 0; i < dim; ++i) {
            want[i] += w * F32FromF16(means[t / 64 * dim + i]);
          }
        }
        EXPECT_NEAR(sums[h], sum, 1e-3);
        for (size_t i = 0; i < dim; ++i) EXPECT_NEAR(output[h * dim + i], want[i], 1e-3);
      }
    }
  });
}

}  // namespace
}  // namespace kvtier::kernels
