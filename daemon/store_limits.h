// Limits that the operator may change while the daemon runs.
//
// Thread safety: each is read and written by itself, from any thread; what is there above
// a lowered limit stays until it ends.

#ifndef KVTIER_DAEMON_STORE_LIMITS_H_
#define KVTIER_DAEMON_STORE_LIMITS_H_

#include <atomic>
#include <cstdint>

namespace kvtier::daemon {

struct StoreLimits {
  std::atomic<uint64_t> unsealed_bytes_max{0};  // of sessions opened from then on
  std::atomic<uint32_t> sequences_max{0};       // per session
  std::atomic<uint32_t> sessions_max{0};        // per namespace
  std::atomic<uint32_t> models_max{0};          // per namespace
  // No more sessions and sequences are admitted. Stays once set.
  std::atomic<bool> draining{false};
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_STORE_LIMITS_H_
