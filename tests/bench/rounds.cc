#include "tests/bench/rounds.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kvtier::bench {

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  if (values.size() % 2 == 1) return values[middle];
  return (values[middle - 1] + values[middle]) / 2;
}

absl::Status RunRounds(int rounds, Better better, Measure ours, Measure ceiling,
                       Row* row) {
  if (rounds < 1) return absl::InvalidArgumentError("rounds must be at least 1");
  std::vector<double> values, ceilings, ratios;
  for (int round = -1; round < rounds; ++round) {
    double figures[2] = {};  // ours, ceiling
    const int first = round % 2 == 0 ? 0 : 1;
    for (const int which : {first, 1 - first}) {
      absl::StatusOr<double> figure = which == 0 ? ours() : ceiling();
      if (!figure.ok()) return figure.status();
      if (!(*figure > 0.0)) {
        return absl::InternalError(
            absl::StrCat(which == 0 ? "our figure" : "the ceiling", " is ", *figure,
                         ", not above zero: the bench measures nothing"));
      }
      figures[which] = *figure;
    }
    if (round < 0) continue;
    values.push_back(figures[0]);
    ceilings.push_back(figures[1]);
    ratios.push_back(better == Better::kHigher ? figures[0] / figures[1]
                                               : figures[1] / figures[0]);
  }
  row->value = Median(values);
  row->ceiling = Median(ceilings);
  row->ratio = Median(ratios);
  row->ratio_low = *std::min_element(ratios.begin(), ratios.end());
  row->ratio_high = *std::max_element(ratios.begin(), ratios.end());
  row->rounds = rounds;
  return absl::OkStatus();
}

}  // namespace kvtier::bench
