// Question: what does a step at one layer cost beside moving its bytes and no more?
// Method: the C++ client and a kvtierd of its own; a context at as many layers as make
//   the footprint, asked layer after layer, as a decoding worker does, so that no cache
//   holds what the next call needs. Its p50 beside that of a bare gRPC round trip of as
//   many bytes in as many messages: what system `window` would take if it had the
//   payload.
//     wire.retrieve_8k          kvtier, budget 1,024, the worker holds nothing: all
//                               selected rows are sent, 4 MiB in two messages
//     wire.retrieve_8k.held     the same, the worker holds the last selection; a
//                               synthetic query turns by 18 degrees a step
//     wire.retrieve_8k.window   window: nothing is selected; the daemon's own cost
// Expectation: 4 MiB take gRPC 2 ms. At 8K the sketches of a layer are 2.4 MiB and take
//   0.3 ms to score, softmax over 32 heads and choosing 0.3 ms, gathering 8,192 rows
//   0.3 ms: a ratio of 0.7. At 64K choosing costs eight times as much: 0.25.
// Measured: README.md.

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/bench/bench.h"
#include "tests/bench/geometry.h"
#include "tests/bench/rounds.h"
#include "tests/bench/rows.h"
#include "tests/bench/wire_stack.h"

namespace kvtier::bench {
namespace {

constexpr uint32_t kBudget = 1024;
// Of a request's and an answer's fields beside query and selection.
constexpr uint64_t kRequestOverheadBytes = 48;
constexpr uint64_t kAnswerOverheadBytes = 64;

enum class Holds { kNothing, kLast };

struct Kind {
  std::string system;
  uint32_t budget = 0;
  uint64_t tokens = 0;
  Holds holds = Holds::kNothing;
};

// One context, and the steps that are asked of it.
class Steps {
 public:
  Steps(const Kind& kind, uint32_t layers, const ContextRows* rows, WireStack* stack,
        SequenceId sequence)
      : kind_(kind), layers_(layers), rows_(rows), stack_(stack), sequence_(sequence) {}

  // One step: all layers, one call each. Adds the seconds of each.
  absl::Status Step(std::vector<double>* seconds) {
    ++step_;
    for (uint32_t layer = 0; layer < layers_; ++layer) {
      absl::StatusOr<double> one = Ask(layer);
      if (!one.ok()) return one.status();
      seconds->push_back(*one);
    }
    return absl::OkStatus();
  }

  // The same bytes as the last call's, bare, as often as a step has calls.
  absl::Status BareStep(std::vector<double>* seconds) {
    constexpr uint64_t query_bytes = kKvHeads * kGroup * kDim * sizeof(float);
    for (uint32_t layer = 0; layer < layers_; ++layer) {
      auto one = stack_->bare().Trip(query_bytes + kRequestOverheadBytes, answer_bytes_);
      if (!one.ok()) return one.status();
      seconds->push_back(*one);
    }
    return absl::OkStatus();
  }

  absl::Span<const uint64_t> answer_bytes() const { return answer_bytes_; }
  // Of the selected tokens so far, those that the worker held.
  double kept_fraction() const {
    return static_cast<double>(kept_) / static_cast<double>(std::max(selected_, 1.0));
  }

 private:
  absl::StatusOr<double> Ask(uint32_t layer) {
    const bool holds = kind_.holds == Holds::kLast;
    const std::vector<float> query = rows_->Query(layer, step_, kind_.tokens + step_);
    const client::RetrieveItem item{.sequence = sequence_,
                                    .layer = LayerIndex(layer),
                                    .query = query,
                                    .candidates_begin = TokenIndex(0),
                                    .candidates_end = TokenIndex(kind_.tokens),
                                    .held_step = StepIndex(holds ? step_ - 1 : 0)};
    answer_bytes_.clear();
    absl::Status error;
    const Stopwatch stopwatch;
    absl::Status status = stack_->client().Retrieve(
        StepIndex(step_), {item}, [&](client::RetrievePart part) {
          error.Update(part.error);
          const size_t numbers = part.kept_counts.size() + part.added_counts.size() +
                                 part.kept.size() + part.added.size() +
                                 part.rest_output.size() + part.rest_lse.size();
          answer_bytes_.push_back(part.rows.size() + 4 * numbers + kAnswerOverheadBytes);
          kept_ += static_cast<double>(part.kept.size());
          selected_ += static_cast<double>(part.kept.size() + part.added.size());
          return absl::OkStatus();
        });
    const double seconds = stopwatch.Seconds();
    if (status.ok()) status = error;
    if (!status.ok()) return status;
    return seconds;
  }

  const Kind kind_;
  const uint32_t layers_;
  const ContextRows* const rows_;
  WireStack* const stack_;
  const SequenceId sequence_;
  std::vector<uint64_t> answer_bytes_;  // of the last call's messages
  uint64_t step_ = 0;
  double kept_ = 0;
  double selected_ = 0;
};

absl::Status RetrieveBench(Kind kind, const Settings& settings, Row* row) {
  if (settings.quick) {
    kind.tokens /= 8;
    kind.budget /= 8;
  }
  const auto layers = static_cast<uint32_t>(
      std::max<uint64_t>(1, settings.footprint_bytes / (kind.tokens * kTokenBytes)));
  std::unique_ptr<ContextRows> rows = SyntheticRows();
  if (!settings.keys_path.empty()) {
    absl::StatusOr<std::unique_ptr<ContextRows>> real = RealRows(settings.keys_path);
    if (!real.ok()) return real.status();
    rows = *std::move(real);
  }
  auto stack = WireStack::Start(
      {.host_capacity_bytes = CapacityFor(kind.tokens, layers), .layers = layers});
  if (!stack.ok()) return stack.status();
  // Layer 0 selects too: the benches ask what selecting costs.
  auto sequence = (*stack)->Open(
      kind.tokens,
      {.system = kind.system, .budget_tokens = kind.budget, .dense_layers = 0});
  if (!sequence.ok()) return sequence.status();
  absl::Status status = (*stack)->Fill(*sequence, kind.tokens, layers, *rows);
  if (!status.ok()) return status;

  Steps steps(kind, layers, rows.get(), stack->get(), *sequence);
  const uint32_t repeats = std::max(1u, (settings.quick ? 4u : 64u) / layers);
  const auto median_us = [&](auto one_step) -> absl::StatusOr<double> {
    std::vector<double> seconds;
    for (uint32_t i = 0; i < repeats; ++i) {
      if (absl::Status s = one_step(&seconds); !s.ok()) return s;
    }
    return Median(std::move(seconds)) * 1e6;
  };
  const auto ours = [&] { return median_us([&](auto* s) { return steps.Step(s); }); };
  const auto ceiling = [&] {
    return median_us([&](auto* s) { return steps.BareStep(s); });
  };
  // The ceiling needs to know a call's bytes; twice, so that the second is a delta.
  for (int i = 0; i < 2; ++i) {
    if (absl::StatusOr<double> first = ours(); !first.ok()) return first.status();
  }
  row->unit = "us";
  row->ceiling_is = "p50 of a bare gRPC round trip of the same bytes";
  status = RunRounds(settings.rounds, Better::kLower, ours, ceiling, row);
  if (!status.ok()) return status;
  uint64_t bytes = 0;
  for (const uint64_t one : steps.answer_bytes()) bytes += one;
  row->details = {{"statistic", "p50"},
                  {"system", kind.system},
                  {"budget", absl::StrCat(kind.budget)},
                  {"tokens", absl::StrCat(kind.tokens)},
                  {"layers", absl::StrCat(layers)},
                  {"calls_per_round", absl::StrCat(repeats * layers)},
                  {"query_heads_per_kv_head", absl::StrCat(kGroup)},
                  {"answer_bytes", absl::StrCat(bytes)},
                  {"answer_messages", absl::StrCat(steps.answer_bytes().size())},
                  {"kept", absl::StrFormat("%.2f", steps.kept_fraction())},
                  {"keys", rows->label()}};
  return absl::OkStatus();
}

}  // namespace

std::vector<Bench> RetrieveBenches() {
  std::vector<Bench> benches;
  for (const auto& [length, tokens] :
       {std::pair{"8k", uint64_t{8192}}, std::pair{"64k", uint64_t{65536}}}) {
    const std::string name = absl::StrCat("wire.retrieve_", length);
    const Kind whole{.system = "kvtier", .budget = kBudget, .tokens = tokens};
    Kind held = whole;
    held.holds = Holds::kLast;
    const Kind window{.system = "window", .tokens = tokens};
    const auto add = [&](const std::string& suffix, const Kind& kind) {
      benches.push_back({name + suffix, [kind](const Settings& settings, Row* row) {
                           return RetrieveBench(kind, settings, row);
                         }});
    };
    add("", whole);
    add(".held", held);
    add(".window", window);
  }
  return benches;
}

}  // namespace kvtier::bench
