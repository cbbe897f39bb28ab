// What the worker handlers of one namespace share. Plain pointers: the server that owns
// all of it outlives every call.

#ifndef KVTIER_DAEMON_WORKER_CONTEXT_H_
#define KVTIER_DAEMON_WORKER_CONTEXT_H_

#include <algorithm>
#include <cstdint>

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

struct WorkerContext {
  Namespace* space = nullptr;
  StoreOptions store;
  uint64_t message_bytes_max = 0;
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
