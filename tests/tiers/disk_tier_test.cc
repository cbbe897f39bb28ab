// Goal: what is written is found and read, now and after a restart; room is made for new
// chunks, and shared; what must not be read or overwritten isn't. Method: a tier of 32
// segments of two chunks each on the virtual disk, without power failures (tests/sim has
// those).

#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tiers/disk_fixture.h"

namespace kvtier::tiers {
namespace {

constexpr uint32_t kFits = 64;  // chunks of the fixture's geometry

class DiskTierTest : public DiskTierFixture {};

TEST_F(DiskTierTest, ReadsWhatWasWrittenAlsoAfterARestart) {
  ASSERT_EQ(Open(), absl::OkStatus());
  EXPECT_FALSE(tier_->Find(NumberedName(1)).has_value());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(2, 1), absl::OkStatus());
  EXPECT_EQ(Check(1), absl::OkStatus());
  ASSERT_EQ(Restart(), absl::OkStatus());
  EXPECT_EQ(Check(1), absl::OkStatus());
  EXPECT_EQ(Check(2), absl::OkStatus());
  const std::optional<DiskChunk> chunk = tier_->Find(NumberedName(2));
  EXPECT_EQ(tier_->Parent(*chunk), NumberedName(1));
  EXPECT_EQ(tier_->Geometry(*chunk), *geometry_);
  EXPECT_FALSE(tier_->approximate(*chunk));
  EXPECT_EQ(tier_->Stats().chunks, 2u);
  EXPECT_EQ(tier_->Stats().pages, 4u);
  EXPECT_EQ(tier_->Stats().used_bytes, 2 * kExtentBytes);
}

TEST_F(DiskTierTest, AnApproximateChunkStaysOne) {
  ASSERT_EQ(Open(), absl::OkStatus());
  DiskWrite write = MakeWrite(1, kNoParent, geometry_);
  write.approximate = true;
  ASSERT_TRUE(StartWrite(std::move(write)).get().ok());
  ASSERT_EQ(Restart(), absl::OkStatus());
  EXPECT_TRUE(tier_->approximate(*tier_->Find(NumberedName(1))));
}

TEST_F(DiskTierTest, TheFirstWriteOfANameWins) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  DiskWrite other = MakeWrite(2, kNoParent, geometry_);
  other.name = NumberedName(1);
  ASSERT_TRUE(StartWrite(std::move(other)).get().ok());
  EXPECT_EQ(Check(1), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().chunks, 1u);
}

TEST_F(DiskTierTest, ManyChunksAreWrittenAtOnce) {
  ASSERT_EQ(Open(), absl::OkStatus());
  std::vector<std::future<absl::StatusOr<DiskChunk>>> writes;
  for (uint32_t n = 1; n <= kFits; ++n) {
    const uint32_t parent = n == 1 ? kNoParent : n - 1;
    writes.push_back(StartWrite(MakeWrite(n, parent, geometry_)));
  }
  for (auto& write : writes) EXPECT_TRUE(write.get().ok());
  for (uint32_t n = 1; n <= kFits; ++n) EXPECT_EQ(Check(n), absl::OkStatus());
}

TEST_F(DiskTierTest, AChunkWithoutItsParentIsRefused) {
  ASSERT_EQ(Open(), absl::OkStatus());
  EXPECT_EQ(WriteAndRelease(2, 1).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(DiskTierTest, AWrongShapeIsRefused) {
  ASSERT_EQ(Open(), absl::OkStatus());
  DiskWrite write = MakeWrite(1, kNoParent, geometry_);
  write.pages.pop_back();
  EXPECT_EQ(StartWrite(std::move(write)).get().status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(DiskTierTest, AChunkLargerThanASegmentIsRefused) {
  ASSERT_EQ(Open(), absl::OkStatus());
  EXPECT_EQ(
      StartWrite(MakeWrite(1, kNoParent, OneLayer("a", 9, 4096))).get().status().code(),
      absl::StatusCode::kResourceExhausted);
}

TEST_F(DiskTierTest, EvictsColdestFirstAndChildrenBeforeParents) {
  ASSERT_EQ(Open(), absl::OkStatus());
  for (uint32_t n = 1; n <= kFits; ++n) {
    // 1 <- 2 <- 3; the others stand alone.
    const uint32_t parent = n == 2 || n == 3 ? n - 1 : kNoParent;
    ASSERT_EQ(WriteAndRelease(n, parent), absl::OkStatus());
  }
  EXPECT_TRUE(tier_->Find(NumberedName(4)).has_value());
  ASSERT_EQ(WriteAndRelease(100), absl::OkStatus());
  EXPECT_FALSE(Contains(3));
  EXPECT_TRUE(Contains(1));
  EXPECT_TRUE(Contains(2));
  for (uint32_t n = 101; n <= 103; ++n) ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
  // A parent is as warm as its child was: 3, 2, 1, then 5; 4 was used.
  EXPECT_FALSE(Contains(2));
  EXPECT_FALSE(Contains(1));
  EXPECT_FALSE(Contains(5));
  EXPECT_TRUE(Contains(4));
  EXPECT_EQ(tier_->Stats().evicted_chunks, 4u);
  EXPECT_LE(tier_->Stats().segment_bytes, options_.capacity_bytes);
}

TEST_F(DiskTierTest, WhatIsPinnedStays) {
  ASSERT_EQ(Open(), absl::OkStatus());
  std::vector<DiskChunk> pinned;
  for (uint32_t n = 1; n <= kFits; ++n) {
    absl::StatusOr<DiskChunk> chunk = Write(n);
    ASSERT_TRUE(chunk.ok());
    pinned.push_back(*std::move(chunk));
  }
  EXPECT_EQ(WriteAndRelease(100).code(), absl::StatusCode::kResourceExhausted);
  DiskChunk shared = pinned[6].Share();
  pinned[6].Reset();
  EXPECT_EQ(WriteAndRelease(100).code(), absl::StatusCode::kResourceExhausted);
  shared.Reset();
  EXPECT_EQ(WriteAndRelease(100), absl::OkStatus());
  EXPECT_FALSE(Contains(7));
  EXPECT_EQ(tier_->Stats().dropped_writes, 2u);
}

TEST_F(DiskTierTest, ThreeGeometriesShareASpaceThatTheFirstHadFilled) {
  ASSERT_EQ(Open(), absl::OkStatus());
  const auto second = OneLayer("b", 1, 4096), third = OneLayer("c", 4, 3000);
  for (uint32_t n = 1; n <= 2 * kFits; ++n)
    ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
  const uint64_t full = tier_->UsedBytes("a");
  EXPECT_EQ(full, kFits * kExtentBytes);
  for (uint32_t n = 0; n < 200; ++n) {
    ASSERT_EQ(StartWrite(MakeWrite(1000 + n, kNoParent, second)).get().status(),
              absl::OkStatus());
    ASSERT_EQ(StartWrite(MakeWrite(2000 + n, kNoParent, third)).get().status(),
              absl::OkStatus());
    ASSERT_EQ(WriteAndRelease(500 + n), absl::OkStatus());
  }
  // Of 32 segments ten are a third; one extent of the second's or third's size fills one
  // of them only in part.
  EXPECT_GE(tier_->UsedBytes("a"), 9 * kSegmentBytes);
  EXPECT_GE(tier_->UsedBytes("b"), 9 * (24u << 10));
  EXPECT_GE(tier_->UsedBytes("c"), 9 * (24u << 10));
  for (uint32_t n = 1; n < 2200; ++n) {
    if (Contains(n)) {
      EXPECT_EQ(Check(n), absl::OkStatus()) << n;
    }
  }
  EXPECT_LE(tier_->Stats().segment_bytes, options_.capacity_bytes);
  const auto of_all = [this] {
    return tier_->UsedBytes("a") + tier_->UsedBytes("b") + tier_->UsedBytes("c");
  };
  EXPECT_TRUE(Eventually([&] { return tier_->Stats().used_bytes == of_all(); }))
      << "what belongs to each adds up";
  ASSERT_EQ(Restart(), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().used_bytes, of_all());
  for (uint32_t n = 1; n < 2200; ++n) {
    if (Contains(n)) {
      EXPECT_EQ(Check(n), absl::OkStatus()) << n;
    }
  }
}

TEST_F(DiskTierTest, AnIdleModelsSpaceGoesToTheOneThatIsUsed) {
  ASSERT_EQ(Open(), absl::OkStatus());
  const auto second = OneLayer("b", 1, 4096);
  for (uint32_t n = 1; n <= kFits; ++n) ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
  for (uint32_t n = 1000; n < 2000; ++n) {
    ASSERT_EQ(StartWrite(MakeWrite(n, kNoParent, second)).get().status(),
              absl::OkStatus());
  }
  EXPECT_GT(tier_->UsedBytes("b"), 24 * (24u << 10));
}

TEST_F(DiskTierTest, ASmallerCapacityIsReachedAtTheStart) {
  UseSegments(64);
  ASSERT_EQ(Open(), absl::OkStatus());
  for (uint32_t n = 1; n <= 2 * kFits; ++n)
    ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
  UseSegments(40);
  ASSERT_EQ(Restart(), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().chunks, 80u);
  EXPECT_LE(io_->total_bytes(), options_.capacity_bytes);
  for (uint32_t n = 49; n <= 2 * kFits; ++n) EXPECT_EQ(Check(n), absl::OkStatus()) << n;
}

TEST_F(DiskTierTest, RemovesWhatNobodyUses) {
  ASSERT_EQ(Open(), absl::OkStatus());
  EXPECT_EQ(Remove(1).code(), absl::StatusCode::kNotFound);
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  absl::StatusOr<DiskChunk> child = Write(2, 1);
  EXPECT_EQ(Remove(1).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Remove(2).code(), absl::StatusCode::kFailedPrecondition);
  child->Reset();
  EXPECT_EQ(Remove(2), absl::OkStatus());
  EXPECT_EQ(Remove(1), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().used_bytes, 0u);
  ASSERT_EQ(Restart(), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().chunks, 0u);
}

TEST_F(DiskTierTest, AbstractsAreOneRequestAndNearPagesAreOne) {
  ASSERT_EQ(Open(), absl::OkStatus());
  const auto wide = OneLayer("a", 5, 4000);
  auto chunk = StartWrite(MakeWrite(1, kNoParent, wide)).get();
  ASSERT_TRUE(chunk.ok());
  std::vector<std::byte> abstracts(100 + 1);
  std::vector<uint32_t> crcs;
  ASSERT_EQ(Await([&](DiskTier::ReadDone done) {
              // Unaligned, as all buffers here.
              tier_->ReadAbstracts(*chunk, {abstracts.data() + 1}, &crcs,
                                   IoPriority::kDemand, done);
            }),
            absl::OkStatus());
  EXPECT_EQ(io_->count(IoKind::kRead), 1u);
  EXPECT_EQ(crcs, MakeWrite(1, kNoParent, wide).page_crcs);
  std::vector<std::vector<std::byte>> bytes(3, std::vector<std::byte>(4000));
  std::vector<DiskPageRead> pages;
  for (const uint32_t head : {4, 0, 2}) {
    pages.push_back({LayerIndex(0), head, bytes[head / 2].data()});
  }
  ASSERT_EQ(Await([&](DiskTier::ReadDone done) {
              tier_->ReadPages(*chunk, pages, IoPriority::kDemand, done);
            }),
            absl::OkStatus());
  // The header was known: one request for all three, with the gaps.
  EXPECT_THAT(io_->read_sizes(), ::testing::ElementsAre(8192, 5 * 4096));
  const Content content = ContentOf(*wide, 1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(bytes[i], content.pages[2 * i]);
}

TEST_F(DiskTierTest, SyncsAreGrouped) {
  // By hand: the disk completes nothing till it is told.
  io_ = std::make_unique<sim::VirtualBlockIo>(segments_, sim::Completion::kByStep);
  files_ = sim::VirtualFiles::Create(files_image_);
  options_.capacity_bytes = 8 << 20;
  options_.segment_bytes = 1 << 20;
  ASSERT_EQ(OpenAgain(), absl::OkStatus());
  constexpr uint32_t kWrites = 8;
  std::vector<std::future<absl::StatusOr<DiskChunk>>> writes;
  for (uint32_t n = 0; n < kWrites; ++n) {
    writes.push_back(StartWrite(MakeWrite(n, kNoParent, geometry_)));
  }
  ASSERT_TRUE(Eventually([&] { return io_->under_way() == kWrites; }));
  sim::Random random(1);
  const auto all_done = [&] {
    for (auto& write : writes) {
      if (write.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
        return false;
    }
    return true;
  };
  ASSERT_TRUE(Eventually([&] {
    io_->Step(random);
    return all_done();
  }));
  EXPECT_LT(io_->count(IoKind::kSync), kWrites);
  for (auto& write : writes) EXPECT_TRUE(write.get().ok());
}

}  // namespace
}  // namespace kvtier::tiers
