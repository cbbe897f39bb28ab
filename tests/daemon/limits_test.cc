// Goal: limits that no ordinary call meets hold, with an error that says what to do, and
// a former daemon's ids address nobody.
// Method: real kvtierd; raw streams where the client library would not do such a thing.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "kvtier/v1/worker.grpc.pb.h"
#include "tests/daemon/kvtierd_process.h"
#include "tests/daemon/raw_call.h"
#include "tests/daemon/test_model.h"

namespace kvtier {
namespace {

using ::testing::HasSubstr;
using testing::KvtierdProcess;
using testing::OpenTestSequence;
using testing::TestTokens;

using RawRetrieve = grpc::ClientReaderWriter<v1::RetrieveRequest, v1::RetrieveResponse>;

std::unique_ptr<client::Client> Connect(const KvtierdProcess& daemon) {
  auto client = client::Client::Connect({.socket = daemon.socket()});
  EXPECT_TRUE(client.ok()) << client.status();
  return client.ok() ? *std::move(client) : nullptr;
}

TEST(Limits, ASessionWithoutAFirstMessageEnds) {
  KvtierdProcess daemon("[limits]\nfirst_message = \"300ms\"\n");
  ASSERT_TRUE(daemon.ready());
  auto stub = v1::Worker::NewStub(testing::RawChannel(daemon.socket()));
  grpc::ClientContext context;
  auto stream = stub->Session(&context);
  v1::SessionResponse response;
  const absl::Time start = absl::Now();
  EXPECT_FALSE(stream->Read(&response));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("send a SessionRequest"));
  EXPECT_GT(absl::Now() - start, absl::Milliseconds(250));
}

TEST(Limits, StreamsOverTheLimitAreRefusedAtOnceAndOthersGoOn) {
  constexpr size_t kStreamsMax = 512;
  KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  std::unique_ptr<client::Client> other = Connect(daemon);
  auto stub = v1::Worker::NewStub(testing::RawChannel(daemon.socket()));
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<RawRetrieve>> streams;
  v1::RetrieveRequest nothing;
  nothing.set_step(1);
  v1::RetrieveResponse response;
  const auto open = [&] {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    streams.push_back(stub->Retrieve(contexts.back().get()));
    streams.back()->Write(nothing);
    return streams.back()->Read(&response);
  };
  for (size_t i = 0; i < kStreamsMax; ++i) ASSERT_TRUE(open()) << i;
  ASSERT_FALSE(open());
  const grpc::Status refused = streams.back()->Finish();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("finish one"));
  auto opened = OpenTestSequence(*other, TestTokens(64));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_TRUE(testing::AppendAll(*other, opened->sequence, 0, 64).ok());
  // One that ends makes room for another, as soon as its thread is gone.
  streams[0]->WritesDone();
  EXPECT_TRUE(streams[0]->Finish().ok());
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  bool opened_again = false;
  while (!opened_again && absl::Now() < deadline) {
    opened_again = open();
    if (!opened_again) {
      streams.back()->Finish();
      streams.pop_back();
      contexts.pop_back();
    }
  }
  EXPECT_TRUE(opened_again);
  for (auto& context : contexts) context->TryCancel();
  for (size_t i = 1; i < streams.size(); ++i) {
    if (i != kStreamsMax) streams[i]->Finish();
  }
}

TEST(Limits, APartThatNoMessageHoldsSaysSo) {
  KvtierdProcess daemon("[limits]\nmessage_max = \"256KiB\"\n");
  ASSERT_TRUE(daemon.ready());
  std::unique_ptr<client::Client> client = Connect(daemon);
  auto opened = OpenTestSequence(*client, TestTokens(256), "kvtier", 16);
  ASSERT_TRUE(opened.ok()) << opened.status();
  ASSERT_TRUE(testing::AppendAll(*client, opened->sequence, 0, 256).ok());
  // The rest is answered for each query: with 240 of them it is as long as they are.
  constexpr uint32_t kQueries = 240;
  std::vector<float> queries;
  for (uint32_t i = 0; i < kQueries; ++i) {
    const std::vector<float> query = testing::TestQuery(i);
    queries.insert(queries.end(), query.begin(), query.end());
  }
  client::RetrieveItem item;
  item.sequence = opened->sequence;
  item.layer = LayerIndex(1);
  item.query = queries;
  item.query_count = kQueries;
  item.candidates_end = TokenIndex(256);
  absl::Status error;
  absl::Status status =
      client->Retrieve(StepIndex(1), {item}, [&](client::RetrievePart part) {
        error = part.error;
        return absl::OkStatus();
      });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(error.code(), absl::StatusCode::kResourceExhausted) << error;
  EXPECT_THAT(std::string(error.message()), HasSubstr("limits.message_max"));
  EXPECT_TRUE(testing::ReadLayer(*client, opened->sequence, 0, 0, 256).ok());
}

TEST(Limits, IdsOfAFormerDaemonAddressNobody) {
  testing::TempDir dir;
  uint64_t former_session;
  SequenceId sequence;
  {
    KvtierdProcess daemon("", dir.path());
    ASSERT_TRUE(daemon.ready());
    std::unique_ptr<client::Client> client = Connect(daemon);
    auto opened = OpenTestSequence(*client, TestTokens(64));
    ASSERT_TRUE(opened.ok()) << opened.status();
    former_session = client->session().value();
    sequence = opened->sequence;
    daemon.process().Signal(SIGKILL);
    daemon.process().Wait();
    EXPECT_EQ(client->Close(sequence).code(), absl::StatusCode::kUnavailable);
  }
  KvtierdProcess daemon("", dir.path());
  ASSERT_TRUE(daemon.ready());
  std::unique_ptr<client::Client> client = Connect(daemon);
  auto opened = OpenTestSequence(*client, TestTokens(64));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_NE(client->session().value(), former_session);
  auto stub = v1::Worker::NewStub(testing::RawChannel(daemon.socket()));
  grpc::ClientContext context;
  v1::CloseRequest request;
  request.set_session_id(former_session);
  request.set_sequence_id(opened->sequence.value());
  v1::CloseResponse response;
  EXPECT_EQ(stub->Close(&context, request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(client->Close(opened->sequence).ok());
}

TEST(Limits, TakesAllTheDescriptorsThatItMay) {
  KvtierdProcess daemon;
  ASSERT_TRUE(daemon.ready());
  std::ifstream limits(absl::StrCat("/proc/", daemon.process().pid(), "/limits"));
  std::string line;
  while (std::getline(limits, line) && line.rfind("Max open files", 0) != 0) {
  }
  std::istringstream words(line.substr(std::string("Max open files").size()));
  std::string soft;
  std::string hard;
  words >> soft >> hard;
  EXPECT_FALSE(soft.empty());
  EXPECT_EQ(soft, hard);
}

}  // namespace
}  // namespace kvtier
