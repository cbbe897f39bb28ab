#include "daemon/config.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "daemon/byte_size.h"

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace kvtier::daemon {
namespace {

constexpr uint64_t kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB;

size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row[b.size()];
}

struct ByteRange {
  uint64_t min;
  uint64_t max;
};
struct DurationRange {
  absl::Duration min;
  absl::Duration max;
};
struct CountRange {
  uint32_t min;
  uint32_t max;
};

// Takes known keys out of one table. The first error stays; later calls do nothing.
class TableReader {
 public:
  TableReader(const toml::table& table, std::string name, std::string source)
      : table_(table), name_(std::move(name)), source_(std::move(source)) {}

  const absl::Status& status() const { return status_; }

  void Text(const char* key, std::string* out) {
    const toml::node* node = Take(key);
    if (node == nullptr) return;
    if (auto text = node->value_exact<std::string>()) {
      *out = *text;
    } else {
      Fail(node->source().begin.line, key, "must be a string");
    }
  }

  void Bytes(const char* key, ByteRange range, uint64_t* out) {
    const toml::node* node = Take(key);
    if (node == nullptr) return;
    const uint32_t line = node->source().begin.line;
    absl::StatusOr<uint64_t> bytes = absl::InvalidArgumentError(
        "must be a number of bytes or a string such as \"4GiB\"");
    if (auto text = node->value_exact<std::string>()) bytes = ParseByteSize(*text);
    if (auto number = node->value_exact<int64_t>(); number && *number >= 0) {
      bytes = static_cast<uint64_t>(*number);
    }
    if (!bytes.ok()) {
      Fail(line, key, std::string(bytes.status().message()));
    } else if (*bytes < range.min || *bytes > range.max) {
      Fail(line, key,
           absl::StrCat("must be ", FormatByteSize(range.min), " to ",
                        FormatByteSize(range.max)));
    } else {
      *out = *bytes;
    }
  }

  void Count(const char* key, CountRange range, uint32_t* out) {
    const toml::node* node = Take(key);
    if (node == nullptr) return;
    auto number = node->value_exact<int64_t>();
    if (!number || *number < range.min || *number > range.max) {
      Fail(node->source().begin.line, key,
           absl::StrCat("must be a whole number from ", range.min, " to ", range.max));
    } else {
      *out = static_cast<uint32_t>(*number);
    }
  }

  void Duration(const char* key, DurationRange range, absl::Duration* out) {
    const toml::node* node = Take(key);
    if (node == nullptr) return;
    const uint32_t line = node->source().begin.line;
    auto text = node->value_exact<std::string>();
    absl::Duration duration;
    if (!text || !absl::ParseDuration(*text, &duration)) {
      Fail(line, key, "must be a duration such as \"30s\", \"500ms\" or \"2m\"");
    } else if (duration < range.min || duration > range.max) {
      Fail(line, key,
           absl::StrCat("must be ", absl::FormatDuration(range.min), " to ",
                        absl::FormatDuration(range.max)));
    } else {
      *out = duration;
    }
  }

  // "0660", or TOML's own 0o660.
  void FileMode(const char* key, uint32_t* out) {
    const toml::node* node = Take(key);
    if (node == nullptr) return;
    int64_t mode = -1;
    if (auto number = node->value_exact<int64_t>()) mode = *number;
    if (auto text = node->value_exact<std::string>();
        text && !text->empty() && text->size() <= 4 &&
        text->find_first_not_of("01234567") == std::string::npos) {
      mode = std::stol(*text, nullptr, 8);
    }
    if (mode < 0 || mode > 0777 || (mode & 0600) != 0600) {
      Fail(node->source().begin.line, key,
           "must be a file mode such as \"0660\", with read and write for its owner");
    } else {
      *out = static_cast<uint32_t>(mode);
    }
  }

  // A key whose value the caller reads itself.
  const toml::node* Take(const char* key) {
    known_.insert(key);
    return status_.ok() ? table_.get(key) : nullptr;
  }

  void Fail(uint32_t line, const std::string& key, const std::string& what) {
    if (!status_.ok()) return;
    const std::string path = name_.empty() ? key : absl::StrCat(name_, ".", key);
    status_ = absl::InvalidArgumentError(
        absl::StrCat(source_, ":", line, ": ", path, " ", what));
  }

  // After all keys were taken: whatever is left is not known.
  absl::Status Finish() {
    for (const auto& [key, node] : table_) {
      const std::string name(key.str());
      if (known_.count(name) != 0) continue;
      const std::string nearest = *std::min_element(
          known_.begin(), known_.end(), [&](const std::string& a, const std::string& b) {
            return EditDistance(a, name) < EditDistance(b, name);
          });
      Fail(key.source().begin.line, name,
           absl::StrCat("is not known; did you mean '", nearest, "'?"));
    }
    return status_;
  }

 private:
  const toml::table& table_;
  const std::string name_;
  const std::string source_;
  std::set<std::string> known_;
  absl::Status status_;
};

absl::Status ReadDaemon(TableReader reader, Config* config) {
  reader.Text("runtime_dir", &config->runtime_dir);
  reader.Text("log_level", &config->log_level);
  const std::set<std::string> levels = {"debug", "info", "warning", "error"};
  if (levels.count(config->log_level) == 0) {
    reader.Fail(reader.Take("log_level")->source().begin.line, "log_level",
                "must be \"debug\", \"info\", \"warning\" or \"error\"");
  }
  reader.Duration("stop_patience", {absl::ZeroDuration(), absl::Minutes(10)},
                  &config->stop_patience);
  return reader.Finish();
}

absl::Status ReadHost(TableReader reader, StoreOptions* store) {
  reader.Bytes("capacity", {1 * kMiB, 65536 * kGiB}, &store->host_capacity_bytes);
  reader.Bytes("region", {64 * kKiB, 1 * kGiB}, &store->host_region_bytes);
  reader.Bytes("unsealed_max", {1 * kMiB, 65536 * kGiB}, &store->unsealed_bytes_max);
  return reader.Finish();
}

absl::Status ReadDisk(TableReader reader, StoreOptions* store) {
  reader.Text("directory", &store->disk_directory);
  reader.Bytes("capacity", {64 * kMiB, 1048576 * kGiB}, &store->disk_capacity_bytes);
  reader.Duration("deadline", {absl::Milliseconds(100), absl::Minutes(10)},
                  &store->disk_deadline);
  reader.Bytes("scrub_rate", {0, 64 * kGiB}, &store->disk_scrub_bytes);
  return reader.Finish();
}

absl::Status ReadLimits(TableReader reader, Config* config) {
  reader.Bytes("message_max", {256 * kKiB, 1 * kGiB}, &config->message_bytes_max);
  reader.Count("sessions_max", {1, 65536}, &config->store.sessions_max);
  reader.Count("sequences_max", {1, 65536}, &config->store.sequences_max);
  reader.Count("models_max", {1, 4096}, &config->store.models_max);
  reader.Duration("first_message", {absl::Milliseconds(100), absl::Minutes(10)},
                  &config->first_message);
  return reader.Finish();
}

bool ValidName(const std::string& name) {
  return !name.empty() && name.size() <= 64 &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") ==
             std::string::npos;
}

absl::Status ReadNamespace(TableReader reader, uint32_t line, Config* config) {
  NamespaceConfig result;
  reader.Text("name", &result.name);
  reader.FileMode("socket_mode", &result.socket_mode);
  if (!ValidName(result.name)) {
    reader.Fail(line, "name", "must be 1 to 64 characters of a-z, 0-9, _ and -");
  } else if (result.name == "admin") {
    reader.Fail(line, "name", "must not be 'admin': its socket has that name");
  }
  for (const NamespaceConfig& other : config->namespaces) {
    if (other.name == result.name) reader.Fail(line, "name", "is there twice");
  }
  config->namespaces.push_back(result);
  return reader.Finish();
}

absl::Status ReadNamespaces(const toml::node* node, const std::string& source,
                            Config* config) {
  if (node == nullptr) return absl::OkStatus();
  const toml::array* array = node->as_array();
  config->namespaces.clear();
  if (array == nullptr || array->empty() || !array->is_homogeneous<toml::table>()) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ":", node->source().begin.line,
                     ": namespace must be written as one or more [[namespace]] tables"));
  }
  for (const toml::node& element : *array) {
    absl::Status status = ReadNamespace({*element.as_table(), "namespace", source},
                                        element.source().begin.line, config);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Config> ParseConfig(const std::string& text, const std::string& source) {
  toml::parse_result parsed = toml::parse(text, source);
  if (!parsed) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ":", parsed.error().source().begin.line, ": ",
                     std::string(parsed.error().description())));
  }
  const toml::table& root = parsed.table();
  Config config;
  TableReader reader(root, "", source);
  const toml::table empty;
  const auto table = [&](const char* key) -> TableReader {
    const toml::node* node = reader.Take(key);
    if (node != nullptr && !node->is_table()) {
      reader.Fail(node->source().begin.line, key, "must be a table");
    }
    const bool there = node != nullptr && node->is_table();
    return TableReader(there ? *node->as_table() : empty, key, source);
  };
  for (absl::Status status :
       {ReadDaemon(table("daemon"), &config), ReadHost(table("host"), &config.store),
        ReadDisk(table("disk"), &config.store), ReadLimits(table("limits"), &config),
        ReadNamespaces(reader.Take("namespace"), source, &config), reader.Finish(),
        config.store.Validate()}) {
    if (!status.ok()) return status;
  }
  return config;
}

absl::StatusOr<Config> LoadConfig(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  // TOML has no NUL; an empty file fails to give a line and is all right.
  if (file) std::getline(file, text, '\0');
  if (!file.is_open() || file.bad()) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  }
  return ParseConfig(text, path);
}

std::string PrintConfig(const Config& config) {
  const auto quoted = [](const std::string& text) {
    std::string toml = "\"";
    for (const char c : text) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
        absl::StrAppendFormat(&toml, "\\u%04x", c);
      } else {
        if (c == '"' || c == '\\') toml += '\\';
        toml += c;
      }
    }
    return toml + '"';
  };
  const auto size = [&](uint64_t bytes) { return quoted(FormatByteSize(bytes)); };
  const auto time = [&](absl::Duration duration) {
    return quoted(absl::FormatDuration(duration));
  };
  const StoreOptions& store = config.store;
  std::string text = absl::StrCat("[daemon]\nruntime_dir = ", quoted(config.runtime_dir),
                                  "\nlog_level = ", quoted(config.log_level),
                                  "\nstop_patience = ", time(config.stop_patience), "\n");
  for (const NamespaceConfig& space : config.namespaces) {
    absl::StrAppendFormat(&text, "\n[[namespace]]\nname = %s\nsocket_mode = \"%04o\"\n",
                          quoted(space.name), space.socket_mode);
  }
  absl::StrAppend(&text, "\n[host]\ncapacity = ", size(store.host_capacity_bytes),
                  "\nregion = ", size(store.host_region_bytes),
                  "\nunsealed_max = ", size(store.unsealed_bytes_max), "\n");
  absl::StrAppend(&text, "\n[disk]\ndirectory = ", quoted(store.disk_directory),
                  "\ncapacity = ", size(store.disk_capacity_bytes),
                  "\ndeadline = ", time(store.disk_deadline),
                  "\nscrub_rate = ", size(store.disk_scrub_bytes), "\n");
  absl::StrAppend(&text, "\n[limits]\nmessage_max = ", size(config.message_bytes_max),
                  "\nsessions_max = ", store.sessions_max,
                  "\nsequences_max = ", store.sequences_max,
                  "\nmodels_max = ", store.models_max,
                  "\nfirst_message = ", time(config.first_message), "\n");
  return text;
}

std::vector<std::string> NeedRestart(const Config& running, const Config& wanted) {
  std::vector<std::string> keys;
  const auto compare = [&](const char* key, const auto& a, const auto& b) {
    if (!(a == b)) keys.push_back(key);
  };
  const StoreOptions& a = running.store;
  const StoreOptions& b = wanted.store;
  compare("daemon.runtime_dir", running.runtime_dir, wanted.runtime_dir);
  compare("namespace", running.namespaces, wanted.namespaces);
  compare("host.region", a.host_region_bytes, b.host_region_bytes);
  compare("disk.directory", a.disk_directory, b.disk_directory);
  compare("disk.capacity", a.disk_capacity_bytes, b.disk_capacity_bytes);
  compare("disk.deadline", a.disk_deadline, b.disk_deadline);
  compare("disk.scrub_rate", a.disk_scrub_bytes, b.disk_scrub_bytes);
  compare("limits.message_max", running.message_bytes_max, wanted.message_bytes_max);
  compare("limits.first_message", running.first_message, wanted.first_message);
  return keys;
}

}  // namespace kvtier::daemon
