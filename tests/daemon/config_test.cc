// Goal: a configuration says what it means or is refused with its line and a way out.
// Method: parse texts; the shipped example must equal the defaults.

#include "daemon/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace kvtier::daemon {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Error(const std::string& text) {
  absl::StatusOr<Config> config = ParseConfig(text, "test.toml");
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(config.status().message());
}

TEST(Config, ExampleFileListsTheDefaults) {
  absl::StatusOr<Config> example = LoadConfig(KVTIER_EXAMPLE_CONFIG);
  ASSERT_TRUE(example.ok()) << example.status();
  const Config defaults;
  EXPECT_EQ(example->runtime_dir, defaults.runtime_dir);
  EXPECT_EQ(example->log_level, defaults.log_level);
  ASSERT_EQ(example->namespaces.size(), defaults.namespaces.size());
  EXPECT_EQ(example->namespaces[0].name, defaults.namespaces[0].name);
  EXPECT_EQ(example->namespaces[0].socket_mode, defaults.namespaces[0].socket_mode);
  EXPECT_EQ(example->message_bytes_max, defaults.message_bytes_max);
  const StoreOptions& store = example->store;
  EXPECT_EQ(store.host_capacity_bytes, defaults.store.host_capacity_bytes);
  EXPECT_EQ(store.host_region_bytes, defaults.store.host_region_bytes);
  EXPECT_EQ(store.unsealed_bytes_max, defaults.store.unsealed_bytes_max);
  EXPECT_EQ(store.disk_directory, defaults.store.disk_directory);
  EXPECT_EQ(store.disk_capacity_bytes, defaults.store.disk_capacity_bytes);
  EXPECT_EQ(store.sequences_max, defaults.store.sequences_max);
  EXPECT_EQ(store.sessions_max, defaults.store.sessions_max);
  EXPECT_EQ(store.models_max, defaults.store.models_max);
  EXPECT_EQ(PrintConfig(*example), PrintConfig(defaults));
}

std::vector<std::string> KeysOf(const std::string& toml) {
  std::vector<std::string> keys;
  std::istringstream lines(toml);
  for (std::string line; std::getline(lines, line);) {
    const size_t equals = line.find(" = ");
    if (line.empty() || line[0] == '#') continue;
    keys.push_back(equals == std::string::npos ? line : line.substr(0, equals));
  }
  return keys;
}

TEST(Config, TheExampleAndThePrintedOneHaveTheSameKeys) {
  std::ifstream file(KVTIER_EXAMPLE_CONFIG);
  std::stringstream example;
  example << file.rdbuf();
  EXPECT_EQ(KeysOf(example.str()), KeysOf(PrintConfig(Config())));
}

// Every key is taken from the file and not only its default.
TEST(Config, ReadsEveryKey) {
  absl::StatusOr<Config> config = ParseConfig(R"(
      [daemon]
      runtime_dir = "/tmp/x"
      log_level = "debug"
      stop_patience = "1m30s"
      [[namespace]]
      name = "a"
      socket_mode = "0660"
      [[namespace]]
      name = "b"
      socket_mode = 0o666
      [host]
      capacity = 1073741824
      region = "4MiB"
      unsealed_max = "64MiB"
      [disk]
      directory = "/tmp/y"
      capacity = "1TiB"
      deadline = "500ms"
      scrub_rate = 0
      [limits]
      message_max = "1MiB"
      sessions_max = 3
      sequences_max = 4
      models_max = 5
      first_message = "2s"
  )",
                                              "test.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->runtime_dir, "/tmp/x");
  EXPECT_EQ(config->log_level, "debug");
  ASSERT_EQ(config->namespaces.size(), 2u);
  EXPECT_EQ(config->namespaces[0].name, "a");
  EXPECT_EQ(config->namespaces[0].socket_mode, 0660u);
  EXPECT_EQ(config->namespaces[1].name, "b");
  EXPECT_EQ(config->namespaces[1].socket_mode, 0666u);
  EXPECT_EQ(config->store.host_capacity_bytes, uint64_t{1} << 30);
  EXPECT_EQ(config->store.host_region_bytes, 4u << 20);
  EXPECT_EQ(config->store.unsealed_bytes_max, 64u << 20);
  EXPECT_EQ(config->store.disk_directory, "/tmp/y");
  EXPECT_EQ(config->store.disk_capacity_bytes, uint64_t{1} << 40);
  EXPECT_EQ(config->message_bytes_max, 1u << 20);
  EXPECT_EQ(config->store.sessions_max, 3u);
  EXPECT_EQ(config->store.sequences_max, 4u);
  EXPECT_EQ(config->store.models_max, 5u);
  EXPECT_EQ(config->stop_patience, absl::Seconds(90));
  EXPECT_EQ(config->store.disk_deadline, absl::Milliseconds(500));
  EXPECT_EQ(config->store.disk_scrub_bytes, 0u);
  EXPECT_EQ(config->first_message, absl::Seconds(2));

  // What is printed reads as the same.
  const std::string printed = PrintConfig(*config);
  absl::StatusOr<Config> again = ParseConfig(printed, "printed");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(PrintConfig(*again), printed);
  EXPECT_TRUE(NeedRestart(*config, *again).empty());
}

TEST(Config, PrintsNamesThatNeedQuoting) {
  Config config;
  config.runtime_dir = "/tmp/a \"b\" \\ c\n";
  absl::StatusOr<Config> again = ParseConfig(PrintConfig(config), "printed");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->runtime_dir, config.runtime_dir);
}

TEST(Config, SaysWhatNeedsARestart) {
  const Config running;
  Config wanted;
  wanted.log_level = "debug";
  wanted.stop_patience = absl::Seconds(9);
  wanted.store.host_capacity_bytes *= 2;
  wanted.store.unsealed_bytes_max *= 2;
  wanted.store.sessions_max = wanted.store.sequences_max = wanted.store.models_max = 7;
  EXPECT_TRUE(NeedRestart(running, wanted).empty());
  wanted.namespaces[0].socket_mode = 0660;
  wanted.store.disk_directory = "/tmp/disk";
  wanted.message_bytes_max *= 2;
  EXPECT_THAT(
      NeedRestart(running, wanted),
      ::testing::ElementsAre("namespace", "disk.directory", "limits.message_max"));
}

TEST(Config, NamesTheNearestKnownKey) {
  EXPECT_THAT(Error("[host]\ncapacty = \"1GiB\"\n"),
              AllOf(HasSubstr("test.toml:2"), HasSubstr("host.capacty"),
                    HasSubstr("did you mean 'capacity'")));
  EXPECT_THAT(Error("[limit]\n"), HasSubstr("did you mean 'limits'"));
  EXPECT_THAT(Error("[[namespace]]\nnome = \"a\"\n"), HasSubstr("did you mean 'name'"));
}

TEST(Config, RefusesWrongTypesAndRanges) {
  EXPECT_THAT(Error("[host]\ncapacity = true\n"), HasSubstr("host.capacity"));
  EXPECT_THAT(Error("[host]\ncapacity = -1\n"), HasSubstr("host.capacity"));
  EXPECT_THAT(Error("[host]\ncapacity = \"4GB\"\n"), HasSubstr("GiB"));
  EXPECT_THAT(Error("[host]\nregion = 1\n"), HasSubstr("64KiB to 1GiB"));
  EXPECT_THAT(Error("[limits]\nsessions_max = 0\n"), HasSubstr("1 to 65536"));
  EXPECT_THAT(Error("[limits]\nsessions_max = \"3\"\n"), HasSubstr("whole number"));
  EXPECT_THAT(Error("[daemon]\nlog_level = \"loud\"\n"), HasSubstr("\"warning\""));
  EXPECT_THAT(Error("[daemon]\nruntime_dir = 3\n"), HasSubstr("must be a string"));
  EXPECT_THAT(Error("[daemon]\nstop_patience = \"3 days\"\n"), HasSubstr("\"30s\""));
  EXPECT_THAT(Error("[daemon]\nstop_patience = 3\n"), HasSubstr("\"30s\""));
  EXPECT_THAT(Error("[disk]\ndeadline = \"1ms\"\n"), HasSubstr("100ms to 10m"));
  EXPECT_THAT(Error("host = 3\n"), HasSubstr("host must be a table"));
}

TEST(Config, RefusesWrongNamespaces) {
  EXPECT_THAT(Error("[[namespace]]\nname = \"A b\"\n"), HasSubstr("a-z"));
  EXPECT_THAT(Error("[[namespace]]\nname = \"admin\"\n"), HasSubstr("admin"));
  EXPECT_THAT(Error("[[namespace]]\nname = \"a\"\n[[namespace]]\nname = \"a\"\n"),
              HasSubstr("twice"));
  EXPECT_THAT(Error("[namespace]\nname = \"a\"\n"), HasSubstr("[[namespace]]"));
  EXPECT_THAT(Error("[[namespace]]\nsocket_mode = \"0068\"\n"), HasSubstr("file mode"));
  EXPECT_THAT(Error("[[namespace]]\nsocket_mode = \"0060\"\n"), HasSubstr("owner"));
}

TEST(Config, RefusesWhatIsNotUtf8) {
  EXPECT_THAT(Error("[[namespace]]\nname = \"\xff\"\n"), HasSubstr("test.toml:2"));
}

TEST(Config, RefusesWhatIsNotToml) {
  EXPECT_THAT(Error("[host\n"), HasSubstr("test.toml:1"));
}

TEST(Config, SaysWhichFileIsMissing) {
  absl::StatusOr<Config> config = LoadConfig("/nowhere/kvtierd.toml");
  EXPECT_EQ(config.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("/nowhere/kvtierd.toml"));
}

TEST(Config, AnEmptyFileMeansTheDefaults) {
  EXPECT_TRUE(LoadConfig("/dev/null").ok());
  EXPECT_FALSE(LoadConfig("/").ok());
}

}  // namespace
}  // namespace kvtier::daemon
