// Goal: vector conversion does what the formats say, for every bit pattern and every
// tail. Method: against the one-element functions, and those against known values.

#include "kernels/host/convert.h"

#include <bit>
#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "tests/kernels/instruction_sets.h"
#include "tests/kernels/random.h"

namespace kvtier::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(ScalarConvert, F16KnownValues) {
  EXPECT_EQ(F32FromF16(0x3C00), 1.0f);
  EXPECT_EQ(F32FromF16(0xC000), -2.0f);
  EXPECT_EQ(F32FromF16(0x7BFF), 65504.0f);
  EXPECT_EQ(F32FromF16(0x0001), 0x1p-24f);
  EXPECT_EQ(F32FromF16(0x7C00), kInfinity);
  EXPECT_TRUE(std::isnan(F32FromF16(0x7E00)));
  EXPECT_EQ(F16FromF32(65519.0f), 0x7BFF);
  EXPECT_EQ(F16FromF32(65520.0f), 0x7C00);
  EXPECT_EQ(F16FromF32(1.0f + 0x1p-11f), 0x3C00);  // tie to even
  EXPECT_EQ(F16FromF32(1.0f + 0x3p-11f), 0x3C02);
}

TEST(ScalarConvert, F16SurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = F32FromF16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    EXPECT_EQ(F16FromF32(value), bits);
  }
}

TEST(ScalarConvert, BF16RoundsToEvenAndKeepsNan) {
  EXPECT_EQ(BF16FromF32(std::bit_cast<float>(0x3F808000u)), 0x3F80);
  EXPECT_EQ(BF16FromF32(std::bit_cast<float>(0x3F818000u)), 0x3F82);
  EXPECT_TRUE(std::isnan(F32FromBF16(BF16FromF32(std::bit_cast<float>(0x7F800001u)))));
}

TEST(Convert, EveryF16PatternAsTheScalar) {
  ForEachInstructionSet([] {
    std::vector<uint16_t> all(0x10000);
    for (uint32_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
    std::vector<float> out(all.size());
    ToF32(DType::kF16, reinterpret_cast<const std::byte*>(all.data()), all.size(),
          out.data());
    for (uint32_t i = 0; i < all.size(); ++i) {
      const float want = F32FromF16(all[i]);
      if (std::isnan(want)) {
        EXPECT_TRUE(std::isnan(out[i])) << i;
      } else {
        EXPECT_EQ(out[i], want) << i;
      }
    }
  });
}

TEST(Convert, FromF32AsTheScalarAtEveryTail) {
  ForEachInstructionSet([] {
    for (size_t count = 0; count < 70; ++count) {
      std::vector<float> values = Gaussian(count, 7, 100.0f);
      if (count > 2) values[1] = 1e6f;
      const std::vector<std::byte> f16 = Encoded(DType::kF16, values);
      const std::vector<std::byte> bf16 = Encoded(DType::kBF16, values);
      for (size_t i = 0; i < count; ++i) {
        EXPECT_EQ(reinterpret_cast<const uint16_t*>(f16.data())[i],
                  F16FromF32(values[i]));
        EXPECT_EQ(reinterpret_cast<const uint16_t*>(bf16.data())[i],
                  BF16FromF32(values[i]));
      }
    }
  });
}

TEST(Convert, AllFiniteSeesEveryElementOfEveryLength) {
  ForEachInstructionSet([] {
    constexpr uint16_t kF16Bad[] = {0x7C00, 0xFC00, 0x7E01};
    constexpr uint16_t kBF16Bad[] = {0x7F80, 0xFF80, 0x7FC1};
    for (size_t count = 1; count <= 40; ++count) {
      std::vector<uint16_t> halves(count, 0x7BFF);  // the largest f16
      std::vector<float> floats(count, std::numeric_limits<float>::max());
      const auto* half_bytes = reinterpret_cast<const std::byte*>(halves.data());
      const auto* float_bytes = reinterpret_cast<const std::byte*>(floats.data());
      EXPECT_TRUE(AllFinite(DType::kF16, half_bytes, count));
      EXPECT_TRUE(AllFinite(DType::kF32, float_bytes, count));
      for (size_t at = 0; at < count; ++at) {
        for (size_t bad = 0; bad < 3; ++bad) {
          halves[at] = kF16Bad[bad];
          EXPECT_FALSE(AllFinite(DType::kF16, half_bytes, count))
              << at << " of " << count;
          halves[at] = kBF16Bad[bad];
          EXPECT_FALSE(AllFinite(DType::kBF16, half_bytes, count))
              << at << " of " << count;
          halves[at] = 0x7BFF;
        }
        for (const float bad : {NAN, INFINITY, -INFINITY}) {
          floats[at] = bad;
          EXPECT_FALSE(AllFinite(DType::kF32, float_bytes, count))
              << at << " of " << count;
          floats[at] = std::numeric_limits<float>::max();
        }
      }
    }
  });
}

TEST(Convert, RowsArePaddedAndFinite) {
  ForEachInstructionSet([] {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const size_t dim : {1, 3, 15, 16, 17, 64, 80, 129}) {
        std::vector<float> values = Gaussian(3 * (dim + 2), 11);
        values[0] = std::numeric_limits<float>::quiet_NaN();
        values[dim + 2] = -kInfinity;
        const std::vector<std::byte> bytes = Encoded(dtype, values);
        const std::vector<float> exact = Decoded(dtype, bytes);
        std::vector<float> out(3 * PaddedRow(dim), 99.0f);
        RowsToF32(dtype, bytes.data(), (dim + 2) * ElementBytes(dtype), 3, dim,
                  out.data());
        for (size_t r = 0; r < 3; ++r) {
          for (size_t i = 0; i < PaddedRow(dim); ++i) {
            const float stored = i < dim ? exact[r * (dim + 2) + i] : 0.0f;
            EXPECT_EQ(out[r * PaddedRow(dim) + i], std::isfinite(stored) ? stored : 0.0f);
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace kvtier::kernels
