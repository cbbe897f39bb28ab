#include "tests/bench/eviction_policy.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <utility>

#include "tiers/eviction_order.h"
#include "tiers/heat.h"

namespace kvtier::bench {
namespace {

using tiers::ChunkUse;
using tiers::Heat;

// The evictable ones of some chunks by a number, the least first.
class Queue {
 public:
  explicit Queue(size_t chunks) : keys_(chunks, 0), evictable_(chunks, false) {}

  double key(TraceChunk chunk) const { return keys_[chunk]; }
  void SetKey(TraceChunk chunk, double key) {
    const bool evictable = evictable_[chunk];
    SetEvictable(chunk, false);
    keys_[chunk] = key;
    SetEvictable(chunk, evictable);
  }
  void SetEvictable(TraceChunk chunk, bool evictable) {
    if (evictable_[chunk] == evictable) return;
    evictable_[chunk] = evictable;
    if (evictable) {
      order_.insert({keys_[chunk], chunk});
    } else {
      order_.erase({keys_[chunk], chunk});
    }
  }
  std::optional<TraceChunk> First() const {
    if (order_.empty()) return std::nullopt;
    return order_.begin()->second;
  }
  std::optional<TraceChunk> Take() {
    const std::optional<TraceChunk> first = First();
    if (first) SetEvictable(*first, false);
    return first;
  }

 private:
  std::vector<double> keys_;
  std::vector<bool> evictable_;
  std::set<std::pair<double, TraceChunk>> order_;
};

// The names of chunks that went, as many as the cache has chunks.
class Ghosts {
 public:
  Ghosts(size_t chunks, size_t capacity) : at_(chunks, 0), capacity_(capacity) {}

  void Add(TraceChunk chunk) { at_[chunk] = ++count_; }
  // Forgets it, too.
  bool Remembers(TraceChunk chunk) {
    const uint64_t at = std::exchange(at_[chunk], 0);
    return at != 0 && at + capacity_ > count_;
  }

 private:
  std::vector<uint64_t> at_;  // [chunk]; 0: never
  uint64_t count_ = 0;
  const size_t capacity_;
};

class SegmentedPolicy final : public EvictionPolicy {
 public:
  enum class Uses : uint8_t { kAll, kSelected };

  SegmentedPolicy(const EvictionTrace& trace, Uses uses)
      : chunks_(trace.parents.size()), uses_(uses), order_(Access{&chunks_}) {}

  void Hit(TraceChunk chunk) override {
    // A chunk that matters to one query matters to the next: the same 30 % each time.
    const bool selected = chunk * 2654435761u < UINT32_MAX / 10 * 3;
    if (uses_ == Uses::kSelected && !selected) return;
    order_.SetHeat(chunk, chunks_[chunk].heat.Used(++time_, ChunkUse::kFound));
  }
  void Insert(TraceChunk chunk) override { order_.Add(chunk, Heat::New(++time_)); }
  void SetEvictable(TraceChunk chunk, bool evictable) override {
    order_.SetEvictable(chunk, evictable);
  }
  void LostChild(TraceChunk parent, TraceChunk child) override {
    order_.SetHeat(parent, std::max(chunks_[parent].heat, chunks_[child].heat));
  }
  std::optional<TraceChunk> Evict() override {
    const std::optional<TraceChunk> coldest = order_.Coldest();
    if (coldest) order_.Remove(*coldest);
    return coldest;
  }

 private:
  struct Chunk {
    Heat heat;
    uint32_t position = 0;
  };
  struct Access {
    Heat& heat(TraceChunk chunk) const { return (*chunks)[chunk].heat; }
    uint32_t& position(TraceChunk chunk) const { return (*chunks)[chunk].position; }
    uint64_t weight(TraceChunk) const { return 1; }
    std::vector<Chunk>* chunks;
  };

  std::vector<Chunk> chunks_;
  const Uses uses_;
  uint64_t time_ = 0;
  tiers::EvictionOrder<TraceChunk, Access> order_;
};

// Those that keep one number of each chunk.
class NumberPolicy : public EvictionPolicy {
 public:
  explicit NumberPolicy(const EvictionTrace& trace) : queue_(trace.parents.size()) {}

  void SetEvictable(TraceChunk chunk, bool evictable) override {
    queue_.SetEvictable(chunk, evictable);
  }
  std::optional<TraceChunk> Evict() override { return queue_.Take(); }

 protected:
  Queue queue_;
};

class LruPolicy final : public NumberPolicy {
 public:
  using NumberPolicy::NumberPolicy;

  void Hit(TraceChunk chunk) override { queue_.SetKey(chunk, ++time_); }
  void Insert(TraceChunk chunk) override { queue_.SetKey(chunk, ++time_); }

 private:
  double time_ = 0;
};

class Lru2Policy final : public NumberPolicy {
 public:
  explicit Lru2Policy(const EvictionTrace& trace)
      : NumberPolicy(trace), last_use_(trace.parents.size()) {}

  void Hit(TraceChunk chunk) override {
    queue_.SetKey(chunk, std::exchange(last_use_[chunk], ++time_));
  }
  void Insert(TraceChunk chunk) override {
    last_use_[chunk] = ++time_;
    queue_.SetKey(chunk, time_ - kNever);
  }

 private:
  static constexpr double kNever = 1e12;

  std::vector<double> last_use_;
  double time_ = 0;
};

// log2 of the sum of 2^(time of use / half-life), in half-lives: an order that time
// doesn't change.
class HeatPolicy final : public NumberPolicy {
 public:
  HeatPolicy(const EvictionTrace& trace, size_t capacity)
      : NumberPolicy(trace), half_life_(static_cast<double>(capacity) / 2) {}

  void Hit(TraceChunk chunk) override {
    const double before = queue_.key(chunk), now = inserted_ / half_life_;
    queue_.SetKey(
        chunk, std::max(before, now) + std::log2(1 + std::exp2(-std::abs(before - now))));
  }
  void Insert(TraceChunk chunk) override {
    queue_.SetKey(chunk, ++inserted_ / half_life_);
  }

 private:
  const double half_life_;
  double inserted_ = 0;
};

class BoundPolicy final : public NumberPolicy {
 public:
  explicit BoundPolicy(const EvictionTrace& trace)
      : NumberPolicy(trace), depths_(trace.depths), next_uses_(trace.requests.size()) {
    std::vector<double> next(trace.parents.size(), kNever);
    for (size_t r = trace.requests.size(); r > 0; --r) {
      for (const TraceChunk chunk : trace.Path(trace.requests[r - 1])) {
        next_uses_[r - 1].push_back(
            std::exchange(next[chunk], static_cast<double>(r - 1)));
      }
    }
  }

  void Begin(size_t request) override { request_ = request; }
  void Hit(TraceChunk chunk) override { Insert(chunk); }
  void Insert(TraceChunk chunk) override {
    queue_.SetKey(chunk, -next_uses_[request_][depths_[chunk]]);
  }

 private:
  static constexpr double kNever = 1e12;

  const std::vector<uint32_t>& depths_;
  std::vector<std::vector<double>> next_uses_;  // [request][depth]
  size_t request_ = 0;
};

// Those with new chunks in a queue of their own.
class TwoQueuePolicy : public EvictionPolicy {
 public:
  TwoQueuePolicy(const EvictionTrace& trace, size_t capacity)
      : parents_(trace.parents),
        capacity_(capacity),
        new_(trace.parents.size()),
        main_(trace.parents.size()),
        in_main_(trace.parents.size()) {}

  void SetEvictable(TraceChunk chunk, bool evictable) override {
    QueueOf(chunk).SetEvictable(chunk, evictable);
  }

 protected:
  Queue& QueueOf(TraceChunk chunk) { return in_main_[chunk] ? main_ : new_; }
  // A chunk that comes.
  void Place(TraceChunk chunk, bool in_main, double key) {
    in_main_[chunk] = in_main;
    QueueOf(chunk).SetKey(chunk, key);
    if (!in_main) ++new_count_;
  }
  // From the new ones, an evictable one that was taken, and those before it.
  void Promote(TraceChunk taken, double key) {
    for (TraceChunk chunk = taken; chunk != kNoTraceChunk && !in_main_[chunk];
         chunk = parents_[chunk]) {
      in_main_[chunk] = true;
      --new_count_;
      main_.SetKey(chunk, key);
    }
    main_.SetEvictable(taken, true);
  }
  std::optional<TraceChunk> TakeNew() {
    const std::optional<TraceChunk> chunk = new_.Take();
    if (chunk) --new_count_;
    return chunk;
  }

  const std::vector<TraceChunk>& parents_;
  const size_t capacity_;
  Queue new_, main_;
  std::vector<bool> in_main_;  // [chunk]
  size_t new_count_ = 0;
};

class S3FifoPolicy final : public TwoQueuePolicy {
 public:
  S3FifoPolicy(const EvictionTrace& trace, size_t capacity, double new_share)
      : TwoQueuePolicy(trace, capacity),
        new_max_(static_cast<size_t>(new_share * static_cast<double>(capacity))),
        uses_(trace.parents.size()),
        ghosts_(trace.parents.size(), capacity) {}

  void Hit(TraceChunk chunk) override { uses_[chunk] = std::min(uses_[chunk] + 1, 3); }
  void Insert(TraceChunk chunk) override {
    uses_[chunk] = 0;
    Place(chunk, ghosts_.Remembers(chunk), ++time_);
  }
  std::optional<TraceChunk> Evict() override {
    while (true) {
      const std::optional<TraceChunk> oldest = main_.First();
      if (new_.First() && (new_count_ > new_max_ || !oldest)) {
        const TraceChunk chunk = *new_.First();
        if (uses_[chunk] == 0) {
          ghosts_.Add(chunk);
          return TakeNew();
        }
        new_.Take();
        uses_[chunk] = 0;
        Promote(chunk, ++time_);
        continue;
      }
      if (!oldest || uses_[*oldest] == 0) return main_.Take();
      --uses_[*oldest];
      main_.SetKey(*oldest, ++time_);
    }
  }

 private:
  const size_t new_max_;
  std::vector<int> uses_;
  Ghosts ghosts_;
  double time_ = 0;
};

class ArcPolicy final : public TwoQueuePolicy {
 public:
  ArcPolicy(const EvictionTrace& trace, size_t capacity)
      : TwoQueuePolicy(trace, capacity),
        new_ghosts_(trace.parents.size(), capacity),
        main_ghosts_(trace.parents.size(), capacity) {}

  void Hit(TraceChunk chunk) override {
    if (!in_main_[chunk]) --new_count_;
    in_main_[chunk] = true;
    main_.SetKey(chunk, ++time_);
  }
  void Insert(TraceChunk chunk) override {
    const bool was_new = new_ghosts_.Remembers(chunk);
    const bool was_main = main_ghosts_.Remembers(chunk);
    if (was_new) new_max_ = std::min(new_max_ + 1, static_cast<double>(capacity_));
    if (was_main) new_max_ = std::max(new_max_ - 1, 0.0);
    Place(chunk, was_new || was_main, ++time_);
  }
  std::optional<TraceChunk> Evict() override {
    const bool new_goes = static_cast<double>(new_count_) > new_max_ || !main_.First();
    const std::optional<TraceChunk> chunk =
        new_goes && new_.First() ? new_.First() : main_.First();
    if (!chunk) return chunk;
    if (in_main_[*chunk]) {
      main_ghosts_.Add(*chunk);
      return main_.Take();
    }
    new_ghosts_.Add(*chunk);
    return TakeNew();
  }

 private:
  Ghosts new_ghosts_, main_ghosts_;
  double new_max_ = 0;
  double time_ = 0;
};

class TinyLfuPolicy final : public TwoQueuePolicy {
 public:
  TinyLfuPolicy(const EvictionTrace& trace, size_t capacity)
      : TwoQueuePolicy(trace, capacity),
        new_max_(capacity / 5),
        counts_(trace.parents.size()) {}

  void Hit(TraceChunk chunk) override {
    Count(chunk);
    QueueOf(chunk).SetKey(chunk, ++time_);
  }
  void Insert(TraceChunk chunk) override {
    Count(chunk);
    Place(chunk, /*in_main=*/false, ++time_);
    if (cached_ < capacity_) ++cached_;
    while (cached_ < capacity_ && new_count_ > new_max_ && new_.First()) {
      const TraceChunk first = *new_.Take();
      Promote(first, new_.key(first));
    }
  }
  std::optional<TraceChunk> Evict() override {
    const std::optional<TraceChunk> coldest = main_.First(), candidate = new_.First();
    if (!candidate || (coldest && new_count_ <= new_max_)) return main_.Take();
    if (!coldest || counts_[*candidate] <= counts_[*coldest]) return TakeNew();
    main_.Take();
    new_.Take();
    Promote(*candidate, new_.key(*candidate));
    return coldest;
  }

 private:
  void Count(TraceChunk chunk) {
    ++counts_[chunk];
    if (++counted_ < 10 * capacity_) return;
    counted_ = 0;
    for (double& count : counts_) count /= 2;
  }

  const size_t new_max_;
  std::vector<double> counts_;
  size_t counted_ = 0;  // since they were halved
  size_t cached_ = 0;
  double time_ = 0;
};

template <typename Policy, typename... Args>
EvictionCandidate Candidate(std::string name, Args... args) {
  return {std::move(name), [args...](const EvictionTrace& trace, size_t) {
            return std::make_unique<Policy>(trace, args...);
          }};
}

template <typename Policy, typename... Args>
EvictionCandidate SizedCandidate(std::string name, Args... args) {
  return {std::move(name), [args...](const EvictionTrace& trace, size_t capacity) {
            return std::make_unique<Policy>(trace, capacity, args...);
          }};
}

// The cache: what is there, and what may go.
class PrefixCache {
 public:
  PrefixCache(const EvictionTrace& trace, size_t capacity, EvictionPolicy& policy)
      : trace_(trace),
        capacity_(capacity),
        policy_(policy),
        cached_(trace.parents.size()),
        children_(trace.parents.size()),
        used_by_(trace.parents.size(), SIZE_MAX) {}

  // Returns how many of the request's chunks were there, from the first on.
  size_t Ask(size_t number, const TraceRequest& request) {
    const std::vector<TraceChunk> path = trace_.Path(request);
    policy_.Begin(number);
    for (const TraceChunk chunk : path) used_by_[chunk] = number;
    size_t found = 0;
    while (found < path.size() && cached_[path[found]]) ++found;
    if (found > 0 && children_[path[found - 1]] == 0) {
      policy_.SetEvictable(path[found - 1], false);
    }
    for (size_t i = 0; i < found; ++i) policy_.Hit(path[i]);
    size_t end = found;
    while (end < path.size() && Insert(path[end])) ++end;
    if (end > 0 && children_[path[end - 1]] == 0) {
      policy_.SetEvictable(path[end - 1], true);
    }
    return found;
  }

 private:
  // False: all there is belongs to the request.
  bool Insert(TraceChunk chunk) {
    while (count_ >= capacity_) {
      const std::optional<TraceChunk> out = policy_.Evict();
      if (!out) return false;
      cached_[*out] = false;
      --count_;
      const TraceChunk parent = trace_.parents[*out];
      if (parent == kNoTraceChunk || --children_[parent] > 0) continue;
      policy_.LostChild(parent, *out);
      if (used_by_[parent] != used_by_[chunk]) policy_.SetEvictable(parent, true);
    }
    cached_[chunk] = true;
    ++count_;
    policy_.Insert(chunk);
    const TraceChunk parent = trace_.parents[chunk];
    if (parent != kNoTraceChunk) ++children_[parent];
    return true;
  }

  const EvictionTrace& trace_;
  const size_t capacity_;
  EvictionPolicy& policy_;
  std::vector<bool> cached_;        // [chunk]
  std::vector<uint32_t> children_;  // [chunk], cached
  std::vector<size_t> used_by_;     // [chunk], the last request
  size_t count_ = 0;
};

}  // namespace

EvictionResult Replay(const EvictionTrace& trace, size_t capacity,
                      EvictionPolicy& policy) {
  constexpr double kAttentionDepth = 480;  // where it costs as much as all else
  PrefixCache cache(trace, capacity, policy);
  double prompt_chunks = 0, found_chunks = 0, cost = 0, spent = 0;
  for (size_t r = 0; r < trace.requests.size(); ++r) {
    const TraceRequest& request = trace.requests[r];
    const size_t found = cache.Ask(r, request);
    prompt_chunks += request.prompt_chunks;
    found_chunks += static_cast<double>(std::min<size_t>(found, request.prompt_chunks));
    for (uint32_t depth = 0; depth < request.prompt_chunks; ++depth) {
      const double of_chunk = 1 + depth / kAttentionDepth;
      cost += of_chunk;
      if (depth >= found) spent += of_chunk;
    }
  }
  return {.found = found_chunks / prompt_chunks, .recomputed = spent / cost};
}

const std::vector<EvictionCandidate>& EvictionCandidates() {
  static const auto* const candidates = new std::vector<EvictionCandidate>{
      Candidate<SegmentedPolicy>("segmented", SegmentedPolicy::Uses::kAll),
      Candidate<LruPolicy>("lru"),
      SizedCandidate<S3FifoPolicy>("s3-fifo", 0.1),
      SizedCandidate<S3FifoPolicy>("s3-fifo 40", 0.4),
      SizedCandidate<ArcPolicy>("arc"),
      SizedCandidate<TinyLfuPolicy>("tinylfu"),
      Candidate<Lru2Policy>("lru-2"),
      SizedCandidate<HeatPolicy>("heat"),
      Candidate<SegmentedPolicy>("selected", SegmentedPolicy::Uses::kSelected),
      Candidate<BoundPolicy>("bound")};
  return *candidates;
}

}  // namespace kvtier::bench
