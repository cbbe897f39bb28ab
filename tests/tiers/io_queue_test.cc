// Goal: what a query waits for goes first, what is behind is not starved, and only what
// the device left unanswered is late. Method: the queue alone, with times of the test's
// own.

#include "tiers/disk/io_queue.h"

#include "gtest/gtest.h"

namespace kvtier::tiers {
namespace {

const absl::Time kStart = absl::UnixEpoch();

IoRequest Of(IoPriority priority) {
  IoRequest request;
  request.priority = priority;
  return request;
}

TEST(IoQueue, DemandGoesFirstAndTheOldestIsNotForgotten) {
  IoQueue queue;
  queue.Add(Of(IoPriority::kScrub), kStart);
  for (int i = 0; i < 20; ++i) {
    queue.Add(Of(IoPriority::kPrefetch), kStart + absl::Seconds(i + 1));
    queue.Add(Of(IoPriority::kDemand), kStart + absl::Seconds(i + 1));
  }
  IoFlight flight;
  for (uint32_t i = 1; i < IoQueue::kFairness; ++i) {
    ASSERT_TRUE(queue.Take(true, kStart, &flight));
    EXPECT_EQ(flight.request.priority, IoPriority::kDemand);
  }
  ASSERT_TRUE(queue.Take(true, kStart, &flight));
  EXPECT_EQ(flight.request.priority, IoPriority::kScrub);
  for (uint32_t i = 1; i < IoQueue::kFairness; ++i) {
    ASSERT_TRUE(queue.Take(true, kStart, &flight));
    EXPECT_EQ(flight.request.priority, IoPriority::kDemand);
  }
  ASSERT_TRUE(queue.Take(true, kStart, &flight));
  EXPECT_EQ(flight.request.priority, IoPriority::kPrefetch);
}

TEST(IoQueue, BackgroundWaitsForRoom) {
  IoQueue queue;
  queue.Add(Of(IoPriority::kWriteBehind), kStart);
  IoFlight flight;
  EXPECT_FALSE(queue.Take(false, kStart, &flight));
  queue.Add(Of(IoPriority::kPrefetch), kStart);
  ASSERT_TRUE(queue.Take(false, kStart, &flight));
  EXPECT_EQ(flight.request.priority, IoPriority::kPrefetch);
  EXPECT_TRUE(queue.Take(true, kStart, &flight));
  EXPECT_FALSE(queue.Take(true, kStart, &flight));
}

TEST(IoQueue, TimeCountsFromTheStart) {
  IoQueue queue;
  queue.Add(Of(IoPriority::kDemand), kStart);
  queue.Add(Of(IoPriority::kScrub), kStart + absl::Seconds(10));
  IoFlight flight;
  ASSERT_TRUE(queue.Take(true, kStart + absl::Seconds(5), &flight));
  EXPECT_EQ(flight.queued, kStart);
  EXPECT_EQ(flight.started, kStart + absl::Seconds(5));
  EXPECT_TRUE(queue.TakeOlderThan(kStart + absl::Seconds(10)).empty());
  EXPECT_EQ(queue.TakeOlderThan(kStart + absl::Seconds(11)).size(), 1u);
  EXPECT_FALSE(queue.Take(true, kStart, &flight));
}

TEST(BackgroundLimit, IsLowForAWhileAfterADemand) {
  BackgroundLimit limit(32, 1, absl::Milliseconds(100));
  const absl::Time start = absl::UnixEpoch();
  EXPECT_EQ(limit.At(start), 32u);
  limit.NoteDemand(start);
  EXPECT_EQ(limit.At(start), 1u);
  EXPECT_EQ(limit.At(start + absl::Milliseconds(99)), 1u);
  limit.NoteDemand(start + absl::Milliseconds(50));
  EXPECT_EQ(limit.At(start + absl::Milliseconds(149)), 1u);
  EXPECT_EQ(limit.At(start + absl::Milliseconds(150)), 32u);
}

}  // namespace
}  // namespace kvtier::tiers
