// A fixed number of threads that run what is posted, in order of posting.
//
// Thread safety: Post and TryPost may be called from any thread, also from posted work.
// The destructor runs what was posted before it and joins.

#ifndef KVTIER_DAEMON_THREAD_POOL_H_
#define KVTIER_DAEMON_THREAD_POOL_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "kernels/base/mutex.h"
#include "tiers/disk/disk_tier.h"

namespace kvtier::daemon {

class ThreadPool final : public tiers::Executor {
 public:
  explicit ThreadPool(size_t threads);
  ThreadPool(const ThreadPool&) = delete;  // owns threads
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() override;

  void Post(std::function<void()> work) override ABSL_LOCKS_EXCLUDED(mu_);
  // False, and nothing is posted, if `waiting_max` wait already.
  [[nodiscard]] bool TryPost(size_t waiting_max, std::function<void()> work)
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_);

  Mutex mu_;
  CondVar changed_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;

  std::vector<std::thread> threads_;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_THREAD_POOL_H_
