// A thread for every streaming call that makes rows (Retrieve, Read).
//
// Such a call must wait for its client between two parts, and Session hands parts to a
// callback, so some thread has to wait. gRPC's own threads are few and serve everyone:
// one that waits for a slow client would hold up the others, and so would a pool of
// fixed size once as many clients are slow. Hence a thread each, up to a limit per
// namespace: what a client that never reads holds is one sleeping thread and a few parts.
// The same threads keep long scoring away from gRPC's, which must go on polling.
//
// Thread safety: internally synchronized. The destructor waits for all threads, so the
// calls must have been ended first.

#ifndef KVTIER_DAEMON_STREAM_THREADS_H_
#define KVTIER_DAEMON_STREAM_THREADS_H_

#include <cstdint>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace kvtier::daemon {

class StreamThreads {
 public:
  explicit StreamThreads(uint32_t threads_max) : threads_max_(threads_max) {}
  StreamThreads(const StreamThreads&) = delete;  // running threads point to it
  StreamThreads& operator=(const StreamThreads&) = delete;
  ~StreamThreads();

  // Runs `work` on a thread of its own.
  // ResourceExhausted: threads_max are running, or the system has no more.
  absl::Status Start(std::function<void()> work) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  bool Idle() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return running_ == 0; }
  void Done() ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  const uint32_t threads_max_;

  absl::Mutex mu_;
  uint32_t running_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_STREAM_THREADS_H_
