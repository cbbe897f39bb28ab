// Goal: contexts are what their label says: rows where they belong, rotated to their
// positions, and the same each time.
// Method: a small file as keys.py writes it, rotated here by the definition; files that
// are damaged.

#include "tests/bench/rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "kernels/host/convert.h"
#include "tests/bench/geometry.h"
#include "tests/daemon/kvtierd_process.h"
#include "tests/kernels/random.h"

namespace kvtier::bench {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kHeads = 6, kTokens = 8, kWidth = 64, kOfGroup = 3, kQueries = 4;
constexpr uint32_t kPassages = 2;

class RealRowsTest : public ::testing::Test {
 protected:
  RealRowsTest() {
    for (uint32_t i = 0; i < kWidth / 2; ++i) frequencies_.push_back(1.0f / (1 + i));
    const size_t count = kHeads * kWidth * (2 * kTokens + kOfGroup * kQueries);
    const std::vector<std::byte> bytes =
        kernels::Encoded(DType::kF16, kernels::Gaussian(count, 1));
    values_ = kernels::Decoded(DType::kF16, bytes);
    const uint32_t shape[] = {kHeads, kTokens, kWidth, kOfGroup, kQueries, kPassages};
    file_ = "kvtkeys1";
    file_.append(reinterpret_cast<const char*>(shape), sizeof(shape));
    file_.append(reinterpret_cast<const char*>(frequencies_.data()),
                 frequencies_.size() * sizeof(float));
    file_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

  absl::StatusOr<std::unique_ptr<ContextRows>> Load(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    return RealRows(path_);
  }

  // Row `row` of the file, turned to a position.
  std::vector<float> Turned(size_t row, uint64_t position) const {
    std::vector<float> out(kWidth);
    const float* in = values_.data() + row * kWidth;
    for (uint32_t i = 0; i < kWidth / 2; ++i) {
      const double angle = static_cast<double>(position) * frequencies_[i];
      const double a = in[i], b = in[i + kWidth / 2];
      out[i] = static_cast<float>(a * std::cos(angle) - b * std::sin(angle));
      out[i + kWidth / 2] = static_cast<float>(a * std::sin(angle) + b * std::cos(angle));
    }
    return out;
  }

  testing::TempDir dir_;
  const std::string path_ = dir_.path() + "/keys";
  std::vector<float> frequencies_;
  std::vector<float> values_;
  std::string file_;
};

TEST_F(RealRowsTest, KeysAreTurnedToTheirPositionsAndValuesAreNot) {
  auto rows = Load(file_);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_THAT((*rows)->label(), HasSubstr("2 passages of 4 tokens, re-rotated"));
  constexpr uint32_t kCount = 3;
  constexpr uint64_t kStart = 19;  // the third time through the tokens
  const std::vector<float> out =
      kernels::Decoded(DType::kF16, (*rows)->Rows(0, kStart, kCount));
  ASSERT_EQ(out.size(), 2 * kKvHeads * kCount * kDim);
  for (uint32_t kv_head : {0u, 1u, 2u, 3u, 7u}) {
    for (uint32_t t = 0; t < kCount; ++t) {
      for (uint32_t half : {0u, 1u}) {
        const uint32_t head = (2 * kv_head + half) % kHeads;
        // Heads that come again begin a passage, 4 tokens, later.
        const uint64_t token = (kStart + t + 2 * kv_head / kHeads * 4) % kTokens;
        const std::vector<float> key = Turned(head * kTokens + token, kStart + t);
        const size_t at = (kv_head * kCount + t) * kDim + half * kWidth;
        for (uint32_t i = 0; i < kWidth; ++i) {
          EXPECT_NEAR(out[at + i], key[i], 4e-3) << kv_head << " " << t << " " << i;
          EXPECT_EQ(out[kKvHeads * kCount * kDim + at + i],
                    values_[((kHeads + head) * kTokens + token) * kWidth + i]);
        }
      }
    }
  }
}

TEST_F(RealRowsTest, QueriesAreOfThePositionAndScaledForTheirWidth) {
  auto rows = Load(file_);
  ASSERT_TRUE(rows.ok()) << rows.status();
  constexpr uint64_t kStep = 6, kPosition = 30;
  const std::vector<float> query = (*rows)->Query(0, kStep, kPosition);
  ASSERT_EQ(query.size(), kKvHeads * kGroup * kDim);
  // Member of each half's group, by query head of the group.
  const uint32_t members[kGroup][2] = {{0, 0}, {1, 1}, {2, 2}, {0, 1}};
  for (uint32_t q = 0; q < kGroup; ++q) {
    for (uint32_t half : {0u, 1u}) {
      const size_t row = 2 * kHeads * kTokens +
                         (half * kOfGroup + members[q][half]) * kQueries +
                         kStep % kQueries;
      const std::vector<float> expected = Turned(row, kPosition);
      for (uint32_t i = 0; i < kWidth; ++i) {
        EXPECT_NEAR(query[q * kDim + half * kWidth + i], expected[i] * std::sqrt(2.0),
                    1e-5);
      }
    }
  }
}

TEST_F(RealRowsTest, RefusesWhatIsMissingOrDamaged) {
  EXPECT_EQ(RealRows(path_).status().code(), absl::StatusCode::kNotFound);
  std::string other_magic = file_, other_width = file_, no_heads = file_;
  other_magic[7] = '9';
  other_width[8 + 2 * 4] = 63;
  no_heads[8] = 0;
  for (const std::string& bytes :
       {std::string(), file_.substr(0, 20), file_.substr(0, file_.size() - 1),
        file_ + "x", other_magic, other_width, no_heads}) {
    EXPECT_EQ(Load(bytes).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(SyntheticRows, AreTheSameEachTimeAndOfVarianceOne) {
  const auto rows = SyntheticRows();
  EXPECT_EQ(rows->label(), "synthetic");
  EXPECT_EQ(rows->Rows(1, 64, 64), rows->Rows(1, 64, 64));
  EXPECT_NE(rows->Rows(1, 64, 64), rows->Rows(2, 64, 64));
  EXPECT_NE(rows->Rows(1, 64, 64), rows->Rows(1, 0, 64));
  const std::vector<float> values = kernels::Decoded(kDType, rows->Rows(0, 0, 64));
  EXPECT_NEAR(kernels::Dot(values.data(), values.data(), values.size()) / values.size(),
              1.0, 0.02);
}

TEST(SyntheticRows, QueriesTurnByTheSameAngleEachStep) {
  const auto rows = SyntheticRows();
  for (uint64_t step = 1; step < 12; ++step) {
    const std::vector<float> a = rows->Query(3, step, 0), b = rows->Query(3, step + 1, 0);
    const double cosine = kernels::Dot(a.data(), b.data(), a.size()) /
                          std::sqrt(kernels::Dot(a.data(), a.data(), a.size()) *
                                    kernels::Dot(b.data(), b.data(), b.size()));
    EXPECT_NEAR(cosine, 0.951, 0.02) << step;
  }
}

}  // namespace
}  // namespace kvtier::bench
