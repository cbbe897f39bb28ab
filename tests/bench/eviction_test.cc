// Goal: the comparison of eviction's policies is one: traces are prefixes and repeat by
// seed; no policy makes a hole or beats the one that knows the future; the tiers' policy
// isn't worse than LRU, and leaves what is warm to a scan.
// Method: small traces, all policies.

#include <gtest/gtest.h>

#include "tests/bench/eviction_policy.h"
#include "tests/bench/eviction_trace.h"

namespace kvtier::bench {
namespace {

constexpr double kScale = 0.1;

double Found(const EvictionCandidate& candidate, const EvictionTrace& trace,
             double share) {
  const auto capacity =
      static_cast<size_t>(share * static_cast<double>(trace.parents.size()));
  const EvictionResult result = Replay(trace, capacity, *candidate.make(trace, capacity));
  EXPECT_GE(result.recomputed, 0);
  EXPECT_LE(result.recomputed, 1);
  return result.found;
}

TEST(EvictionTrace, RepeatsBySeedAndIsOfPrefixes) {
  for (const EvictionWorkload& workload : EvictionWorkloads()) {
    const EvictionTrace trace = workload.make(1, kScale),
                        again = workload.make(1, kScale);
    EXPECT_EQ(trace.parents, again.parents) << workload.name;
    EXPECT_NE(trace.parents, workload.make(2, kScale).parents) << workload.name;
    EXPECT_GT(trace.requests.size(), 100u) << workload.name;
    for (const TraceRequest& request : trace.requests) {
      const std::vector<TraceChunk> path = trace.Path(request);
      ASSERT_LE(request.prompt_chunks, path.size());
      ASSERT_GT(request.prompt_chunks, 0u);
      for (size_t i = 0; i < path.size(); ++i) {
        ASSERT_EQ(trace.depths[path[i]], i);
        ASSERT_EQ(trace.parents[path[i]], i == 0 ? kNoTraceChunk : path[i - 1]);
      }
    }
  }
}

TEST(EvictionPolicy, FindsMoreWithMoreRoomAndNeverMoreThanTheFutureKnows) {
  for (const EvictionWorkload& workload : EvictionWorkloads()) {
    const EvictionTrace trace = workload.make(3, kScale);
    const double most = Found(EvictionCandidates().back(), trace, 1.0);
    for (const EvictionCandidate& candidate : EvictionCandidates()) {
      SCOPED_TRACE(workload.name + ", " + candidate.name);
      const double small = Found(candidate, trace, 0.1);
      const double large = Found(candidate, trace, 0.4);
      EXPECT_GT(small, 0);
      EXPECT_GE(large, small);
      EXPECT_LE(small, Found(EvictionCandidates().back(), trace, 0.1));
      EXPECT_EQ(Found(candidate, trace, 1.0), most) << "all fits";
    }
  }
}

TEST(EvictionPolicy, OfTheTiersIsNotWorseThanLru) {
  const EvictionCandidate& tiers = EvictionCandidates()[0];
  const EvictionCandidate& lru = EvictionCandidates()[1];
  ASSERT_EQ(tiers.name, "segmented");
  ASSERT_EQ(lru.name, "lru");
  for (const EvictionWorkload& workload : EvictionWorkloads()) {
    double gain = 0;
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      const EvictionTrace trace = workload.make(seed, kScale);
      gain += (Found(tiers, trace, 0.1) - Found(lru, trace, 0.1)) / 3;
    }
    EXPECT_GT(gain, -0.01) << workload.name;
    if (workload.name == "zipf") {
      EXPECT_GT(gain, 0.04);
    }
  }
}

// A document that many ask for, and a scan of ten times the cache between two questions.
TEST(EvictionPolicy, OfTheTiersLeavesWhatIsWarmToAScan) {
  EvictionTrace trace;
  const auto extend = [&trace](TraceChunk at, uint32_t count) {
    for (; count > 0; --count) {
      trace.depths.push_back(at == kNoTraceChunk ? 0 : trace.depths[at] + 1);
      trace.parents.push_back(at);
      at = static_cast<TraceChunk>(trace.parents.size() - 1);
    }
    return at;
  };
  const TraceChunk document = extend(kNoTraceChunk, 50);
  const auto ask = [&](TraceChunk last) {
    trace.requests.push_back({.last = last, .prompt_chunks = trace.depths[last] + 1});
  };
  for (int i = 0; i < 2; ++i) ask(extend(document, 1));
  for (int i = 0; i < 50; ++i) ask(extend(kNoTraceChunk, 20));
  ask(extend(document, 1));
  const auto found_chunks = [&](const EvictionCandidate& candidate) {
    return Replay(trace, 100, *candidate.make(trace, 100)).found * (3 * 51 + 50 * 20);
  };
  EXPECT_NEAR(found_chunks(EvictionCandidates()[0]), 100, 1e-6);
  EXPECT_NEAR(found_chunks(EvictionCandidates()[1]), 50, 1e-6);
}

}  // namespace
}  // namespace kvtier::bench
