// What a thread that serves a streaming call waits on: the call's next message read,
// its last message written, or its end. The call's callbacks report these; the thread
// owns everything else about the call.
//
// Once the call has ended every wait returns at once, so a thread is never held by a
// client that is gone, nor by one that doesn't read when the daemon wants to stop.
//
// Thread safety: internally synchronized. One thread waits.

#ifndef KVTIER_DAEMON_CALL_GATE_H_
#define KVTIER_DAEMON_CALL_GATE_H_

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace kvtier::daemon {

// How long a call that must stop waits for a client to take what is being written.
inline constexpr absl::Duration kLastWritePatience = absl::Milliseconds(500);

class CallGate {
 public:
  // Before each read or write is started.
  void StartRead() ABSL_LOCKS_EXCLUDED(mu_);
  void StartWrite() ABSL_LOCKS_EXCLUDED(mu_);

  // From the callbacks. A read that fails means that the client sends no more; a write
  // that fails ends the call.
  void ReadDone(bool ok) ABSL_LOCKS_EXCLUDED(mu_);
  void WriteDone(bool ok) ABSL_LOCKS_EXCLUDED(mu_);

  // The call is cancelled or must stop, for this reason; the first one stays.
  void End(absl::Status why) ABSL_LOCKS_EXCLUDED(mu_);

  enum class Read { kMessage, kNoMore, kEnded };
  Read AwaitRead() ABSL_LOCKS_EXCLUDED(mu_);
  // No write is under way; false if the call has ended.
  bool AwaitWritable() ABSL_LOCKS_EXCLUDED(mu_);

  // After the end: whether the write that was under way is done within `patience`. If
  // not, the client isn't reading, and the call must be cancelled to let go of it.
  bool AwaitLastWrite(absl::Duration patience) ABSL_LOCKS_EXCLUDED(mu_);

  // OK while the call hasn't ended.
  absl::Status end() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  bool ReadIsDone() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return !reading_ || !end_.ok();
  }
  bool WriteIsDone() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return !writing_ || !end_.ok();
  }
  bool NothingIsWritten() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !writing_; }

  mutable absl::Mutex mu_;
  bool reading_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool read_ok_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_CALL_GATE_H_
