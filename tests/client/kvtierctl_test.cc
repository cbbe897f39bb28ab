// Goal: kvtierctl's output is what people and programs rely on, and its exit code says
// what happened.
// Method: render known values; run the binary against a real daemon and against none.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>

#include "client/cli/json.h"
#include "client/cli/render.h"
#include "client/cli/table.h"
#include "client/cpp/client.h"
#include "tests/daemon/damage.h"
#include "tests/daemon/kvtierd_process.h"
#include "tests/daemon/test_model.h"

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

std::string Output(ChildProcess& process) {
  std::string text;
  for (std::string line = process.ReadLine(); !line.empty(); line = process.ReadLine()) {
    text += line + "\n";
  }
  return text;
}

// A daemon with a disk tier and one sequence of two chunks, and kvtierctl's answers.
class Steering : public ::testing::Test {
 protected:
  void SetUp() override {
    daemon_ = std::make_unique<KvtierdProcess>("[disk]\ndirectory = \"" + disk_.path() +
                                               "/disk\"\nscrub_rate = 0\n");
    ASSERT_TRUE(daemon_->ready());
    auto client = client::Client::Connect({.socket = daemon_->socket()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    auto opened = testing::OpenTestSequence(*client_, testing::TestTokens(128));
    ASSERT_TRUE(opened.ok()) << opened.status();
    sequence_ = opened->sequence;
    ASSERT_TRUE(testing::AppendAll(*client_, sequence_, 0, 128).ok());
  }

  // `code`: the exit code that is expected
  std::string Ctl(std::vector<std::string> arguments, int code = 0) {
    arguments.insert(arguments.begin(),
                     {KVTIERCTL_PATH, "--json", "--socket", daemon_->admin_socket()});
    ChildProcess process(arguments);
    const std::string text = Output(process);
    EXPECT_EQ(process.Wait(), code) << arguments[4];
    return text;
  }

  testing::TempDir disk_;
  std::unique_ptr<KvtierdProcess> daemon_;
  std::unique_ptr<client::Client> client_;
  SequenceId sequence_;
};

TEST_F(Steering, PinnedChunksStayUntilTheyAreUnpinned) {
  const std::string number = std::to_string(sequence_.value());
  EXPECT_THAT(Ctl({"pin", number}), HasSubstr("\"pinned_bytes\": "));
  ASSERT_TRUE(client_->Close(sequence_).ok());
  EXPECT_THAT(Ctl({"status"}), HasSubstr("\"pinned_chunks\": 2"));
  EXPECT_THAT(Ctl({"flush"}), HasSubstr("{}"));
  EXPECT_THAT(Ctl({"evict"}), HasSubstr("{\"freed_bytes\": 0}"));
  Ctl({"unpin", "4711"}, 1);
  Ctl({"unpin", number});
  EXPECT_THAT(Ctl({"evict"}), ::testing::Not(HasSubstr("\"freed_bytes\": 0")));
  EXPECT_THAT(Ctl({"status"}), HasSubstr("\"asked\": 2"));
  Ctl({"pin", number}, 1);
  Ctl({"unpin"});  // all of nothing
}

TEST_F(Steering, FlushedChunksAreOnDisk) {
  Ctl({"flush", "--wait", "20"});
  EXPECT_THAT(Ctl({"status"}), HasSubstr("\"tier\": \"disk\""));
  EXPECT_THAT(Ctl({"verify", "--tier", "disk"}), HasSubstr("\"bad_pages\": 0"));
  EXPECT_THAT(Ctl({"verify", "--tier", "disk"}),
              ::testing::Not(HasSubstr("\"pages\": 0,")));
}

TEST_F(Steering, WhatIsBadOnDiskIsNamedAndCounted) {
  Ctl({"flush", "--wait", "20"});
  EXPECT_THAT(Ctl({"status"}), ::testing::AllOf(HasSubstr("\"hole_chunks\": 0"),
                                                HasSubstr("\"writing_chunks\": 0"),
                                                HasSubstr("\"disk_bytes\": ")));
  EXPECT_THAT(Ctl({"status"}), ::testing::Not(HasSubstr("\"disk_bytes\": 0")));
  ASSERT_EQ(testing::DamageRow(disk_.path() + "/disk",
                               testing::StoredRows(1, 70, 1).substr(0, 512)),
            1);
  const std::string verified = Ctl({"verify", "--tier", "disk"}, 1);
  EXPECT_THAT(verified, HasSubstr("\"bad_pages\": 1, \"findings\": [\"chunk "));
  EXPECT_THAT(verified,
              HasSubstr("of namespace default: the page of layer 1, kv head 0"));
  EXPECT_THAT(Ctl({"verify"}, 1), HasSubstr("a hole: it did not verify before"));
  EXPECT_THAT(Ctl({"status"}), HasSubstr("\"hole_chunks\": 1"));
}

TEST_F(Steering, DrainingAdmitsNothingNewAndEndsWithTheLastSession) {
  Ctl({"drain", "--wait", "0"}, 1);  // a session is open
  EXPECT_THAT(Ctl({"status"}), HasSubstr("\"draining\": 1"));
  EXPECT_EQ(testing::OpenTestSequence(*client_, testing::TestTokens(64)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client_->Fork(sequence_).status().code(),
            absl::StatusCode::kFailedPrecondition);
  auto other = client::Client::Connect({.socket = daemon_->socket()});
  EXPECT_EQ(other.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("draining"));
  EXPECT_TRUE(client::WasReached(other.status()));
  EXPECT_TRUE(client_->Seal(sequence_, false).ok()) << "what is open goes on";
  client_.reset();
  Ctl({"drain", "--wait", "20"});
}

TEST_F(Steering, ADrainUnderWayDoesNotHoldUpTheStop) {
  ChildProcess drain(
      {KVTIERCTL_PATH, "--socket", daemon_->admin_socket(), "drain", "--wait", "600"});
  while (Ctl({"status"}).find("\"draining\": 1") == std::string::npos) {
  }
  daemon_->process().Signal(SIGTERM);
  EXPECT_EQ(daemon_->process().Wait(absl::Seconds(10)), 0);
  EXPECT_EQ(drain.Wait(), 1);
}

TEST_F(Steering, ModelSaysWhatAContextCosts) {
  const std::string chunk = Ctl({"model"});
  EXPECT_THAT(chunk, HasSubstr("\"size_tokens\": 64"));
  const std::string more = Ctl({"model", "--size", "1000"});
  EXPECT_THAT(more, HasSubstr("\"size_tokens\": 1024"));
  EXPECT_THAT(more, HasSubstr("\"dtype\": \"f32\""));
  const auto number = [](const std::string& json, const std::string& key) {
    const size_t at = json.find("\"" + key + "\": ");
    return at == std::string::npos ? 0 : std::stoull(json.substr(at + key.size() + 4));
  };
  EXPECT_EQ(number(more, "size_abstract_bytes"), 16 * number(chunk, "abstract_bytes"));
  Ctl({"model", "--size", "18446744073709551615"}, 2);
  EXPECT_EQ(number(more, "size_host_bytes"), 16 * number(chunk, "size_host_bytes"));
  EXPECT_EQ(number(more, "size_disk_bytes"), 16 * number(chunk, "disk_bytes"));
  EXPECT_GT(number(chunk, "disk_bytes"), number(chunk, "rows_bytes"));
  Ctl({"model", "--namespace", "nobody"}, 1);
}

TEST(Kvtierctl, WithoutADiskThereIsNothingToFlush) {
  KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  ChildProcess flush({KVTIERCTL_PATH, "--socket", daemon.admin_socket(), "flush"});
  EXPECT_EQ(flush.Wait(), 1);
  ChildProcess drain({KVTIERCTL_PATH, "--socket", daemon.admin_socket(), "drain"});
  EXPECT_EQ(drain.Wait(), 0);
}

TEST(Kvtierctl, TheDoctorSaysWhatToDo) {
  testing::TempDir dir;
  ChildProcess well({KVTIERCTL_PATH, "doctor", "--json", "--runtime-dir", dir.path(),
                     "--disk", dir.path() + "/disk"});
  const std::string text = Output(well);
  EXPECT_EQ(well.Wait(), 0) << text;
  for (const char* what : {"io_uring", "O_DIRECT", "memlock", "huge pages", "CUDA",
                           "sockets", "free space", "disk directory"}) {
    EXPECT_THAT(text, HasSubstr("\"what\": \"" + std::string(what) + "\""));
  }
  std::ofstream(dir.path() + "/file") << "no directory";
  ChildProcess ill({KVTIERCTL_PATH, "doctor", "--runtime-dir", dir.path(), "--disk",
                    dir.path() + "/file/disk"});
  EXPECT_THAT(Output(ill), HasSubstr("is no directory: choose another"));
  EXPECT_EQ(ill.Wait(), 1);
}

TEST(Kvtierctl, TheDoctorKnowsWhatTheDaemonWillNotMake) {
  testing::TempDir dir;
  const std::string deep = dir.path() + "/a/b";
  const auto doctor = [](std::vector<std::string> arguments, int code) {
    arguments.insert(arguments.begin(), {KVTIERCTL_PATH, "doctor"});
    ChildProcess process(arguments);
    const std::string text = Output(process);
    EXPECT_EQ(process.Wait(), code) << text;
    return text;
  };
  EXPECT_THAT(doctor({"--runtime-dir", deep}, 1), HasSubstr("mkdir -p " + dir.path()));
  EXPECT_THAT(doctor({"--runtime-dir", dir.path(), "--disk", deep}, 1),
              HasSubstr("mkdir -p " + dir.path() + "/a"));
  KvtierdProcess daemon("", deep);
  EXPECT_FALSE(daemon.ready()) << "the doctor is right";
  EXPECT_THAT(doctor({"--runtime-dir", dir.path() + "/a/"}, 0),
              HasSubstr("will be made"));
  std::filesystem::permissions(dir.path(), std::filesystem::perms::all);
  EXPECT_THAT(doctor({"--runtime-dir", dir.path()}, 0), HasSubstr("chmod o-w"));
  EXPECT_THAT(doctor({"--socket", "admin.sock"}, 0), HasSubstr("sockets"));
}

TEST(Kvtierctl, CompletesCommandsAndOptionsInBash) {
  const auto complete = [](const std::string& words, int position) {
    ChildProcess bash({"/bin/bash", "-c",
                       "source <(" KVTIERCTL_PATH " completion bash); COMP_WORDS=(" +
                           words + "); COMP_CWORD=" + std::to_string(position) +
                           "; _kvtierctl; echo \"${COMPREPLY[*]}\""});
    return bash.ReadLine();
  };
  EXPECT_EQ(complete("kvtierctl dr", 1), "drain");
  EXPECT_EQ(complete("kvtierctl --json evict --b", 3), "--bytes");
  EXPECT_EQ(complete("kvtierctl model --s", 2), "--size --socket");
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
