#include "tests/bench/row.h"

#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/json.h"
#include "tests/bench/geometry.h"

namespace kvtier::bench {
namespace {

using cli::JsonString;

// As JSON and people read it: six digits are more than a bench knows.
std::string Number(double value) { return absl::StrFormat("%.6g", value); }

std::string RowAsJson(const Row& row) {
  std::string text = absl::StrCat(
      "{\"name\": ", JsonString(row.name), ", \"value\": ", Number(row.value),
      ", \"unit\": ", JsonString(row.unit), ", \"ceiling\": ", Number(row.ceiling),
      ", \"ratio\": ", Number(row.ratio), ", \"ratio_low\": ", Number(row.ratio_low),
      ", \"ratio_high\": ", Number(row.ratio_high), ", \"rounds\": ", row.rounds,
      ", \"quick\": ", row.quick ? "true" : "false",
      ", \"ceiling_is\": ", JsonString(row.ceiling_is));
  for (const auto& [key, value] : row.details) {
    absl::StrAppend(&text, ", ", JsonString(key), ": ", JsonString(value));
  }
  return text + "}";
}

}  // namespace

Machine Machine::This() {
  Machine machine;
  machine.cores = std::thread::hardware_concurrency();
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    machine.cpu = line.substr(line.find(':') + 2);
    break;
  }
  return machine;
}

std::string RowsAsJson(const Machine& machine, const std::vector<Row>& rows) {
  std::string text = absl::StrCat("{\"geometry\": ", JsonString(kGeometryText),
                                  ",\n \"machine\": {\"cpu\": ", JsonString(machine.cpu),
                                  ", \"cores\": ", machine.cores, "},\n \"rows\": [");
  for (size_t i = 0; i < rows.size(); ++i) {
    absl::StrAppend(&text, i > 0 ? ",\n  " : "\n  ", RowAsJson(rows[i]));
  }
  return text + "\n]}\n";
}

std::string TableHead() {
  return absl::StrFormat("%-26s %10s %-5s %10s  %5s  %-13s %s\n", "name", "value", "unit",
                         "ceiling", "ratio", "low - high", "rounds");
}

std::string TableLine(const Row& row) {
  return absl::StrFormat("%-26s %10.4g %-5s %10.4g  %5.2f  %5.2f - %-5.2f %d%s\n",
                         row.name, row.value, row.unit, row.ceiling, row.ratio,
                         row.ratio_low, row.ratio_high, row.rounds,
                         row.quick ? " quick" : "");
}

std::string DetailsLine(const Row& row) {
  std::string text = absl::StrCat("    ceiling: ", row.ceiling_is);
  for (const auto& [key, value] : row.details) {
    absl::StrAppend(&text, "; ", key, ": ", value);
  }
  return text + "\n";
}

}  // namespace kvtier::bench
