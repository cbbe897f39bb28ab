// kvtierctl: asks a running kvtierd over its admin socket.
//
// Exit codes: 0 done; 1 the daemon answered with an error, pages don't verify, or the
// doctor found a failure; 2 the command line is wrong; 3 the daemon isn't reachable.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "client/cli/doctor.h"
#include "client/cli/json.h"
#include "client/cli/render.h"
#include "client/cli/table.h"
#include "client/cpp/admin_client.h"
#include "client/cpp/types.h"

namespace kvtier::cli {
namespace {

// More than any context; what it costs still fits in 64 bits.
constexpr uint64_t kContextTokensMax = uint64_t{1} << 36;

enum ExitCode : int { kDone = 0, kError = 1, kUsage = 2, kNotReachable = 3 };

struct CommandLine {
  std::string socket;
  std::string space;
  bool json = false;
  double interval_seconds = 1;
  uint64_t count = 0;
  uint64_t bytes = 0;
  std::string tier;
  uint64_t sequence = 0;
  uint64_t tokens = 0;
  double patience_seconds = 60;
  double flush_seconds = 3600;
  DoctorOptions doctor;
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
  return client::WasReached(status) ? kError : kNotReachable;
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
  json.BeginArray("findings");
  for (const std::string& one : verified->findings) json.Item(one);
  json.EndArray();
  json.EndObject();
  std::string text = std::to_string(verified->pages) + " pages read, " +
                     std::to_string(verified->bad_pages) + " bad\n";
  for (const std::string& one : verified->findings) text += one + "\n";
  const int printed = Print(options.json ? json.text() + "\n" : text);
  return verified->bad_pages == 0 ? printed : kError;
}

int Models(client::AdminClient& admin, const CommandLine& options) {
  absl::StatusOr<std::vector<client::ModelInfo>> models = admin.ListModels(options.space);
  if (!models.ok()) return Fail(models.status());
  return Print(options.json ? ModelsJson(*models, options.tokens)
                            : ModelsTable(*models, options.tokens));
}

int Pin(client::AdminClient& admin, const CommandLine& options) {
  absl::StatusOr<uint64_t> pinned = admin.Pin(options.space, options.sequence);
  if (!pinned.ok()) return Fail(pinned.status());
  JsonWriter json;
  json.BeginObject();
  json.Field("pinned_bytes", *pinned);
  json.EndObject();
  return Print(options.json ? json.text() + "\n"
                            : "pinned " + HumanBytes(*pinned) + "\n");
}

// Of a command that has nothing to tell but that it is done.
int Done(const absl::Status& status, const CommandLine& options, const char* done) {
  if (!status.ok()) return Fail(status);
  return Print(options.json ? "{}\n" : std::string(done) + "\n");
}

int Doctor(const CommandLine& options) {
  const std::vector<Finding> findings = Examine(options.doctor);
  const int printed =
      Print(options.json ? FindingsJson(findings) : FindingsTable(findings));
  for (const Finding& one : findings) {
    if (one.health == Health::kFailure) return kError;
  }
  return printed;
}

// A script for bash: commands, and the options of each.
int Completion(const CLI::App& app) {
  const auto names = [](const CLI::App& of) {
    std::string text;
    for (const CLI::Option* option : of.get_options()) {
      for (const std::string& name : option->get_lnames()) text += " --" + name;
    }
    return text;
  };
  std::string commands;
  std::string cases;
  for (const CLI::App* command : app.get_subcommands({})) {
    commands += " " + command->get_name();
    cases += "    " + command->get_name() + ") words=\"" + names(*command) + "\" ;;\n";
  }
  return Print(
      "_kvtierctl() {\n  local word words command=\n"
      "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
      "    case \" " +
      commands +
      " \" in *\" $word \"*) command=$word ;; esac\n  done\n  case $command in\n" +
      cases + "    *) words=\"" + commands + "\" ;;\n  esac\n" +
      "  COMPREPLY=($(compgen -W \"$words" + names(app) +
      "\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\ncomplete -F _kvtierctl kvtierctl\n");
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
  using Run = std::function<int(client::AdminClient&)>;
  CommandLine options;
  CLI::App app("Looks at a running kvtierd, and steers it.");
  app.require_subcommand(1);
  app.fallthrough();
  app.set_version_flag("--version", std::string("kvtierctl ") + KVTIER_VERSION);
  app.add_option("--socket", options.socket, "the daemon's admin socket");
  app.add_flag("--json", options.json, "one JSON object instead of tables");
  app.footer(
      "Exit codes: 0 done; 1 the daemon's error, pages that don't verify, or a failure\n"
      "that the doctor found; 2 wrong command line; 3 the daemon isn't reachable.");

  std::vector<std::pair<CLI::App*, Run>> commands;
  const auto add = [&](const char* name, const char* help, Run run) {
    commands.emplace_back(app.add_subcommand(name, help), std::move(run));
    return commands.back().first;
  };
  // `run` with the options, once they are known.
  const auto with = [&](int (*run)(client::AdminClient&, const CommandLine&)) {
    return [&options, run](client::AdminClient& admin) { return run(admin, options); };
  };
  const auto namespace_option = [&](CLI::App* command) {
    command->add_option("--namespace", options.space, "only this namespace's");
  };

  add("status", "tiers, namespaces and sessions", with(Status));
  namespace_option(add("sequences", "the open sequences", with(Sequences)));
  namespace_option(add("sessions", "the workers' sessions", with(Sessions)));
  CLI::App* model =
      add("model", "registered models, and what a context costs", with(Models));
  namespace_option(model);
  model->add_option("--size", options.tokens, "tokens of the context; default: a chunk")
      ->check(CLI::Range(uint64_t{1}, kContextTokensMax));
  CLI::App* evict = add("evict", "drops what nobody uses from host memory", with(Evict));
  evict->add_option("--bytes", options.bytes, "stop after so many: 4096, 2GiB; 0: all")
      ->transform(CLI::AsSizeValue(false));
  CLI::App* pin = add("pin", "keeps what an open sequence has stored", with(Pin));
  pin->add_option("sequence", options.sequence, "its number, as `sequences` lists it")
      ->required()
      ->check(CLI::PositiveNumber);
  CLI::App* unpin = add("unpin", "lets go of what was pinned", [&](auto& admin) {
    return Done(admin.Unpin(options.space, options.sequence), options, "unpinned");
  });
  unpin->add_option("sequence", options.sequence, "as it was pinned; default: all");
  namespace_option(unpin);
  CLI::App* flush =
      add("flush", "returns when all that is sealed is on disk", [&](auto& admin) {
        return Done(admin.Flush(absl::Seconds(options.flush_seconds)), options,
                    "flushed");
      });
  flush
      ->add_option("--wait", options.flush_seconds,
                   "seconds, then exit 3 while the writing goes on; default 3600")
      ->check(CLI::Range(0.0, 86400.0));
  CLI::App* drain = add(
      "drain", "admits nothing new, waits for the sessions, flushes", [&](auto& admin) {
        return Done(admin.Drain(absl::Seconds(options.patience_seconds)), options,
                    "drained: it can be stopped");
      });
  drain
      ->add_option("--wait", options.patience_seconds,
                   "seconds for the sessions to end; default 60")
      ->check(CLI::Range(0.0, 86400.0));
  CLI::App* verify = add("verify", "reads everything, checks checksums", with(Verify));
  verify->add_option("--tier", options.tier, "only this tier: host or disk");
  CLI::App* watch = add("watch", "a line per interval, until stopped", with(Watch));
  watch->add_option("--interval", options.interval_seconds, "seconds, 0.1 to 3600")
      ->check(CLI::Range(0.1, 3600.0));
  watch->add_option("--count", options.count, "stop after so many lines; 0: never");
  CLI::App* doctor = app.add_subcommand("doctor", "whether this machine suits a kvtierd");
  doctor->add_option("--runtime-dir", options.doctor.runtime_dir,
                     "directory of the sockets; default: where --socket is");
  doctor->add_option("--disk", options.doctor.disk_directory,
                     "directory of the disk tier");
  CLI::App* completion = app.add_subcommand("completion", "a completion script for bash");
  std::string shell;
  completion->add_option("shell", shell, "bash")->check(CLI::IsMember({"bash"}));

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kUsage;
  }
  if (*completion) return Completion(app);
  if (options.socket.empty()) options.socket = DefaultSocket();
  if (options.doctor.runtime_dir.empty()) {
    const size_t slash = options.socket.rfind('/');
    options.doctor.runtime_dir =
        slash == std::string::npos ? "." : options.socket.substr(0, slash + 1);
  }
  if (*doctor) return Doctor(options);
  auto admin = client::AdminClient::Create({.socket = options.socket});
  if (!admin.ok()) {
    std::fprintf(stderr, "kvtierctl: %s\n",
                 std::string(admin.status().message()).c_str());
    return kUsage;
  }
  for (const auto& [command, run] : commands) {
    if (*command) return run(**admin);
  }
  return kUsage;
}
