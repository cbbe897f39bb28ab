// Seeded traces of what a cache of prefixes is asked for: which chunks, in which order.
//
// A chunk's parent is the chunk before it in its sequences. A request is one turn: its
// prompt's chunks are looked for from the first, and what is missing is computed; then
// the answer's chunks are added behind them. All in chunks of 64 tokens.
//
// Thread safety: values.

#ifndef KVTIER_TESTS_BENCH_EVICTION_TRACE_H_
#define KVTIER_TESTS_BENCH_EVICTION_TRACE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace kvtier::bench {

using TraceChunk = uint32_t;
inline constexpr TraceChunk kNoTraceChunk = UINT32_MAX;

struct TraceRequest {
  TraceChunk last = kNoTraceChunk;  // of prompt and answer
  uint32_t prompt_chunks = 0;       // of these, from the first, the prompt's
};

struct EvictionTrace {
  std::vector<TraceChunk> parents;  // [chunk]
  std::vector<uint32_t> depths;     // [chunk], 0: a first one
  std::vector<TraceRequest> requests;

  // The chunks of a request, the first one first.
  std::vector<TraceChunk> Path(const TraceRequest& request) const;
};

struct EvictionWorkload {
  std::string name;
  EvictionTrace (*make)(uint64_t seed, double scale);
};

// By name:
//   chat    users' turns, with pauses of minutes to hours, over a system prompt and
//   shared
//           long documents; some answers are asked for again, some turns edited
//   scan    the same; in its second half many long documents are read once each
//   zipf    questions, each asked once, over prefixes of 5 to 400 chunks by Zipf's law
//   agents  loops of many short steps over shared tools; some fork; none comes back
//   rounds  chats, and a set of documents that is gone through again and again
//   shift   as zipf, but which prefixes are popular changes
// `scale` 1 is about 40 thousand chunks.
const std::vector<EvictionWorkload>& EvictionWorkloads();

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_EVICTION_TRACE_H_
