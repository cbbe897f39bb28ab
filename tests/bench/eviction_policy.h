// Which chunk goes, and what that costs: policies of eviction, and a cache that follows
// one over a trace.
//
// All are prefix-safe by the cache's doing: only a chunk without cached children that the
// request under way doesn't use is offered to the policy.
//
// Thread safety: none.

#ifndef KVTIER_TESTS_BENCH_EVICTION_POLICY_H_
#define KVTIER_TESTS_BENCH_EVICTION_POLICY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/bench/eviction_trace.h"

namespace kvtier::bench {

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  // Request number `request` begins.
  virtual void Begin(size_t request) { (void)request; }
  virtual void SetBranch(bool) {}
  // The chunk is asked for and was there; or it is new, or comes again.
  virtual void Hit(TraceChunk chunk) = 0;
  virtual void Insert(TraceChunk chunk) = 0;
  // The chunk may go, or may not any more.
  virtual void SetEvictable(TraceChunk chunk, bool evictable) = 0;
  // Takes out who goes. kNoTraceChunk: nobody may.
  virtual TraceChunk Evict() = 0;
  // `parent` has lost its last child. Comes before SetEvictable.
  virtual void LostChild(TraceChunk parent, TraceChunk child) {
    (void)parent;
    (void)child;
  }
};

struct EvictionResult {
  double found = 0;       // of all prompts' chunks, those found from the first on
  double recomputed = 0;  // of the cost of computing all prompts, what was spent
};

// Runs the trace on a cache of so many chunks. Chunk d of a sequence costs 1 + d / 480:
// attention over what is before it costs as much as all else at 30 thousand tokens, as
// for a dense model of 8 billion parameters.
EvictionResult Replay(const EvictionTrace& trace, size_t capacity,
                      EvictionPolicy& policy);

struct EvictionCandidate {
  std::string name;
  std::function<std::unique_ptr<EvictionPolicy>(const EvictionTrace&, size_t capacity)>
      make;
};

const std::vector<EvictionCandidate>& EvictionCandidates();

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_EVICTION_POLICY_H_
