// Goal: the parts of the disk tier by themselves: formats come back as they were and
// refuse all else; the table is small and orders eviction; segments change hands whole.
// Method: random round trips, every truncation and many flips; a million entries counted.

#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tiers/disk_fixture.h"
#include "tiers/disk/catalog_records.h"
#include "tiers/disk/chunk_table.h"
#include "tiers/disk/extent_layout.h"
#include "tiers/disk/segment_space.h"

namespace kvtier::tiers {
namespace {

DiskGeometry ManyLayers() {
  DiskGeometry geometry;
  geometry.space = "tenant";
  geometry.model_digest[31] = 9;
  for (uint32_t i = 0; i < 40; ++i) {
    geometry.layers.push_back({.kv_heads = 8 + i % 3 * 16,
                               .page_bytes = 5000 + i,
                               .abstract_bytes = 77 * (i + 1)});
  }
  return geometry;
}

TEST(ExtentLayoutTest, PartsFollowEachOtherInUnits) {
  const DiskGeometry geometry = ManyLayers();
  const ExtentLayout layout(geometry);
  EXPECT_EQ(layout.header_bytes() % kIoUnit, 0u);
  EXPECT_GE(layout.header_bytes(), layout.page_count() * 4u);
  uint64_t offset = layout.pages_offset();
  uint32_t index = 0;
  for (uint32_t layer = 0; layer < 40; ++layer) {
    for (uint32_t head = 0; head < geometry.layers[layer].kv_heads; ++head) {
      EXPECT_EQ(layout.PageOffset(LayerIndex(layer), head), offset);
      EXPECT_EQ(layout.PageIndex(LayerIndex(layer), head), index++);
      offset += 8192;
    }
  }
  EXPECT_EQ(layout.extent_bytes(), offset);
}

TEST(ExtentHeaderTest, ComesBackAndRefusesEveryChange) {
  const DiskGeometry geometry = ManyLayers();
  const ExtentLayout layout(geometry);
  ExtentHeader header{.name = NumberedName(7),
                      .parent = NumberedName(6),
                      .approximate = true,
                      .geometry = 3,
                      .generation = uint64_t{5} << 40,
                      .abstracts_crc = 11,
                      .page_crcs = std::vector<uint32_t>(layout.page_count(), 42)};
  std::vector<std::byte> bytes(layout.header_bytes());
  EncodeExtentHeader(header, layout, absl::MakeSpan(bytes));
  const auto decoded = DecodeExtentHeader(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->name, header.name);
  EXPECT_EQ(decoded->parent, header.parent);
  EXPECT_EQ(decoded->approximate, true);
  EXPECT_EQ(decoded->geometry, 3u);
  EXPECT_EQ(decoded->generation, header.generation);
  EXPECT_EQ(decoded->abstracts_crc, 11u);
  EXPECT_EQ(decoded->page_crcs, header.page_crcs);
  for (size_t at = 0; at < bytes.size(); ++at) {
    bytes[at] ^= std::byte{0x10};
    EXPECT_EQ(DecodeExtentHeader(bytes).status().code(), absl::StatusCode::kDataLoss)
        << at;
    bytes[at] ^= std::byte{0x10};
  }
  for (const size_t size : {size_t{0}, size_t{10}, size_t{200}, bytes.size() - 1}) {
    EXPECT_FALSE(DecodeExtentHeader(absl::MakeSpan(bytes).first(size)).ok());
  }
}

TEST(CatalogRecordsTest, ComeBackAndRefuseTruncationAndMore) {
  ChunkRecord record{.place = {SegmentNumber(3), 17},
                     .geometry = 2,
                     .generation = 99,
                     .approximate = true,
                     .parent = NumberedName(5)};
  for (const bool with_parent : {true, false}) {
    if (!with_parent) record.parent.reset();
    const std::string value = EncodeChunkRecord(record);
    EXPECT_EQ(DecodeChunkRecord(value), record);
    EXPECT_FALSE(DecodeChunkRecord(value + "x"));
    for (size_t n = 0; n < value.size(); ++n)
      EXPECT_FALSE(DecodeChunkRecord(value.substr(0, n)));
  }
  const std::string value = EncodeGeometry(ManyLayers());
  EXPECT_EQ(DecodeGeometry(value), ManyLayers());
  EXPECT_FALSE(DecodeGeometry(value + "x"));
  for (size_t n = 0; n < value.size(); ++n)
    EXPECT_FALSE(DecodeGeometry(value.substr(0, n)));
  EXPECT_EQ(DecodeChunkKey(ChunkKey(NumberedName(8))), NumberedName(8));
  EXPECT_EQ(DecodeGeometryKey(GeometryKey(70000)), 70000u);
  EXPECT_EQ(DecodeHeatKey(HeatKey(NumberedName(8))), NumberedName(8));
  EXPECT_FALSE(DecodeHeatKey(ChunkKey(NumberedName(8))));
  const Heat heat = Heat::New(77).Used(78, ChunkUse::kFound);
  EXPECT_EQ(DecodeHeat(EncodeHeat(heat)), heat);
  EXPECT_FALSE(DecodeHeat("1234567"));
  EXPECT_FALSE(DecodeHeat("123456789"));
  EXPECT_FALSE(DecodeChunkKey("C"));
  EXPECT_FALSE(DecodeGeometryKey("C1234"));
  EXPECT_EQ(DecodeSuperblock(EncodeSuperblock({.starts = 4}))->starts, 4u);
  EXPECT_EQ(DecodeSuperblock(EncodeSuperblock({.version = 9}) + "new fields")->version,
            9u);
  EXPECT_FALSE(DecodeSuperblock(""));
}

TEST(CatalogRecordsTest, RandomBytesAreHarmless) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes(random() % 200, 0);
    for (char& c : bytes) c = static_cast<char>(random());
    (void)DecodeChunkRecord(bytes);
    (void)DecodeGeometry(bytes);
    (void)DecodeSuperblock(bytes);
  }
}

// New ones, and as many that were found again after they had been new.
TEST(ChunkTableTest, AMillionChunksTake96BytesEachAtMost) {
  for (const uint32_t count : {1000000u, 920000u, 460000u}) {
    ChunkTable table;
    for (uint32_t n = 0; n < count; ++n) {
      ChunkTable::Entry entry;
      entry.name = NumberedName(n * 2654435761u);
      entry.heat = Heat::New(n);
      table.UpdateOrder(table.Add(entry));
    }
    EXPECT_LE(table.memory_bytes() / count, 96u) << count;
    for (uint32_t n = 0; n < count; ++n) {
      table.SetHeat(n, table[n].heat.Used(count, ChunkUse::kFound));
      if (n == count / 2) {
        EXPECT_LE(table.memory_bytes() / count, 96u) << count;
      }
    }
    EXPECT_LE(table.memory_bytes() / count, 96u) << count;
  }
}

TEST(ChunkTableTest, AGeometrysColdestIsALiveLeafThatNobodyHolds) {
  std::mt19937_64 random(2);
  ChunkTable table;
  uint64_t clock = 0;
  std::vector<ChunkTable::Index> live;
  for (int step = 0; step < 20000; ++step) {
    const uint64_t action = random() % 5;
    if (action == 0 || live.empty()) {
      ChunkTable::Entry entry;
      entry.name = NumberedName(step);
      entry.geometry = static_cast<uint16_t>(random() % 2);
      entry.heat = Heat::New(++clock);
      live.push_back(table.Add(entry));
      table.UpdateOrder(live.back());
    } else {
      const size_t at = random() % live.size();
      ChunkTable::Entry& entry = table[live[at]];
      if (action == 1) {
        const auto use = random() % 2 == 0 ? ChunkUse::kFound : ChunkUse::kStill;
        table.SetHeat(live[at], entry.heat.Used(++clock, use));
      }
      if (action == 2) entry.held = !entry.held;
      if (action == 3) entry.children = 1 - entry.children;
      if (action < 4) table.UpdateOrder(live[at]);
      if (action == 4) {
        table.MakeDead(live[at]);
        table.Free(live[at]);
        live[at] = live.back();
        live.pop_back();
      }
    }
    for (uint16_t geometry = 0; geometry < 2; ++geometry) {
      const ChunkTable::Index coldest = table.Coldest(geometry);
      // The least heat of its own half: tests/tiers/eviction_order_test.cc has which
      // half.
      for (const ChunkTable::Index index : live) {
        const ChunkTable::Entry& entry = table[index];
        if (entry.geometry != geometry || entry.held || entry.children > 0) continue;
        ASSERT_NE(coldest, ChunkTable::kNone);
        if (entry.heat.found() == table[coldest].heat.found()) {
          ASSERT_LE(table[coldest].heat, entry.heat);
        }
      }
      if (coldest == ChunkTable::kNone) continue;
      ASSERT_EQ(table[coldest].geometry, geometry);
      ASSERT_TRUE(table[coldest].live && !table[coldest].held);
      ASSERT_EQ(table[coldest].children, 0u);
    }
  }
}

TEST(SegmentSpaceTest, APromisedSegmentChangesHandsWhenItIsEmpty) {
  SegmentSpace space;
  space.AddSegment(SegmentNumber(0), 100);
  space.AddSegment(SegmentNumber(1), 100);
  std::vector<ExtentPlace> first;
  for (int i = 0; i < 4; ++i) first.push_back(*space.Allocate(0, 50));
  EXPECT_FALSE(space.Allocate(0, 50).has_value());
  EXPECT_FALSE(space.Allocate(1, 25).has_value());
  EXPECT_EQ(space.used_bytes(), 200u);
  space.Promise(SegmentNumber(0), 1, 25);
  EXPECT_EQ(space.SegmentsOf(0), 1u);
  EXPECT_EQ(space.SegmentsOf(1), 1u);
  EXPECT_EQ(space.PromisedExtents(1, 25), 4u);
  space.Free(first[0], false);
  EXPECT_FALSE(space.Allocate(0, 50).has_value());
  EXPECT_FALSE(space.Allocate(1, 25).has_value());
  space.Free(first[1], false);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(space.Allocate(1, 25).has_value());
  EXPECT_FALSE(space.Allocate(1, 25).has_value());
  // An emptied one is anybody's.
  space.Free(first[2], false);
  space.Free(first[3], false);
  EXPECT_EQ(space.SegmentsOf(0), 0u);
  EXPECT_EQ(space.Allocate(1, 25), (ExtentPlace{SegmentNumber(1), 0}));
}

TEST(SegmentSpaceTest, ClaimsOnlyWhatCanBe) {
  SegmentSpace space;
  space.AddSegment(SegmentNumber(5), 100);
  EXPECT_FALSE(space.Claim({SegmentNumber(4), 0}, 0, 50));
  EXPECT_FALSE(space.Claim({SegmentNumber(5), 2}, 0, 50));
  EXPECT_TRUE(space.Claim({SegmentNumber(5), 1}, 0, 50));
  EXPECT_FALSE(space.Claim({SegmentNumber(5), 1}, 0, 50));
  EXPECT_FALSE(space.Claim({SegmentNumber(5), 0}, 1, 50));
  EXPECT_EQ(space.NextNumber(), SegmentNumber(6));
}

}  // namespace
}  // namespace kvtier::tiers
