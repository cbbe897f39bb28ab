// Goal: what may go goes, coldest first and never out of the middle of a prefix; what is
// open stays; memory is one hard budget for all slot classes. Method: tiny geometries
// (one layer, one kv head) in a directory of a few regions.

#include "tiers/directory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/host/checksum.h"

namespace kvtier::tiers {
namespace {

constexpr size_t kRegion = 16 << 10;
constexpr size_t kPage = 4 << 10;

class DirectoryTest : public ::testing::Test {
 protected:
  std::shared_ptr<const ChunkGeometry> Geometry(size_t page_bytes, uint32_t space = 0) {
    auto geometry = std::make_shared<ChunkGeometry>(NamespaceIndex(space));
    geometry->AddLayer(1, page_bytes, 64);
    return geometry;
  }

  absl::StatusOr<std::unique_ptr<Chunk>> Make(
      const std::shared_ptr<const ChunkGeometry>& geometry) {
    auto chunk = directory_.NewChunk(geometry);
    if (!chunk.ok()) return chunk.status();
    const BlockGeometry& layer = geometry->layers[0];
    auto pages = directory_.AllocateSlots(geometry->space, layer.page_bytes, 1);
    if (!pages.ok()) return pages.status();
    auto abstracts = directory_.AllocateSlots(geometry->space, layer.abstract_bytes, 1);
    if (!abstracts.ok()) return abstracts.status();
    Block block;
    block.pages = *std::move(pages);
    block.abstract = std::move(abstracts->front());
    (*chunk)->SetBlock(LayerIndex(0), std::move(block));
    (*chunk)->set_rows(LayerIndex(0), kChunkTokens);
    return chunk;
  }

  ChunkName Name(uint8_t n) {
    ChunkName name;
    name.bytes[0] = n;
    return name;
  }

  ChunkRef Add(uint8_t n, const ChunkRef* parent = nullptr,
               Sharing sharing = Sharing::kShared) {
    auto chunk = Make(geometry_);
    EXPECT_TRUE(chunk.ok()) << chunk.status();
    (*chunk)->SetName(Name(n));
    return directory_.Commit(*std::move(chunk), parent, sharing);
  }

  bool Cached(uint8_t n) { return directory_.Find(Name(n)).has_value(); }

  // Takes memory until just one chunk had to go.
  void EvictOne() {
    const uint64_t before = directory_.Stats().evicted_chunks;
    std::vector<Charge> charges;
    while (directory_.Stats().evicted_chunks == before) {
      auto charge = directory_.Reserve(256);
      ASSERT_TRUE(charge.ok());
      charges.push_back(*std::move(charge));
    }
  }

  MemoryBudget budget_{128 << 10};
  HostTier host_{&budget_, HostTierOptions{.region_bytes = kRegion}};
  Directory directory_{&budget_, &host_};
  std::shared_ptr<const ChunkGeometry> geometry_ = Geometry(kPage);
};

TEST_F(DirectoryTest, EvictsColdestFirst) {
  for (uint8_t n : {1, 2, 3}) Add(n);
  { ChunkRef used = *directory_.Find(Name(1)); }
  EvictOne();
  EvictOne();
  EXPECT_EQ(directory_.Stats().chunks, 1);
  EXPECT_TRUE(Cached(1));
}

TEST_F(DirectoryTest, APrefixLosesItsEndFirstAndAllOfItBeforeWarmerOnes) {
  {
    ChunkRef a = Add(1);
    ChunkRef b = Add(2, &a);
    ChunkRef c = Add(3, &b);
    // Released parents first: still only the last child may go.
    a.Reset();
    b.Reset();
  }
  Add(9);  // warmer than all of it
  EXPECT_EQ(directory_.Stats().evictable_chunks, 2);
  for (uint8_t gone : {3, 2, 1}) {
    EvictOne();
    EXPECT_EQ(directory_.Stats().chunks, gone);  // 9 and what is left before `gone`
  }
  EXPECT_TRUE(Cached(9));
}

TEST_F(DirectoryTest, AParentIsAsWarmAsItsWarmestChild) {
  {
    ChunkRef a = Add(1);
    ChunkRef b = Add(2, &a);
  }
  Add(3);
  { ChunkRef again = *directory_.Find(Name(2)); }  // used without its parent
  EvictOne();
  EXPECT_FALSE(Cached(3));
}

TEST_F(DirectoryTest, AScanLeavesWhatWasFoundAgain) {
  for (uint8_t n : {1, 2, 3}) Add(n);
  for (uint8_t n : {1, 2}) EXPECT_TRUE(Cached(n));
  for (uint8_t n = 10; n < 250; ++n) Add(n);
  EXPECT_GT(directory_.Stats().evicted_chunks, 200u);
  EXPECT_TRUE(Cached(1));
  EXPECT_TRUE(Cached(2));
  EXPECT_FALSE(Cached(3));
}

TEST_F(DirectoryTest, ACommitOfANameThatIsThereFindsIt) {
  for (uint8_t n : {1, 2}) Add(n);
  Add(1);
  for (uint8_t n = 10; n < 250; ++n) Add(n);
  EXPECT_TRUE(Cached(1));
  EXPECT_FALSE(Cached(2));
}

TEST_F(DirectoryTest, VerifySeesAFlippedBit) {
  auto chunk = Make(geometry_);
  ASSERT_TRUE(chunk.ok()) << chunk.status();
  std::byte* page = (*chunk)->page(LayerIndex(0), 0);
  std::memset(page, 7, kPage);
  (*chunk)->set_crc(LayerIndex(0), 0, kernels::Crc32c(0, page, kPage));
  (*chunk)->SetName(Name(1));
  ChunkRef open = directory_.Commit(*std::move(chunk), nullptr, Sharing::kShared);
  EXPECT_EQ(directory_.Verify().pages, 1u);
  EXPECT_EQ(directory_.Verify().bad_pages, 0u);
  page[100] ^= std::byte{1};
  EXPECT_EQ(directory_.Verify().bad_pages, 1u);
}

TEST_F(DirectoryTest, VerifyIsNoUse) {
  for (uint8_t n : {1, 2, 3}) Add(n);
  { ChunkRef used = *directory_.Find(Name(1)); }
  EXPECT_EQ(directory_.Verify().pages, 3u);
  EvictOne();
  EvictOne();
  EXPECT_EQ(directory_.Stats().chunks, 1);
  EXPECT_TRUE(Cached(1));
}

// An open child holds its parents' bytes: they could not come free.
TEST_F(DirectoryTest, WhatAnOpenChunkContinuesDoesNotCountAsFree) {
  std::optional<ChunkRef> last;
  uint8_t n = 0;
  while (directory_.Stats().pages * kPage < budget_.capacity_bytes() / 2) {
    ++n;
    ChunkRef next = Add(n, last.has_value() ? &*last : nullptr);
    last = std::move(next);
  }
  const uint64_t half = budget_.capacity_bytes() / 2;
  EXPECT_FALSE(directory_.CheckFits(half).ok());
  last.reset();
  EXPECT_TRUE(directory_.CheckFits(half).ok());
  last = directory_.Find(Name(n));
  EXPECT_FALSE(directory_.CheckFits(half).ok());
  ChunkRef first = *directory_.Find(Name(1));
  last.reset();
  EXPECT_TRUE(directory_.CheckFits(half).ok());
}

TEST_F(DirectoryTest, OpenChunksAreNeverEvicted) {
  std::vector<ChunkRef> open;
  absl::Status status;
  for (uint8_t n = 1;; ++n) {
    auto chunk = Make(geometry_);
    if (!chunk.ok()) {
      status = chunk.status();
      break;
    }
    (*chunk)->SetName(Name(n));
    open.push_back(directory_.Commit(*std::move(chunk), nullptr, Sharing::kShared));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("[host] capacity"));
  EXPECT_EQ(directory_.Stats().evicted_chunks, 0);
  EXPECT_GT(open.size(), 8);
  EXPECT_FALSE(directory_.CheckFits(budget_.capacity_bytes() / 2).ok());
  EXPECT_LE(budget_.used_bytes(), budget_.capacity_bytes());
  open.clear();
  EXPECT_TRUE(directory_.CheckFits(budget_.capacity_bytes()).ok());
  EXPECT_FALSE(directory_.CheckFits(budget_.capacity_bytes() + 1).ok());
  EXPECT_GT(directory_.EvictAll(), 8);
  EXPECT_EQ(directory_.Stats().chunks, 0);
  EXPECT_EQ(budget_.used_bytes(), 0);
  EXPECT_EQ(host_.region_count(), 0);
}

TEST_F(DirectoryTest, FirstCommitOfANameWinsAndTheLosersBytesAreDropped) {
  ChunkRef first = Add(1);
  const uint64_t used = budget_.used_bytes();
  ChunkRef second = Add(1);
  EXPECT_EQ(&*first, &*second);
  EXPECT_EQ(budget_.used_bytes(), used);
  EXPECT_EQ(directory_.Stats().duplicate_chunks, 1);
}

TEST_F(DirectoryTest, PrivateChunksGoWithTheirLastReference) {
  ChunkRef a = Add(1, nullptr, Sharing::kPrivate);
  ChunkRef b = Add(2, &a, Sharing::kPrivate);
  EXPECT_FALSE(Cached(1));
  ChunkRef shared = b.Share();
  a.Reset();
  b.Reset();
  EXPECT_EQ(directory_.Stats().chunks, 2);
  shared.Reset();
  EXPECT_EQ(directory_.Stats().chunks, 0);
  EXPECT_EQ(budget_.used_bytes(), 0);
}

TEST_F(DirectoryTest, RegionsMoveBetweenSlotClasses) {
  for (uint8_t n = 1; n <= 60; ++n) Add(n);
  ASSERT_GT(directory_.Stats().evicted_chunks, 0);  // full of 4 KiB pages
  // 12 KiB pages, and 20 KiB ones, larger than a region, of another namespace.
  auto wide = Make(Geometry(12 << 10));
  ASSERT_TRUE(wide.ok()) << wide.status();
  auto huge = Make(Geometry(20 << 10, 1));
  ASSERT_TRUE(huge.ok()) << huge.status();
  std::memset((*huge)->page(LayerIndex(0), 0), 1, 20 << 10);
  EXPECT_GT(directory_.Stats().chunks, 0);  // not everything had to go
  EXPECT_LE(budget_.used_bytes(), budget_.capacity_bytes());
}

TEST_F(DirectoryTest, CountsChunksByNamespace) {
  ChunkRef a = Add(1);
  EXPECT_EQ(directory_.ChunkCount(NamespaceIndex(0)), 1);
  EXPECT_EQ(directory_.ChunkCount(NamespaceIndex(7)), 0);
  EXPECT_EQ(directory_.Stats().pages, 1);
}

TEST(ChunkGeometry, ChargesAtLeastWhatAnEntryTakes) {
  ChunkGeometry geometry(NamespaceIndex(0));
  geometry.AddLayer(1, 4096, 64);
  EXPECT_GE(geometry.table_bytes(), sizeof(Chunk) + 3 * sizeof(void*) + 48);
}

TEST(Region, IsSealedAgainstWritersAndResizing) {
  MemoryBudget budget(1 << 20);
  auto region = Region::Create(nullptr, SlotClass{NamespaceIndex(0), 4096}, 64 << 10,
                               *Charge::Take(&budget, 64 << 10));
  ASSERT_TRUE(region.ok()) << region.status();
  std::memset((*region)->slot(SlotIndex(3)), 7, 4096);
  const int fd = (*region)->fd();
  EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
  EXPECT_NE(::ftruncate(fd, 0), 0);
  void* readable = ::mmap(nullptr, 64 << 10, PROT_READ, MAP_SHARED, fd, 0);
  ASSERT_NE(readable, MAP_FAILED);
  EXPECT_EQ(static_cast<const char*>(readable)[3 * 4096], 7);
  ::munmap(readable, 64 << 10);
}

TEST(HostTier, SlotsOfOneCallAreConsecutiveWhereThereIsRoom) {
  MemoryBudget budget(1 << 20);
  HostTier host(&budget, HostTierOptions{.region_bytes = 64 << 10});
  std::vector<Slot> slots;
  ASSERT_TRUE(host.Take(NamespaceIndex(0), 4096, 8, &slots).ok());
  for (size_t i = 1; i < slots.size(); ++i) {
    EXPECT_EQ(slots[i].data() - slots[i - 1].data(), 4096);
  }
  // Another namespace never shares a region.
  std::vector<Slot> other;
  ASSERT_TRUE(host.Take(NamespaceIndex(1), 4096, 1, &other).ok());
  EXPECT_EQ(host.region_count(), 2);
  // A scattered call still succeeds.
  slots.erase(slots.begin() + 2);
  slots.erase(slots.begin() + 5);
  std::vector<Slot> scattered;
  ASSERT_TRUE(host.Take(NamespaceIndex(0), 4096, 10, &scattered).ok());
  EXPECT_EQ(host.region_count(), 2);
  scattered.clear();
  slots.clear();
  other.clear();
  EXPECT_EQ(host.region_count(), 0);
  EXPECT_EQ(budget.used_bytes(), 0);
}

}  // namespace
}  // namespace kvtier::tiers
