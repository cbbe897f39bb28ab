#include "daemon/thread_pool.h"

#include <utility>

namespace kvtier::daemon {

ThreadPool::ThreadPool(size_t threads) {
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(&mu_);
    stopping_ = true;
    changed_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::Post(std::function<void()> work) {
  MutexLock lock(&mu_);
  queue_.push_back(std::move(work));
  changed_.Signal();
}

bool ThreadPool::TryPost(size_t waiting_max, std::function<void()> work) {
  MutexLock lock(&mu_);
  if (queue_.size() >= waiting_max) return false;
  queue_.push_back(std::move(work));
  changed_.Signal();
  return true;
}

void ThreadPool::Run() {
  while (true) {
    std::function<void()> work;
    {
      MutexLock lock(&mu_);
      while (queue_.empty() && !stopping_) changed_.Wait(&mu_);
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

}  // namespace kvtier::daemon
