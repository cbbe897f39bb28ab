#include "tiers/disk/ring_io.h"

#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/base/mutex.h"
#include "kernels/base/unique_fd.h"
#include "tiers/disk/io_queue.h"
#include "tiers/disk/segment_files.h"

namespace kvtier::tiers {
namespace {

constexpr uint32_t kFallbackThreads = 4;
// How often deadlines are looked at while something is under way.
constexpr int64_t kTickNanoseconds = 100'000'000;

const char* NameOf(IoKind kind) {
  constexpr const char* kNames[] = {"reading", "writing", "syncing"};
  return kNames[static_cast<int>(kind)];
}

// What a read, write or fdatasync returned: true if the flight has ended, with `status`.
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

// What both ways of doing I/O share.
class FileIo : public BlockIo {
 public:
  FileIo(const RingIoOptions& options, std::unique_ptr<SegmentFiles> files)
      : options_(options), files_(std::move(files)) {}

  absl::Status CreateSegment(SegmentNumber segment, uint64_t bytes) override {
    return files_->Create(segment, bytes);
  }
  absl::StatusOr<std::vector<Segment>> OpenSegments() override {
    return files_->OpenAll();
  }
  absl::Status RemoveSegment(SegmentNumber segment) override {
    return files_->Remove(segment);
  }
  absl::StatusOr<Buffer> NewBuffer(size_t bytes) override {
    const size_t rounded = (bytes + kIoUnit - 1) / kIoUnit * kIoUnit;
    void* data = std::aligned_alloc(kIoUnit, std::max(rounded, kIoUnit));
    if (data == nullptr) return absl::ResourceExhaustedError("no memory for a buffer");
    return Buffer(static_cast<std::byte*>(data), rounded, [data] { std::free(data); });
  }
  std::vector<std::string> Downgrades() const override { return files_->Downgrades(); }

 protected:
  // Constant after construction.
  const RingIoOptions options_;
  const std::unique_ptr<SegmentFiles> files_;
};

class RingIo final : public FileIo {
 public:
  RingIo(const RingIoOptions& options, std::unique_ptr<SegmentFiles> files)
      : FileIo(options, std::move(files)) {}

  ~RingIo() override {
    if (!thread_.joinable()) return;
    {
      MutexLock lock(&mu_);
      stopping_ = true;
    }
    Wake();
    thread_.join();
    io_uring_queue_exit(&ring_);
  }

  // The negative error number of a kernel that refuses, or 0.
  int Start() {
    // One entry is the eventfd's.
    if (const int error = io_uring_queue_init(options_.depth + 1, &ring_, 0); error < 0) {
      return error;
    }
    wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
    thread_ = std::thread([this] { Run(); });
    return 0;
  }

  void Submit(std::vector<IoRequest> requests) override {
    {
      MutexLock lock(&mu_);
      std::move(requests.begin(), requests.end(), std::back_inserter(incoming_));
    }
    Wake();
  }

 private:
  void Wake() {
    const uint64_t one = 1;
    while (write(wake_.get(), &one, sizeof(one)) < 0 && errno == EINTR) {
    }
  }

  void Run() {
    ListenForWake();
    while (true) {
      const bool stopping = TakeIncoming();
      StartWaiting();
      if (stopping && flights_.empty()) return;
      __kernel_timespec tick = {.tv_sec = 0, .tv_nsec = kTickNanoseconds};
      io_uring_cqe* cqe = nullptr;
      if (flights_.empty()) {
        io_uring_submit_and_wait(&ring_, 1);
      } else {
        io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &tick, nullptr);
      }
      Reap();
      AnswerOverdue();
    }
  }

  // True if the object is being destroyed and nothing more will come.
  bool TakeIncoming() {
    std::vector<IoRequest> incoming;
    bool stopping;
    {
      MutexLock lock(&mu_);
      incoming.swap(incoming_);
      stopping = stopping_;
    }
    const absl::Time now = absl::Now();
    for (IoRequest& request : incoming) {
      waiting_.Add(std::move(request), now);
    }
    return stopping && incoming.empty();
  }

  void StartWaiting() {
    IoFlight flight;
    while (flights_.size() < options_.depth &&
           waiting_.Take(background_ < options_.background_depth, absl::Now(), &flight)) {
      background_ += flight.background();
      flights_.push_back(std::move(flight));
      Prepare(std::prev(flights_.end()));
    }
  }

  void Prepare(std::list<IoFlight>::iterator flight) {
    const IoRequest& request = flight->request;
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    while (sqe == nullptr) {
      io_uring_submit(&ring_);
      sqe = io_uring_get_sqe(&ring_);
    }
    const int fd = files_->fd(request.segment);
    std::byte* data = request.data + flight->done_bytes;
    const auto bytes = static_cast<unsigned>(request.bytes - flight->done_bytes);
    const uint64_t offset = request.offset + flight->done_bytes;
    switch (request.kind) {
      case IoKind::kRead:
        io_uring_prep_read(sqe, fd, data, bytes, offset);
        break;
      case IoKind::kWrite:
        io_uring_prep_write(sqe, fd, data, bytes, offset);
        break;
      case IoKind::kSync:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    }
    io_uring_sqe_set_data(sqe, &*flight);
    by_address_.emplace(&*flight, flight);
  }

  void ListenForWake() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_read(sqe, wake_.get(), &wakes_, sizeof(wakes_), 0);
    io_uring_sqe_set_data(sqe, nullptr);
  }

  void Reap() {
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      auto* address = static_cast<IoFlight*>(io_uring_cqe_get_data(cqe));
      const int result = cqe->res;
      last_completion_ = absl::Now();
      io_uring_cqe_seen(&ring_, cqe);
      if (address == nullptr) {
        ListenForWake();
        continue;
      }
      const auto found = by_address_.find(address);
      const std::list<IoFlight>::iterator flight = found->second;
      by_address_.erase(found);
      absl::Status status;
      if (!Continue(result, *files_, &*flight, &status)) {
        Prepare(flight);
        continue;
      }
      background_ -= flight->background();
      flight->Answer(status);
      flight->Release();
      flights_.erase(flight);
    }
  }

  void AnswerOverdue() {
    const absl::Time limit = absl::Now() - options_.deadline;
    const auto answer = [&](IoFlight& flight) {
      flight.Answer(absl::DeadlineExceededError(
          absl::StrCat(NameOf(flight.request.kind), " ",
                       files_->Path(flight.request.segment), " took longer than ",
                       absl::FormatDuration(options_.deadline), ": look at the device")));
    };
    for (IoFlight& flight : flights_) {
      if (!flight.answered && flight.started <= limit) answer(flight);
    }
    if (last_completion_ > limit || flights_.empty()) return;
    for (IoFlight& flight : waiting_.TakeOlderThan(limit)) {
      answer(flight);
      flight.Release();
    }
  }

  // Constant after Start.
  UniqueFd wake_;
  std::thread thread_;

  Mutex mu_;
  std::vector<IoRequest> incoming_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;

  // Owned by the ring's thread.
  io_uring ring_;
  uint64_t wakes_ = 0;
  IoQueue waiting_;
  absl::Time last_completion_ = absl::Now();
  std::list<IoFlight> flights_;
  std::map<IoFlight*, std::list<IoFlight>::iterator> by_address_;
  uint32_t background_ = 0;
};

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

absl::StatusOr<std::unique_ptr<BlockIo>> OpenRingIo(const RingIoOptions& options) {
  const auto make_files = [&]() -> absl::StatusOr<std::unique_ptr<SegmentFiles>> {
    auto files = std::make_unique<SegmentFiles>(options.directory, options.refuse_direct);
    if (absl::Status s = files->Prepare(); !s.ok()) return s;
    return files;
  };
  absl::StatusOr<std::unique_ptr<SegmentFiles>> files = make_files();
  if (!files.ok()) return files.status();
  int error = -EPERM;
  if (!options.refuse_ring) {
    auto ring = std::make_unique<RingIo>(options, *std::move(files));
    error = ring->Start();
    if (error == 0) return ring;
    files = make_files();
    if (!files.ok()) return files.status();
  }
  return std::make_unique<ThreadIo>(
      options, *std::move(files),
      absl::StrCat("io_uring is refused (", std::strerror(-error),
                   "): threads do its work, slower; allow it to this process"));
}

}  // namespace kvtier::tiers
