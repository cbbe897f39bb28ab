#include "daemon/stream_threads.h"

#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kvtier::daemon {

StreamThreads::~StreamThreads() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &StreamThreads::Idle));
}

void StreamThreads::Done() {
  absl::MutexLock lock(&mu_);
  --running_;
}

absl::Status StreamThreads::Start(std::function<void()> work) {
  {
    absl::MutexLock lock(&mu_);
    if (running_ == threads_max_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("this namespace has ", threads_max_,
                       " streams under way, the most: finish one and try again"));
    }
    ++running_;
  }
  try {
    std::thread([this, work = std::move(work)]() mutable {
      work();
      work = nullptr;  // what it owns goes before the destructor may return
      Done();
    }).detach();
  } catch (const std::system_error& e) {
    Done();
    return absl::ResourceExhaustedError(
        absl::StrCat("no thread for this stream (", e.what(), "): try again later"));
  }
  return absl::OkStatus();
}

}  // namespace kvtier::daemon
