#include "tests/bench/eviction_policy.h"

#include <algorithm>
#include <cmath>
#include <deque>

namespace kvtier::bench {
namespace {

// The evictable chunks by a number, the least one first.
class Order {
 public:
  explicit Order(size_t chunks) : keys_(chunks, 0), in_(chunks, false) {}

  void Set(TraceChunk chunk, double key) {
    if (in_[chunk]) order_.erase({keys_[chunk], chunk});
    keys_[chunk] = key;
    if (in_[chunk]) order_.insert({key, chunk});
  }
  double key(TraceChunk chunk) const { return keys_[chunk]; }
  void SetEvictable(TraceChunk chunk, bool evictable) {
    if (in_[chunk] == evictable) return;
    in_[chunk] = evictable;
    if (evictable) {
      order_.insert({keys_[chunk], chunk});
    } else {
      order_.erase({keys_[chunk], chunk});
    }
  }
  TraceChunk First() const {
    return order_.empty() ? kNoTraceChunk : order_.begin()->second;
  }

 private:
  std::vector<double> keys_;
  std::vector<bool> in_;
  std::set<std::pair<double, TraceChunk>> order_;
};

class KeyPolicy : public EvictionPolicy {
 public:
  explicit KeyPolicy(const EvictionTrace& trace) : order_(trace.parents.size()) {}

  void SetEvictable(TraceChunk chunk, bool evictable) override {
    order_.SetEvictable(chunk, evictable);
  }
  TraceChunk Evict() override {
    const TraceChunk chunk = order_.First();
    if (chunk != kNoTraceChunk) order_.SetEvictable(chunk, false);
    return chunk;
  }
  void LostChild(TraceChunk parent, TraceChunk child) override {
    order_.Set(parent, std::max(order_.key(parent), order_.key(child)));
  }

 protected:
  Order order_;
};

class Lru : public KeyPolicy {
 public:
  using KeyPolicy::KeyPolicy;
  void Begin(size_t request) override { now_ = static_cast<double>(request); }
  void Hit(TraceChunk chunk) override { order_.Set(chunk, now_); }
  void Insert(TraceChunk chunk) override { order_.Set(chunk, now_); }

 private:
  double now_ = 0;
};

// clock: 0 uses, 1 inserts
class HeatPolicy : public KeyPolicy {
 public:
  HeatPolicy(const EvictionTrace& trace, double half_life, int clock, double cap,
             double cost = 0, double selected = 1, bool branch = false)
      : KeyPolicy(trace),
        trace_(trace),
        half_life_(half_life),
        clock_(clock),
        cap_(cap),
        cost_(cost),
        selected_(selected),
        branch_(branch) {}
  void SetBranch(bool b) override { is_branch_ = b; }
  void Hit(TraceChunk chunk) override {
    if (clock_ == 0) ++now_;
    if (selected_ < 1) {
      state_ = state_ * 6364136223846793005 + 1442695040888963407;
      double u = (state_ >> 40) / double(1 << 24);
      if (u > selected_) return;
    }
    const double old = order_.key(chunk);
    if (branch_ && !is_branch_) {
      order_.Set(chunk, std::max(old, now_));
      return;
    }
    const double apart = std::abs(now_ - old);
    double heat =
        std::max(old, now_) + half_life_ * std::log2(1 + std::exp2(-apart / half_life_));
    heat = std::min(heat, now_ + cap_ * half_life_);
    order_.Set(chunk, heat);
  }
  void Insert(TraceChunk chunk) override {
    ++now_;
    order_.Set(chunk,
               now_ + cost_ * half_life_ * std::log2(1 + trace_.depths[chunk] / 480.0));
  }

 private:
  const EvictionTrace& trace_;
  double half_life_;
  int clock_;
  double cap_, cost_, selected_;
  bool branch_, is_branch_ = false;
  uint64_t state_ = 1;
  double now_ = 0;
};

class LfuDa : public KeyPolicy {
 public:
  LfuDa(const EvictionTrace& trace, int mode, double cap, double eps, bool branch)
      : KeyPolicy(trace),
        count_(trace.parents.size()),
        mode_(mode),
        cap_(cap),
        eps_(eps),
        branch_(branch) {}
  void SetBranch(bool b) override { is_branch_ = b; }
  double F(TraceChunk c) {
    double n = std::min(count_[c], cap_);
    return (mode_ == 0 ? n : mode_ == 1 ? std::log2(1 + n) : std::sqrt(n)) + eps_ * now_;
  }
  void Hit(TraceChunk c) override {
    if (!branch_ || is_branch_) ++count_[c];
    order_.Set(c, age_ + F(c));
  }
  void Insert(TraceChunk c) override {
    ++now_;
    count_[c] = 1;
    order_.Set(c, age_ + F(c));
  }
  TraceChunk Evict() override {
    TraceChunk c = KeyPolicy::Evict();
    if (c != kNoTraceChunk) age_ = std::max(age_, order_.key(c));
    return c;
  }

 private:
  std::vector<double> count_;
  int mode_;
  double cap_, eps_;
  bool branch_, is_branch_ = false;
  double now_ = 0;
  double age_ = 0;
};

class Credit : public KeyPolicy {
 public:
  Credit(const EvictionTrace& trace, double w, double add, double eps)
      : KeyPolicy(trace), w_(w), add_(add), eps_(eps) {}
  void Hit(TraceChunk c) override {
    double k = std::max(0.0, order_.key(c) - age_);
    order_.Set(c, age_ + add_ + w_ * k + eps_ * now_);
  }
  void Insert(TraceChunk c) override {
    ++now_;
    order_.Set(c, age_ + 1 + eps_ * now_);
  }
  TraceChunk Evict() override {
    TraceChunk c = KeyPolicy::Evict();
    if (c != kNoTraceChunk) age_ = std::max(age_, order_.key(c));
    return c;
  }

 private:
  double w_, add_, eps_, age_ = 0, now_ = 0;
};

class Lru2 : public KeyPolicy {
 public:
  explicit Lru2(const EvictionTrace& trace)
      : KeyPolicy(trace), last_(trace.parents.size(), -1e9) {}
  void Begin(size_t request) override { now_ = static_cast<double>(request); }
  void Hit(TraceChunk c) override {
    order_.Set(c, last_[c]);
    last_[c] = now_;
  }
  void Insert(TraceChunk c) override {
    order_.Set(c, now_ - 1e9);
    last_[c] = now_;
  }

 private:
  std::vector<double> last_;
  double now_ = 0;
};

class Belady : public KeyPolicy {
 public:
  explicit Belady(const EvictionTrace& trace) : KeyPolicy(trace), trace_(trace) {
    next_.resize(trace.requests.size());
    std::vector<size_t> next(trace.parents.size(), 1e9);
    for (size_t r = trace.requests.size(); r > 0; --r) {
      auto path = trace.Path(trace.requests[r - 1]);
      for (auto c : path) {
        next_[r - 1].push_back(next[c]);
        next[c] = r - 1;
      }
    }
  }
  void Begin(size_t request) override { request_ = request; }
  void Hit(TraceChunk c) override {
    order_.Set(c, -(double)next_[request_][trace_.depths[c]]);
  }
  void Insert(TraceChunk c) override { Hit(c); }

 private:
  const EvictionTrace& trace_;
  std::vector<std::vector<size_t>> next_;
  size_t request_ = 0;
};

// S3-FIFO
class S3Fifo : public EvictionPolicy {
 public:
  S3Fifo(const EvictionTrace& t, size_t capacity, int threshold, double small)
      : t_(t),
        small_(t.parents.size()),
        main_(t.parents.size()),
        in_main_(t.parents.size()),
        freq_(t.parents.size()),
        ghost_(t.parents.size(), 0),
        capacity_(capacity),
        small_max_(std::max<size_t>(1, small * capacity)),
        threshold_(threshold) {}
  void Hit(TraceChunk c) override { freq_[c] = std::min(freq_[c] + 1, 3); }
  void Insert(TraceChunk c) override {
    freq_[c] = 0;
    bool ghost = ghost_[c] != 0 && ghost_[c] + capacity_ > ghosts_;
    ghost_[c] = 0;
    in_main_[c] = ghost;
    (ghost ? main_ : small_).Set(c, ++clock_);
    if (!ghost) ++small_count_;
  }
  void SetEvictable(TraceChunk c, bool e) override {
    (in_main_[c] ? main_ : small_).SetEvictable(c, e);
  }
  TraceChunk Evict() override {
    while (true) {
      TraceChunk s = small_.First(), m = main_.First();
      if (s == kNoTraceChunk && m == kNoTraceChunk) return s;
      if (s != kNoTraceChunk && (small_count_ > small_max_ || m == kNoTraceChunk)) {
        small_.SetEvictable(s, false);
        --small_count_;
        if (freq_[s] >= threshold_) {
          freq_[s] = 0;
          in_main_[s] = true;
          main_.Set(s, ++clock_);
          main_.SetEvictable(s, true);
          for (TraceChunk p = t_.parents[s]; p != kNoTraceChunk && !in_main_[p];
               p = t_.parents[p]) {
            in_main_[p] = true;
            main_.Set(p, clock_);
            --small_count_;
          }
          continue;
        }
        ghost_[s] = ++ghosts_;
        return s;
      }
      if (m == kNoTraceChunk) return m;
      main_.SetEvictable(m, false);
      if (freq_[m] > 0) {
        --freq_[m];
        main_.Set(m, ++clock_);
        main_.SetEvictable(m, true);
        continue;
      }
      return m;
    }
  }

 private:
  const EvictionTrace& t_;
  Order small_, main_;
  std::vector<bool> in_main_;
  std::vector<int> freq_;
  std::vector<uint64_t> ghost_;
  uint64_t ghosts_ = 0;
  size_t capacity_, small_max_, small_count_ = 0;
  int threshold_;
  double clock_ = 0;
};

// W-TinyLFU: window 1 %, exact halved counts
class TinyLfu : public EvictionPolicy {
 public:
  TinyLfu(const EvictionTrace& t, size_t capacity, double window)
      : t_(t),
        win_(t.parents.size()),
        main_(t.parents.size()),
        in_main_(t.parents.size()),
        count_(t.parents.size()),
        capacity_(capacity),
        win_max_(std::max<long>(1, window * capacity)) {}
  void Begin(size_t) override { ++now_; }
  void Hit(TraceChunk c) override {
    Count(c);
    (in_main_[c] ? main_ : win_).Set(c, now_);
  }
  void Insert(TraceChunk c) override {
    Count(c);
    in_main_[c] = false;
    win_.Set(c, now_);
    ++win_count_;
    while (win_count_ > win_max_ && win_count_ + main_count_ < (long)capacity_) {
      TraceChunk w = win_.First();
      if (w == kNoTraceChunk) break;
      win_.SetEvictable(w, false);
      Move(w);
    }
  }
  void SetEvictable(TraceChunk c, bool e) override {
    (in_main_[c] ? main_ : win_).SetEvictable(c, e);
  }
  TraceChunk Evict() override {
    while (true) {
      TraceChunk w = win_.First(), m = main_.First();
      if (w == kNoTraceChunk || (win_count_ <= win_max_ && m != kNoTraceChunk)) {
        if (m != kNoTraceChunk) {
          main_.SetEvictable(m, false);
          --main_count_;
        }
        return m;
      }
      win_.SetEvictable(w, false);
      if (m == kNoTraceChunk && main_count_ > 0 && win_count_ <= win_max_) {
        --win_count_;
        return w;
      }
      if (m == kNoTraceChunk || count_[w] <= count_[m]) {
        --win_count_;
        return w;
      }
      Move(w);
      main_.SetEvictable(m, false);
      --main_count_;
      return m;
    }
  }

 private:
  void Move(TraceChunk w) {
    double at = win_.key(w);
    for (TraceChunk c = w; c != kNoTraceChunk && !in_main_[c]; c = t_.parents[c]) {
      in_main_[c] = true;
      main_.Set(c, std::max(at, win_.key(c)));
      --win_count_;
      ++main_count_;
    }
    main_.SetEvictable(w, true);
  }
  void Count(TraceChunk c) {
    count_[c] += 1;
    if (++counted_ >= 10 * capacity_) {
      counted_ = 0;
      for (auto& x : count_) x /= 2;
    }
  }
  const EvictionTrace& t_;
  Order win_, main_;
  std::vector<bool> in_main_;
  std::vector<double> count_;
  size_t capacity_, counted_ = 0;
  long win_max_;
  long win_count_ = 0, main_count_ = 0;
  double now_ = 0;
};

class Slru : public EvictionPolicy {
 public:
  Slru(const EvictionTrace& t, size_t capacity, double share, bool branch, bool ghosts)
      : t1_(t.parents.size()),
        t2_(t.parents.size()),
        hot_(t.parents.size()),
        ghost_(t.parents.size()),
        cap_(capacity),
        max_(share * capacity),
        branch_(branch),
        use_ghosts_(ghosts) {}
  void SetBranch(bool b) override { is_branch_ = b; }
  void Begin(size_t) override { ++now_; }
  void Hit(TraceChunk c) override {
    if (!hot_[c] && (!branch_ || is_branch_)) {
      hot_[c] = true;
      --n1_;
    }
    (hot_[c] ? t2_ : t1_).Set(c, now_);
  }
  void Insert(TraceChunk c) override {
    hot_[c] = use_ghosts_ && ghost_[c] && ghost_[c] + cap_ > ghosts_;
    (hot_[c] ? t2_ : t1_).Set(c, now_);
    if (!hot_[c]) ++n1_;
  }
  void SetEvictable(TraceChunk c, bool e) override {
    (hot_[c] ? t2_ : t1_).SetEvictable(c, e);
  }
  TraceChunk Evict() override {
    TraceChunk a = t1_.First(), b = t2_.First();
    if (a == kNoTraceChunk && b == kNoTraceChunk) return a;
    bool first = a != kNoTraceChunk &&
                 (n1_ > max_ || b == kNoTraceChunk || t1_.key(a) <= t2_.key(b));
    TraceChunk v = first ? a : b;
    (first ? t1_ : t2_).SetEvictable(v, false);
    if (first) {
      --n1_;
      ghost_[v] = ++ghosts_;
    }
    return v;
  }

 private:
  Order t1_, t2_;
  std::vector<bool> hot_;
  std::vector<uint64_t> ghost_;
  uint64_t ghosts_ = 0;
  size_t cap_;
  double max_, n1_ = 0, now_ = 0;
  bool branch_, use_ghosts_, is_branch_ = false;
};

// ARC by leaves
class Arc : public EvictionPolicy {
 public:
  Arc(const EvictionTrace& t, size_t capacity)
      : t1_(t.parents.size()),
        t2_(t.parents.size()),
        where_(t.parents.size(), 0),
        ghost_(t.parents.size(), 0),
        ghost_at_(t.parents.size(), 0),
        c_(capacity) {}
  void Begin(size_t) override { now_ += 1; }
  void Hit(TraceChunk c) override {
    if (where_[c] == 1) {
      where_[c] = 2;
      --n1_;
    }
    t2_.Set(c, now_);
  }
  void Insert(TraceChunk c) override {
    bool g1 = ghost_[c] == 1 && ghost_at_[c] + c_ > g1_,
         g2 = ghost_[c] == 2 && ghost_at_[c] + c_ > g2_;
    if (g1) p_ = std::min<double>(c_, p_ + 1);
    if (g2) p_ = std::max<double>(0, p_ - 1);
    ghost_[c] = 0;
    if (g1 || g2) {
      where_[c] = 2;
      t2_.Set(c, now_);
    } else {
      where_[c] = 1;
      ++n1_;
      t1_.Set(c, now_);
    }
  }
  void SetEvictable(TraceChunk c, bool e) override {
    (where_[c] == 1 ? t1_ : t2_).SetEvictable(c, e);
  }
  TraceChunk Evict() override {
    TraceChunk a = t1_.First(), b = t2_.First();
    if (a == kNoTraceChunk && b == kNoTraceChunk) return a;
    bool first = a != kNoTraceChunk && (n1_ > p_ || b == kNoTraceChunk);
    TraceChunk v = first ? a : b;
    (first ? t1_ : t2_).SetEvictable(v, false);
    if (first) {
      --n1_;
      ghost_[v] = 1;
      ghost_at_[v] = ++g1_;
    } else {
      ghost_[v] = 2;
      ghost_at_[v] = ++g2_;
    }
    return v;
  }

 private:
  Order t1_, t2_;
  std::vector<char> where_, ghost_;
  std::vector<uint64_t> ghost_at_;
  uint64_t g1_ = 0, g2_ = 0;
  double n1_ = 0, p_ = 0, now_ = 0;
  size_t c_;
};

}  // namespace

EvictionResult Replay(const EvictionTrace& trace, size_t capacity,
                      EvictionPolicy& policy) {
  std::vector<bool> cached(trace.parents.size()), continued(trace.parents.size());
  std::vector<uint32_t> children(trace.parents.size());
  std::vector<size_t> used_by(trace.parents.size(), SIZE_MAX);
  size_t count = 0;
  double found_chunks = 0, prompt_chunks = 0, cost_all = 0, cost_spent = 0;
  for (size_t r = 0; r < trace.requests.size(); ++r) {
    const TraceRequest& request = trace.requests[r];
    const std::vector<TraceChunk> path = trace.Path(request);
    policy.Begin(r);
    size_t found = 0;
    for (const TraceChunk chunk : path) {
      used_by[chunk] = r;
      if (!cached[chunk]) break;
      ++found;
    }
    if (found > 0) policy.SetEvictable(path[found - 1], false);
    policy.SetBranch(found > 0 && continued[path[found - 1]] && found < path.size());
    for (size_t i = 0; i < found; ++i) policy.Hit(path[i]);
    if (found > 0 && found < path.size()) continued[path[found - 1]] = true;
    for (size_t i = 0; i < request.prompt_chunks; ++i) {
      const double cost = 1 + i / 480.0;
      cost_all += cost;
      if (i >= found) cost_spent += cost;
    }
    prompt_chunks += request.prompt_chunks;
    found_chunks += std::min<size_t>(found, request.prompt_chunks);
    size_t end = found;
    for (; end < path.size(); ++end) {
      const TraceChunk chunk = path[end];
      while (count >= capacity) {
        const TraceChunk out = policy.Evict();
        if (out == kNoTraceChunk) break;
        cached[out] = false;
        --count;
        const TraceChunk parent = trace.parents[out];
        if (parent == kNoTraceChunk || --children[parent] > 0) continue;
        policy.LostChild(parent, out);
        if (used_by[parent] != r) policy.SetEvictable(parent, true);
      }
      if (count >= capacity) break;
      cached[chunk] = true;
      continued[chunk] = end + 1 < path.size();
      ++count;
      used_by[chunk] = r;
      policy.Insert(chunk);
      if (trace.parents[chunk] != kNoTraceChunk) ++children[trace.parents[chunk]];
    }
    if (end > 0 && children[path[end - 1]] == 0) policy.SetEvictable(path[end - 1], true);
  }
  return {.found = found_chunks / prompt_chunks, .recomputed = cost_spent / cost_all};
}

const std::vector<EvictionCandidate>& EvictionCandidates() {
  using P = std::unique_ptr<EvictionPolicy>;
  static auto* all = new std::vector<EvictionCandidate>;
  if (!all->empty()) return *all;
#define ADD(NAME, EXPR)                                             \
  all->push_back({NAME, [](const EvictionTrace& t, size_t c) -> P { \
                    (void)c;                                        \
                    return EXPR;                                    \
                  }})
  ADD("belady", std::make_unique<Belady>(t));
  ADD("lru", std::make_unique<Lru>(t));
  ADD("s3fifo", (std::make_unique<S3Fifo>(t, c, 1, 0.1)));
#define S3(T, S) ADD("s3fifo" #T "-" #S, (std::make_unique<S3Fifo>(t, c, T, S)))
  S3(1, 0.25);
  S3(1, 0.4);
  S3(1, 0.5);
  S3(1, 0.6);
  S3(1, 0.75);
#define SL(S, B, G) ADD("slru" #S "b" #B "g" #G, (std::make_unique<Slru>(t, c, S, B, G)))
  SL(0.1, 0, 0);
  SL(0.2, 0, 0);
  SL(0.25, 0, 0);
  SL(0.3, 0, 0);
  SL(0.333, 0, 0);
  SL(0.4, 0, 0);
  SL(0.5, 0, 0);
  ADD("lru2", std::make_unique<Lru2>(t));
#define LFU(NAME, ...) ADD(NAME, (std::make_unique<LfuDa>(t, __VA_ARGS__)))
  LFU("lfuda", 0, 1e9, 0, false);
  LFU("lfuda-r", 0, 1e9, 1e-9, false);
  LFU("lfuda-c8", 0, 8, 1e-9, false);
  LFU("lfuda-c3", 0, 3, 1e-9, false);
  LFU("lfuda-log", 1, 1e9, 1e-9, false);
  LFU("lfuda-sqrt", 2, 1e9, 1e-9, false);
  LFU("lfuda-r/c", 0, 1e9, 1.0 / c, false);
  LFU("lfuda-.25/c", 0, 1e9, .25 / c, false);
  LFU("lfudab", 0, 1e9, 1e-9, true);
  LFU("lfudab-log", 1, 1e9, 1e-9, true);
  LFU("lfudab-r/c", 0, 1e9, 1.0 / c, true);
  ADD("arc", (std::make_unique<Arc>(t, c)));
  ADD("tinylfu", (std::make_unique<TinyLfu>(t, c, 0.01)));
  ADD("tinylfu.2", (std::make_unique<TinyLfu>(t, c, 0.2)));
  ADD("tinylfu.33", (std::make_unique<TinyLfu>(t, c, 0.333)));
#define HEAT(H, CL, CAP, B)              \
  ADD("heat" #CL "-" #H "c" #CAP "b" #B, \
      (std::make_unique<HeatPolicy>(t, H * double(c), CL, CAP, 0, 1, B)))
  HEAT(0.25, 1, 99, 0);
  HEAT(0.5, 1, 99, 0);
  HEAT(1, 1, 99, 0);
  return *all;
}

}  // namespace kvtier::bench
