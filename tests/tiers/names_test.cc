// Goal: names depend on all of what a chunk was computed from and on nothing else;
// checksums can be reseeded; charges are exact. Method: change one input at a time;
// compare with a bit-by-bit CRC.

#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "tiers/chunk_name.h"
#include "tiers/memory_budget.h"
#include "tiers/page_checksum.h"

namespace kvtier::tiers {
namespace {

std::vector<uint32_t> Ids(uint32_t first) {
  std::vector<uint32_t> ids(kChunkTokens);
  for (uint32_t i = 0; i < kChunkTokens; ++i) ids[i] = first + i;
  return ids;
}

TEST(ChunkName, DependsOnEveryInput) {
  const std::vector<uint8_t> digest(32, 1);
  const std::vector<uint8_t> other_digest(32, 2);
  const ChunkName root = RootName("a", digest, "x");
  EXPECT_EQ(root, RootName("a", digest, "x"));
  std::set<std::array<uint8_t, 32>> names = {
      root.bytes,
      RootName("b", digest, "x").bytes,
      RootName("a", other_digest, "x").bytes,
      RootName("a", digest, "y").bytes,
      RootName("a", digest, "").bytes,
      ChildName(root, Ids(0), "").bytes,
      ChildName(root, Ids(1), "").bytes,
      ChildName(root, Ids(0), "quest").bytes,
      ChildName(RootName("b", digest, "x"), Ids(0), "").bytes,
      RandomName().bytes,
      RandomName().bytes,
  };
  EXPECT_EQ(names.size(), 11);
}

TEST(ChunkName, FieldsDoNotRunIntoEachOther) {
  EXPECT_FALSE(RootName("ab", {}, "c") == RootName("a", {}, "bc"));
  const std::vector<uint8_t> b = {'b'};
  EXPECT_FALSE(RootName("a", b, "") == RootName("a", {}, "b"));
}

TEST(ChunkName, ChildrenOfApproximateChunksDiffer) {
  const ChunkName root = RootName("a", {}, "");
  const ChunkName exact = ChildName(root, Ids(0), "");
  const ChunkName approximate = ChildName(root, Ids(0), "quest");
  EXPECT_FALSE(ChildName(exact, Ids(64), "") == ChildName(approximate, Ids(64), ""));
}

// CRC32C bit by bit, its register inverted before and after or not.
uint32_t SlowCrc(uint32_t seed, const std::vector<uint8_t>& bytes, bool inverted) {
  uint32_t crc = inverted ? ~seed : seed;
  for (uint8_t byte : bytes) {
    crc ^= byte;
    for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return inverted ? ~crc : crc;
}

TEST(SeedShift, ReseedsAsIfComputedFromTheSeed) {
  for (size_t size : {1, 64, 4096, 12345}) {
    std::vector<uint8_t> bytes(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 31 + 7);
    const SeedShift shift(size);
    for (uint32_t seed : {0u, 1u, 0x80000000u, 0xdeadbeefu}) {
      for (bool inverted : {false, true}) {
        EXPECT_EQ(shift.Reseed(SlowCrc(0, bytes, inverted), seed),
                  SlowCrc(seed, bytes, inverted));
      }
    }
  }
}

TEST(PageSeed, DependsOnNameLayerAndHead) {
  const ChunkName a = RandomName();
  std::set<uint32_t> seeds;
  for (uint32_t layer = 0; layer < 32; ++layer) {
    for (uint32_t head = 0; head < 8; ++head) {
      seeds.insert(PageSeed(a, LayerIndex(layer), head));
    }
  }
  seeds.insert(PageSeed(RandomName(), LayerIndex(0), 0));
  EXPECT_EQ(seeds.size(), 257);
}

TEST(MemoryBudget, IsHardAndChargesGiveBackOnce) {
  MemoryBudget budget(100);
  std::optional<Charge> a = Charge::Take(&budget, 60);
  ASSERT_TRUE(a.has_value());
  EXPECT_FALSE(Charge::Take(&budget, 41).has_value());
  EXPECT_FALSE(budget.TryReserve(~uint64_t{0}));
  {
    Charge b = *Charge::Take(&budget, 40);
    Charge c = std::move(b);
    EXPECT_EQ(budget.used_bytes(), 100);
    c.ShrinkTo(10);
    EXPECT_EQ(budget.used_bytes(), 70);
    a->Add(std::move(c));
  }
  EXPECT_EQ(budget.used_bytes(), 70);
  a.reset();
  EXPECT_EQ(budget.used_bytes(), 0);
}

}  // namespace
}  // namespace kvtier::tiers
