#include "daemon/helper_threads.h"

#include <algorithm>
#include <atomic>

#include "absl/synchronization/blocking_counter.h"

namespace kvtier::daemon {
namespace {

// Kept alive by a helper that comes when all is done. `work` is the caller's and is
// touched only by whoever has claimed an index, for which the caller waits.
struct Job {
  Job(size_t count, absl::FunctionRef<void(size_t)> work)
      : count(count), work(work), left(static_cast<int>(count)) {}

  void Run() {
    for (size_t i = next++; i < count; i = next++) {
      work(i);
      left.DecrementCount();
    }
  }

  const size_t count;
  const absl::FunctionRef<void(size_t)> work;
  std::atomic<size_t> next{0};
  absl::BlockingCounter left;
};

}  // namespace

HelperThreads::HelperThreads(size_t threads)
    : threads_(threads), pool_(std::make_unique<ThreadPool>(threads)) {}

void HelperThreads::For(size_t count, absl::FunctionRef<void(size_t)> work) const {
  if (count < 2 || threads_ == 0) return retrieval::Serial().For(count, work);
  const auto job = std::make_shared<Job>(count, work);
  for (size_t i = 0; i < std::min(threads_, count - 1); ++i) {
    if (!pool_->TryPost(threads_, [job] { job->Run(); })) break;
  }
  job->Run();
  job->left.Wait();
}

}  // namespace kvtier::daemon
