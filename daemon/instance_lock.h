// One daemon per runtime directory: an flock on <runtime_dir>/kvtierd.lock, which holds
// the owner's pid for people to read. The kernel drops the lock when its process ends,
// however it ends, so a lock file that is left over means nothing.
//
// Whoever holds the lock may remove sockets in the directory: no live daemon owns them.
//
// Thread safety: not thread-safe; owned by main.

#ifndef KVTIER_DAEMON_INSTANCE_LOCK_H_
#define KVTIER_DAEMON_INSTANCE_LOCK_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kvtier::daemon {

class InstanceLock {
 public:
  // Makes the directory if need be (mode 0755; its parent must exist).
  // AlreadyExists: another daemon serves this directory; names its pid.
  static absl::StatusOr<InstanceLock> Take(const std::string& runtime_dir);

  InstanceLock(InstanceLock&& other) noexcept;
  // Two owners of one lock would unlock it twice.
  InstanceLock(const InstanceLock&) = delete;
  InstanceLock& operator=(const InstanceLock&) = delete;
  InstanceLock& operator=(InstanceLock&&) = delete;
  ~InstanceLock();

 private:
  explicit InstanceLock(int fd) : fd_(fd) {}

  int fd_;
};

// Removes what a dead daemon left at `path`, so that a socket can be bound there.
// The caller holds the instance lock of the directory.
// FailedPrecondition: something listens there, or it isn't a socket.
absl::Status RemoveStaleSocket(const std::string& path);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_INSTANCE_LOCK_H_
