#include "tests/bench/eviction_trace.h"

#include <algorithm>
#include <cmath>
#include <queue>
#include <random>
#include <utility>

namespace kvtier::bench {
namespace {

constexpr double kMinute = 60, kHour = 3600;  // seconds
constexpr uint32_t kSystemPrompt = 8;         // chunks

// Makes chunks and requests, the latter at times, in any order.
class TraceBuilder {
 public:
  explicit TraceBuilder(uint64_t seed) : random_(seed) {}

  double Uniform() { return std::uniform_real_distribution<double>(0, 1)(random_); }
  uint32_t Between(uint32_t low, uint32_t high) {
    return std::uniform_int_distribution<uint32_t>(low, high)(random_);
  }
  // Around `median`; two thirds are within a factor e^sigma of it.
  double LogNormal(double median, double sigma) {
    return median * std::lognormal_distribution<double>(0, sigma)(random_);
  }
  double Exponential(double mean) {
    return std::exponential_distribution<double>(1 / mean)(random_);
  }

  // `count` new chunks behind `at`; the last of them.
  TraceChunk Extend(TraceChunk at, uint32_t count) {
    for (; count > 0; --count) {
      trace_.depths.push_back(at == kNoTraceChunk ? 0 : trace_.depths[at] + 1);
      trace_.parents.push_back(at);
      at = static_cast<TraceChunk>(trace_.parents.size() - 1);
    }
    return at;
  }
  uint32_t Length(TraceChunk last) const {
    return last == kNoTraceChunk ? 0 : trace_.depths[last] + 1;
  }
  // Asks for what `prompt` ends; the answer ends with `last`.
  void Ask(double time, TraceChunk prompt, TraceChunk last) {
    timed_.push_back({time, {.last = last, .prompt_chunks = Length(prompt)}});
  }
  // A document of 20 to 300 chunks behind `at`.
  TraceChunk Document(TraceChunk at) {
    const double chunks = std::clamp(LogNormal(70, 0.8), 20.0, 300.0);
    return Extend(at, static_cast<uint32_t>(chunks));
  }

  EvictionTrace Finish() {
    std::stable_sort(timed_.begin(), timed_.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [time, request] : timed_) trace_.requests.push_back(request);
    return std::move(trace_);
  }

 private:
  std::mt19937_64 random_;
  EvictionTrace trace_;
  std::vector<std::pair<double, TraceRequest>> timed_;
};

// Picks 0 to count - 1, the lower the likelier.
class Zipf {
 public:
  Zipf(size_t count, double exponent) {
    double sum = 0;
    for (size_t i = 0; i < count; ++i) {
      sum += std::pow(static_cast<double>(i + 1), -exponent);
      sums_.push_back(sum);
    }
  }
  size_t Pick(TraceBuilder& builder) const {
    const double at = builder.Uniform() * sums_.back();
    return static_cast<size_t>(std::upper_bound(sums_.begin(), sums_.end(), at) -
                               sums_.begin());
  }

 private:
  std::vector<double> sums_;
};

// One chat: turns that add to each other.
void Chat(TraceBuilder& builder, double time, TraceChunk at) {
  std::vector<TraceChunk> turns = {at};
  while (true) {
    const TraceChunk prompt = builder.Extend(turns.back(), builder.Between(1, 4));
    const TraceChunk answer = builder.Extend(prompt, builder.Between(3, 15));
    builder.Ask(time, prompt, answer);
    turns.push_back(answer);
    if (builder.Uniform() < 0.15) return;
    // Most go on within minutes, some the next day.
    time += builder.Uniform() < 0.85 ? builder.LogNormal(2 * kMinute, 0.8)
                                     : builder.LogNormal(6 * kHour, 1.0);
    const double again = builder.Uniform();
    if (again < 0.08) {  // another answer to the same question
      const TraceChunk other = builder.Extend(prompt, builder.Between(3, 15));
      builder.Ask(time, prompt, other);
      turns.back() = other;
      time += builder.LogNormal(2 * kMinute, 0.8);
    } else if (again < 0.13 && turns.size() > 2) {  // an earlier turn is edited
      turns.resize(builder.Between(1, static_cast<uint32_t>(turns.size()) - 1));
    }
  }
}

// Chats for two days; returns when they end.
constexpr double kChatSpan = 48 * kHour;

void Chats(TraceBuilder& builder, double scale) {
  const TraceChunk system = builder.Extend(kNoTraceChunk, kSystemPrompt);
  std::vector<TraceChunk> documents;
  for (int i = 0; i < 80 * scale; ++i) documents.push_back(builder.Document(system));
  const Zipf popular(documents.size(), 0.9);
  for (int i = 0; i < 450 * scale; ++i) {
    const TraceChunk start =
        builder.Uniform() < 0.6 ? documents[popular.Pick(builder)] : system;
    Chat(builder, builder.Uniform() * kChatSpan, start);
  }
}

EvictionTrace ChatTrace(uint64_t seed, double scale) {
  TraceBuilder builder(seed);
  Chats(builder, scale);
  return builder.Finish();
}

EvictionTrace ScanTrace(uint64_t seed, double scale) {
  TraceBuilder builder(seed);
  Chats(builder, scale);
  for (int i = 0; i < 220 * scale; ++i) {
    const TraceChunk document = builder.Document(kNoTraceChunk);
    const double time = kChatSpan / 2 + builder.Uniform() * 12 * kHour;
    builder.Ask(time, document, builder.Extend(document, 2));
  }
  return builder.Finish();
}

std::vector<TraceChunk> MixedPrefixes(TraceBuilder& builder, int count) {
  std::vector<TraceChunk> prefixes;
  for (int i = 0; i < count; ++i) {
    const double chunks = std::clamp(builder.LogNormal(40, 1.1), 5.0, 400.0);
    prefixes.push_back(builder.Extend(kNoTraceChunk, static_cast<uint32_t>(chunks)));
  }
  return prefixes;
}

void Question(TraceBuilder& builder, double time, TraceChunk prefix) {
  const TraceChunk prompt = builder.Extend(prefix, builder.Between(1, 3));
  builder.Ask(time, prompt, builder.Extend(prompt, builder.Between(1, 6)));
}

EvictionTrace ZipfTrace(uint64_t seed, double scale) {
  TraceBuilder builder(seed);
  const auto prefixes = MixedPrefixes(builder, static_cast<int>(350 * scale));
  const Zipf popular(prefixes.size(), 0.8);
  for (int i = 0; i < 3000 * scale; ++i)
    Question(builder, i, prefixes[popular.Pick(builder)]);
  return builder.Finish();
}

EvictionTrace ShiftTrace(uint64_t seed, double scale) {
  TraceBuilder builder(seed);
  const auto prefixes = MixedPrefixes(builder, static_cast<int>(350 * scale));
  const Zipf popular(prefixes.size(), 1.0);
  const int questions = static_cast<int>(3000 * scale);
  for (int i = 0; i < questions; ++i) {
    // Who was first of all is last after an eighth of the questions.
    const size_t shift = i * 8 / questions * prefixes.size() / 8;
    Question(builder, i, prefixes[(popular.Pick(builder) + shift) % prefixes.size()]);
  }
  return builder.Finish();
}

EvictionTrace AgentsTrace(uint64_t seed, double scale) {
  TraceBuilder builder(seed);
  std::vector<TraceChunk> tools;
  for (int i = 0; i < 4; ++i) tools.push_back(builder.Extend(kNoTraceChunk, 40));
  for (int i = 0; i < 220 * scale; ++i) {
    TraceChunk at = tools[builder.Between(0, 3)];
    double time = builder.Uniform() * kChatSpan;
    for (uint32_t steps = builder.Between(8, 40); steps > 0; --steps) {
      const TraceChunk prompt = builder.Extend(at, builder.Between(1, 6));
      at = builder.Extend(prompt, builder.Between(1, 4));
      builder.Ask(time, prompt, at);
      if (builder.Uniform() < 0.05) {  // helpers that begin with what is known so far
        for (int helper = 0; helper < 3; ++helper) Question(builder, time + 5, at);
      }
      time += builder.LogNormal(40, 1.2);
    }
  }
  return builder.Finish();
}

EvictionTrace RoundsTrace(uint64_t seed, double scale) {
  TraceBuilder builder(seed);
  Chats(builder, scale * 0.7);
  std::vector<TraceChunk> documents;
  for (int i = 0; i < 150 * scale; ++i)
    documents.push_back(builder.Document(kNoTraceChunk));
  constexpr int kRounds = 6;
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < documents.size(); ++i) {
      const double part = static_cast<double>(i) / static_cast<double>(documents.size());
      Question(builder, kChatSpan * (round + part) / kRounds, documents[i]);
    }
  }
  return builder.Finish();
}

}  // namespace

std::vector<TraceChunk> EvictionTrace::Path(const TraceRequest& request) const {
  std::vector<TraceChunk> path(depths[request.last] + 1);
  TraceChunk chunk = request.last;
  for (size_t i = path.size(); i > 0; --i) {
    path[i - 1] = chunk;
    chunk = parents[chunk];
  }
  return path;
}

const std::vector<EvictionWorkload>& EvictionWorkloads() {
  static const auto* const workloads = new std::vector<EvictionWorkload>{
      {"chat", ChatTrace},     {"scan", ScanTrace},     {"zipf", ZipfTrace},
      {"agents", AgentsTrace}, {"rounds", RoundsTrace}, {"shift", ShiftTrace}};
  return *workloads;
}

}  // namespace kvtier::bench
