// The calls that last: sessions, streams, watches. When the daemon stops it tells each
// of them, so that shutting down takes as long as ending a call and not as long as a
// worker cares to stay.
//
// Thread safety: internally synchronized. Stop is called without a lock held.

#ifndef KVTIER_DAEMON_CALL_REGISTRY_H_
#define KVTIER_DAEMON_CALL_REGISTRY_H_

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"

namespace kvtier::daemon {

class LastingCall {
 public:
  virtual ~LastingCall() = default;
  // End with ShuttingDown(). Any thread; may come after the call's end.
  virtual void Stop() = 0;
};

class CallRegistry {
 public:
  // Once the registry has stopped, stops the call at once.
  void Add(const std::shared_ptr<LastingCall>& call) ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(LastingCall* call) ABSL_LOCKS_EXCLUDED(mu_);
  void StopAll() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Mutex mu_;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_map<LastingCall*, std::shared_ptr<LastingCall>> calls_
      ABSL_GUARDED_BY(mu_);
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_CALL_REGISTRY_H_
