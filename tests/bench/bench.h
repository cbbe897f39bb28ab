// A bench makes one row. A file of benches returns its list; main.cc joins the lists:
// that, and the file, is all that a new row takes.
//
// Thread safety: benches run one after another on one thread.

#ifndef KVTIER_TESTS_BENCH_BENCH_H_
#define KVTIER_TESTS_BENCH_BENCH_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/bench/row.h"

namespace kvtier::bench {

struct Settings {
  bool quick = false;
  int rounds = 7;
  // What a round works through, so that no cache holds it.
  uint64_t footprint_bytes = uint64_t{1} << 30;
  // Of a model's own keys, for contexts that are retrieved from; empty: synthetic ones.
  std::string keys_path = "";

  // Of the disk benches' files, which are gone when they end. Not on a tmpfs.
  std::string disk_directory = "/var/tmp";

  // Small and short: shows that every bench works.
  static Settings Quick() {
    return {.quick = true, .rounds = 3, .footprint_bytes = uint64_t{16} << 20};
  }
};

struct Bench {
  std::string name;  // of its row
  // Fills all of the row but its name and `quick`.
  std::function<absl::Status(const Settings&, Row*)> run;
};

// Against kvtierd over its socket.
std::vector<Bench> WireBenches();
std::vector<Bench> RetrieveBenches();
// In this process and thread.
std::vector<Bench> ScoreBenches();
// The disk tier, in this process.
std::vector<Bench> DiskBenches();
std::vector<Bench> DiskStartBenches();
// The disk tier behind kvtierd.
std::vector<Bench> ResumeBenches();
// Policies of eviction, on traces.
std::vector<Bench> EvictionBenches();
// The daemon by itself.
std::vector<Bench> DaemonBenches();

// Those whose name contains a match of `filter`, an extended regular expression.
// InvalidArgument: not an expression, or nothing matches (the message lists the names).
absl::StatusOr<std::vector<Bench>> Select(std::vector<Bench> benches,
                                          const std::string& filter);

// Runs them in order; a bench that fails keeps no other from running.
//   report: gets each name with its row or error, as it is known
std::vector<Row> RunBenches(
    const std::vector<Bench>& benches, const Settings& settings,
    absl::FunctionRef<void(const std::string&, const absl::StatusOr<Row>&)> report);

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_BENCH_H_
