// A row of a bench's answer: a figure of ours beside a ceiling that was measured in the
// same run, or beside a goal.
//
// ratio is 1 at the ceiling, and higher is better, whatever the unit: ours / ceiling of
// a rate, ceiling / ours of a duration or of an amount of memory. value and ceiling are
// medians over the rounds; ratio is the median of the rounds' own ratios, which a machine
// that is busy with something else disturbs less; ratio_low and ratio_high are the least
// and the greatest of them.
//
// Thread safety: plain values.

#ifndef KVTIER_TESTS_BENCH_ROW_H_
#define KVTIER_TESTS_BENCH_ROW_H_

#include <string>
#include <utility>
#include <vector>

namespace kvtier::bench {

struct Row {
  std::string name;
  double value = 0.0;
  std::string unit;
  double ceiling = 0.0;
  double ratio = 0.0;
  double ratio_low = 0.0;
  double ratio_high = 0.0;
  int rounds = 0;
  // Small and short: it shows that the bench works, its figures mean nothing.
  bool quick = false;
  // What the ceiling is: "bare gRPC stream ..."; "goal" where it is wished, not measured.
  std::string ceiling_is;
  // What was measured, exactly: sizes, budget, query heads per kv head, kind of keys.
  std::vector<std::pair<std::string, std::string>> details;
};

// What all rows of a run have in common.
struct Machine {
  std::string cpu;
  unsigned cores = 0;
  static Machine This();
};

// {"geometry", "machine", "rows": [{name, value, unit, ceiling, ratio, ratio_low,
// ratio_high, rounds, quick, ceiling_is, <details>...}]}, with a newline at the end.
std::string RowsAsJson(const Machine& machine, const std::vector<Row>& rows);

// A line of a table for people, and the table's head.
std::string TableHead();
std::string TableLine(const Row& row);
// "    key value, key value", indented below its row.
std::string DetailsLine(const Row& row);

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_ROW_H_
