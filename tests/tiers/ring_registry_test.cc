// Goal: numbers stand for what was registered, and what is removed is let go of.
// Method: a real ring; a pipe, whose reader sees when the last writer is gone.

#include "tiers/disk/ring_registry.h"

#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <cstdlib>
#include <set>

#include "gtest/gtest.h"

namespace kvtier::tiers {
namespace {

class RingRegistryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    made_ = io_uring_queue_init(4, &ring_, 0) == 0;
    if (!made_) GTEST_SKIP() << "io_uring is refused here";
  }
  void TearDown() override {
    if (made_) io_uring_queue_exit(&ring_);
  }

  bool made_ = false;
  io_uring ring_;
  RingRegistry registry_;
};

TEST_F(RingRegistryTest, WithoutAKernelSideNothingHasANumber) {
  registry_.RemoveFile(SegmentNumber(1));
  EXPECT_EQ(registry_.AddFile(SegmentNumber(1), 0), -1);
  EXPECT_EQ(registry_.FileOf(SegmentNumber(1)), -1);
  std::byte byte;
  registry_.AddBuffer(&byte, 1);
  EXPECT_EQ(registry_.BufferOf(&byte, 1), -1);
  registry_.RemoveBuffer(&byte);
}

TEST_F(RingRegistryTest, ABufferHoldsWhatLiesWhollyInIt) {
  registry_.Start(&ring_);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kIoUnit, 4 * kIoUnit));
  registry_.AddBuffer(memory + kIoUnit, kIoUnit);
  registry_.AddBuffer(memory + 2 * kIoUnit, kIoUnit);
  const int first = registry_.BufferOf(memory + kIoUnit, kIoUnit);
  const int second = registry_.BufferOf(memory + 2 * kIoUnit + 512, 512);
  EXPECT_GE(first, 0);
  EXPECT_GE(second, 0);
  EXPECT_NE(first, second);
  EXPECT_EQ(registry_.BufferOf(memory, 512), -1);
  EXPECT_EQ(registry_.BufferOf(memory + kIoUnit, 2 * kIoUnit), -1);
  EXPECT_EQ(registry_.BufferOf(memory + 3 * kIoUnit, 512), -1);
  registry_.RemoveBuffer(memory + kIoUnit);
  EXPECT_EQ(registry_.BufferOf(memory + kIoUnit, 512), -1);
  EXPECT_EQ(registry_.BufferOf(memory + 2 * kIoUnit, 512), second);
  registry_.RemoveBuffer(memory + 2 * kIoUnit);
  std::free(memory);
}

TEST_F(RingRegistryTest, WhatFindsNoNumberLeftHasNone) {
  registry_.Start(&ring_);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kIoUnit, kIoUnit));
  std::set<int> numbers;
  for (uint32_t i = 0; i < RingRegistry::kBuffers; ++i) {
    registry_.AddBuffer(memory + i, 1);
    numbers.insert(registry_.BufferOf(memory + i, 1));
  }
  EXPECT_EQ(numbers.size(), RingRegistry::kBuffers);
  EXPECT_EQ(numbers.count(-1), 0u);
  registry_.AddBuffer(memory + RingRegistry::kBuffers, 1);
  EXPECT_EQ(registry_.BufferOf(memory + RingRegistry::kBuffers, 1), -1);
  registry_.RemoveBuffer(memory + 5);
  registry_.AddBuffer(memory + RingRegistry::kBuffers, 1);
  EXPECT_GE(registry_.BufferOf(memory + RingRegistry::kBuffers, 1), 0);
  for (uint32_t i = 0; i <= RingRegistry::kBuffers; ++i) {
    registry_.RemoveBuffer(memory + i);
  }
  std::free(memory);
}

TEST_F(RingRegistryTest, AfterTheRingNothingHasANumber) {
  registry_.Start(&ring_);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kIoUnit, kIoUnit));
  registry_.AddBuffer(memory, kIoUnit);
  EXPECT_GE(registry_.BufferOf(memory, kIoUnit), 0);
  registry_.Stop();
  EXPECT_EQ(registry_.BufferOf(memory, kIoUnit), -1);
  registry_.RemoveBuffer(memory);
  registry_.AddBuffer(memory, kIoUnit);
  EXPECT_EQ(registry_.BufferOf(memory, kIoUnit), -1);
  EXPECT_EQ(registry_.AddFile(SegmentNumber(1), 0), -1);
  EXPECT_EQ(registry_.FileOf(SegmentNumber(1)), -1);
  std::free(memory);
}

TEST_F(RingRegistryTest, ARemovedFileIsLetGoOf) {
  registry_.Start(&ring_);
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_NONBLOCK), 0);
  const int number = registry_.AddFile(SegmentNumber(3), ends[1]);
  EXPECT_GE(number, 0);
  EXPECT_EQ(registry_.FileOf(SegmentNumber(3)), number);
  close(ends[1]);
  char byte;
  EXPECT_EQ(read(ends[0], &byte, 1), -1) << "the ring still has the writer's end";
  registry_.RemoveFile(SegmentNumber(3));
  // The kernel lets go of it a little later.
  fcntl(ends[0], F_SETFL, 0);
  EXPECT_EQ(read(ends[0], &byte, 1), 0);
  close(ends[0]);
  EXPECT_EQ(registry_.AddFile(SegmentNumber(3), -1), -1);
  EXPECT_EQ(registry_.FileOf(SegmentNumber(3)), -1);
}

}  // namespace
}  // namespace kvtier::tiers
