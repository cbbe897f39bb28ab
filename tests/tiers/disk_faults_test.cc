// Goal: a bad disk costs what it spoils and no more: wrong bytes are never handed out,
// what can't be done is refused with the reason, and when the disk is well again so is
// the tier. Method: the virtual disk fails requests, flips bytes, and is full, on demand.

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tiers/disk_fixture.h"
#include "tiers/disk/catalog_records.h"

namespace kvtier::tiers {
namespace {

using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Of one thing that the tier can't do, for which the message gives the cause.
auto Only(DiskFault fault, const std::string& cause) {
  return ElementsAre(
      ::testing::AllOf(Field("fault", &DiskDegraded::fault, fault),
                       Field("message", &DiskDegraded::message, HasSubstr(cause))));
}

class DiskFaultsTest : public DiskTierFixture {
 protected:
  // Where the n-th written chunk of an empty tier lies: the second segment starts after
  // two.
  void Flip(uint32_t written, uint64_t offset) {
    io_->FlipByte(SegmentNumber(written / 2), written % 2 * kExtentBytes + offset);
  }
};

TEST_F(DiskFaultsTest, VerifyCountsWhatIsBad) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(StartWrite(MakeWrite(9, kNoParent, OneLayer("b", 2, 4000))).get().status(),
            absl::OkStatus());
  for (uint32_t n = 1; n <= 5; ++n) ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
  Flip(0, 9000);
  EXPECT_EQ(tier_->Verify("a").bad_chunks, 0u);
  const DiskTier::VerifyResult result = tier_->Verify();
  EXPECT_EQ(result.chunks, 6u);
  EXPECT_EQ(result.pages, 12u);
  EXPECT_EQ(result.bad_chunks, 1u);
  EXPECT_FALSE(Contains(9));
}

TEST_F(DiskFaultsTest, ScrubFindsWhatNobodyReadsWithinItsRate) {
  scrub_ = kExtentBytes;
  ASSERT_EQ(Open(), absl::OkStatus());
  for (uint32_t n = 1; n <= 4; ++n) ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
  Flip(2, 9000);
  Pass(0);
  EXPECT_EQ(tier_->Stats().scrubbed_bytes, 0u);
  for (uint64_t second = 1; second <= 4; ++second) {
    Pass(1);
    EXPECT_TRUE(Eventually(
        [&] { return tier_->Stats().scrubbed_bytes == second * kExtentBytes; }));
  }
  EXPECT_EQ(tier_->Stats().lost_chunks, 1u);
  EXPECT_FALSE(Contains(3));
}

TEST_F(DiskFaultsTest, AChunkThatCantBeReadIsLeftOutUntilItReadsAgain) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(2), absl::OkStatus());
  io_->FailNext(IoKind::kRead, 1, absl::UnavailableError("bad sector"));
  EXPECT_EQ(Check(1).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(Contains(1));
  EXPECT_EQ(Check(2), absl::OkStatus());
  EXPECT_EQ(WriteAndRelease(1).code(), absl::StatusCode::kUnavailable);
  io_->FailNext(IoKind::kRead, 3, absl::UnavailableError("bad sector"));
  Pass(0);
  Pass(60);
  EXPECT_TRUE(Eventually([&] { return !tier_->Stats().degraded.empty(); }));
  EXPECT_FALSE(Contains(1));
  io_->FailNext(IoKind::kRead, 0, absl::OkStatus());
  EXPECT_TRUE(Eventually([&] {
    Pass(60);
    return Contains(1);
  }));
  EXPECT_EQ(Check(1), absl::OkStatus());
  EXPECT_THAT(tier_->Stats().degraded, IsEmpty());
}

class WriteErrorTest : public DiskFaultsTest,
                       public ::testing::WithParamInterface<IoKind> {};

TEST_P(WriteErrorTest, StopsWritingAndTriesAgainLater) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  Pass(0);
  io_->FailNext(GetParam(), 1, absl::FailedPreconditionError("read-only file system"));
  EXPECT_EQ(WriteAndRelease(2).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(Contains(2));
  EXPECT_EQ(WriteAndRelease(3).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Check(1), absl::OkStatus());
  EXPECT_THAT(tier_->Stats().degraded, Only(DiskFault::kWriting, "read-only"));
  // The buffer comes back after the answer, and the extent with it.
  EXPECT_TRUE(Eventually([&] { return tier_->Stats().used_bytes == kExtentBytes; }));
  Pass(1);
  EXPECT_EQ(WriteAndRelease(2), absl::OkStatus());
  EXPECT_EQ(Check(2), absl::OkStatus());
  EXPECT_TRUE(Eventually([&] { return tier_->Stats().degraded.empty(); }));
}

TEST_P(WriteErrorTest, IsFoundToBeOverAlsoWhenNobodyWrites) {
  ASSERT_EQ(Open(), absl::OkStatus());
  Pass(0);
  io_->FailNext(GetParam(), 3, absl::UnavailableError("bad sector"));
  EXPECT_EQ(WriteAndRelease(1).code(), absl::StatusCode::kUnavailable);
  const auto failing = [this] { return !tier_->Stats().degraded.empty(); };
  const uint64_t writes = io_->count(IoKind::kWrite);
  EXPECT_THAT(tier_->Stats().degraded, Only(DiskFault::kWriting, "bad sector"));
  Pass(0.1);
  EXPECT_EQ(io_->probes(), 0u) << "tried again at once";
  // Two tries fail, the third goes well.
  EXPECT_TRUE(Eventually([&] {
    Pass(0.1);
    return !failing();
  }));
  EXPECT_EQ(io_->probes(), 3u);
  EXPECT_EQ(io_->count(IoKind::kWrite), writes);
  EXPECT_EQ(WriteAndRelease(2), absl::OkStatus());
}

TEST_F(DiskFaultsTest, TriesAreNeverFarApart) {
  ASSERT_EQ(Open(), absl::OkStatus());
  Pass(0);
  io_->FailNext(IoKind::kWrite, 1000, absl::UnavailableError("bad sector"));
  EXPECT_EQ(WriteAndRelease(1).code(), absl::StatusCode::kUnavailable);
  for (uint64_t tries = 1; tries <= 12; ++tries) {
    Pass(4);
    EXPECT_TRUE(Eventually([&] { return io_->probes() == tries; }));
    // What it found comes after its count.
    EXPECT_TRUE(Eventually([&] { return WriteAndRelease(2).ok() == false; }));
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, WriteErrorTest,
                         ::testing::Values(IoKind::kWrite, IoKind::kSync));

TEST_F(DiskFaultsTest, WhatTheDeviceMayStillWriteIsNotReused) {
  ASSERT_EQ(Open(), absl::OkStatus());
  Pass(0);
  io_->HoldBuffers(true);
  io_->FailNext(IoKind::kWrite, 1, absl::DeadlineExceededError("the device hangs"));
  EXPECT_EQ(WriteAndRelease(1).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(tier_->Stats().used_bytes, kExtentBytes);
  EXPECT_TRUE(Eventually([&] { return io_->held() == 1; }));
  io_->HoldBuffers(false);
  Pass(1);
  EXPECT_EQ(WriteAndRelease(2), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().used_bytes, 2 * kExtentBytes);
  io_->ReleaseHeld();
  EXPECT_EQ(tier_->Stats().used_bytes, kExtentBytes);
  EXPECT_EQ(Check(2), absl::OkStatus());
}

TEST_F(DiskFaultsTest, AFullFileSystemKeepsWhatItHasAndEvicts) {
  ASSERT_EQ(Open(), absl::OkStatus());
  for (uint32_t n = 1; n <= 4; ++n) ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
  Pass(0);
  io_->SetCreateError(absl::ResourceExhaustedError("no space left on device"));
  for (uint32_t n = 5; n <= 30; ++n) ASSERT_EQ(WriteAndRelease(n), absl::OkStatus()) << n;
  EXPECT_EQ(Check(30), absl::OkStatus());
  EXPECT_THAT(tier_->Stats().degraded,
              Only(DiskFault::kGrowing, "no space left on device"));
  // No more than what was ready.
  EXPECT_LT(tier_->Stats().chunks, 20u);
  io_->SetCreateError(absl::OkStatus());
  Pass(120);
  for (uint32_t n = 31; n <= 60; ++n) ASSERT_EQ(WriteAndRelease(n), absl::OkStatus());
  EXPECT_THAT(tier_->Stats().degraded, IsEmpty());
  EXPECT_GT(tier_->Stats().chunks, 20u);
}

TEST_F(DiskFaultsTest, AFullFileSystemWithNothingToEvictSaysSoAndIsTriedAgain) {
  ASSERT_EQ(Open(), absl::OkStatus());
  Pass(0);
  io_->SetCreateError(absl::ResourceExhaustedError("no space left on device"));
  std::vector<DiskChunk> in_use;
  absl::Status status;
  uint32_t n = 0;
  while (status.ok() && ++n < 100) {
    absl::StatusOr<DiskChunk> chunk = Write(n);
    status = chunk.status();
    if (chunk.ok()) in_use.push_back(*std::move(chunk));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no space left on device"));
  const uint64_t before = tier_->Stats().segment_bytes;
  io_->SetCreateError(absl::OkStatus());
  // Nobody writes meanwhile.
  EXPECT_TRUE(Eventually([&] {
    Pass(0.1);
    return tier_->Stats().degraded.empty();
  }));
  EXPECT_GT(tier_->Stats().segment_bytes, before);
  EXPECT_EQ(WriteAndRelease(n), absl::OkStatus());
}

TEST_F(DiskFaultsTest, AFullCatalogStopsWritingUntilThereIsRoom) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  Pass(0);
  files_->SetFull(true);
  EXPECT_EQ(WriteAndRelease(2).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Check(1), absl::OkStatus());
  EXPECT_THAT(tier_->Stats().degraded, Only(DiskFault::kCatalog, "catalog"));
  Pass(1);
  EXPECT_EQ(WriteAndRelease(3).code(), absl::StatusCode::kUnavailable);
  files_->SetFull(false);
  EXPECT_TRUE(Eventually([&] {
    Pass(60);
    return WriteAndRelease(2).ok();
  }));
  EXPECT_EQ(Check(2), absl::OkStatus());
  EXPECT_TRUE(Eventually([&] { return tier_->Stats().degraded.empty(); }));
  ASSERT_EQ(Restart(), absl::OkStatus());
  EXPECT_EQ(Check(1), absl::OkStatus());
  EXPECT_EQ(Check(2), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().used_bytes, 2 * kExtentBytes);
}

class DiskOpenTest : public DiskFaultsTest {};

TEST_F(DiskOpenTest, AnotherFormatVersionIsRefused) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ChangeCatalog("S", EncodeSuperblock({.version = 7, .starts = 1}));
  const absl::Status status = Open();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("version 7"));
  EXPECT_THAT(status.message(), HasSubstr("--wipe"));
}

TEST_F(DiskOpenTest, RecordsThatCantBeReadAreDataLoss) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  ChangeCatalog(ChunkKey(NumberedName(1)), "short");
  EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss);
  ChangeCatalog("S", "?");
  EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss);
}

TEST_F(DiskOpenTest, ACatalogThatDoesNotOpenIsDataLoss) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  Close();
  for (auto& [path, bytes] : files_image_) {
    if (path.find("MANIFEST") != std::string::npos) bytes = "nonsense";
  }
  const absl::Status status = Open();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(status.message(), HasSubstr("--wipe"));
}

TEST_F(DiskOpenTest, SegmentsWithoutACatalogAreDataLoss) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  Close();
  files_image_.clear();
  EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss);
}

TEST_F(DiskOpenTest, ADirectoryInUseIsRefused) {
  ASSERT_EQ(Open(), absl::OkStatus());
  EXPECT_EQ(
      DiskTier::Open(options_, io_.get(), files_->env(), &executor_).status().code(),
      absl::StatusCode::kFailedPrecondition);
}

TEST_F(DiskOpenTest, ChunksOfAMissingSegmentAndWhatContinuesThemAreDropped) {
  ASSERT_EQ(Open(), absl::OkStatus());
  for (uint32_t n = 1; n <= 6; ++n) {
    const uint32_t parent = n == 1 ? kNoParent : n - 1;
    ASSERT_EQ(WriteAndRelease(n, parent), absl::OkStatus());
  }
  Close();
  segments_.erase(SegmentNumber(1));
  ASSERT_EQ(Open(), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().chunks, 2u);
  EXPECT_EQ(tier_->Stats().lost_chunks, 4u);
  ASSERT_EQ(Restart(), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().lost_chunks, 0u);
  EXPECT_EQ(Check(2), absl::OkStatus());
}

TEST_F(DiskOpenTest, ChunksWhoseParentsGoRoundInACircleAreDropped) {
  ASSERT_EQ(Open(), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(1), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(2, 1), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(3, 2), absl::OkStatus());
  ASSERT_EQ(WriteAndRelease(4), absl::OkStatus());
  ChunkRecord record;
  record.place = {SegmentNumber(0), 0};
  record.generation = 1;
  record.parent = NumberedName(2);
  ChangeCatalog(ChunkKey(NumberedName(1)), EncodeChunkRecord(record));
  ASSERT_EQ(Open(), absl::OkStatus());
  EXPECT_EQ(tier_->Stats().chunks, 1u);
  EXPECT_EQ(tier_->Stats().lost_chunks, 3u);
  EXPECT_EQ(Check(4), absl::OkStatus());
}

TEST_F(DiskOpenTest, ATooSmallCapacityIsRefused) {
  options_.capacity_bytes = 100;
  EXPECT_EQ(Open().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvtier::tiers
