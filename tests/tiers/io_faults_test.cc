// Goal: whatever a device does with a request - serves part of it, refuses it, fails it,
// or hangs - the caller is answered once, with the right error, and the buffer comes back
// when the kernel has let go of it.
// Method: real files; between them and the I/O, answers of the test's own. By io_uring
// and by the threads that replace it.

#include "tiers/disk/io_faults.h"

#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <filesystem>
#include <optional>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/base/mutex.h"
#include "tiers/disk/ring_io.h"

namespace kvtier::tiers {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t kSegmentBytes = 1 << 20;
constexpr SegmentNumber kSegment(7);
constexpr uint32_t kDepth = 8;    // of the ring
constexpr uint32_t kThreads = 4;  // instead of it

enum class Way { kRing, kThreads };

// Answers as it is told, then as the kernel did.
class ScriptedFaults final : public IoFaults {
 public:
  explicit ScriptedFaults(Way way) : way_(way) {}

  // The next results, in their order.
  void Next(std::deque<int> results) {
    MutexLock lock(&mu_);
    results_ = std::move(results);
    asked_ = 0;
  }
  void NextSubmits(std::deque<int> errors) {
    MutexLock lock(&mu_);
    submits_ = std::move(errors);
  }
  void RefuseSubmits(bool refuse) {
    MutexLock lock(&mu_);
    refuse_ = refuse;
  }
  // Nothing comes back while it hangs.
  void Hang(bool hanging) {
    MutexLock lock(&mu_);
    hanging_ = hanging;
    changed_.SignalAll();
  }
  // Results since Next.
  size_t asked() {
    MutexLock lock(&mu_);
    return asked_;
  }
  size_t submits_left() {
    MutexLock lock(&mu_);
    return submits_.size();
  }

  int Result(const IoRequest&, int result) override {
    MutexLock lock(&mu_);
    if (way_ == Way::kRing && hanging_) return kLate;
    while (hanging_) changed_.Wait(&mu_);
    ++asked_;
    if (results_.empty()) return result;
    result = results_.front();
    results_.pop_front();
    return result;
  }
  int Submit() override {
    MutexLock lock(&mu_);
    if (refuse_) return -EAGAIN;
    if (submits_.empty()) return 0;
    const int error = submits_.front();
    submits_.pop_front();
    return error;
  }

 private:
  const Way way_;
  Mutex mu_;
  CondVar changed_;
  std::deque<int> results_ ABSL_GUARDED_BY(mu_);
  std::deque<int> submits_ ABSL_GUARDED_BY(mu_);
  bool refuse_ ABSL_GUARDED_BY(mu_) = false;
  bool hanging_ ABSL_GUARDED_BY(mu_) = false;
  size_t asked_ ABSL_GUARDED_BY(mu_) = 0;
};

// What became of requests.
class Outcome {
 public:
  IoRequest Of(IoKind kind, std::byte* data = nullptr, size_t bytes = 0) {
    return {.kind = kind,
            .segment = kSegment,
            .data = data,
            .bytes = bytes,
            .done =
                [this](absl::Status status) {
                  MutexLock lock(&mu_);
                  answers_.push_back(std::move(status));
                  changed_.SignalAll();
                },
            .released =
                [this] {
                  MutexLock lock(&mu_);
                  EXPECT_LT(released_, answers_.size()) << "released before its answer";
                  ++released_;
                  changed_.SignalAll();
                }};
  }
  std::vector<absl::Status> AwaitAnswers(size_t count) {
    MutexLock lock(&mu_);
    while (answers_.size() < count) changed_.Wait(&mu_);
    return answers_;
  }
  void AwaitReleased(size_t count) {
    MutexLock lock(&mu_);
    while (released_ < count) changed_.Wait(&mu_);
  }
  size_t released() {
    MutexLock lock(&mu_);
    return released_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<absl::Status> answers_ ABSL_GUARDED_BY(mu_);
  size_t released_ ABSL_GUARDED_BY(mu_) = 0;
};

class IoFaultsTest : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/kvtier-faults-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    Open(absl::Seconds(30));
    ASSERT_EQ(io_->CreateSegment(kSegment, kSegmentBytes), absl::OkStatus());
  }
  void TearDown() override {
    faults_.Hang(false);
    faults_.RefuseSubmits(false);
    io_.reset();
    std::filesystem::remove_all(directory_);
  }

  void Open(absl::Duration deadline) {
    io_.reset();
    absl::StatusOr<std::unique_ptr<BlockIo>> io =
        OpenRingIo({.directory = directory_,
                    .depth = kDepth,
                    .deadline = deadline,
                    .refuse_ring = GetParam() == Way::kThreads,
                    .faults = &faults_});
    ASSERT_TRUE(io.ok()) << io.status();
    io_ = *std::move(io);
    if (GetParam() == Way::kRing) {
      ASSERT_THAT(io_->Downgrades(), Not(Contains(HasSubstr("io_uring"))));
    }
    ASSERT_TRUE(io_->OpenSegments().ok());
  }

  void Submit(IoRequest request) {
    std::vector<IoRequest> requests;
    requests.push_back(std::move(request));
    io_->Submit(std::move(requests));
  }
  // One request, awaited.
  absl::Status Do(IoKind kind, std::byte* data = nullptr, size_t bytes = 0) {
    Outcome outcome;
    Submit(outcome.Of(kind, data, bytes));
    outcome.AwaitReleased(1);
    return outcome.AwaitAnswers(1).front();
  }
  BlockIo::Buffer Buffer(size_t units, int seed) {
    absl::StatusOr<BlockIo::Buffer> buffer = io_->NewBuffer(units * kIoUnit);
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    for (size_t i = 0; i < units; ++i) {
      std::memset(buffer->data() + i * kIoUnit, seed + static_cast<int>(i), kIoUnit);
    }
    return *std::move(buffer);
  }

  ScriptedFaults faults_{GetParam()};
  std::string directory_;
  std::unique_ptr<BlockIo> io_;
};

TEST_P(IoFaultsTest, ShortTransfersAreContinued) {
  constexpr size_t kUnits = 4;
  const BlockIo::Buffer written = Buffer(kUnits, 1);
  faults_.Next({kIoUnit, 2 * kIoUnit});
  EXPECT_EQ(Do(IoKind::kWrite, written.data(), written.bytes()), absl::OkStatus());
  EXPECT_EQ(faults_.asked(), 3u);
  const BlockIo::Buffer read = Buffer(kUnits, 99);
  faults_.Next({2 * kIoUnit, kIoUnit});
  EXPECT_EQ(Do(IoKind::kRead, read.data(), read.bytes()), absl::OkStatus());
  EXPECT_EQ(faults_.asked(), 3u);
  EXPECT_EQ(std::memcmp(read.data(), written.data(), written.bytes()), 0);
}

TEST_P(IoFaultsTest, WhatIsRefusedForTheMomentIsTriedAgain) {
  const BlockIo::Buffer buffer = Buffer(1, 1);
  for (const IoKind kind : {IoKind::kWrite, IoKind::kRead, IoKind::kSync}) {
    faults_.Next({-EAGAIN, -EINTR, -EAGAIN});
    EXPECT_EQ(Do(kind, buffer.data(), buffer.bytes()), absl::OkStatus());
    EXPECT_EQ(faults_.asked(), 4u);
  }
}

TEST_P(IoFaultsTest, ErrorsAreTypedAndSayWhatToDo) {
  const struct {
    int error;
    absl::StatusCode code;
    const char* advice;
  } kErrors[] = {{EIO, absl::StatusCode::kUnavailable, "look at the device"},
                 {ENOSPC, absl::StatusCode::kResourceExhausted, "free some space"},
                 {EDQUOT, absl::StatusCode::kResourceExhausted, "free some space"},
                 {EROFS, absl::StatusCode::kFailedPrecondition, "remount"},
                 {EFBIG, absl::StatusCode::kUnavailable, "ulimit -f"}};
  const BlockIo::Buffer buffer = Buffer(1, 1);
  for (const auto& [error, code, advice] : kErrors) {
    for (const IoKind kind : {IoKind::kRead, IoKind::kWrite, IoKind::kSync}) {
      SCOPED_TRACE(std::strerror(error));
      faults_.Next({-error});
      const absl::Status status = Do(kind, buffer.data(), buffer.bytes());
      EXPECT_EQ(status.code(), code);
      EXPECT_THAT(std::string(status.message()),
                  AllOf(HasSubstr("ing " + directory_ + "/segment-000007"),
                        HasSubstr(std::strerror(error)), HasSubstr(advice)));
      EXPECT_EQ(faults_.asked(), 1u) << "an error is not tried again";
      EXPECT_EQ(Do(kind, buffer.data(), buffer.bytes()), absl::OkStatus());
    }
  }
}

TEST_P(IoFaultsTest, AnErrorInMidTransferIsAnError) {
  const BlockIo::Buffer buffer = Buffer(2, 1);
  faults_.Next({kIoUnit, -ENOSPC});
  EXPECT_EQ(Do(IoKind::kWrite, buffer.data(), buffer.bytes()).code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_P(IoFaultsTest, NothingMoreIsTheEndOfTheFile) {
  const BlockIo::Buffer buffer = Buffer(2, 1);
  for (const std::deque<int>& results : {std::deque<int>{0}, {kIoUnit, 0}}) {
    faults_.Next(results);
    const absl::Status status = Do(IoKind::kRead, buffer.data(), buffer.bytes());
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("ends before byte 8192"));
  }
}

TEST_P(IoFaultsTest, AHungRequestIsAnsweredAndKeepsItsBuffer) {
  for (const IoKind kind : {IoKind::kRead, IoKind::kWrite, IoKind::kSync}) {
    Open(absl::Milliseconds(20));
    const BlockIo::Buffer buffer = Buffer(1, 1);
    Outcome outcome;
    faults_.Hang(true);
    Submit(outcome.Of(kind, buffer.data(), buffer.bytes()));
    const absl::Status status = outcome.AwaitAnswers(1).front();
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("segment-000007"), HasSubstr("longer than 20ms"),
                      HasSubstr("look at the device")));
    EXPECT_EQ(outcome.released(), 0u);
    faults_.Hang(false);
    outcome.AwaitReleased(1);
    Open(absl::Seconds(30));
    EXPECT_EQ(Do(kind, buffer.data(), buffer.bytes()), absl::OkStatus());
    EXPECT_EQ(outcome.AwaitAnswers(1).size(), 1u) << "answered twice";
  }
}

TEST_P(IoFaultsTest, WhatWaitsBehindAHungDeviceIsAnsweredAndReleased) {
  Open(absl::Milliseconds(20));
  constexpr size_t kRequests = 20;
  const size_t under_way = GetParam() == Way::kRing ? kDepth : kThreads;
  const BlockIo::Buffer buffer = Buffer(1, 1);
  Outcome outcome;
  faults_.Hang(true);
  std::vector<IoRequest> requests;
  for (size_t i = 0; i < kRequests; ++i) {
    requests.push_back(outcome.Of(IoKind::kRead, buffer.data(), buffer.bytes()));
  }
  io_->Submit(std::move(requests));
  for (const absl::Status& status : outcome.AwaitAnswers(kRequests)) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  }
  outcome.AwaitReleased(kRequests - under_way);
  // They came while it hung: nor are they forgotten.
  Submit(outcome.Of(IoKind::kRead, buffer.data(), buffer.bytes()));
  EXPECT_EQ(outcome.AwaitAnswers(kRequests + 1).back().code(),
            absl::StatusCode::kDeadlineExceeded);
  outcome.AwaitReleased(kRequests + 1 - under_way);
  faults_.Hang(false);
  outcome.AwaitReleased(kRequests + 1);
}

TEST_P(IoFaultsTest, ALateAnswerIsNotContinued) {
  Open(absl::Milliseconds(20));
  const BlockIo::Buffer buffer = Buffer(2, 1);
  for (const int late : {static_cast<int>(kIoUnit), -EAGAIN, -EIO}) {
    Outcome outcome;
    faults_.Hang(true);
    faults_.Next({late});
    Submit(outcome.Of(IoKind::kRead, buffer.data(), buffer.bytes()));
    EXPECT_EQ(outcome.AwaitAnswers(1).front().code(),
              absl::StatusCode::kDeadlineExceeded);
    faults_.Hang(false);
    outcome.AwaitReleased(1);
    EXPECT_EQ(outcome.AwaitAnswers(1).size(), 1u);
    EXPECT_EQ(faults_.asked(), 1u);
  }
}

TEST_P(IoFaultsTest, ADeviceThatOnlyRefusesIsGivenUpOn) {
  Open(absl::Milliseconds(20));
  const BlockIo::Buffer buffer = Buffer(1, 1);
  faults_.Next(std::deque<int>(5'000'000, -EAGAIN));
  EXPECT_EQ(Do(IoKind::kRead, buffer.data(), buffer.bytes()).code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_P(IoFaultsTest, TheEndAnswersAllAndWaitsForTheKernel) {
  Open(absl::Milliseconds(20));
  constexpr size_t kRequests = 20;
  const BlockIo::Buffer buffer = Buffer(1, 1);
  Outcome outcome;
  faults_.Hang(true);
  for (size_t i = 0; i < kRequests; ++i) {
    Submit(outcome.Of(IoKind::kRead, buffer.data(), buffer.bytes()));
  }
  size_t released_at_the_end = 0;
  std::thread end([&] {
    io_.reset();
    released_at_the_end = outcome.released();
  });
  outcome.AwaitAnswers(kRequests);
  EXPECT_LT(outcome.released(), kRequests);
  faults_.Hang(false);
  end.join();
  EXPECT_EQ(released_at_the_end, kRequests);
}

INSTANTIATE_TEST_SUITE_P(Ways, IoFaultsTest,
                         ::testing::Values(Way::kRing, Way::kThreads));

using RingFaultsTest = IoFaultsTest;

TEST_P(RingFaultsTest, WhatTheKernelDoesNotTakeIsSubmittedAgain) {
  const BlockIo::Buffer buffer = Buffer(1, 1);
  faults_.NextSubmits({-EBUSY, -EINTR, -EAGAIN, -ETIME, -EAGAIN, -ENOMEM});
  EXPECT_EQ(Do(IoKind::kWrite, buffer.data(), buffer.bytes()), absl::OkStatus());
  EXPECT_EQ(faults_.submits_left(), 0u);
}

TEST_P(RingFaultsTest, WhatTheKernelNeverTakesIsGivenUpOn) {
  Open(absl::Milliseconds(20));
  const BlockIo::Buffer buffer = Buffer(1, 1);
  faults_.RefuseSubmits(true);
  Outcome outcome;
  Submit(outcome.Of(IoKind::kRead, buffer.data(), buffer.bytes()));
  EXPECT_EQ(outcome.AwaitAnswers(1).front().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(outcome.released(), 0u);
  faults_.RefuseSubmits(false);
  outcome.AwaitReleased(1);
  EXPECT_EQ(Do(IoKind::kRead, buffer.data(), buffer.bytes()), absl::OkStatus());
}

INSTANTIATE_TEST_SUITE_P(Ring, RingFaultsTest, ::testing::Values(Way::kRing));

}  // namespace
}  // namespace kvtier::tiers
