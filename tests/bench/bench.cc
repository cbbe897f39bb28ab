#include "tests/bench/bench.h"

#include <regex.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace kvtier::bench {

absl::StatusOr<std::vector<Bench>> Select(std::vector<Bench> benches,
                                          const std::string& filter) {
  regex_t expression;
  const int error = regcomp(&expression, filter.c_str(), REG_EXTENDED | REG_NOSUB);
  if (error != 0) {
    char why[128];
    regerror(error, &expression, why, sizeof(why));
    return absl::InvalidArgumentError(absl::StrCat(
        "--filter '", filter, "' is not an extended regular expression: ", why));
  }
  std::vector<Bench> selected;
  std::vector<std::string> names;
  for (Bench& bench : benches) {
    names.push_back(bench.name);
    if (regexec(&expression, bench.name.c_str(), 0, nullptr, 0) == 0) {
      selected.push_back(std::move(bench));
    }
  }
  regfree(&expression);
  if (selected.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--filter '", filter,
                     "' matches no bench; there are: ", absl::StrJoin(names, ", ")));
  }
  return selected;
}

std::vector<Row> RunBenches(
    const std::vector<Bench>& benches, const Settings& settings,
    absl::FunctionRef<void(const std::string&, const absl::StatusOr<Row>&)> report) {
  std::vector<Row> rows;
  for (const Bench& bench : benches) {
    Row row;
    row.name = bench.name;
    row.quick = settings.quick;
    if (absl::Status status = bench.run(settings, &row); !status.ok()) {
      report(bench.name, status);
      continue;
    }
    report(bench.name, row);
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace kvtier::bench
