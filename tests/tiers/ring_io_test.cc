// Goal: what was written and synced is read back, by io_uring and by what replaces it
// where that is refused; errors are typed and name the file.
// Method: real files in a directory of the test's own; every way of doing the I/O.

#include "tiers/disk/ring_io.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/base/mutex.h"

namespace kvtier::tiers {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

constexpr uint64_t kSegmentBytes = 1 << 20;
constexpr SegmentNumber kSegment(7);

enum class Way { kRing, kThreads, kBuffered };

class RingIoTest : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/kvtier-io-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern + "/segments";
    Open();
  }
  void TearDown() override {
    io_.reset();
    std::filesystem::remove_all(std::filesystem::path(directory_).parent_path());
  }

  void Open() {
    io_.reset();
    absl::StatusOr<std::unique_ptr<BlockIo>> io =
        OpenRingIo({.directory = directory_,
                    .depth = 8,
                    .background_depth = 2,
                    .refuse_ring = GetParam() == Way::kThreads,
                    .refuse_direct = GetParam() == Way::kBuffered});
    ASSERT_TRUE(io.ok()) << io.status();
    io_ = *std::move(io);
  }

  // One request, awaited.
  absl::Status Do(IoKind kind, uint64_t offset = 0, std::byte* data = nullptr,
                  size_t bytes = 0, IoPriority priority = IoPriority::kDemand,
                  SegmentNumber segment = kSegment) {
    Mutex mu;
    CondVar changed;
    bool done = false;
    bool released = false;
    absl::Status result;
    IoRequest request;
    request.kind = kind;
    request.priority = priority;
    request.segment = segment;
    request.offset = offset;
    request.data = data;
    request.bytes = bytes;
    request.done = [&](absl::Status status) {
      MutexLock lock(&mu);
      result = std::move(status);
      done = true;
    };
    request.released = [&] {
      MutexLock lock(&mu);
      released = true;
      changed.SignalAll();
    };
    std::vector<IoRequest> requests;
    requests.push_back(std::move(request));
    io_->Submit(std::move(requests));
    MutexLock lock(&mu);
    while (!released) changed.Wait(&mu);
    EXPECT_TRUE(done) << "released before it was answered";
    return result;
  }

  BlockIo::Buffer Buffer(size_t bytes) {
    absl::StatusOr<BlockIo::Buffer> buffer = io_->NewBuffer(bytes);
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    return *std::move(buffer);
  }

  std::string directory_;
  std::unique_ptr<BlockIo> io_;
};

TEST_P(RingIoTest, ASegmentIsZeroUntilItIsWritten) {
  ASSERT_TRUE(io_->CreateSegment(kSegment, kSegmentBytes).ok());
  BlockIo::Buffer buffer = Buffer(kSegmentBytes);
  std::memset(buffer.data(), 1, kSegmentBytes);
  ASSERT_TRUE(Do(IoKind::kRead, 0, buffer.data(), kSegmentBytes).ok());
  EXPECT_TRUE(std::all_of(buffer.data(), buffer.data() + kSegmentBytes,
                          [](std::byte byte) { return byte == std::byte{0}; }));
}

TEST_P(RingIoTest, ThreadsReadWhatTheyWroteAlsoAfterOpeningAgain) {
  constexpr int kThreads = 4;
  constexpr uint64_t kShare = kSegmentBytes / kThreads;
  ASSERT_TRUE(io_->CreateSegment(kSegment, kSegmentBytes).ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      BlockIo::Buffer written = Buffer(kShare);
      BlockIo::Buffer read = Buffer(kShare);
      std::memset(written.data(), 0, kShare);
      for (int i = 0; i < 60; ++i) {
        const uint64_t at = random() % (kShare / kIoUnit) * kIoUnit;
        const size_t bytes =
            std::min<uint64_t>(kShare - at, (random() % 8 + 1) * kIoUnit);
        std::memset(written.data() + at, t * 60 + i, bytes);
        const auto priority = static_cast<IoPriority>(random() % 4);
        EXPECT_TRUE(
            Do(IoKind::kWrite, t * kShare + at, written.data() + at, bytes, priority)
                .ok());
        if (i % 16 == 0) {
          EXPECT_TRUE(Do(IoKind::kSync).ok());
        }
        EXPECT_TRUE(Do(IoKind::kRead, t * kShare, read.data(), kShare, priority).ok());
        EXPECT_EQ(std::memcmp(read.data(), written.data(), kShare), 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  BlockIo::Buffer before = Buffer(kSegmentBytes);
  ASSERT_TRUE(Do(IoKind::kRead, 0, before.data(), kSegmentBytes).ok());
  Open();
  absl::StatusOr<std::vector<BlockIo::Segment>> segments = io_->OpenSegments();
  ASSERT_TRUE(segments.ok()) << segments.status();
  ASSERT_EQ(segments->size(), 1u);
  EXPECT_EQ(segments->front().number, kSegment);
  EXPECT_EQ(segments->front().bytes, kSegmentBytes);
  BlockIo::Buffer after = Buffer(kSegmentBytes);
  ASSERT_TRUE(Do(IoKind::kRead, 0, after.data(), kSegmentBytes).ok());
  EXPECT_EQ(std::memcmp(before.data(), after.data(), kSegmentBytes), 0);
}

TEST_P(RingIoTest, ErrorsAreTypedAndNameTheFile) {
  ASSERT_TRUE(io_->CreateSegment(kSegment, kSegmentBytes).ok());
  EXPECT_EQ(io_->CreateSegment(kSegment, kSegmentBytes).code(),
            absl::StatusCode::kAlreadyExists);
  BlockIo::Buffer buffer = Buffer(2 * kIoUnit);
  const absl::Status beyond =
      Do(IoKind::kRead, kSegmentBytes - kIoUnit, buffer.data(), 2 * kIoUnit);
  EXPECT_EQ(beyond.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(beyond.message()), HasSubstr("segment-000007"));
  const absl::Status nobody =
      Do(IoKind::kRead, 0, buffer.data(), kIoUnit, IoPriority::kDemand, SegmentNumber(9));
  EXPECT_EQ(nobody.code(), absl::StatusCode::kUnavailable) << nobody;
  EXPECT_TRUE(io_->RemoveSegment(kSegment).ok());
  EXPECT_FALSE(io_->RemoveSegment(kSegment).ok());
  EXPECT_EQ(Do(IoKind::kSync).code(), absl::StatusCode::kUnavailable);
}

TEST_P(RingIoTest, SaysWhatIsNotAsItShouldBe) {
  const std::vector<std::string> downgrades = io_->Downgrades();
  if (GetParam() == Way::kThreads) {
    EXPECT_THAT(downgrades, Contains(HasSubstr("io_uring is refused")));
  } else if (GetParam() == Way::kBuffered) {
    EXPECT_THAT(downgrades, Contains(HasSubstr("O_DIRECT is refused")));
  }
  std::ofstream(directory_ + "/segment-mine") << "precious";
  ASSERT_TRUE(io_->OpenSegments().ok());
  EXPECT_THAT(io_->Downgrades(), Contains(HasSubstr("segment-mine")));
}

TEST_P(RingIoTest, OnlyWholeSegmentsOfTheirOwnNamesCount) {
  ASSERT_TRUE(io_->CreateSegment(kSegment, kSegmentBytes).ok());
  // Other spellings of a number, and what a crash in mid-creation leaves.
  for (const char* name :
       {"segment-8", "segment-+00009", "segment-0000010", "new-segment"}) {
    std::ofstream(directory_ + "/" + name) << "not whole";
  }
  Open();
  absl::StatusOr<std::vector<BlockIo::Segment>> segments = io_->OpenSegments();
  ASSERT_TRUE(segments.ok()) << segments.status();
  ASSERT_EQ(segments->size(), 1u);
  EXPECT_EQ(segments->front().number, kSegment);
  ASSERT_TRUE(io_->CreateSegment(SegmentNumber(8), kSegmentBytes).ok());
  segments = io_->OpenSegments();
  ASSERT_TRUE(segments.ok()) << segments.status();
  ASSERT_EQ(segments->size(), 2u);
  EXPECT_EQ(segments->back().bytes, kSegmentBytes);
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/new-segment"));
}

TEST_P(RingIoTest, TheDirectoryIsItsOwnersOnly) {
  struct stat info = {};
  ASSERT_EQ(stat(directory_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  ASSERT_TRUE(io_->CreateSegment(kSegment, kSegmentBytes).ok());
  ASSERT_EQ(stat((directory_ + "/segment-000007").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

INSTANTIATE_TEST_SUITE_P(Ways, RingIoTest,
                         ::testing::Values(Way::kRing, Way::kThreads, Way::kBuffered));

TEST(RingIo, ErrorNumbersBecomeWhatTheCallerCanDo) {
  EXPECT_EQ(IoErrorToStatus(ENOSPC, "x").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(IoErrorToStatus(EROFS, "x").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(IoErrorToStatus(EACCES, "x").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(IoErrorToStatus(EIO, "x").code(), absl::StatusCode::kUnavailable);
}

TEST(RingIo, ADirectoryThatCannotBeMadeIsAnError) {
  EXPECT_FALSE(OpenRingIo({.directory = "/proc/nowhere/disk"}).ok());
}

}  // namespace
}  // namespace kvtier::tiers
