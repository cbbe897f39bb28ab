// Goal: a chunk that does not verify costs itself and nothing else: it is a hole until it
// is written anew, what continues it stays, and whatever goes wrong on the way leaves a
// hole or a whole chunk. Method: flipped bytes on the virtual disk, with and without
// errors and restarts between.

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tiers/disk_fixture.h"

namespace kvtier::tiers {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class DiskHolesTest : public DiskTierFixture {
 protected:
  // 1 <- 2 <- 3, and 2 doesn't verify.
  void OpenWithAHole() {
    ASSERT_EQ(Open(), absl::OkStatus());
    ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
    ASSERT_EQ(WriteAndRelease(2, 1), absl::OkStatus());
    ASSERT_EQ(WriteAndRelease(3, 2), absl::OkStatus());
    Flip(1);
    ASSERT_EQ(Check(2).code(), absl::StatusCode::kDataLoss);
    ASSERT_FALSE(Contains(2));
  }
  // In the first page of the n-th written chunk of an empty tier.
  void Flip(uint32_t written) {
    io_->FlipByte(SegmentNumber(written / 2), written % 2 * kExtentBytes + 9000);
  }
  uint64_t holes() { return tier_->Stats().hole_chunks; }
};

class FlippedByteTest : public DiskHolesTest,
                        public ::testing::WithParamInterface<int> {};

TEST_P(FlippedByteTest, IsDataLossAndTheChunkIsWrittenAnew) {
  // In the header, the abstracts, the first page, the second.
  const uint64_t offset = std::array{50, 4096 + 99, 8192 + 3999, 12288}[GetParam()];
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(2, 1), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(3, 2), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(4), absl::OkStatus());
  io_->FlipByte(SegmentNumber(0), kExtentBytes + offset);
  EXPECT_EQ(Check(2).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Check(1), absl::OkStatus());
  EXPECT_FALSE(Contains(2));
  EXPECT_EQ(Check(3), absl::OkStatus());  // it continues what is lost
  EXPECT_EQ(Check(4), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().lost_chunks, 1u);
  EXPECT_EQ(holes(), 1u);
  EXPECT_EQ(tier_->Stats().chunks, 4u);
  EXPECT_EQ(WriteAndRelease(2, 1), absl::OkStatus());
  for (uint32_t n = 1; n <= 4; ++n) EXPECT_EQ(Check(n), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().lost_chunks, 1u);
  EXPECT_EQ(tier_->Stats().filled_chunks, 1u);
  EXPECT_EQ(holes(), 0u);
  EXPECT_EQ(tier_->Stats().used_bytes, 4 * kExtentBytes);
  ASSERT_EQ(Restart(), absl::OkStatus());
  for (uint32_t n = 1; n <= 4; ++n) EXPECT_EQ(Check(n), absl::OkStatus());
  EXPECT_EQ(tier_->Parent(*tier_->Find(NumberedName(3))), NumberedName(2));
  EXPECT_EQ(tier_->Stats().used_bytes, 4 * kExtentBytes);
  EXPECT_EQ(tier_->UsedBytes("a"), 4 * kExtentBytes);
}

INSTANTIATE_TEST_SUITE_P(Places, FlippedByteTest, ::testing::Range(0, 4));

TEST_F(DiskHolesTest, AHoleIsCountedOnceHoweverOftenItIsRead) {
  ASSERT_EQ(Open(), absl::OkStatus());
  absl::StatusOr<DiskChunk> chunk = Write(1);
  EXPECT_FALSE(chunk->lost());
  Flip(0);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Read(*chunk).status().code(), absl::StatusCode::kDataLoss);
    EXPECT_TRUE(chunk->lost());
  }
  EXPECT_EQ(tier_->Stats().lost_chunks, 1u);
  EXPECT_EQ(holes(), 1u);
}

TEST_F(DiskHolesTest, WhoHasTheHolePinnedKeepsItsExtentTillTheLastIsGone) {
  ASSERT_EQ(Open(), absl::OkStatus());
  absl::StatusOr<DiskChunk> former = Write(1);
  DiskChunk shared = former->Share();
  Flip(0);
  EXPECT_EQ(Check(1).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(WriteAndRelease(1), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().used_bytes, 2 * kExtentBytes);
  EXPECT_EQ(tier_->UsedBytes("a"), kExtentBytes);
  // What is bad there stays bad for them.
  EXPECT_TRUE(former->lost());
  EXPECT_EQ(Read(*former).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(tier_->Find(NumberedName(1))->lost());
  former->Reset();
  EXPECT_EQ(tier_->Stats().used_bytes, 2 * kExtentBytes);
  shared.Reset();
  EXPECT_EQ(tier_->Stats().used_bytes, kExtentBytes);
  EXPECT_EQ(Check(1), absl::OkStatus());
}

TEST_F(DiskHolesTest, ARestartFindsOutAgainAndKeepsWhatContinuesIt) {
  OpenWithAHole();
  ASSERT_EQ(Restart(), absl::OkStatus());
  EXPECT_TRUE(Contains(2));
  EXPECT_EQ(holes(), 0u);
  EXPECT_EQ(Check(2).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(holes(), 1u);
  EXPECT_EQ(Check(3), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().chunks, 3u);
}

TEST_F(DiskHolesTest, AHoleIsContinuedAndGoesLeafFirst) {
  OpenWithAHole();
  EXPECT_EQ(WriteAndRelease(4, 2), absl::OkStatus());
  EXPECT_EQ(Check(4), absl::OkStatus());
  EXPECT_EQ(Remove(2).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Remove(3), absl::OkStatus());
  EXPECT_EQ(Remove(4), absl::OkStatus());
  EXPECT_EQ(Remove(2), absl::OkStatus());
  EXPECT_EQ(holes(), 0u);
  EXPECT_EQ(tier_->Stats().used_bytes, kExtentBytes);
  ASSERT_EQ(Restart(), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().chunks, 1u);
}

TEST_F(DiskHolesTest, AFullDiskEvictsWhatContinuesAHoleAndThenTheHole) {
  OpenWithAHole();
  for (uint32_t n = 10; n < 10 + 64; ++n) {
    ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
    EXPECT_TRUE(tier_->Find(NumberedName(n)).has_value()) << "warmer than the hole";
  }
  EXPECT_EQ(holes(), 0u);
  EXPECT_FALSE(Contains(3));
  EXPECT_EQ(tier_->Stats().chunks, 64u);
  // Not there is not a hole: it has to continue something again.
  EXPECT_EQ(WriteAndRelease(2, 1).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(DiskHolesTest, AHoleThatIsBeingFilledIsNotEvictedForIt) {
  OpenWithAHole();
  ASSERT_EQ(Remove(3), absl::OkStatus());
  std::vector<DiskChunk> pinned;
  pinned.push_back(*tier_->Find(NumberedName(1)));
  while (tier_->Stats().chunks < 64) {
    absl::StatusOr<DiskChunk> chunk = Write(100 + tier_->Stats().chunks);
    ASSERT_EQ(chunk.status(), absl::OkStatus());
    pinned.push_back(*std::move(chunk));
  }
  // The hole itself is all that might go.
  EXPECT_EQ(WriteAndRelease(2, 1).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(holes(), 1u);
  pinned.pop_back();
  EXPECT_EQ(WriteAndRelease(2, 1), absl::OkStatus());
  EXPECT_EQ(Check(2), absl::OkStatus());
  EXPECT_EQ(holes(), 0u);
}

TEST_F(DiskHolesTest, OnlyTheSameChunkFillsAHole) {
  OpenWithAHole();
  EXPECT_EQ(WriteAndRelease(2).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteAndRelease(2, 3).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StartWrite(MakeWrite(2, 1, OneLayer("b", 2, 4000))).get().status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(holes(), 1u);
  EXPECT_EQ(WriteAndRelease(2, 1), absl::OkStatus());
}

TEST_F(DiskHolesTest, AFillThatFailsLeavesTheHole) {
  OpenWithAHole();
  Pass(0);
  io_->FailNext(IoKind::kWrite, 1, absl::UnavailableError("bad sector"));
  EXPECT_EQ(WriteAndRelease(2, 1).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(holes(), 1u);
  EXPECT_TRUE(Eventually([&] { return tier_->Stats().used_bytes == 3 * kExtentBytes; }));
  Pass(1);
  EXPECT_EQ(WriteAndRelease(2, 1), absl::OkStatus());
  EXPECT_EQ(Check(2), absl::OkStatus());
}

TEST_F(DiskHolesTest, ACatalogThatFailsKeepsTheHolesRecord) {
  OpenWithAHole();
  Pass(0);
  files_->SetFull(true);
  EXPECT_EQ(WriteAndRelease(2, 1).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(holes(), 1u);
  files_->SetFull(false);
  // Another write goes through once the put is taken back.
  EXPECT_TRUE(Eventually([&] {
    Pass(60);
    return WriteAndRelease(4, 3).ok();
  }));
  EXPECT_EQ(tier_->Stats().used_bytes, 4 * kExtentBytes);
  ASSERT_EQ(Restart(), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().chunks, 4u);
  EXPECT_EQ(Check(2).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Check(3), absl::OkStatus());
  EXPECT_EQ(Check(4), absl::OkStatus());
}

TEST_F(DiskHolesTest, AChunkThatCantBeReadAndIsBadThenIsAHole) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  Pass(0);
  io_->FailNext(IoKind::kRead, 1, absl::UnavailableError("bad sector"));
  EXPECT_EQ(Check(1).code(), absl::StatusCode::kUnavailable);
  Flip(0);
  EXPECT_TRUE(Eventually([&] {
    Pass(60);
    return holes() == 1;
  }));
  EXPECT_THAT(tier_->Stats().degraded, IsEmpty());
  EXPECT_EQ(WriteAndRelease(1), absl::OkStatus());
  EXPECT_EQ(Check(1), absl::OkStatus());
}

TEST_F(DiskHolesTest, AHoleThatCantBeReadEitherIsStillFilled) {
  ASSERT_EQ(Open(), absl::OkStatus());
  absl::StatusOr<DiskChunk> chunk = Write(1);
  Flip(0);
  EXPECT_EQ(Read(*chunk).status().code(), absl::StatusCode::kDataLoss);
  io_->FailNext(IoKind::kRead, 1, absl::UnavailableError("bad sector"));
  EXPECT_EQ(Read(*chunk).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(WriteAndRelease(1), absl::OkStatus());
  EXPECT_EQ(Check(1), absl::OkStatus());
}

TEST_F(DiskHolesTest, VerifySaysWhatIsBad) {
  OpenWithAHole();
  ASSERT_EQ(StartWrite(MakeWrite(9, kNoParent, OneLayer("b", 2, 4000))).get().status(),
            absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(4), absl::OkStatus());
  Flip(4);  // 9 began a segment of its own
  const DiskTier::VerifyResult all = tier_->Verify();
  EXPECT_EQ(all.chunks, 5u);
  EXPECT_EQ(all.pages, 10u);
  EXPECT_EQ(all.bad_chunks, 2u);
  EXPECT_THAT(all.findings,
              ::testing::UnorderedElementsAre(
                  ::testing::AllOf(HasSubstr("chunk 020000000000 of namespace a"),
                                   HasSubstr("a hole")),
                  ::testing::AllOf(HasSubstr("chunk 090000000000 of namespace b"),
                                   HasSubstr("layer 0, kv head 0"))));
  EXPECT_EQ(tier_->Verify("a").bad_chunks, 1u);
  EXPECT_EQ(holes(), 2u);
  EXPECT_EQ(tier_->Stats().lost_chunks, 2u);
}

TEST_F(DiskHolesTest, ScrubLeavesHolesAlone) {
  scrub_ = kExtentBytes;
  OpenWithAHole();
  Pass(0);
  for (uint64_t second = 1; second <= 4; ++second) {
    Pass(1);
    EXPECT_TRUE(Eventually(
        [&] { return tier_->Stats().scrubbed_bytes == second * kExtentBytes; }));
  }
  EXPECT_EQ(tier_->Stats().lost_chunks, 1u);
  EXPECT_EQ(WriteAndRelease(2, 1), absl::OkStatus());
  Pass(1);
  Pass(1);
  Pass(1);
  EXPECT_TRUE(
      Eventually([&] { return tier_->Stats().scrubbed_bytes >= 5 * kExtentBytes; }));
  EXPECT_EQ(tier_->Stats().lost_chunks, 1u);
}

}  // namespace
}  // namespace kvtier::tiers
