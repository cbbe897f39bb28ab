// Question: is the daemon small and quick enough to be always there?
// Method: a kvtierd with the default configuration, a new one each round. Start: from
//   before fork and exec until its health service has answered, the client's connection
//   included. Idle: VmRSS then. No ceiling can be measured: the ceilings are goals.
// Expectation: 16 MiB of shared libraries, gRPC's threads and arenas 10 MiB more; loading
//   and relocating them 20 ms, the sockets 5 ms.
// Measured: README.md.

#include <utility>

#include "tests/bench/bench.h"
#include "tests/bench/rounds.h"
#include "tests/daemon/kvtierd_process.h"
#include "tests/daemon/raw_call.h"

namespace kvtier::bench {
namespace {

constexpr double kIdleGoalMebibytes = 40;
constexpr double kStartGoalSeconds = 0.3;

absl::Status AwaitHealth(const testing::KvtierdProcess& daemon) {
  if (!daemon.ready()) return absl::UnavailableError("kvtierd did not start");
  auto answer = testing::RawUnary(testing::RawChannel(daemon.admin_socket()),
                                  "/grpc.health.v1.Health/Check", "");
  if (!answer.ok()) return answer.status();
  // HealthCheckResponse{status: SERVING}
  if (*answer != "\x08\x01") return absl::InternalError("kvtierd is not serving");
  return absl::OkStatus();
}

absl::Status IdleBench(const Settings& settings, Row* row) {
  row->unit = "MiB";
  row->ceiling_is = "goal";
  row->details = {{"statistic", "VmRSS"}, {"configuration", "default"}};
  return RunRounds(
      settings.rounds, Better::kLower,
      []() -> absl::StatusOr<double> {
        const testing::KvtierdProcess daemon;
        if (absl::Status status = AwaitHealth(daemon); !status.ok()) return status;
        return static_cast<double>(daemon.MemoryBytes("VmRSS")) / (1 << 20);
      },
      [] { return kIdleGoalMebibytes; }, row);
}

absl::Status StartBench(const Settings& settings, Row* row) {
  row->unit = "s";
  row->ceiling_is = "goal";
  row->details = {{"until", "health answered"}, {"configuration", "default"}};
  return RunRounds(
      settings.rounds, Better::kLower,
      []() -> absl::StatusOr<double> {
        const Stopwatch stopwatch;
        const testing::KvtierdProcess daemon;
        if (absl::Status status = AwaitHealth(daemon); !status.ok()) return status;
        return stopwatch.Seconds();
      },
      [] { return kStartGoalSeconds; }, row);
}

}  // namespace

std::vector<Bench> DaemonBenches() {
  return {{"daemon.idle_rss", IdleBench}, {"daemon.start", StartBench}};
}

}  // namespace kvtier::bench
