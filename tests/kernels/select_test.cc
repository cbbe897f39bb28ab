// Goal: the largest values, by lowest index among equals, and exact differences.
// Method: a stable sort and set algebra as references.

#include "kernels/host/select.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/kernels/instruction_sets.h"
#include "tests/kernels/random.h"

namespace kvtier::kernels {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<uint32_t> Reference(const std::vector<float>& values, size_t count) {
  std::vector<uint32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return values[a] > values[b]; });
  order.resize(std::min(count, order.size()));
  std::sort(order.begin(), order.end());
  return order;
}

TEST(SelectLargest, AsASortWould) {
  ForEachInstructionSet([] {
    for (const size_t n : {1, 2, 63, 64, 1000}) {
      std::vector<float> values = Gaussian(n, 31);
      for (size_t i = 0; i < n; i += 3) values[i] = std::round(values[i]);  // ties
      for (size_t count = 0; count <= n + 1; count += 1 + n / 50) {
        std::vector<uint32_t> chosen;
        SelectLargest(values, count, 0, &chosen);
        EXPECT_EQ(chosen, Reference(values, count)) << n << " " << count;
      }
    }
  });
}

TEST(SelectLargest, AsASortWouldOfManyHoweverTheyLie) {
  ForEachInstructionSet([] {
    constexpr size_t kCount = 20000;
    std::vector<std::vector<float>> shapes(6, Gaussian(kCount, 32));
    for (float& v : shapes[1]) v = std::round(v);       // many ties
    for (float& v : shapes[2]) v = std::exp(8.0f * v);  // a few hold most
    std::sort(shapes[3].begin(), shapes[3].end());
    shapes[4].assign(kCount, 0.0f);  // nothing to tell apart
    for (size_t i = 0; i < kCount; i += 16) shapes[5][i] += 9.0f;  // a sample misleads
    for (size_t i = 0; i < kCount; i += 7) {
      shapes[0][i] = std::numeric_limits<float>::quiet_NaN();
      shapes[2][i] = -0.0f;
    }
    for (size_t shape = 0; shape < shapes.size(); ++shape) {
      std::vector<float> sortable = shapes[shape];
      for (float& v : sortable) {
        if (std::isnan(v)) v = -std::numeric_limits<float>::infinity();
      }
      for (const size_t count : {1, 7, 200, 1024, 3000, 19999}) {
        std::vector<uint32_t> chosen;
        SelectLargest(shapes[shape], count, 0, &chosen);
        EXPECT_EQ(chosen, Reference(sortable, count)) << shape << " " << count;
      }
    }
  });
}

TEST(SelectLargest, LowerIndexWinsAmongEquals) {
  ForEachInstructionSet([] {
    std::vector<uint32_t> chosen;
    SelectLargest({1.0f, 2.0f, 2.0f, 2.0f, 3.0f}, 3, 100, &chosen);
    EXPECT_THAT(chosen, ElementsAre(101, 102, 104));
  });
}

TEST(SelectLargest, NanLosesToEverything) {
  ForEachInstructionSet([] {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float infinity = std::numeric_limits<float>::infinity();
    std::vector<uint32_t> chosen;
    SelectLargest({nan, -infinity, nan, 0.0f, -0.0f}, 3, 0, &chosen);
    EXPECT_THAT(chosen, ElementsAre(1, 3, 4));
  });
}

TEST(DiffSelection, SplitsIntoKeptAndAdded) {
  ForEachInstructionSet([] {
    std::vector<uint32_t> kept, added;
    DiffSelection({1, 4, 6, 9}, {0, 4, 5, 9, 12}, &kept, &added);
    EXPECT_THAT(kept, ElementsAre(1, 3));
    EXPECT_THAT(added, ElementsAre(0, 5, 12));
  });
}

TEST(DiffSelection, EmptySides) {
  ForEachInstructionSet([] {
    std::vector<uint32_t> kept, added;
    DiffSelection({}, {3}, &kept, &added);
    DiffSelection({3}, {}, &kept, &added);
    EXPECT_THAT(kept, IsEmpty());
    EXPECT_THAT(added, ElementsAre(3));
  });
}

}  // namespace
}  // namespace kvtier::kernels
