// What the worker handlers of one namespace share. Plain pointers: the server that owns
// all of it outlives every call.

#ifndef KVTIER_DAEMON_WORKER_CONTEXT_H_
#define KVTIER_DAEMON_WORKER_CONTEXT_H_

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"
#include "daemon/call_registry.h"
#include "daemon/store.h"
#include "daemon/stream_threads.h"
#include "daemon/thread_pool.h"

namespace kvtier::daemon {

// Rows that one part of a selection or a read aims at: large enough that a part's fixed
// cost is nothing beside its copy, small enough for gRPC's default limit of 4 MiB.
inline constexpr uint64_t kPartTargetBytes = uint64_t{2} << 20;

// A namespace's Retrieve and Read calls under way: one Retrieve and one Read for each of
// the sessions that it may have by default.
inline constexpr uint32_t kStreamThreadsMax = 512;

// Short calls that may wait for the disk at a time, of all namespaces.
inline constexpr size_t kBlockingThreads = 16;
// Short calls that may wait for one of those threads; one more is refused at once. Two
// for each of the sessions that a namespace may have by default.
inline constexpr size_t kBlockingWaitingMax = 512;

struct WorkerContext {
  Namespace* space = nullptr;
  const StoreLimits* limits = nullptr;
  uint64_t message_bytes_max = 0;
  // A session's first message must come within this.
  absl::Duration first_message;
  CallRegistry* calls = nullptr;
  StreamThreads* threads = nullptr;
  // Runs the short calls of a store with a disk tier, which may wait for it; null: they
  // are run at once.
  ThreadPool* blocking = nullptr;

  uint64_t part_bytes_max() const {
    return std::min(kPartTargetBytes, message_bytes_max / 2);
  }
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_WORKER_CONTEXT_H_
