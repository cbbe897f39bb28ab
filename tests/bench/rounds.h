// Ours and its ceiling, measured in turns: a machine that slows down in between slows
// both.
//
// Thread safety: none needed; everything happens on the caller's thread.

#ifndef KVTIER_TESTS_BENCH_ROUNDS_H_
#define KVTIER_TESTS_BENCH_ROUNDS_H_

#include <chrono>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/bench/row.h"

namespace kvtier::bench {

enum class Better { kHigher, kLower };

// Measures once, in the row's unit.
using Measure = absl::FunctionRef<absl::StatusOr<double>()>;

// One round that isn't counted (memory is touched, connections open), then `rounds`
// that are. Even rounds measure ours first, odd ones the ceiling. Sets the row's value,
// ceiling, ratios and rounds.
// InvalidArgument: no rounds. Internal: a figure that is not above zero. Else the first
// error of a measurement, and the row is as it was.
absl::Status RunRounds(int rounds, Better better, Measure ours, Measure ceiling,
                       Row* row);

// Of at least one value; the mean of the middle two of an even number.
double Median(std::vector<double> values);

class Stopwatch {
 public:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_)
        .count();
  }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_ROUNDS_H_
