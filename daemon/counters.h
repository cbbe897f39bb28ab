// What the store counts for its statistics.
//
// Thread safety: atomics; no order between them.

#ifndef KVTIER_DAEMON_COUNTERS_H_
#define KVTIER_DAEMON_COUNTERS_H_

#include <atomic>
#include <cstdint>

namespace kvtier::daemon {

class Counter {
 public:
  void Add(uint64_t n) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

struct StoreCounters {
  Counter hit_chunks;
  Counter miss_chunks;
  Counter written_bytes;
  Counter read_bytes;
};

struct NamespaceCounters {
  Counter appended_tokens;
  Counter retrieve_items;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_COUNTERS_H_
