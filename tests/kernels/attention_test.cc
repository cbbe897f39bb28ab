// Goal: exact scores, safe softmax, and partial attentions that merge to the whole.
// Method: double-precision references; rows split at every kind of place.

#include "kernels/host/attention.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "gtest/gtest.h"
#include "kernels/host/rows.h"
#include "kernels/host/softmax.h"
#include "tests/kernels/instruction_sets.h"
#include "tests/kernels/random.h"

namespace kvtier::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(ScoreRows, AreDotProducts) {
  ForEachInstructionSet([] {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const size_t dim : {1, 3, 64, 80, 128, 256}) {
        constexpr size_t kRows = 67, kHeads = 3, kExtra = 5;
        const size_t row = dim + kExtra;
        const std::vector<std::byte> bytes = Encoded(dtype, Gaussian(kRows * row, 41));
        const std::vector<float> exact = Decoded(dtype, bytes);
        const std::vector<float> queries = Gaussian(kHeads * dim, 42);
        std::vector<float> logits(kHeads * kRows);
        ScoreRows(dtype, bytes.data(), row * ElementBytes(dtype), kRows, dim,
                  Padded(queries, dim).data(), kHeads, 0.25f, logits.data(), kRows);
        for (size_t h = 0; h < kHeads; ++h) {
          for (size_t t = 0; t < kRows; ++t) {
            EXPECT_NEAR(logits[h * kRows + t],
                        0.25 * Dot(queries.data() + h * dim, exact.data() + t * row, dim),
                        1e-4);
          }
        }
      }
    }
  });
}

TEST(ScoreRows, BadKeysGiveFiniteLogits) {
  ForEachInstructionSet([] {
    std::vector<float> keys(2 * 64, 1.0f);
    keys[0] = std::numeric_limits<float>::quiet_NaN();
    keys[1] = kInfinity;
    for (size_t i = 64; i < 128; ++i) keys[i] = i % 2 == 0 ? 3e38f : -3e38f;
    const std::vector<float> q(64, 10.0f);
    std::vector<float> logits(2);
    ScoreRows(DType::kF32, reinterpret_cast<const std::byte*>(keys.data()), 256, 2, 64,
              q.data(), 1, 1.0f, logits.data(), 2);
    EXPECT_EQ(logits[0], 620.0f);
    EXPECT_TRUE(std::isfinite(logits[1]));
  });
}

TEST(GatherRows, CopiesInOrder) {
  ForEachInstructionSet([] {
    std::vector<std::byte> a(64 * 6), b(64 * 6);
    for (size_t i = 0; i < a.size(); ++i)
      a[i] = std::byte(i % 251), b[i] = std::byte(i % 7);
    const std::byte* pages[] = {a.data(), b.data()};
    std::vector<std::byte> out(3 * 6);
    GatherRows(pages, 6, {70, 0, 63}, out.data());
    EXPECT_EQ(std::memcmp(out.data(), b.data() + 36, 6), 0);
    EXPECT_EQ(std::memcmp(out.data() + 6, a.data(), 6), 0);
    EXPECT_EQ(std::memcmp(out.data() + 12, a.data() + 63 * 6, 6), 0);
  });
}

TEST(Softmax, AsInDoubleAtEveryTail) {
  ForEachInstructionSet([] {
    for (size_t n = 1; n < 70; ++n) {
      const std::vector<float> logits = Gaussian(n, 43, 20.0f);
      double max = -1e30, sum = 0.0;
      for (const float l : logits) max = std::max<double>(max, l);
      for (const float l : logits) sum += std::exp(l - max);
      std::vector<float> weights = logits, p(n, 1.0f);
      float weight_sum = 0.0f;
      const float shift = ExpShifted(weights.data(), n, &weight_sum);
      EXPECT_EQ(shift, static_cast<float>(max));
      EXPECT_NEAR(LogSumExp(shift, weight_sum), max + std::log(sum),
                  1e-5 * std::abs(max) + 1e-5);
      weights = logits;
      EXPECT_EQ(AddSoftmax(weights.data(), n, 0.5f, p.data()), shift);
      for (size_t i = 0; i < n; ++i) {
        EXPECT_NEAR(weights[i], std::exp(logits[i] - max), 1e-6);
        EXPECT_NEAR(p[i], 1.0 + 0.5 * std::exp(logits[i] - max) / sum, 1e-6);
      }
    }
  });
}

TEST(Softmax, InfiniteLogits) {
  ForEachInstructionSet([] {
    for (const size_t n : {3, 33}) {
      std::vector<float> logits(n, -kInfinity), p(n, 0.0f);
      float sum = 1.0f;
      EXPECT_EQ(ExpShifted(logits.data(), n, &sum), -kInfinity);
      EXPECT_EQ(sum, 0.0f);
      EXPECT_EQ(LogSumExp(-kInfinity, sum), -kInfinity);
      logits.assign(n, -kInfinity);
      AddSoftmax(logits.data(), n, 1.0f, p.data());
      EXPECT_EQ(p[0], 0.0f);
      logits.assign(n, -kInfinity);
      logits[1] = kInfinity;
      logits[2] = 5.0f;
      AddSoftmax(logits.data(), n, 1.0f, p.data());
      EXPECT_EQ(p[1], 1.0f);
      EXPECT_LT(p[2], 1e-30f);
    }
  });
}

TEST(Softcap, IsATanhAndNothingAtZero) {
  ForEachInstructionSet([] {
    std::vector<float> logits = Gaussian(37, 44, 50.0f), capped = logits;
    Softcap(30.0f, capped.data(), capped.size());
    for (size_t i = 0; i < logits.size(); ++i) {
      EXPECT_NEAR(capped[i], 30.0 * std::tanh(logits[i] / 30.0), 1e-4);
    }
    capped = logits;
    Softcap(0.0f, capped.data(), capped.size());
    EXPECT_EQ(capped, logits);
  });
}

TEST(PartialAttention, PartsMergeToTheWhole) {
  ForEachInstructionSet([] {
    constexpr size_t kRows = 50;
    const AttentionShape shape = {
        .key_dim = 24, .value_dim = 10, .scale = 0.5f, .softcap = 20.0f};
    const std::vector<float> rows = Gaussian(kRows * 34, 45);
    const auto* bytes = reinterpret_cast<const std::byte*>(rows.data());
    const std::vector<float> q = Gaussian(24, 46);
    std::vector<float> whole(10);
    const float whole_lse =
        PartialAttention(shape, DType::kF32, bytes, kRows, q.data(), whole.data());
    for (const size_t cut : {0, 1, 25, 50}) {
      std::vector<float> a(10), b(10);
      float lse = PartialAttention(shape, DType::kF32, bytes, cut, q.data(), a.data());
      const float other = PartialAttention(shape, DType::kF32, bytes + cut * 34 * 4,
                                           kRows - cut, q.data(), b.data());
      MergePartial(b.data(), other, 10, a.data(), &lse);
      EXPECT_NEAR(lse, whole_lse, 1e-5);
      for (size_t i = 0; i < 10; ++i) EXPECT_NEAR(a[i], whole[i], 1e-5);
    }
  });
}

TEST(MergePartial, OfNothingIsNothing) {
  ForEachInstructionSet([] {
    std::vector<float> a(3), b(3);
    float lse = -kInfinity;
    MergePartial(b.data(), -kInfinity, 3, a.data(), &lse);
    EXPECT_EQ(lse, -kInfinity);
    EXPECT_EQ(a[0], 0.0f);
  });
}

}  // namespace
}  // namespace kvtier::kernels
