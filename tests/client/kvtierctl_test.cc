// Goal: kvtierctl's output is what people and programs rely on, and its exit code says
// what happened.
// Method: render known values; run the binary against a real daemon and against none.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/cli/json.h"
#include "client/cli/render.h"
#include "client/cli/table.h"
#include "client/cpp/client.h"
#include "tests/daemon/kvtierd_process.h"

namespace kvtier::cli {
namespace {

using testing::ChildProcess;
using ::testing::HasSubstr;
using testing::KvtierdProcess;

TEST(Json, EscapesWhatItMust) {
  EXPECT_EQ(JsonString("a\"b\\c\n\x7f"), "\"a\\\"b\\\\c\\u000a\\u007f\"");
  EXPECT_EQ(JsonString("gr\xc3\xbc\xc3\x9f"), "\"gr\xc3\xbc\xc3\x9f\"");
}

TEST(Table, AlignsNumbersRightAndHidesControlCharacters) {
  Table table({"name", "bytes"});
  table.Add({"a\x1b[2J", "5"});
  table.Add({"", "1000"});
  EXPECT_EQ(table.Text(),
            "name   bytes\n"
            "a?[2J      5\n"
            "-       1000\n");
}

TEST(Table, WritesSizesAndAgesForPeople) {
  EXPECT_EQ(HumanBytes(12), "12 B");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes(uint64_t{4} << 30), "4 GiB");
  EXPECT_EQ(HumanSeconds(59), "59 s");
  EXPECT_EQ(HumanSeconds(3 * 86400 + 4 * 3600), "3 d 4 h");
}

TEST(Render, SequencesAsJsonAreStable) {
  client::SequenceInfo info;
  info.namespace_name = "default";
  info.sequence_id = 7;
  info.session_id = 2;
  info.model_label = "m";
  info.system = "kvtier";
  info.budget_tokens = 256;
  info.sealed_tokens = 128;
  info.tail_tokens = 3;
  info.cached_tokens = 64;
  EXPECT_EQ(SequencesJson({info}),
            "{\"sequences\": [{\"namespace_name\": \"default\", \"sequence_id\": 7, "
            "\"session_id\": 2, \"model_label\": \"m\", \"system\": \"kvtier\", "
            "\"budget_tokens\": 256, \"sealed_tokens\": 128, \"tail_tokens\": 3, "
            "\"cached_tokens\": 64}]}\n");
}

TEST(Kvtierctl, ShowsARunningDaemon) {
  KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  auto worker =
      client::Client::Connect({.socket = daemon.socket(), .worker_label = "w1"});
  ASSERT_TRUE(worker.ok()) << worker.status();
  const std::vector<std::string> base = {KVTIERCTL_PATH, "--socket",
                                         daemon.admin_socket()};
  const auto run = [&](std::vector<std::string> arguments) {
    std::vector<std::string> all = base;
    all.insert(all.end(), arguments.begin(), arguments.end());
    ChildProcess process(all);
    std::string text, line;
    // An empty line is not the end; three in a row are.
    for (int empty = 0; empty < 3;) {
      line = process.ReadLine();
      empty = line.empty() ? empty + 1 : 0;
      text += line + "\n";
    }
    EXPECT_EQ(process.Wait(), 0);
    return text;
  };
  EXPECT_THAT(run({"status"}), ::testing::AllOf(HasSubstr("kvtierd 0."),
                                                HasSubstr("host"), HasSubstr("w1")));
  EXPECT_THAT(run({"status", "--json"}),
              ::testing::AllOf(HasSubstr("\"worker_label\": \"w1\""),
                               HasSubstr("\"capacity_bytes\": 4294967296")));
  EXPECT_THAT(run({"sequences", "--json"}), HasSubstr("{\"sequences\": []}"));
  EXPECT_THAT(run({"sessions"}), HasSubstr("w1"));
  EXPECT_THAT(run({"sessions", "--json"}), HasSubstr("\"worker_label\": \"w1\""));
  EXPECT_THAT(run({"evict", "--bytes", "2GiB", "--json"}),
              HasSubstr("{\"freed_bytes\": 0}"));
  EXPECT_THAT(run({"verify"}), HasSubstr("0 pages read, 0 bad"));
  EXPECT_THAT(run({"watch", "--count", "2", "--interval", "0.1"}), HasSubstr("+tokens"));
}

TEST(Kvtierctl, ExitCodeSaysWhatHappened) {
  ChildProcess none({KVTIERCTL_PATH, "--socket", "/tmp/kvtier-nobody.sock", "status"});
  EXPECT_EQ(none.Wait(), 3);
  ChildProcess usage({KVTIERCTL_PATH, "dance"});
  EXPECT_EQ(usage.Wait(), 2);
  ChildProcess nothing({KVTIERCTL_PATH});
  EXPECT_EQ(nothing.Wait(), 2);
  KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  ChildProcess no_tier(
      {KVTIERCTL_PATH, "--socket", daemon.admin_socket(), "verify", "--tier", "tape"});
  EXPECT_EQ(no_tier.Wait(), 1);
  ChildProcess error({KVTIERCTL_PATH, "--socket", daemon.admin_socket(), "sequences",
                      "--namespace", "nobody"});
  EXPECT_EQ(error.Wait(), 1);
}

}  // namespace
}  // namespace kvtier::cli
