// Goal: a chunk that went bad on disk is not found, takes nothing with it, and is
// replaced by the one that is computed again, for everybody who comes later and on disk.
// Method: a directory over the disk tier on the virtual disk; chunks of two versions,
// told apart by their bytes.

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tiers/disk_fixture.h"
#include "tiers/directory.h"

namespace kvtier::tiers {
namespace {

constexpr size_t kPageBytes = 4000;
constexpr size_t kAbstractBytes = 100;
constexpr LayerIndex kLayer{0};

class DirectoryHolesTest : public DiskTierFixture {
 protected:
  void SetUp() override {
    ASSERT_EQ(Open(), absl::OkStatus());
    directory_.emplace(&budget_, &host_, tier_.get());
    auto geometry = std::make_shared<ChunkGeometry>(NamespaceIndex(0));
    geometry->AddLayer(2, kPageBytes, kAbstractBytes);
    geometry->disk = geometry_;
    chunk_geometry_ = geometry;
  }
  void TearDown() override {
    directory_->EvictAll();
    EXPECT_EQ(directory_->Stats().chunks, 0u) << "something is still referred to";
    directory_.reset();
  }

  ChunkRef Commit(uint32_t n, const ChunkRef* parent, int version) {
    auto chunk = directory_->NewChunk(chunk_geometry_);
    EXPECT_TRUE(chunk.ok()) << chunk.status();
    Block block;
    block.pages = *directory_->AllocateSlots(NamespaceIndex(0), kPageBytes, 2);
    block.abstract = std::move(
        directory_->AllocateSlots(NamespaceIndex(0), kAbstractBytes, 1)->front());
    (*chunk)->SetBlock(kLayer, std::move(block));
    std::fill_n((*chunk)->abstract(kLayer), kAbstractBytes, Byte(n, version));
    for (uint32_t head = 0; head < 2; ++head) {
      std::byte* page = (*chunk)->page(kLayer, head);
      std::fill_n(page, kPageBytes, Byte(n, version));
      (*chunk)->set_crc(kLayer, head, kernels::Crc32c(0, page, kPageBytes));
    }
    (*chunk)->set_rows(kLayer, kChunkTokens);
    (*chunk)->SetName(NumberedName(n));
    return directory_->Commit(*std::move(chunk), parent, Sharing::kShared);
  }
  static std::byte Byte(uint32_t n, int version) {
    return static_cast<std::byte>(16 * version + n);
  }

  // 1 <- 2 <- 3 on disk, their abstracts in memory, and 2 damaged. Returns references.
  std::vector<ChunkRef> BadInTheMiddle() {
    {
      ChunkRef a = Commit(1, nullptr, 1);
      ChunkRef b = Commit(2, &a, 1);
      ChunkRef c = Commit(3, &b, 1);
    }
    EXPECT_EQ(directory_->Flush(), absl::OkStatus());
    directory_->EvictAll();
    std::vector<ChunkRef> chunks = BringIn({1, 2, 3});
    io_->FlipByte(SegmentNumber(0), kExtentBytes + 9000);
    EXPECT_EQ(Load(chunks[1]).code(), absl::StatusCode::kDataLoss);
    return chunks;
  }
  std::vector<ChunkRef> BringIn(const std::vector<uint32_t>& names) {
    std::vector<FoundChunk> found;
    for (const uint32_t n : names) {
      found.push_back(directory_->Lookup(NumberedName(n)));
      EXPECT_TRUE(found.back()) << n;
    }
    auto chunks = directory_->BringIn(std::move(found), chunk_geometry_, nullptr);
    EXPECT_TRUE(chunks.ok()) << chunks.status();
    EXPECT_EQ(chunks->size(), names.size());
    return *std::move(chunks);
  }
  absl::Status Load(const ChunkRef& chunk) {
    PagePins pins;
    uint64_t disk_bytes = 0;
    return directory_->Load({{&*chunk, kLayer, 0}, {&*chunk, kLayer, 1}}, &pins,
                            &disk_bytes);
  }
  void ExpectBytes(const ChunkRef& chunk, uint32_t n, int version) {
    PagePins pins;
    uint64_t disk_bytes = 0;
    ASSERT_EQ(directory_->Load({{&*chunk, kLayer, 0}, {&*chunk, kLayer, 1}}, &pins,
                               &disk_bytes),
              absl::OkStatus());
    const std::vector<std::byte> right(kPageBytes, Byte(n, version));
    for (uint32_t head = 0; head < 2; ++head) {
      EXPECT_EQ(std::memcmp(chunk->page(kLayer, head), right.data(), kPageBytes), 0);
    }
    EXPECT_EQ(*chunk->abstract(kLayer), Byte(n, version));
  }
  static void Drop(std::vector<ChunkRef>& chunks) {
    while (!chunks.empty()) chunks.pop_back();
  }

  MemoryBudget budget_{1 << 20};
  HostTier host_{&budget_, HostTierOptions{.region_bytes = 16 << 10}};
  std::optional<Directory> directory_;
  std::shared_ptr<const ChunkGeometry> chunk_geometry_;
};

TEST_F(DirectoryHolesTest, AHoleIsNotFoundAndWhatIsAroundItStays) {
  std::vector<ChunkRef> chunks = BadInTheMiddle();
  EXPECT_TRUE(chunks[1]->disk_lost());
  EXPECT_FALSE(directory_->Find(NumberedName(2)).has_value());
  EXPECT_FALSE(directory_->Lookup(NumberedName(2)));
  EXPECT_FALSE(chunks[2]->disk_lost());
  ExpectBytes(chunks[0], 1, 1);
  ExpectBytes(chunks[2], 3, 1);
  EXPECT_EQ(directory_->AwaitWritten(chunks).code(), absl::StatusCode::kDataLoss);
  Drop(chunks);
}

TEST_F(DirectoryHolesTest, ACommitFillsItHereAndOnDisk) {
  std::vector<ChunkRef> chunks = BadInTheMiddle();
  {
    ChunkRef filled = Commit(2, &chunks[0], 2);
    ExpectBytes(filled, 2, 2);
    EXPECT_EQ(&**directory_->Find(NumberedName(2)), &*filled);
    EXPECT_EQ(&*Commit(2, &chunks[0], 3), &*filled) << "the first one wins";
  }
  // Who has the former one keeps it, bad as it is.
  EXPECT_EQ(Load(chunks[1]).code(), absl::StatusCode::kDataLoss);
  ASSERT_EQ(directory_->Flush(), absl::OkStatus());
  EXPECT_EQ(directory_->Stats().chunks, 4u);
  Drop(chunks);
  EXPECT_EQ(directory_->Stats().chunks, 3u) << "the former one went";
  EXPECT_EQ(tier_->Stats().hole_chunks, 0u);
  EXPECT_EQ(tier_->Stats().used_bytes, 3 * kExtentBytes);
  directory_->EvictAll();
  chunks = BringIn({1, 2, 3});
  ExpectBytes(chunks[0], 1, 1);
  ExpectBytes(chunks[1], 2, 2);
  ExpectBytes(chunks[2], 3, 1);
  Drop(chunks);
}

TEST_F(DirectoryHolesTest, WhatFillsItHasItsChildren) {
  std::vector<ChunkRef> chunks = BadInTheMiddle();
  Commit(2, &chunks[0], 2);
  ASSERT_EQ(directory_->Flush(), absl::OkStatus());
  ChunkRef last = std::move(chunks.back());
  Drop(chunks);
  // The last one is in use, so nothing before it may go.
  EXPECT_EQ(directory_->Stats().evictable_chunks, 0u);
  EXPECT_EQ(directory_->EvictAll(), 0u);
  EXPECT_EQ(directory_->Stats().chunks, 3u);
  last.Reset();
  EXPECT_EQ(directory_->EvictAll(), 3u);
}

TEST_F(DirectoryHolesTest, AChildOfTheFormerChunkIsTheNewOnes) {
  std::vector<ChunkRef> chunks = BadInTheMiddle();
  Commit(2, &chunks[0], 2);
  ASSERT_EQ(directory_->Flush(), absl::OkStatus());
  ChunkRef late = Commit(4, &chunks[1], 1);
  ASSERT_EQ(directory_->Flush(), absl::OkStatus());
  Drop(chunks);
  EXPECT_EQ(directory_->Stats().chunks, 4u) << "the former one went, 1 to 4 are there";
  EXPECT_EQ(directory_->EvictAll(), 1u) << "3";
  late.Reset();
  EXPECT_EQ(directory_->EvictAll(), 3u);
}

TEST_F(DirectoryHolesTest, AHoleThatNobodyRefersToIsFilledOrEvicted) {
  for (const bool fill : {true, false}) {
    std::vector<ChunkRef> chunks;
    if (fill) {
      chunks = BadInTheMiddle();
    } else {
      chunks = BringIn({1, 2, 3});
      io_->FlipByte(SegmentNumber(1), kExtentBytes + 9000);  // where 2 was written anew
      EXPECT_EQ(Load(chunks[1]).code(), absl::StatusCode::kDataLoss);
    }
    Drop(chunks);
    EXPECT_EQ(directory_->Stats().evictable_chunks, 1u);
    if (fill) {
      chunks = BringIn({1});
      Commit(2, &chunks[0], 2);
      Drop(chunks);
      ASSERT_EQ(directory_->Flush(), absl::OkStatus());
    }
    EXPECT_EQ(directory_->Stats().chunks, 3u);
    EXPECT_EQ(directory_->EvictAll(), 3u);
    EXPECT_EQ(tier_->Contains(NumberedName(2)), fill);
    EXPECT_TRUE(tier_->Contains(NumberedName(3)));
  }
}

// The disk tier's own memory.

TEST_F(DirectoryHolesTest, EachChunkOnDiskIsChargedBeforeItIsWritten) {
  EXPECT_EQ(tier_->MemoryBytesMax(1000) - tier_->MemoryBytesMax(0),
            1000 * DiskTier::kChunkMemoryBytes);
  ASSERT_EQ(directory_->ChargeDisk(), absl::OkStatus());
  EXPECT_GE(budget_.used_bytes(), tier_->Stats().memory_bytes);
  EXPECT_GE(budget_.used_bytes(), tier_->MemoryBytesMax(0));
}

TEST_F(DirectoryHolesTest, AWriteWithoutRoomForItIsRefusedAndTriedAgain) {
  budget_.set_capacity_bytes(tier_->MemoryBytesMax(0));
  EXPECT_TRUE(absl::IsResourceExhausted(directory_->ChargeDisk()));
  const ChunkRef chunk = Commit(1, nullptr, 1);
  const absl::Status refused = directory_->Flush();
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(refused.message(), ::testing::HasSubstr("raise [host] capacity"));
  EXPECT_FALSE(tier_->Contains(NumberedName(1)));
  budget_.set_capacity_bytes(uint64_t{1} << 20);
  EXPECT_EQ(directory_->AwaitWritten({&chunk, 1}), absl::OkStatus());
  EXPECT_TRUE(tier_->Contains(NumberedName(1)));
}

}  // namespace
}  // namespace kvtier::tiers
