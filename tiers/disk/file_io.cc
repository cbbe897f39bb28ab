#include "tiers/disk/file_io.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/base/mutex.h"

namespace kvtier::tiers {

namespace {

// After each MiB of a segment that is made while queries wait for pages.
constexpr absl::Duration kMakingPause = absl::Milliseconds(2);

}  // namespace

const char* NameOf(IoKind kind) {
  constexpr const char* kNames[] = {"reading", "writing", "syncing"};
  return kNames[static_cast<int>(kind)];
}

bool Continue(int result, const SegmentFiles& files, IoFlight* flight,
              absl::Status* status) {
  const IoRequest& request = flight->request;
  if (result == -EAGAIN || result == -EINTR) return false;
  if (result < 0) {
    *status = IoErrorToStatus(
        -result, absl::StrCat(NameOf(request.kind), " ", files.Path(request.segment)));
    return true;
  }
  if (request.kind == IoKind::kSync) return true;
  if (result == 0) {
    *status = absl::UnavailableError(
        absl::StrCat(files.Path(request.segment), " ends before byte ",
                     request.offset + request.bytes, ": it was cut by somebody else"));
    return true;
  }
  flight->done_bytes += static_cast<size_t>(result);
  return flight->done_bytes >= request.bytes;
}

absl::Status FileIo::CreateSegment(SegmentNumber segment, uint64_t bytes) {
  return files_->Create(segment, bytes, [this] { LeaveToDemand(); });
}

void FileIo::NoteDemand(const std::vector<IoRequest>& requests) {
  for (const IoRequest& request : requests) {
    if (request.priority != IoPriority::kDemand) continue;
    last_demand_.store(absl::Now(), std::memory_order_relaxed);
    return;
  }
}

void FileIo::LeaveToDemand() const {
  const absl::Time last = last_demand_.load(std::memory_order_relaxed);
  if (absl::Now() - last < options_.demand_pause) absl::SleepFor(kMakingPause);
}

absl::StatusOr<std::vector<BlockIo::Segment>> FileIo::OpenSegments() {
  return files_->OpenAll();
}

absl::Status FileIo::RemoveSegment(SegmentNumber segment) {
  return files_->Remove(segment);
}

absl::StatusOr<BlockIo::Buffer> FileIo::NewBuffer(size_t bytes) {
  const size_t rounded = (bytes + kIoUnit - 1) / kIoUnit * kIoUnit;
  void* data = std::aligned_alloc(kIoUnit, std::max(rounded, kIoUnit));
  if (data == nullptr) return absl::ResourceExhaustedError("no memory for a buffer");
  return Buffer(static_cast<std::byte*>(data), rounded, [data] { std::free(data); });
}

std::vector<std::string> FileIo::Downgrades() const { return files_->Downgrades(); }

namespace {

constexpr uint32_t kFallbackThreads = 4;

class ThreadIo final : public FileIo {
 public:
  ThreadIo(const RingIoOptions& options, std::unique_ptr<SegmentFiles> files,
           std::string reason)
      : FileIo(options, std::move(files)), reason_(std::move(reason)) {
    for (uint32_t i = 0; i < kFallbackThreads; ++i) {
      threads_.emplace_back([this] { Run(); });
    }
  }

  ~ThreadIo() override {
    {
      MutexLock lock(&mu_);
      stopping_ = true;
      changed_.SignalAll();
    }
    for (std::thread& thread : threads_) thread.join();
  }

  void Submit(std::vector<IoRequest> requests) override {
    NoteDemand(requests);
    const absl::Time now = absl::Now();
    MutexLock lock(&mu_);
    for (IoRequest& request : requests) {
      waiting_.Add(std::move(request), now);
    }
    changed_.SignalAll();
  }

  std::vector<std::string> Downgrades() const override {
    std::vector<std::string> downgrades = FileIo::Downgrades();
    downgrades.push_back(reason_);
    return downgrades;
  }

 private:
  void Run() {
    while (true) {
      IoFlight flight;
      {
        MutexLock lock(&mu_);
        // One thread is always left for those that a query waits for.
        while (!waiting_.Take(background_ + 1 < kFallbackThreads, absl::Now(), &flight)) {
          if (stopping_) return;
          changed_.Wait(&mu_);
        }
        background_ += flight.background();
      }
      flight.Answer(Do(&flight));
      flight.Release();
      MutexLock lock(&mu_);
      background_ -= flight.background();
      changed_.SignalAll();
    }
  }

  absl::Status Do(IoFlight* flight) {
    const IoRequest& request = flight->request;
    const int fd = files_->fd(request.segment);
    absl::Status status;
    int result;
    do {
      std::byte* data = request.data + flight->done_bytes;
      const size_t bytes = request.bytes - flight->done_bytes;
      const auto offset = static_cast<off_t>(request.offset + flight->done_bytes);
      ssize_t returned = 0;
      if (request.kind == IoKind::kRead) returned = pread(fd, data, bytes, offset);
      if (request.kind == IoKind::kWrite) returned = pwrite(fd, data, bytes, offset);
      if (request.kind == IoKind::kSync) returned = fdatasync(fd);
      result = returned < 0 ? -errno : static_cast<int>(returned);
    } while (!Continue(result, *files_, flight, &status));
    return status;
  }

  // Constant after construction.
  const std::string reason_;
  std::vector<std::thread> threads_;

  Mutex mu_;
  CondVar changed_;
  IoQueue waiting_ ABSL_GUARDED_BY(mu_);
  uint32_t background_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

std::unique_ptr<BlockIo> NewThreadIo(const RingIoOptions& options,
                                     std::unique_ptr<SegmentFiles> files,
                                     std::string reason) {
  return std::make_unique<ThreadIo>(options, std::move(files), std::move(reason));
}

}  // namespace kvtier::tiers
