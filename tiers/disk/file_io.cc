#include "tiers/disk/file_io.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <list>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/base/mutex.h"
#include "tiers/disk/io_faults.h"

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

absl::Status FileIo::Probe() { return files_->Probe(); }

absl::StatusOr<BlockIo::Buffer> FileIo::NewBuffer(size_t bytes) {
  const size_t rounded = (bytes + kIoUnit - 1) / kIoUnit * kIoUnit;
  void* data = std::aligned_alloc(kIoUnit, std::max(rounded, kIoUnit));
  if (data == nullptr) return absl::ResourceExhaustedError("no memory for a buffer");
  return Buffer(static_cast<std::byte*>(data), rounded, [data] { std::free(data); });
}

std::vector<std::string> FileIo::Downgrades() const { return files_->Downgrades(); }

absl::Status FileIo::Overdue(const IoFlight& flight) const {
  return absl::DeadlineExceededError(
      absl::StrCat(NameOf(flight.request.kind), " ", files_->Path(flight.request.segment),
                   " took longer than ", absl::FormatDuration(options_.deadline),
                   ": look at the device"));
}

namespace {

constexpr uint32_t kFallbackThreads = 4;
// How often deadlines are looked at while something is under way.
constexpr absl::Duration kTick = absl::Milliseconds(100);

class ThreadIo final : public FileIo {
 public:
  ThreadIo(const RingIoOptions& options, std::unique_ptr<SegmentFiles> files,
           std::string reason)
      : FileIo(options, std::move(files)), reason_(std::move(reason)) {
    for (uint32_t i = 0; i < kFallbackThreads; ++i) {
      threads_.emplace_back([this] { Run(); });
    }
    watch_ = std::thread([this] { Watch(); });
  }

  ~ThreadIo() override {
    {
      MutexLock lock(&mu_);
      stopping_ = true;
      changed_.SignalAll();
    }
    for (std::thread& thread : threads_) thread.join();
    {
      MutexLock lock(&mu_);
      stopped_ = true;
      watched_.SignalAll();
    }
    watch_.join();
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
  // A request that a thread has. It is answered by who takes `answered`, with mu_ held;
  // the other fields of `flight` are the thread's.
  struct Work {
    IoFlight flight;
    absl::Time started;
    bool answered = false;
    bool being_told = false;  // that it is late: its buffer may not be released yet
  };

  void Run() {
    while (true) {
      Work work;
      {
        MutexLock lock(&mu_);
        // One thread is always left for those that a query waits for.
        while (!waiting_.Take(background_ + 1 < kFallbackThreads, absl::Now(),
                              &work.flight)) {
          if (stopping_) return;
          changed_.Wait(&mu_);
        }
        background_ += work.flight.background();
        work.started = work.flight.started;
        if (under_way_.empty()) {
          last_completion_ = work.started;
          watched_.SignalAll();
        }
        under_way_.push_back(&work);
      }
      Finish(&work, Do(&work));
    }
  }

  absl::Status Do(Work* work) {
    IoFlight* flight = &work->flight;
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
      if (options_.faults != nullptr) result = options_.faults->Result(request, result);
      // Who was told that it took too long doesn't wait for the rest.
    } while (!Continue(result, *files_, flight, &status) && !Answered(*work));
    return status;
  }

  bool Answered(const Work& work) {
    MutexLock lock(&mu_);
    return work.answered;
  }

  void Finish(Work* work, const absl::Status& status) {
    bool late;
    {
      MutexLock lock(&mu_);
      late = std::exchange(work->answered, true);
      while (work->being_told) changed_.Wait(&mu_);
      under_way_.remove(work);
      last_completion_ = absl::Now();
    }
    if (!late) work->flight.Answer(status);
    work->flight.Release();
    MutexLock lock(&mu_);
    background_ -= work->flight.background();
    changed_.SignalAll();
  }

  // Gives up on what the device leaves unanswered.
  void Watch() {
    MutexLock lock(&mu_);
    while (!stopped_) {
      if (under_way_.empty()) {
        watched_.Wait(&mu_);
        continue;
      }
      watched_.WaitWithTimeout(&mu_, kTick);
      AnswerOverdue();
    }
  }

  void AnswerOverdue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const absl::Time limit = absl::Now() - options_.deadline;
    std::vector<Work*> late;
    for (Work* work : under_way_) {
      if (work->started > limit || work->answered) continue;
      work->answered = work->being_told = true;
      late.push_back(work);
    }
    std::vector<IoFlight> behind;
    if (!under_way_.empty() && last_completion_ <= limit) {
      behind = waiting_.TakeOlderThan(limit);
    }
    if (late.empty() && behind.empty()) return;
    mu_.Unlock();
    for (Work* work : late) work->flight.Answer(Overdue(work->flight));
    for (IoFlight& flight : behind) {
      flight.Answer(Overdue(flight));
      flight.Release();
    }
    mu_.Lock();
    for (Work* work : late) work->being_told = false;
    changed_.SignalAll();
  }

  // Constant after construction.
  const std::string reason_;
  std::vector<std::thread> threads_;
  std::thread watch_;

  Mutex mu_;
  CondVar changed_;
  CondVar watched_;  // the watching thread's
  IoQueue waiting_ ABSL_GUARDED_BY(mu_);
  std::list<Work*> under_way_ ABSL_GUARDED_BY(mu_);
  absl::Time last_completion_ ABSL_GUARDED_BY(mu_);
  uint32_t background_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;  // the threads have ended
};

}  // namespace

std::unique_ptr<BlockIo> NewThreadIo(const RingIoOptions& options,
                                     std::unique_ptr<SegmentFiles> files,
                                     std::string reason) {
  return std::make_unique<ThreadIo>(options, std::move(files), std::move(reason));
}

}  // namespace kvtier::tiers
