// Goal: an abstract is where its layout says, whole, finite, and the checksum that of
// the bytes. Method: shapes on the edges; parts compared with the kernels' own.

#include <cmath>
#include <cstring>
#include <limits>

#include "gtest/gtest.h"
#include "kernels/host/checksum.h"
#include "tests/retrieval/fake_layer.h"

namespace kvtier::retrieval {
namespace {

TEST(AbstractLayout, PartsFollowEachOtherAligned) {
  for (const uint32_t key_dim : {1, 3, 64, 80, 128, 256}) {
    const LayerSpec spec = SmallSpec(1, 1, key_dim, 20);
    const AbstractLayout both = AbstractLayout::For(spec, AbstractSet());
    const size_t plane = both.padded_key_dim / 4 * 32;
    EXPECT_EQ(both.key_mean_offset, 0);
    EXPECT_GE(both.value_mean_offset, key_dim * 2);
    EXPECT_GE(both.scales_offset, both.value_mean_offset + 40);
    EXPECT_GE(both.high_plane_offset, both.scales_offset + 64);
    EXPECT_GE(both.low_plane_offset, both.high_plane_offset + plane);
    EXPECT_GE(both.bounds_offset, both.low_plane_offset + plane);
    EXPECT_GE(both.page_abstract_bytes, both.bounds_offset + 16 * key_dim);
    EXPECT_EQ(both.page_abstract_bytes % 64, 0);
    EXPECT_EQ(both.bounds_offset % 16, 0);
    const AbstractLayout bounds = AbstractLayout::For(spec, {.sketch = false});
    EXPECT_EQ(bounds.bounds_offset, 0);
    EXPECT_LT(bounds.page_abstract_bytes, both.page_abstract_bytes);
    EXPECT_EQ(
        AbstractLayout::For(spec, {.sketch = false, .bounds = false}).page_abstract_bytes,
        0);
  }
}

TEST(BuildAbstract, ChecksumIsThatOfThePage) {
  const LayerSpec spec = SmallSpec(1, 1, 80, 20);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const AbstractSet set : {AbstractSet{true, true}, AbstractSet{false, false}}) {
      const std::vector<std::byte> page =
          kernels::Encoded(dtype, kernels::Gaussian(64 * 100, 1));
      const AbstractLayout layout = AbstractLayout::For(spec, set);
      std::vector<std::byte> abstract(layout.page_abstract_bytes);
      EXPECT_EQ(BuildAbstract(spec, dtype, layout, page.data(), 77, abstract.data()),
                kernels::Crc32c(77, page.data(), page.size()));
    }
  }
}

TEST(BuildAbstract, IsAFunctionOfTheBytesAndWritesWithinItsSize) {
  for (const uint32_t key_dim : {1, 3, 80, 128}) {
    const LayerSpec spec = SmallSpec(1, 1, key_dim, 7);
    const AbstractLayout layout = AbstractLayout::For(spec, AbstractSet());
    const std::vector<float> page = kernels::Gaussian(64 * spec.row_elements(), 1);
    const auto* bytes = reinterpret_cast<const std::byte*>(page.data());
    std::vector<std::byte> a(layout.page_abstract_bytes + 64, std::byte{0xAA});
    std::vector<std::byte> b(layout.page_abstract_bytes + 64, std::byte{0x55});
    BuildAbstract(spec, DType::kF32, layout, bytes, 0, a.data());
    BuildAbstract(spec, DType::kF32, layout, bytes, 0, b.data());
    EXPECT_EQ(std::memcmp(a.data(), b.data(), layout.page_abstract_bytes), 0);
    EXPECT_EQ(a[layout.page_abstract_bytes], std::byte{0xAA});
    EXPECT_EQ(b[layout.page_abstract_bytes], std::byte{0x55});
  }
}

TEST(BuildAbstract, MeansAreMeansAndBadValuesCountAsZero) {
  const LayerSpec spec = SmallSpec(1, 1, 64, 20);
  const AbstractLayout layout = AbstractLayout::For(spec, AbstractSet());
  std::vector<float> page = kernels::Gaussian(64 * 84, 1);
  page[5] = std::numeric_limits<float>::quiet_NaN();
  page[84 + 70] = INFINITY;
  std::vector<std::byte> abstract(layout.page_abstract_bytes);
  BuildAbstract(spec, DType::kF32, layout, reinterpret_cast<std::byte*>(page.data()), 0,
                abstract.data());
  std::vector<float> means(84);
  kernels::ToF32(DType::kF16, abstract.data() + layout.key_mean_offset, 64, means.data());
  kernels::ToF32(DType::kF16, abstract.data() + layout.value_mean_offset, 20,
                 means.data() + 64);
  for (size_t i = 0; i < 84; ++i) {
    double sum = 0.0;
    for (size_t t = 0; t < 64; ++t) {
      const float v = page[t * 84 + i];
      sum += std::isfinite(v) ? v : 0.0f;
    }
    EXPECT_NEAR(means[i], sum / 64, 1e-3);
  }
}

}  // namespace
}  // namespace kvtier::retrieval
