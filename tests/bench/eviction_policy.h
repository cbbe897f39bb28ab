// Policies of eviction, and a cache of prefixes that follows one over a trace.
//
// All are prefix-safe by the cache's doing: only a chunk without cached children that the
// request under way doesn't use is offered to the policy.
//
//   segmented   what the tiers do, by their own code (tiers/eviction_order.h)
//   lru         the one used longest ago
//   s3-fifo     SIGMETRICS 2023: 10 % for new ones, a queue that spares what was used,
//   and
//               as many names remembered as there are chunks. A chunk that leaves the new
//               ones takes those before it along, or they would fill the 10 %
//   s3-fifo 40  the same with 40 % for new ones
//   arc         FAST 2003: the share of new ones adapts by two lists of remembered names
//   tinylfu     W-TinyLFU: 20 % for new ones; a chunk gets out of them if it was used
//   more
//               often than the coldest of the others. Exact counts, halved now and then
//   lru-2       the one whose last use but one is longest ago
//   heat        uses that halve with each half a cache of chunks that came; their sum
//   selected    segmented, but of what is found only what queries select counts as used,
//               30 %; a chunk is as warm as what continued it was
//   bound       the one whose next use is farthest, which nobody knows; not quite a
//   bound,
//               since a prefix is not a page, but nothing here comes near it
//
// Thread safety: none.

#ifndef KVTIER_TESTS_BENCH_EVICTION_POLICY_H_
#define KVTIER_TESTS_BENCH_EVICTION_POLICY_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/bench/eviction_trace.h"

namespace kvtier::bench {

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  // Request number `request` begins.
  virtual void Begin(size_t request) { (void)request; }
  // The chunk is asked for and is there. It may not go while the request is under way.
  virtual void Hit(TraceChunk chunk) = 0;
  // The chunk comes, for the first time or again.
  virtual void Insert(TraceChunk chunk) = 0;
  // The chunk may go, or may not any more. Said of leaves only, and only of changes.
  virtual void SetEvictable(TraceChunk chunk, bool evictable) = 0;
  // The parent of one that went has no other child any more. It may go now, or not yet.
  virtual void LostChild(TraceChunk parent, TraceChunk child) {
    (void)parent;
    (void)child;
  }
  // Takes out who goes. Nothing: nobody may.
  virtual std::optional<TraceChunk> Evict() = 0;
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

// The first is what the tiers do, the last is the bound.
const std::vector<EvictionCandidate>& EvictionCandidates();

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_EVICTION_POLICY_H_
