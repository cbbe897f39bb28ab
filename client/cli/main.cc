// kvtierctl: asks a running kvtierd over its admin socket.
//
// Exit codes: 0 done; 1 the daemon answered with an error; 2 the command line is wrong;
// 3 the daemon isn't reachable.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "client/cli/json.h"
#include "client/cli/render.h"
#include "client/cli/table.h"
#include "client/cpp/admin_client.h"

namespace kvtier::cli {
namespace {

enum ExitCode : int { kDone = 0, kError = 1, kUsage = 2, kNotReachable = 3 };

struct CommandLine {
  std::string socket;
  std::string space;
  bool json = false;
  double interval_seconds = 1;
  uint64_t count = 0;
  uint64_t bytes = 0;
  std::string tier;
};

// The system's daemon if there is one, else the user's own.
std::string DefaultSocket() {
  const std::string system_socket = "/run/kvtier/admin.sock";
  const char* user_dir = std::getenv("XDG_RUNTIME_DIR");
  if (access(system_socket.c_str(), F_OK) == 0 || user_dir == nullptr) {
    return system_socket;
  }
  return std::string(user_dir) + "/kvtier/admin.sock";
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "kvtierctl: %s\n", std::string(status.message()).c_str());
  const bool reached = !absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status);
  return reached ? kError : kNotReachable;
}

int Print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  return std::fflush(stdout) == 0 ? kDone : kError;
}

int Status(client::AdminClient& admin, const CommandLine& options) {
  absl::StatusOr<client::Stats> stats = admin.GetStats();
  if (!stats.ok()) return Fail(stats.status());
  absl::StatusOr<std::vector<client::SessionInfo>> sessions = admin.ListSessions("");
  if (!sessions.ok()) return Fail(sessions.status());
  return Print(options.json ? StatusJson(*stats, *sessions)
                            : StatusTables(*stats, *sessions));
}

int Sequences(client::AdminClient& admin, const CommandLine& options) {
  absl::StatusOr<std::vector<client::SequenceInfo>> sequences =
      admin.ListSequences(options.space);
  if (!sequences.ok()) return Fail(sequences.status());
  return Print(options.json ? SequencesJson(*sequences) : SequencesTable(*sequences));
}

int Sessions(client::AdminClient& admin, const CommandLine& options) {
  absl::StatusOr<std::vector<client::SessionInfo>> sessions =
      admin.ListSessions(options.space);
  if (!sessions.ok()) return Fail(sessions.status());
  return Print(options.json ? SessionsJson(*sessions) : SessionsTable(*sessions));
}

int Evict(client::AdminClient& admin, const CommandLine& options) {
  absl::StatusOr<uint64_t> freed = admin.Evict(options.bytes);
  if (!freed.ok()) return Fail(freed.status());
  JsonWriter json;
  json.BeginObject();
  json.Field("freed_bytes", *freed);
  json.EndObject();
  return Print(options.json ? json.text() + "\n" : "freed " + HumanBytes(*freed) + "\n");
}

// What does not verify is an error, and in the output.
int Verify(client::AdminClient& admin, const CommandLine& options) {
  absl::StatusOr<client::Verified> verified = admin.Verify(options.tier);
  if (!verified.ok()) return Fail(verified.status());
  JsonWriter json;
  json.BeginObject();
  json.Field("pages", verified->pages);
  json.Field("bad_pages", verified->bad_pages);
  json.EndObject();
  const int printed =
      Print(options.json ? json.text() + "\n"
                         : std::to_string(verified->pages) + " pages read, " +
                               std::to_string(verified->bad_pages) + " bad\n");
  return verified->bad_pages == 0 ? printed : kError;
}

int Watch(client::AdminClient& admin, const CommandLine& options) {
  constexpr uint64_t kLinesPerHeader = 20;
  std::optional<client::Stats> before;
  uint64_t lines = 0;
  int printed = kDone;
  absl::Status status = admin.WatchStats(
      absl::Seconds(options.interval_seconds), [&](const client::Stats& stats) {
        std::string text;
        if (options.json) {
          text = StatsJson(stats);
        } else {
          if (lines % kLinesPerHeader == 0) text = WatchHeader();
          text += WatchLine(stats, before.has_value() ? &*before : nullptr);
        }
        before = stats;
        printed = Print(text);
        return printed == kDone && ++lines != options.count;
      });
  return status.ok() ? printed : Fail(status);
}

}  // namespace
}  // namespace kvtier::cli

int main(int argc, char** argv) {
  using namespace kvtier;
  using namespace kvtier::cli;
  CommandLine options;
  CLI::App app("Looks at a running kvtierd, and steers it.");
  app.require_subcommand(1);
  app.fallthrough();
  app.set_version_flag("--version", std::string("kvtierctl ") + KVTIER_VERSION);
  app.add_option("--socket", options.socket, "the daemon's admin socket");
  app.add_flag("--json", options.json, "one JSON object instead of tables");
  CLI::App* status = app.add_subcommand("status", "tiers, namespaces and sessions");
  CLI::App* sequences = app.add_subcommand("sequences", "the open sequences");
  sequences->add_option("--namespace", options.space, "only this namespace's");
  CLI::App* sessions = app.add_subcommand("sessions", "the workers' sessions");
  sessions->add_option("--namespace", options.space, "only this namespace's");
  CLI::App* evict =
      app.add_subcommand("evict", "drops what nobody uses from host memory");
  evict->add_option("--bytes", options.bytes, "stop after so many: 4096, 2GiB; 0: all")
      ->transform(CLI::AsSizeValue(false));
  CLI::App* verify = app.add_subcommand("verify", "reads everything, checks checksums");
  verify->add_option("--tier", options.tier, "only this tier: host or disk");
  CLI::App* watch = app.add_subcommand("watch", "a line per interval, until stopped");
  watch->add_option("--interval", options.interval_seconds, "seconds, 0.1 to 3600")
      ->check(CLI::Range(0.1, 3600.0));
  watch->add_option("--count", options.count, "stop after so many lines; 0: never");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kUsage;
  }
  if (options.socket.empty()) options.socket = DefaultSocket();
  auto admin = client::AdminClient::Create({.socket = options.socket});
  if (!admin.ok()) {
    std::fprintf(stderr, "kvtierctl: %s\n",
                 std::string(admin.status().message()).c_str());
    return kUsage;
  }
  if (*status) return Status(**admin, options);
  if (*sequences) return Sequences(**admin, options);
  if (*sessions) return Sessions(**admin, options);
  if (*evict) return Evict(**admin, options);
  if (*verify) return Verify(**admin, options);
  if (*watch) return Watch(**admin, options);
  return kUsage;
}
