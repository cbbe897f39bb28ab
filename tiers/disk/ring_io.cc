#include "tiers/disk/ring_io.h"

#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>
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
#include "tiers/disk/file_io.h"
#include "tiers/disk/io_faults.h"
#include "tiers/disk/io_queue.h"
#include "tiers/disk/ring_registry.h"
#include "tiers/disk/segment_files.h"

namespace kvtier::tiers {
namespace {

// How often deadlines are looked at while something is under way.
constexpr int64_t kTickNanoseconds = 100'000'000;
// Completions come in bursts. What their callbacks ask for is given to the device after
// so many of them, so that it doesn't run dry while the rest of the burst is answered.
constexpr uint32_t kAnswersPerSubmit = 4;
// Before what the kernel did not take is offered again, when nothing has come back
// meanwhile that it may have waited for.
constexpr absl::Duration kSubmitPause = absl::Milliseconds(1);

class RingIo final : public FileIo {
 public:
  RingIo(const RingIoOptions& options, std::unique_ptr<SegmentFiles> files)
      : FileIo(options, std::move(files)),
        background_limit_(options.background_depth,
                          options.background_depth_beside_demand, options.demand_pause) {}

  ~RingIo() override {
    if (!thread_.joinable()) return;
    {
      MutexLock lock(&mu_);
      stopping_ = true;
    }
    Wake();
    thread_.join();
    registry_->Stop();
    io_uring_queue_exit(&ring_);
  }

  // The negative error number of a kernel that refuses, or 0.
  int Start() {
    // One entry is the eventfd's.
    if (const int error =
            io_uring_queue_init(options_.depth + 1, &ring_, IORING_SETUP_COOP_TASKRUN);
        error < 0) {
      return error;
    }
    registry_->Start(&ring_);
    wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
    thread_ = std::thread([this] { Run(); });
    return 0;
  }

  absl::Status RemoveSegment(SegmentNumber segment) override {
    registry_->RemoveFile(segment);
    return FileIo::RemoveSegment(segment);
  }

  absl::StatusOr<Buffer> NewBuffer(size_t bytes) override {
    absl::StatusOr<Buffer> plain = FileIo::NewBuffer(bytes);
    if (!plain.ok()) return plain;
    std::byte* data = plain->data();
    const size_t rounded = plain->bytes();
    registry_->AddBuffer(data, rounded);
    auto owner = std::make_shared<Buffer>(*std::move(plain));
    return Buffer(data, rounded, [registry = registry_, data, owner] {
      registry->RemoveBuffer(data);
      *owner = Buffer();
    });
  }

  void Submit(std::vector<IoRequest> requests) override {
    NoteDemand(requests);
    bool awake;
    {
      MutexLock lock(&mu_);
      awake = !incoming_.empty();
      std::move(requests.begin(), requests.end(), std::back_inserter(incoming_));
    }
    // Whoever put the first one there has woken it.
    if (!awake) Wake();
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
      const int submitted = SubmitAndWait();
      const bool refused = submitted < 0 && submitted != -ETIME && submitted != -EINTR;
      // What was refused (-EAGAIN: no memory, -EBUSY: too many completions) stays in the
      // ring, to be submitted the next time.
      if (Reap() == 0 && refused) absl::SleepFor(kSubmitPause);
      AnswerOverdue();
    }
  }

  // A test's, or 0.
  int InjectedRefusal() {
    return options_.faults == nullptr ? 0 : options_.faults->Submit();
  }

  // Gives the kernel what was prepared, and waits until something comes back or, with
  // requests under way, a tick has passed. Their number, or a negative error number.
  int SubmitAndWait() {
    if (const int error = InjectedRefusal(); error < 0) return error;
    if (flights_.empty()) return io_uring_submit_and_wait(&ring_, 1);
    __kernel_timespec tick = {.tv_sec = 0, .tv_nsec = kTickNanoseconds};
    io_uring_cqe* cqe = nullptr;
    return io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &tick, nullptr);
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
      if (request.priority == IoPriority::kDemand) background_limit_.NoteDemand(now);
      waiting_.Add(std::move(request), now);
    }
    return stopping && incoming.empty();
  }

  void StartWaiting() {
    IoFlight flight;
    const absl::Time now = absl::Now();
    while (flights_.size() < options_.depth &&
           waiting_.Take(background_ < background_limit_.At(now), now, &flight)) {
      background_ += flight.background();
      flights_.push_back(std::move(flight));
      Prepare(std::prev(flights_.end()));
    }
  }

  void Prepare(std::list<IoFlight>::iterator flight) {
    const IoRequest& request = flight->request;
    // There is room: the ring has an entry for each flight, and one for the eventfd.
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    int fd = registry_->FileOf(request.segment);
    bool registered = fd >= 0;
    if (!registered) {
      const int plain = files_->fd(request.segment);
      fd = registry_->AddFile(request.segment, plain);
      registered = fd >= 0;
      if (!registered) fd = plain;
    }
    std::byte* data = request.data + flight->done_bytes;
    const auto bytes = static_cast<unsigned>(request.bytes - flight->done_bytes);
    const uint64_t offset = request.offset + flight->done_bytes;
    const int buffer =
        request.kind == IoKind::kSync ? -1 : registry_->BufferOf(data, bytes);
    switch (request.kind) {
      case IoKind::kRead:
        if (buffer >= 0) {
          io_uring_prep_read_fixed(sqe, fd, data, bytes, offset, buffer);
        } else {
          io_uring_prep_read(sqe, fd, data, bytes, offset);
        }
        break;
      case IoKind::kWrite:
        if (buffer >= 0) {
          io_uring_prep_write_fixed(sqe, fd, data, bytes, offset, buffer);
        } else {
          io_uring_prep_write(sqe, fd, data, bytes, offset);
        }
        break;
      case IoKind::kSync:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    }
    if (registered) sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data(sqe, &*flight);
    by_address_.emplace(&*flight, flight);
  }

  void ListenForWake() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_read(sqe, wake_.get(), &wakes_, sizeof(wakes_), 0);
    io_uring_sqe_set_data(sqe, nullptr);
  }

  // Returns how many completions there were.
  size_t Reap() {
    for (const auto& [address, result] : std::exchange(late_, {})) {
      Complete(address, result);
    }
    size_t completions = 0;
    uint32_t answers = 0;
    io_uring_cqe* cqe = nullptr;
    // Deadlines are looked at in between, however busy the device is.
    while (completions < options_.depth && io_uring_peek_cqe(&ring_, &cqe) == 0) {
      auto* address = static_cast<IoFlight*>(io_uring_cqe_get_data(cqe));
      const int result = cqe->res;
      io_uring_cqe_seen(&ring_, cqe);
      ++completions;
      if (address == nullptr) {
        ListenForWake();
        continue;
      }
      Complete(address, result);
      if (++answers % kAnswersPerSubmit == 0) {
        TakeIncoming();
        StartWaiting();
        // What isn't taken is offered again by SubmitAndWait.
        if (InjectedRefusal() == 0) io_uring_submit(&ring_);
      }
    }
    return completions;
  }

  void Complete(IoFlight* address, int result) {
    if (options_.faults != nullptr) {
      const int wanted = options_.faults->Result(address->request, result);
      if (wanted == IoFaults::kLate) return late_.emplace_back(address, result), void();
      result = wanted;
    }
    last_completion_ = absl::Now();
    const auto found = by_address_.find(address);
    const std::list<IoFlight>::iterator flight = found->second;
    by_address_.erase(found);
    absl::Status status;
    // Who was told that it took too long doesn't wait for the rest.
    if (!Continue(result, *files_, &*flight, &status) && !flight->answered) {
      Prepare(flight);
      return;
    }
    background_ -= flight->background();
    flight->Answer(status);
    flight->Release();
    flights_.erase(flight);
  }

  void AnswerOverdue() {
    const absl::Time limit = absl::Now() - options_.deadline;
    for (IoFlight& flight : flights_) {
      if (!flight.answered && flight.started <= limit) flight.Answer(Overdue(flight));
    }
    if (last_completion_ > limit || flights_.empty()) return;
    for (IoFlight& flight : waiting_.TakeOlderThan(limit)) {
      flight.Answer(Overdue(flight));
      flight.Release();
    }
  }

  // Buffers may outlive this.
  const std::shared_ptr<RingRegistry> registry_ = std::make_shared<RingRegistry>();
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
  BackgroundLimit background_limit_;
  std::list<IoFlight> flights_;
  std::map<IoFlight*, std::list<IoFlight>::iterator> by_address_;
  std::vector<std::pair<IoFlight*, int>> late_;  // what a test holds back
  uint32_t background_ = 0;
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
  return NewThreadIo(
      options, *std::move(files),
      absl::StrCat("io_uring is refused (", std::strerror(-error),
                   "): threads do its work, slower; allow it to this process"));
}

}  // namespace kvtier::tiers
