// Goal: what was found again stays on disk while a scan goes by, also after a restart or
// a kill; heat that can't be read, or can't be written, harms nothing. Method: a tier
// that is filled, used, closed or killed, and filled with other chunks; its catalog is
// looked into and changed.

#include "gtest/gtest.h"
#include "tests/tiers/disk_fixture.h"
#include "tiers/directory.h"
#include "tiers/disk/catalog_records.h"

namespace kvtier::tiers {
namespace {

constexpr uint32_t kFits = 64;  // chunks of the fixture's geometry
constexpr uint32_t kWarm = 20;  // of these, so many are found again

class DiskHeatTest : public DiskTierFixture {
 protected:
  void Fill() {
    for (uint32_t n = 1; n <= kFits; ++n) ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
  }
  void FindWarm() {
    for (uint32_t n = 1; n <= kWarm; ++n)
      ASSERT_TRUE(tier_->Find(NumberedName(n)).has_value());
  }
  // Five times as many as fit.
  void Scan() {
    for (uint32_t n = 1000; n < 1000 + 5 * kFits; ++n)
      ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
  }
  // Of the first ones, how many are left.
  uint32_t Left(uint32_t end = kWarm) {
    uint32_t left = 0;
    for (uint32_t n = 1; n <= end; ++n) left += Contains(n);
    return left;
  }
};

TEST_F(DiskHeatTest, AScanLeavesWhatWasFoundAgain) {
  ASSERT_EQ(Open(), absl::OkStatus());
  Fill();
  FindWarm();
  Scan();
  EXPECT_EQ(Left(), kWarm);
  EXPECT_EQ(Left(kFits), kWarm);
}

TEST_F(DiskHeatTest, AScanLeavesWhatWasFoundBeforeTheRestart) {
  ASSERT_EQ(Open(), absl::OkStatus());
  Fill();
  FindWarm();
  ASSERT_EQ(Restart(), absl::OkStatus());
  Scan();
  EXPECT_EQ(Left(), kWarm);
}

TEST_F(DiskHeatTest, AmongWhatWasFoundTheOrderOutlivesTheRestart) {
  ASSERT_EQ(Open(), absl::OkStatus());
  Fill();
  for (uint32_t n = kFits; n >= 1; --n)
    ASSERT_TRUE(tier_->Find(NumberedName(n)).has_value());
  ASSERT_EQ(Restart(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1000), absl::OkStatus());
  EXPECT_FALSE(Contains(kFits));
  EXPECT_EQ(Left(kFits), kFits - 1);
}

TEST_F(DiskHeatTest, AfterAKillItIsKnownAsFarAsTicksCame) {
  ASSERT_EQ(Open(), absl::OkStatus());
  Fill();
  FindWarm();
  Pass(1);
  // This one's record comes after them in the catalog.
  ASSERT_EQ(WriteAndRelease(500), absl::OkStatus());
  ASSERT_EQ(Kill(), absl::OkStatus());
  Scan();
  EXPECT_EQ(Left(), kWarm);
}

TEST_F(DiskHeatTest, WithoutATickAKillForgetsIt) {
  ASSERT_EQ(Open(), absl::OkStatus());
  Fill();
  FindWarm();
  ASSERT_EQ(Kill(), absl::OkStatus());
  Scan();
  EXPECT_EQ(Left(), 0u);
}

TEST_F(DiskHeatTest, ATickWritesALittle) {
  UseSegments(128);
  ASSERT_EQ(Open(), absl::OkStatus());
  for (uint32_t n = 1; n <= 200; ++n) {
    ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
    ASSERT_TRUE(tier_->Find(NumberedName(n)).has_value());
  }
  Pass(1);
  // This one's record comes after them in the catalog.
  ASSERT_EQ(WriteAndRelease(500), absl::OkStatus());
  ASSERT_EQ(Kill(), absl::OkStatus());
  uint32_t stored = 0;
  for (uint32_t n = 1; n <= 200; ++n)
    stored += ChangeCatalog(HeatKey(NumberedName(n)), std::nullopt).has_value();
  EXPECT_EQ(stored, 64u);
}

TEST_F(DiskHeatTest, OfWhatWasNeverFoundNothingIsWritten) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(2), absl::OkStatus());
  ASSERT_TRUE(tier_->Find(NumberedName(2)).has_value());
  EXPECT_EQ(ChangeCatalog(HeatKey(NumberedName(1)), std::nullopt), std::nullopt);
  const auto stored = ChangeCatalog(HeatKey(NumberedName(2)), std::nullopt);
  ASSERT_TRUE(stored.has_value());
  EXPECT_TRUE(DecodeHeat(*stored)->found());
}

TEST_F(DiskHeatTest, GoesWithItsChunk) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  ASSERT_TRUE(tier_->Find(NumberedName(1)).has_value());
  ASSERT_EQ(Restart(), absl::OkStatus());
  ASSERT_EQ(Remove(1), absl::OkStatus());
  EXPECT_EQ(ChangeCatalog(HeatKey(NumberedName(1)), std::nullopt), std::nullopt);
}

TEST_F(DiskHeatTest, WhatCantBeReadIsAsIfItWereNotThere) {
  ASSERT_EQ(Open(), absl::OkStatus());
  Fill();
  FindWarm();
  ChangeCatalog(HeatKey(NumberedName(1)), "short");
  // Of a time that has not come.
  ChangeCatalog(HeatKey(NumberedName(2)),
                EncodeHeat(Heat::New(Heat::kTimeMax).Used(0, ChunkUse::kFound)));
  // Of a chunk that isn't there, and under a key that isn't one.
  const std::string heat = EncodeHeat(Heat::New(7).Used(8, ChunkUse::kFound));
  ChangeCatalog(HeatKey(NumberedName(77777)), heat);
  ChangeCatalog("Ha", heat);
  ASSERT_EQ(Open(), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().chunks, kFits);
  EXPECT_EQ(tier_->Stats().lost_chunks, 0u);
  for (const uint32_t n : {1, 2, 3}) EXPECT_EQ(Check(n), absl::OkStatus()) << n;
  EXPECT_FALSE(Contains(77777));
  ASSERT_EQ(Restart(), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().chunks, kFits);
}

TEST_F(DiskHeatTest, ATimeThatHasNotComeIsNotBelieved) {
  ASSERT_EQ(Open(), absl::OkStatus());
  Fill();
  ChangeCatalog(HeatKey(NumberedName(1)),
                EncodeHeat(Heat::New(Heat::kTimeMax).Used(0, ChunkUse::kFound)));
  ASSERT_EQ(Open(), absl::OkStatus());
  Scan();
  EXPECT_FALSE(Contains(1));
}

TEST_F(DiskHeatTest, ACatalogThatRefusesItDegradesAndRecovers) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(2, 1), absl::OkStatus());
  ASSERT_TRUE(tier_->Find(NumberedName(1)).has_value());
  files_->SetFull(true);
  Pass(1);
  EXPECT_TRUE(Eventually([&] { return !tier_->Stats().degraded.empty(); }));
  EXPECT_EQ(Check(2), absl::OkStatus());
  files_->SetFull(false);
  EXPECT_TRUE(Eventually([&] {
    Pass(120);
    return WriteAndRelease(3).ok();
  }));
  EXPECT_TRUE(Eventually([&] { return tier_->Stats().degraded.empty(); }));
  ASSERT_EQ(Restart(), absl::OkStatus());
  for (const uint32_t n : {1, 2, 3}) EXPECT_EQ(Check(n), absl::OkStatus()) << n;
}

TEST_F(DiskHeatTest, ACloseThatCantWriteItLosesNothingElse) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  ASSERT_TRUE(tier_->Find(NumberedName(1)).has_value());
  files_->SetFull(true);
  ASSERT_EQ(Restart(), absl::OkStatus());
  EXPECT_EQ(Check(1), absl::OkStatus());
}

// A directory over the tier.
class DirectoryHeatTest : public DiskHeatTest {
 protected:
  void SetUp() override {
    UseSegments(256);
    ASSERT_EQ(Open(), absl::OkStatus());
    memory_geometry_->AddLayer(2, 4000, 100);
    memory_geometry_->disk = geometry_;
    directory_.emplace(&budget_, &host_, tier_.get());
  }
  void TearDown() override { directory_.reset(); }

  // A chunk that is in memory and on disk, and that nobody uses.
  void Add(uint32_t n) {
    auto chunk = directory_->NewChunk(memory_geometry_);
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    const Content content = ContentOf(*geometry_, n);
    const NamespaceIndex space = memory_geometry_->space;
    Block block;
    block.pages = *directory_->AllocateSlots(space, 4000, 2);
    block.abstract = std::move(directory_->AllocateSlots(space, 100, 1)->front());
    std::memcpy(block.abstract.data(), content.abstracts[0].data(), 100);
    (*chunk)->SetBlock(LayerIndex(0), std::move(block));
    (*chunk)->set_rows(LayerIndex(0), kChunkTokens);
    for (uint32_t head = 0; head < 2; ++head) {
      const std::vector<std::byte>& page = content.pages[head];
      std::memcpy((*chunk)->page(LayerIndex(0), head), page.data(), 4000);
      (*chunk)->set_crc(LayerIndex(0), head, kernels::Crc32c(0, page.data(), 4000));
    }
    (*chunk)->SetName(NumberedName(n));
    const ChunkRef ref = directory_->Commit(*std::move(chunk), nullptr, Sharing::kShared);
    ASSERT_EQ(directory_->AwaitWritten(absl::MakeConstSpan(&ref, 1)), absl::OkStatus());
  }
  // Opens a sequence of one chunk, and closes it. Whether it was in memory.
  bool Use(uint32_t n) {
    std::vector<FoundChunk> found;
    found.push_back(directory_->Lookup(NumberedName(n)));
    const bool in_memory = found[0].host.has_value();
    const auto chunks = directory_->BringIn(std::move(found), memory_geometry_, nullptr);
    EXPECT_TRUE(chunks.ok() && chunks->size() == 1) << n;
    return in_memory;
  }

  const std::shared_ptr<ChunkGeometry> memory_geometry_ =
      std::make_shared<ChunkGeometry>(NamespaceIndex(0));
  // 256 KiB beside what the disk tier takes.
  MemoryBudget budget_{1088 << 10};
  HostTier host_{&budget_, HostTierOptions{.region_bytes = 16 << 10}};
  std::optional<Directory> directory_;
};

TEST_F(DirectoryHeatTest, WhatIsFoundInMemoryStaysOnDisk) {
  for (uint32_t n = 1; n <= 10; ++n) Add(n);
  // Half of them are found, in memory, while the disk has them pinned.
  for (uint32_t n = 1; n <= 5; ++n) EXPECT_TRUE(Use(n));
  ASSERT_EQ(directory_->EvictAll(), 10u);
  for (uint32_t n = 1000; n < 2000; ++n) ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
  EXPECT_EQ(Left(10), 5u);
  EXPECT_EQ(Left(5), 5u);
}

// All that is on disk is opened once.
TEST_F(DirectoryHeatTest, AScanOfTheDiskLeavesWhatIsWarmInMemory) {
  constexpr uint32_t kScan = 500;
  for (uint32_t n = 1000; n < 1000 + kScan; ++n)
    ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
  for (uint32_t n = 1; n <= 5; ++n) Add(n);
  for (uint32_t n = 1; n <= 5; ++n) EXPECT_TRUE(Use(n));
  for (uint32_t n = 1000; n < 1000 + kScan; ++n) Use(n);
  EXPECT_GT(directory_->Stats().evicted_chunks, kScan / 2);
  for (uint32_t n = 1; n <= 5; ++n) EXPECT_TRUE(Use(n)) << n;
}

}  // namespace
}  // namespace kvtier::tiers
