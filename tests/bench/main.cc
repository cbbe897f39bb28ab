// kvtier_bench: rows on standard output as they are known, and as JSON in a file.
// Exit codes: 0 done, 1 a bench failed (the others' rows are still written), 2 usage.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "tests/bench/bench.h"
#include "tests/bench/geometry.h"
#include "tests/bench/row.h"

namespace kvtier::bench {
namespace {

std::vector<Bench> AllBenches() {
  std::vector<Bench> all;
  for (std::vector<Bench> some :
       {WireBenches(), RetrieveBenches(), ScoreBenches(), DiskBenches(),
        DiskStartBenches(), ResumeBenches(), EvictionBenches(), DaemonBenches()}) {
    for (Bench& bench : some) all.push_back(std::move(bench));
  }
  return all;
}

enum class What { kRun, kList };

int Run(What what, const Settings& settings, const std::string& filter,
        const std::string& json_path) {
  absl::StatusOr<std::vector<Bench>> benches = Select(AllBenches(), filter);
  if (!benches.ok()) {
    fprintf(stderr, "kvtier_bench: %s\n", benches.status().ToString().c_str());
    return 2;
  }
  if (what == What::kList) {
    for (const Bench& bench : *benches) printf("%s\n", bench.name.c_str());
    return 0;
  }
  // Opened first: nobody likes to learn after ten minutes that it can't be.
  std::ofstream json;
  if (!json_path.empty()) {
    json.open(json_path);
    if (!json) {
      fprintf(stderr, "kvtier_bench: cannot write %s: choose another --json\n",
              json_path.c_str());
      return 2;
    }
  }
  const Machine machine = Machine::This();
  printf("%s; footprint %llu MiB; %u cores, %s\n\n%s", kGeometryText,
         static_cast<unsigned long long>(settings.footprint_bytes >> 20), machine.cores,
         machine.cpu.c_str(), TableHead().c_str());
  bool failed = false;
  const std::vector<Row> rows = RunBenches(
      *benches, settings, [&](const std::string& name, const absl::StatusOr<Row>& row) {
        if (row.ok()) {
          printf("%s%s", TableLine(*row).c_str(), DetailsLine(*row).c_str());
        } else {
          failed = true;
          fprintf(stderr, "%s failed: %s\n", name.c_str(),
                  row.status().ToString().c_str());
        }
        fflush(stdout);
      });
  if (json.is_open()) json << RowsAsJson(machine, rows) << std::flush;
  if (json.is_open() && !json) {
    fprintf(stderr, "kvtier_bench: writing %s failed: is there space?\n",
            json_path.c_str());
    failed = true;
  }
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace kvtier::bench

int main(int argc, char** argv) {
  // As kvtierd has it.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  CLI::App app("Rows of speed and size, each beside its ceiling.", "kvtier_bench");
  std::string filter;
  std::string json_path;
  std::string keys_path, disk_directory;
  bool quick = false;
  bool list = false;
  int rounds = 0;
  app.add_option("--filter", filter, "Only rows whose name matches this expression");
  app.add_option("--json", json_path, "Write the rows to this file too");
  app.add_option("--disk-directory", disk_directory,
                 "Where the disk benches have their files, not a tmpfs [/var/tmp]");
  app.add_option("--keys", keys_path,
                 "Retrieve from contexts of what keys.py wrote here");
  app.add_option("--rounds", rounds, "Rounds that are counted, 7 unless said")
      ->check(CLI::Range(1, 1000));
  app.add_flag("--quick", quick, "Small and short, to see that all benches work");
  app.add_flag("--list", list, "Names of the rows, nothing is run");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  using kvtier::bench::Settings;
  Settings settings = quick ? Settings::Quick() : Settings();
  if (rounds > 0) settings.rounds = rounds;
  settings.keys_path = keys_path;
  if (!disk_directory.empty()) settings.disk_directory = disk_directory;
  using kvtier::bench::What;
  return kvtier::bench::Run(list ? What::kList : What::kRun, settings, filter, json_path);
}
