// Goal: the rotation is orthogonal, the sketch's vector scores are its definition's, and
// those follow the exact ones. Method: random Gaussian keys, dimensions on the edges
// (below a table group, padded to a power of two, the largest).

#include "kernels/host/sketch.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "kernels/host/rotate.h"
#include "tests/kernels/instruction_sets.h"
#include "tests/kernels/random.h"

namespace kvtier::kernels {
namespace {

struct Page {
  std::vector<float> keys;  // [64][dim]
  std::vector<uint16_t> mean;
  std::vector<uint8_t> scales, high, low;
  SketchParts parts() const {
    return {mean.data(), scales.data(), high.data(), low.data()};
  }
};

Page Encode(std::vector<float> keys, size_t dim) {
  Page page;
  page.keys = std::move(keys);
  page.mean.resize(dim);
  page.scales.resize(64);
  page.high.resize(SketchPlaneBytes(dim));
  page.low.resize(SketchPlaneBytes(dim));
  std::vector<float> scratch;
  EncodeSketch(Padded(page.keys, dim).data(), dim, page.mean.data(), page.scales.data(),
               page.high.data(), page.low.data(), &scratch);
  return page;
}

double Correlation(const std::vector<double>& a, const std::vector<double>& b) {
  double ma = 0, mb = 0, ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) ma += a[i] / a.size(), mb += b[i] / b.size();
  for (size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - ma) * (b[i] - mb);
    aa += (a[i] - ma) * (a[i] - ma);
    bb += (b[i] - mb) * (b[i] - mb);
  }
  return ab / std::sqrt(aa * bb);
}

class SketchDims : public ::testing::TestWithParam<size_t> {};
INSTANTIATE_TEST_SUITE_P(Edges, SketchDims,
                         ::testing::Values(1, 3, 4, 5, 64, 80, 128, 256, 1024));

TEST_P(SketchDims, RotationKeepsDotProducts) {
  const size_t dim = GetParam();
  const std::vector<float> a = Gaussian(dim, 1), b = Gaussian(dim, 2);
  std::vector<float> ra(RotatedDim(dim)), rb(RotatedDim(dim));
  Rotate(a.data(), dim, ra.data());
  Rotate(b.data(), dim, rb.data());
  const double norm =
      std::sqrt(Dot(a.data(), a.data(), dim) * Dot(b.data(), b.data(), dim));
  EXPECT_NEAR(Dot(ra.data(), rb.data(), ra.size()), Dot(a.data(), b.data(), dim),
              1e-5 * norm);
}

TEST_P(SketchDims, ColumnsRotateAsVectorsDo) {
  const size_t dim = GetParam(), rotated = RotatedDim(dim);
  const std::vector<float> a = Gaussian(dim, 3);
  std::vector<float> want(rotated), columns(rotated * 16);
  Rotate(a.data(), dim, want.data());
  for (size_t i = 0; i < dim; ++i) columns[i * 16 + 5] = a[i] * RotationSign(i);
  HadamardColumns(columns.data(), rotated, 16);
  for (size_t i = 0; i < rotated; ++i) {
    EXPECT_NEAR(columns[i * 16 + 5], want[i], 1e-5);
    EXPECT_EQ(columns[i * 16 + 4], 0.0f);
  }
}

void ExpectScoresAreTheDefinitions(const Page& page, size_t dim) {
  for (const size_t heads : {1, 2, 3, 4, 5, 8, 11}) {
    const std::vector<float> q = Gaussian(heads * dim, 5);
    SketchQuery query;
    PrepareSketchQuery(q.data(), heads, dim, 0.5f, &query);
    std::vector<float> got(heads * 100), want(heads * 100);
    ScoreSketch(query, page.parts(), page.parts(), got.data(), 100);
    ScoreSketchReference(q.data(), heads, dim, page.parts(), 0.5f, want.data(), 100);
    for (size_t h = 0; h < heads; ++h) {
      for (size_t t = 0; t < 64; ++t) {
        // Each component is off by half a step at most, times a level of 1.5 or less.
        const double components = static_cast<double>(RotatedDim(dim));
        const double unit = SketchScale(page.scales[t]) * query.step[h];
        EXPECT_NEAR(got[h * 100 + t], want[h * 100 + t], unit * 0.75 * components + 1e-3);
        // And in practice far less: errors are independent, of 0.29 steps times 1.1.
        const double typical = unit * 5.0 * 0.32 * std::sqrt(components) + 1e-3;
        EXPECT_NEAR(got[h * 100 + t], want[h * 100 + t], typical);
      }
    }
  }
}

TEST_P(SketchDims, VectorScoresAreTheDefinitions) {
  const size_t dim = GetParam();
  ForEachInstructionSet([dim] {
    const Page page = Encode(Gaussian(64 * dim, 4, 2.0f), dim);
    ExpectScoresAreTheDefinitions(page, dim);
  });
}

// Below 64 components, four levels have too few to average over.
class SketchQuality : public ::testing::TestWithParam<size_t> {};
INSTANTIATE_TEST_SUITE_P(Dims, SketchQuality, ::testing::Values(64, 80, 128, 256, 1024));

TEST_P(SketchQuality, FollowsExactScores) {
  const size_t dim = GetParam();
  std::vector<float> keys = Gaussian(64 * dim, 6);
  for (size_t t = 0; t < 64; ++t) keys[t * dim] += 20.0f;  // an outlier channel
  const Page page = Encode(keys, dim);
  const std::vector<float> q = Gaussian(dim, 7);
  SketchQuery query;
  PrepareSketchQuery(q.data(), 1, dim, 1.0f, &query);
  std::vector<float> got(64);
  ScoreSketch(query, page.parts(), page.parts(), got.data(), 64);
  std::vector<double> a(64), b(64);
  for (size_t t = 0; t < 64; ++t) {
    a[t] = got[t];
    b[t] = Dot(q.data(), keys.data() + t * dim, dim);
  }
  // Four levels leave 12 % of a Gaussian's power, so 0.94 is what can be expected.
  EXPECT_GT(Correlation(a, b), 0.88);
}

TEST(Sketch, IsExactForEqualKeys) {
  constexpr size_t kDim = 64;
  const std::vector<float> key =
      Decoded(DType::kF16, Encoded(DType::kF16, Gaussian(kDim, 8)));
  std::vector<float> keys;
  for (int t = 0; t < 64; ++t) keys.insert(keys.end(), key.begin(), key.end());
  const Page page = Encode(keys, kDim);
  const std::vector<float> q = Gaussian(kDim, 9);
  SketchQuery query;
  PrepareSketchQuery(q.data(), 1, kDim, 1.0f, &query);
  std::vector<float> got(64);
  ScoreSketch(query, page.parts(), page.parts(), got.data(), 64);
  for (const float logit : got) {
    EXPECT_NEAR(logit, Dot(q.data(), key.data(), kDim), 1e-3);
  }
}

TEST(Sketch, ZeroAndHugeInputsStayFinite) {
  constexpr size_t kDim = 64;
  for (const float scale : {0.0f, 1e-30f, 1e30f}) {
    const Page page = Encode(Gaussian(64 * kDim, 10, scale), kDim);
    for (const float query_scale : {0.0f, 1e-40f, 1e-30f, 1.0f, 1e38f}) {
      const std::vector<float> q = Gaussian(kDim, 11, query_scale);
      SketchQuery query;
      PrepareSketchQuery(q.data(), 1, kDim, 1.0f, &query);
      std::vector<float> got(64);
      ScoreSketch(query, page.parts(), page.parts(), got.data(), 64);
      for (const float logit : got) EXPECT_TRUE(std::isfinite(logit)) << scale;
    }
  }
}

TEST(Sketch, IsTheSameBytesOnEveryInstructionSet) {
  constexpr size_t kDim = 80;
  const std::vector<float> keys = Gaussian(64 * kDim, 12);
  const Page want = Encode(keys, kDim);
  ForEachInstructionSet([&] {
    const Page page = Encode(keys, kDim);
    EXPECT_EQ(page.mean, want.mean);
    EXPECT_EQ(page.high, want.high);
    EXPECT_EQ(page.low, want.low);
  });
}

TEST(Sketch, LargestCodesAndQueriesDoNotOverflow) {
  // All codes 3 or 0, all of the query's components the largest: the sums' extremes.
  constexpr size_t kDim = 1024;
  Page page;
  page.mean.resize(kDim);
  page.scales.assign(64, 128);
  for (const uint8_t bits : {0x00, 0xFF}) {
    page.high.assign(SketchPlaneBytes(kDim), bits);
    page.low.assign(SketchPlaneBytes(kDim), bits);
    // Its rotation has components of equal magnitude, up to a sign.
    std::vector<float> query(kDim), rotated(kDim);
    query[5] = 32.0f;
    Rotate(query.data(), kDim, rotated.data());
    for (const float r : rotated) ASSERT_NEAR(std::abs(r), 1.0f, 1e-4f);
    std::vector<float> want(64);
    ScoreSketchReference(query.data(), 1, kDim, page.parts(), 1.0f, want.data(), 64);
    ForEachInstructionSet([&] {
      SketchQuery ready;
      PrepareSketchQuery(query.data(), 1, kDim, 1.0f, &ready);
      std::fill(ready.quads.begin(), ready.quads.end(), 0x7F7F7F7F);
      std::vector<float> got(64);
      ScoreSketch(ready, page.parts(), page.parts(), got.data(), 64);
      const float sum = 127.0f * kDim * (bits == 0 ? 0.0f : 3.0f);
      EXPECT_NEAR(got[17], sum * ready.step[0] + ready.offset[0], 1e-2f);
    });
  }
}

TEST(Sketch, ScaleBytesRoundToEighthsOfAnOctave) {
  EXPECT_EQ(SketchScaleByte(0.0f), 0);
  EXPECT_EQ(SketchScaleByte(-1.0f), 0);
  EXPECT_EQ(SketchScaleByte(std::numeric_limits<float>::quiet_NaN()), 0);
  EXPECT_EQ(SketchScaleByte(1.0f), 128);
  EXPECT_EQ(SketchScaleByte(2.0f), 136);
  EXPECT_EQ(SketchScaleByte(1e30f), 255);
  for (int byte = 1; byte < 256; ++byte) {
    EXPECT_EQ(SketchScaleByte(SketchScale(static_cast<uint8_t>(byte))), byte);
  }
}

}  // namespace
}  // namespace kvtier::kernels
