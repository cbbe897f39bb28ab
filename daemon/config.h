// The daemon's configuration: one TOML file, every key with a default, a unit and a
// range. deploy/kvtierd.example.toml lists them all with the reason for each default.
//
// A key that isn't known is an error that names the nearest known one: a misspelt limit
// must not silently be the default.
//
// Thread safety: plain values, pure functions.

#ifndef KVTIER_DAEMON_CONFIG_H_
#define KVTIER_DAEMON_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/store.h"

namespace kvtier::daemon {

struct NamespaceConfig {
  std::string name = "default";
  // Permission of the namespace's socket; who may connect may read its KV.
  uint32_t socket_mode = 0600;

  bool operator==(const NamespaceConfig&) const = default;
};

struct Config {
  // Where sockets and the instance lock live. Empty: main chooses.
  std::string runtime_dir;
  // "debug", "info", "warning" or "error".
  std::string log_level = "info";
  std::vector<NamespaceConfig> namespaces = {NamespaceConfig{}};
  // How long the daemon lets calls finish when it is told to stop. Ending lasting calls
  // takes milliseconds; this is for the appends under way.
  absl::Duration stop_patience = absl::Seconds(3);
  // Of one gRPC message, either way.
  uint64_t message_bytes_max = uint64_t{16} << 20;
  // A stream that says nothing for so long is not a worker.
  absl::Duration first_message = absl::Seconds(10);
  StoreOptions store;
};

// InvalidArgument: not TOML, an unknown key, a value of the wrong type or out of range;
// the message begins with `source:line`.
absl::StatusOr<Config> ParseConfig(const std::string& text, const std::string& source);

// As ParseConfig; NotFound, PermissionDenied, ...: the file can't be read.
absl::StatusOr<Config> LoadConfig(const std::string& path);

// Every key with its value, as TOML that ParseConfig reads as `config`.
std::string PrintConfig(const Config& config);

// The keys in which they differ that a running daemon can't take over: "disk.capacity".
std::vector<std::string> NeedRestart(const Config& running, const Config& wanted);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_CONFIG_H_
