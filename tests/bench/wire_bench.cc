// Question: how much of what gRPC can move does an append, or a read, move?
// Method: the C++ client and a kvtierd of its own, rows of one layer, 1 GiB a round;
//   beside it one bare gRPC stream of messages as long as ours.
//     wire.append        the daemon is empty: it takes memory as rows come
//     wire.append.full   its budget is full of closed sequences: it evicts as rows come
//     wire.read          all of a sequence
// Expectation: gRPC copies a byte about four times on its way and moves 2 to 3 GB/s on
// two
//   cores. An append gathers rows into messages (memcpy, 10 GB/s), and the daemon writes
//   them to pages and makes each page's abstract and checksum (32 KiB in 10 to 15 us, so
//   2 to 3 GB/s), on the same two cores, call after call: a third of the bare stream. A
//   read copies once more than the stream: 0.7.
// Measured: README.md.

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/bench/bench.h"
#include "tests/bench/geometry.h"
#include "tests/bench/rounds.h"
#include "tests/bench/rows.h"
#include "tests/bench/wire_stack.h"

namespace kvtier::bench {
namespace {

// Of a message's fields beside its rows.
constexpr uint64_t kReadOverheadBytes = 16;

constexpr char kBareStream[] =
    "one bare gRPC stream of the same bytes in messages of the same sizes";

uint64_t TokensFor(const Settings& settings) {
  return settings.footprint_bytes / kTokenBytes / kChunkTokens * kChunkTokens;
}

double GigabytesPerSecond(uint64_t tokens, double seconds) {
  return static_cast<double>(tokens * kTokenBytes) / seconds / 1e9;
}

// Of the daemon's budget, before an append.
enum class Budget { kFree, kFull };

absl::Status AppendBench(Budget budget, const Settings& settings, Row* row) {
  const uint64_t tokens = TokensFor(settings);
  auto stack =
      WireStack::Start({.host_capacity_bytes = CapacityFor(tokens, 1), .layers = 1});
  if (!stack.ok()) return stack.status();
  const uint64_t half = tokens * kTokenBytes / 2;
  const std::vector<std::byte> keys = GaussianRows(half / 2, 1);
  const std::vector<std::byte> values = GaussianRows(half / 2, 2);
  const auto pieces = [&](auto visit) {
    absl::Status status;
    for (uint64_t start = 0; status.ok() && start < tokens; start += kPieceTokens) {
      const uint64_t offset = start * kTokenBytes / 2;
      status = visit(start, std::min<uint64_t>(kPieceTokens, tokens - start),
                     keys.data() + offset, values.data() + offset);
    }
    return status;
  };
  std::vector<uint64_t> sizes;
  absl::Status status =
      pieces([&](uint64_t, uint32_t count, const auto* k, const auto* v) {
        auto of_piece = (*stack)->AppendMessages(count, k, v);
        if (of_piece.ok()) sizes.insert(sizes.end(), of_piece->begin(), of_piece->end());
        return of_piece.status();
      });
  if (!status.ok()) return status;

  const auto ours = [&]() -> absl::StatusOr<double> {
    auto sequence = (*stack)->Open(tokens, {.system = "full"});
    if (!sequence.ok()) return sequence.status();
    const Stopwatch stopwatch;
    absl::Status s =
        pieces([&](uint64_t start, uint32_t count, const auto* k, const auto* v) {
          return (*stack)->Append(*sequence, 0, start, count, k, v);
        });
    const double seconds = stopwatch.Seconds();
    if (s.ok()) s = (*stack)->client().Close(*sequence);
    if (s.ok() && budget == Budget::kFree) s = (*stack)->EvictAll();
    if (!s.ok()) return s;
    return GigabytesPerSecond(tokens, seconds);
  };
  const auto ceiling = [&]() -> absl::StatusOr<double> {
    auto seconds = (*stack)->bare().Send(sizes);
    if (!seconds.ok()) return seconds.status();
    return GigabytesPerSecond(tokens, *seconds);
  };
  row->unit = "GB/s";
  row->ceiling_is = kBareStream;
  row->details = {{"budget", budget == Budget::kFree ? "free" : "full"},
                  {"tokens", absl::StrCat(tokens)},
                  {"tokens_per_call", absl::StrCat(kPieceTokens)},
                  {"messages", absl::StrCat(sizes.size())},
                  {"keys", "synthetic"}};
  return RunRounds(settings.rounds, Better::kHigher, ours, ceiling, row);
}

absl::Status ReadBench(const Settings& settings, Row* row) {
  const uint64_t tokens = TokensFor(settings);
  auto stack =
      WireStack::Start({.host_capacity_bytes = CapacityFor(tokens, 1), .layers = 1});
  if (!stack.ok()) return stack.status();
  auto sequence = (*stack)->Open(tokens, {.system = "full"});
  if (!sequence.ok()) return sequence.status();
  absl::Status status = (*stack)->Fill(*sequence, tokens, 1, *SyntheticRows());
  if (!status.ok()) return status;

  client::ReadRange range;
  range.sequence = *sequence;
  range.token_count = tokens;
  // Of the last read; RunRounds calls `ceiling` first in its uncounted round.
  std::vector<uint64_t> sizes;
  const auto ours = [&]() -> absl::StatusOr<double> {
    sizes.clear();
    uint64_t bytes = 0;
    const Stopwatch stopwatch;
    absl::Status s = (*stack)->client().Read(range, [&](client::ReadPart part) {
      bytes += part.rows.size();
      sizes.push_back(part.rows.size() + kReadOverheadBytes);
      return absl::OkStatus();
    });
    const double seconds = stopwatch.Seconds();
    if (!s.ok()) return s;
    if (bytes != tokens * kTokenBytes) return absl::InternalError("the read was short");
    return GigabytesPerSecond(tokens, seconds);
  };
  const auto ceiling = [&]() -> absl::StatusOr<double> {
    auto seconds = (*stack)->bare().Receive(sizes);
    if (!seconds.ok()) return seconds.status();
    return GigabytesPerSecond(tokens, *seconds);
  };
  if (absl::StatusOr<double> first = ours(); !first.ok()) return first.status();
  row->unit = "GB/s";
  row->ceiling_is = kBareStream;
  row->details = {{"tokens", absl::StrCat(tokens)},
                  {"messages", absl::StrCat(sizes.size())},
                  {"keys", "synthetic"}};
  return RunRounds(settings.rounds, Better::kHigher, ours, ceiling, row);
}

}  // namespace

std::vector<Bench> WireBenches() {
  const auto append = [](Budget budget) {
    return [budget](const Settings& settings, Row* row) {
      return AppendBench(budget, settings, row);
    };
  };
  return {{"wire.append", append(Budget::kFree)},
          {"wire.append.full", append(Budget::kFull)},
          {"wire.read", ReadBench}};
}

}  // namespace kvtier::bench
