// Goal: the benches run: every one makes its row; exit codes and the file are as said.
// Method: the real binary, quick; its JSON is parsed. Figures aren't looked at.

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/bench/raw_disk.h"
#include "tests/daemon/kvtierd_process.h"

namespace kvtier::bench {
namespace {

class KvtierBench : public ::testing::Test {
 protected:
  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), KVTIER_BENCH_PATH);
    testing::ChildProcess process(arguments);
    // Until it is done: a pipe that nobody reads would stop it.
    while (!process.ReadLine().empty() || process.Wait(absl::ZeroDuration()) == -1) {
    }
    return process.Wait();
  }

  // The rows of a quick run of what matches `filter`.
  std::vector<google::protobuf::Struct> Rows(const std::string& filter,
                                             std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--quick", "--filter", filter, "--json", json_});
    EXPECT_EQ(Run(more), 0);
    std::stringstream text;
    text << std::ifstream(json_).rdbuf();
    google::protobuf::Struct json;
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(text.str(), &json).ok());
    std::vector<google::protobuf::Struct> rows;
    for (const auto& row : json.fields().at("rows").list_value().values()) {
      rows.push_back(row.struct_value());
    }
    return rows;
  }

  // Runs what matches and checks that there are these rows, each whole.
  void ExpectRows(const std::string& filter, const std::vector<std::string>& names,
                  const std::vector<std::string>& more = {}) {
    std::vector<std::string> found;
    for (const google::protobuf::Struct& row : Rows(filter, more)) {
      const auto& fields = row.fields();
      found.push_back(fields.at("name").string_value());
      EXPECT_GT(fields.at("value").number_value(), 0) << found.back();
      EXPECT_GT(fields.at("ceiling").number_value(), 0) << found.back();
      EXPECT_GT(fields.at("ratio").number_value(), 0) << found.back();
      EXPECT_LE(fields.at("ratio_low").number_value(), fields.at("ratio").number_value());
      EXPECT_GE(fields.at("ratio_high").number_value(),
                fields.at("ratio").number_value());
      EXPECT_TRUE(fields.at("quick").bool_value());
      EXPECT_FALSE(fields.at("unit").string_value().empty());
      EXPECT_FALSE(fields.at("ceiling_is").string_value().empty());
    }
    EXPECT_EQ(found, names);
  }

  testing::TempDir dir_;
  const std::string json_ = dir_.path() + "/rows.json";
};

TEST_F(KvtierBench, MakesTheWiresRows) {
  ExpectRows("^wire\\.(append|read)", {"wire.append", "wire.append.full", "wire.read"});
}

TEST_F(KvtierBench, MakesTheSelectionsRows) {
  ExpectRows("^wire\\.retrieve",
             {"wire.retrieve_8k", "wire.retrieve_8k.held", "wire.retrieve_8k.window",
              "wire.retrieve_64k", "wire.retrieve_64k.held", "wire.retrieve_64k.window"});
}

TEST_F(KvtierBench, MakesTheKernelsRows) {
  ExpectRows("^score\\.", {"score.bounds", "score.bounds.cached", "score.sketch",
                           "score.sketch.cached"});
}

TEST_F(KvtierBench, MakesTheDaemonsRowsAgainstGoals) {
  ExpectRows("^daemon\\.", {"daemon.idle_rss", "daemon.start"});
  for (const google::protobuf::Struct& row : Rows("^daemon\\.idle")) {
    EXPECT_EQ(row.fields().at("ceiling_is").string_value(), "goal");
    EXPECT_EQ(row.fields().at("ceiling").number_value(), 40);
  }
}

TEST_F(KvtierBench, MakesTheDisksRowsWhereTheProbeCanRun) {
  const std::vector<std::string> disk = {"--disk-directory", dir_.path()};
  if (!RawDisk::Create(dir_.path(), 1 << 20).ok()) {  // no io_uring, or no O_DIRECT
    EXPECT_EQ(Run({"--quick", "--filter", "^disk.page_read", disk[0], disk[1]}), 1);
    return;
  }
  ExpectRows("^disk\\.",
             {"disk.page_read", "disk.block_read", "disk.restore", "disk.durable_write",
              "disk.durable_write_fresh", "disk.durable_write_filling",
              "disk.demand_under_write", "disk.start_1m", "disk.resume_64k"},
             disk);
  for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
    EXPECT_EQ(entry.path().string(), json_) << "is left";
  }
}

TEST_F(KvtierBench, MakesTheEvictionsRows) {
  ExpectRows("^eviction\\.", {"eviction.chat", "eviction.scan", "eviction.zipf",
                              "eviction.agents", "eviction.rounds", "eviction.shift"});
}

TEST_F(KvtierBench, ListsWhatItWouldRun) {
  testing::ChildProcess process({KVTIER_BENCH_PATH, "--list", "--filter", "^daemon"});
  EXPECT_EQ(process.ReadLine(), "daemon.idle_rss");
  EXPECT_EQ(process.ReadLine(), "daemon.start");
  EXPECT_EQ(process.ReadLine(), "");
  EXPECT_EQ(process.Wait(), 0);
}

TEST_F(KvtierBench, ABenchThatFailsIsSaidAndKeepsNoOtherFromRunning) {
  EXPECT_EQ(Run({"--quick", "--filter", "8k$|idle", "--keys", dir_.path() + "/none",
                 "--json", json_}),
            1);
  std::stringstream text;
  text << std::ifstream(json_).rdbuf();
  EXPECT_NE(text.str().find("daemon.idle_rss"), std::string::npos);
  EXPECT_EQ(text.str().find("wire.retrieve_8k"), std::string::npos);
}

TEST_F(KvtierBench, UsageErrorsExitWithTwo) {
  EXPECT_EQ(Run({"--filter", "nothing"}), 2);
  EXPECT_EQ(Run({"--filter", "("}), 2);
  EXPECT_EQ(Run({"--rounds", "0"}), 2);
  EXPECT_EQ(Run({"--no-such-flag"}), 2);
  EXPECT_EQ(Run({"--json", dir_.path() + "/no/such/directory"}), 2);
}

}  // namespace
}  // namespace kvtier::bench
