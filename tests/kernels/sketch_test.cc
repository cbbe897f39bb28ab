// Goal: the rotation is orthogonal, the sketch's vector scores are its definition's, and
// those follow the exact ones. Method: random Gaussian keys, dimensions on the edges
// (below a table group, padded to a power of two, the largest).

#include "kernels/host/sketch.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "kernels/host/rotate.h"
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
  page.high.resize(RotatedDim(dim) * 8);
  page.low.resize(RotatedDim(dim) * 8);
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

TEST_P(SketchDims, VectorScoresAreTheDefinitions) {
  const size_t dim = GetParam();
  const Page page = Encode(Gaussian(64 * dim, 4, 2.0f), dim);
  for (const size_t heads : {1, 2, 3, 4}) {
    const std::vector<float> q = Gaussian(heads * dim, 5);
    SketchQuery query;
    PrepareSketchQuery(q.data(), heads, dim, &query);
    std::vector<float> got(heads * 100), want(heads * 100);
    ScoreSketch(query, page.parts(), page.parts(), 0.5f, got.data(), 100);
    ScoreSketchReference(q.data(), heads, dim, page.parts(), 0.5f, want.data(), 100);
    for (size_t h = 0; h < heads; ++h) {
      for (size_t t = 0; t < 64; ++t) {
        // Each of D / 4 pairs of entries is off by at most one step together.
        const double bound = 0.5 * SketchScale(page.scales[t]) * query.step[h] *
                                 static_cast<double>(query.groups) +
                             1e-3;
        EXPECT_NEAR(got[h * 100 + t], want[h * 100 + t], bound);
        // And in practice far less: errors are independent.
        const double typical = 3.0 * SketchScale(page.scales[t]) * query.step[h] *
                                   std::sqrt(static_cast<double>(query.groups)) +
                               1e-3;
        EXPECT_NEAR(got[h * 100 + t], want[h * 100 + t], typical);
      }
    }
  }
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
  PrepareSketchQuery(q.data(), 1, dim, &query);
  std::vector<float> got(64);
  ScoreSketch(query, page.parts(), page.parts(), 1.0f, got.data(), 64);
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
  PrepareSketchQuery(q.data(), 1, kDim, &query);
  std::vector<float> got(64);
  ScoreSketch(query, page.parts(), page.parts(), 1.0f, got.data(), 64);
  for (const float logit : got) {
    EXPECT_NEAR(logit, Dot(q.data(), key.data(), kDim), 1e-3);
  }
}

TEST(Sketch, ZeroAndHugeInputsStayFinite) {
  constexpr size_t kDim = 64;
  for (const float scale : {0.0f, 1e-30f, 1e30f}) {
    const Page page = Encode(Gaussian(64 * kDim, 10, scale), kDim);
    for (const float query_scale : {0.0f, 1e-30f, 1.0f}) {
      const std::vector<float> q = Gaussian(kDim, 11, query_scale);
      SketchQuery query;
      PrepareSketchQuery(q.data(), 1, kDim, &query);
      std::vector<float> got(64);
      ScoreSketch(query, page.parts(), page.parts(), 1.0f, got.data(), 64);
      for (const float logit : got) EXPECT_TRUE(std::isfinite(logit)) << scale;
    }
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
