// Goal: each mistake gets the code that says whose it is and a message that says what to
// do, and harms no other sequence.
// Method: make each mistake against a real kvtierd, then store and read on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "absl/strings/match.h"
#include "client/cpp/client.h"
#include "kvtier/v1/worker.grpc.pb.h"
#include "tests/daemon/kvtierd_process.h"
#include "tests/daemon/raw_call.h"
#include "tests/daemon/test_model.h"

namespace kvtier {
namespace {

using absl::StatusCode;
using client::AppendRows;
using client::RetrieveItem;
using client::RetrievePart;
using testing::AppendAll;
using testing::AppendLayer;
using testing::AsBytes;
using testing::kDim;
using testing::kKvHeads;
using testing::KvtierdProcess;
using testing::OpenTestSequence;
using testing::TestQuery;
using testing::TestTokens;

// A message that tells the reader what to do names a number, a limit or a choice; at the
// least it is a sentence.
void ExpectError(const absl::Status& status, StatusCode code,
                 const std::string& says = "") {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_GE(status.message().size(), 20u) << status;
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(says));
}

class WorkerErrors : public ::testing::Test {
 protected:
  void SetUp() override { Start(""); }

  void Start(const std::string& toml) {
    client_.reset();
    daemon_ = std::make_unique<KvtierdProcess>(toml);
    ASSERT_TRUE(daemon_->ready());
    auto client = client::Client::Connect({.socket = daemon_->socket()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    auto opened = OpenTestSequence(*client_, TestTokens(256), "oracle", 8);
    ASSERT_TRUE(opened.ok()) << opened.status();
    sequence_ = opened->sequence;
    ASSERT_TRUE(AppendAll(*client_, sequence_, 0, 128).ok());
  }

  void TearDown() override {
    // Whatever was wrong, the sequence goes on where it was.
    if (client_ == nullptr || expect_dead_) return;
    EXPECT_TRUE(AppendAll(*client_, sequence_, 128, 8).ok());
    auto rows = testing::ReadLayer(*client_, sequence_, 0, 0, 136);
    ASSERT_TRUE(rows.ok()) << rows.status();
    EXPECT_TRUE(*rows == testing::StoredRows(0, 0, 136));
  }

  absl::Status Append(const std::function<void(AppendRows*)>& spoil) {
    const std::vector<float> keys = TestRows(testing::Side::kKey, 0, 128, 8);
    const std::vector<float> values = TestRows(testing::Side::kValue, 0, 128, 8);
    AppendRows rows;
    rows.sequence = sequence_;
    rows.start = TokenIndex(128);
    rows.token_count = 8;
    rows.key.buffer = AsBytes(keys);
    rows.value.buffer = AsBytes(values);
    spoil(&rows);
    return client_->Append({}, {rows}).status();
  }

  absl::Status Retrieve(const std::function<void(RetrieveItem*)>& spoil) {
    const std::vector<float> query = TestQuery();
    RetrieveItem item;
    item.sequence = sequence_;
    item.query = query;
    item.candidates_end = TokenIndex(128);
    spoil(&item);
    absl::Status error;
    absl::Status status = client_->Retrieve(StepIndex(1), {item}, [&](RetrievePart part) {
      error = part.error;
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << "an item's error must not end the stream: " << status;
    return error;
  }

  std::unique_ptr<KvtierdProcess> daemon_;
  std::unique_ptr<client::Client> client_;
  SequenceId sequence_;
  bool expect_dead_ = false;
};

TEST_F(WorkerErrors, WrongShapeOfRows) {
  ExpectError(
      Append([](AppendRows* rows) { rows->key.buffer = rows->key.buffer.subspan(4); }),
      StatusCode::kInvalidArgument);
  ExpectError(Append([](AppendRows* rows) { rows->value.buffer = {}; }),
              StatusCode::kInvalidArgument);
  ExpectError(Append([](AppendRows* rows) { rows->token_count = 9; }),
              StatusCode::kInvalidArgument);
}

TEST_F(WorkerErrors, WrongDtypeIsAWrongSize) {
  // Half the bytes: what f16 rows would have.
  ExpectError(Append([](AppendRows* rows) {
                rows->key.buffer = rows->key.buffer.first(rows->key.buffer.size() / 2);
                rows->value.buffer =
                    rows->value.buffer.first(rows->value.buffer.size() / 2);
              }),
              StatusCode::kInvalidArgument);
}

TEST_F(WorkerErrors, WrongHeadCount) {
  const std::vector<float> three_heads((kKvHeads + 1) * 8 * kDim);
  ExpectError(Append([&](AppendRows* rows) {
                rows->key.buffer = AsBytes(three_heads);
                rows->value.buffer = AsBytes(three_heads);
              }),
              StatusCode::kInvalidArgument);
  const std::vector<float> query(3 * kDim);
  ExpectError(Retrieve([&](RetrieveItem* item) { item->query = query; }),
              StatusCode::kInvalidArgument);
}

TEST_F(WorkerErrors, LayerOutOfRange) {
  ExpectError(Append([](AppendRows* rows) { rows->layer = LayerIndex(2); }),
              StatusCode::kInvalidArgument, "2");
  ExpectError(Retrieve([](RetrieveItem* item) { item->layer = LayerIndex(2); }),
              StatusCode::kInvalidArgument, "2");
}

TEST_F(WorkerErrors, AppendOutOfOrderNamesTheNextToken) {
  ExpectError(Append([](AppendRows* rows) { rows->start = TokenIndex(130); }),
              StatusCode::kFailedPrecondition, "128");
  ExpectError(Append([](AppendRows* rows) { rows->start = TokenIndex(0); }),
              StatusCode::kFailedPrecondition, "128");
}

TEST_F(WorkerErrors, UnknownSequence) {
  const SequenceId nobody(987654);
  ExpectError(Append([&](AppendRows* rows) { rows->sequence = nobody; }),
              StatusCode::kNotFound);
  ExpectError(Retrieve([&](RetrieveItem* item) { item->sequence = nobody; }),
              StatusCode::kNotFound);
  ExpectError(client_->Seal(nobody, false).status(), StatusCode::kNotFound);
  ExpectError(client_->Truncate(nobody, 0).status(), StatusCode::kNotFound);
  ExpectError(client_->Fork(nobody).status(), StatusCode::kNotFound);
  ExpectError(client_->Close(nobody), StatusCode::kNotFound);
  client::ReadRange range;
  range.sequence = nobody;
  range.token_count = 1;
  ExpectError(client_->Read(range, [](client::ReadPart) { return absl::OkStatus(); }),
              StatusCode::kNotFound);
}

TEST_F(WorkerErrors, AnotherSessionsSequenceIsUnknown) {
  auto other = client::Client::Connect({.socket = daemon_->socket()});
  ASSERT_TRUE(other.ok()) << other.status();
  ExpectError((*other)->Close(sequence_), StatusCode::kNotFound);
}

TEST_F(WorkerErrors, UnknownSession) {
  auto stub = v1::Worker::NewStub(testing::RawChannel(daemon_->socket()));
  grpc::ClientContext context;
  v1::CloseRequest request;
  request.set_session_id(987654);
  request.set_sequence_id(sequence_.value());
  v1::CloseResponse response;
  const grpc::Status status = stub->Close(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND) << status.error_message();
}

TEST_F(WorkerErrors, NanOrInfinityInAQuery) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity()}) {
    std::vector<float> query = TestQuery();
    query[77] = bad;
    ExpectError(Retrieve([&](RetrieveItem* item) { item->query = query; }),
                StatusCode::kInvalidArgument);
  }
}

TEST_F(WorkerErrors, CandidatesBeyondTheSealedTokens) {
  ExpectError(
      Retrieve([](RetrieveItem* item) { item->candidates_end = TokenIndex(192); }),
      StatusCode::kInvalidArgument, "128");
}

TEST_F(WorkerErrors, BudgetThatMakesNoSense) {
  ExpectError(OpenTestSequence(*client_, TestTokens(64), "kvtier", 0).status(),
              StatusCode::kInvalidArgument, "budget");
  ExpectError(OpenTestSequence(*client_, TestTokens(64), "full", 5).status(),
              StatusCode::kInvalidArgument, "budget");
}

TEST_F(WorkerErrors, UnknownSystemListsTheKnownOnes) {
  ExpectError(OpenTestSequence(*client_, TestTokens(64), "magic", 8).status(),
              StatusCode::kInvalidArgument, "quest");
}

TEST_F(WorkerErrors, UnknownModel) {
  client::SequenceOptions options;
  options.retrieval = {.system = "full", .budget_tokens = 0, .dense_layers = {}};
  ExpectError(client_->OpenSequence(options).status(), StatusCode::kNotFound);
}

TEST_F(WorkerErrors, ModelsThatAreNotServed) {
  retrieval::ModelSpec window = testing::TestModel();
  window.layers[1].window_tokens = 128;
  EXPECT_FALSE(client_->RegisterModel(window).ok());
  retrieval::ModelSpec heads = testing::TestModel();
  heads.layers[1].query_heads = 3;
  ExpectError(client_->RegisterModel(heads).status(), StatusCode::kInvalidArgument);
}

TEST_F(WorkerErrors, DurableSealNeedsADisk) {
  ExpectError(client_->Seal(sequence_, true).status(), StatusCode::kFailedPrecondition);
}

TEST_F(WorkerErrors, ReadBeyondTheTokens) {
  ExpectError(testing::ReadLayer(*client_, sequence_, 0, 0, 129).status(),
              StatusCode::kInvalidArgument, "128");
}

TEST_F(WorkerErrors, MessageOverTheLimit) {
  auto stub = v1::Worker::NewStub(testing::RawChannel(daemon_->socket()));
  grpc::ClientContext context;
  v1::AppendRequest request;
  request.set_session_id(client_->session().value());
  request.add_entries()->mutable_inline_()->set_key(std::string(17 << 20, 'x'));
  v1::AppendResponse response;
  const grpc::Status status = stub->Append(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  // The client library splits appends; what it can't split says what to do.
  const std::vector<uint32_t> tokens(5 << 20, 1u << 31);
  ExpectError(OpenTestSequence(*client_, tokens).status(), StatusCode::kResourceExhausted,
              "limits.message_max");
}

TEST_F(WorkerErrors, OverTheMemoryBudget) {
  Start("[host]\ncapacity = \"8MiB\"\nregion = \"1MiB\"\n");
  auto opened = OpenTestSequence(*client_, TestTokens(1 << 16, 3));
  ASSERT_TRUE(opened.ok()) << opened.status();
  absl::Status status;
  // 8 MiB hold some 4,000 tokens of 2 KiB.
  for (uint32_t begin = 0; begin < (1 << 14) && status.ok(); begin += 256) {
    status = AppendAll(*client_, opened->sequence, begin, 256);
  }
  ExpectError(status, StatusCode::kResourceExhausted, "[host] capacity");
  EXPECT_TRUE(client_->Close(opened->sequence).ok());
}

TEST_F(WorkerErrors, TooMuchUnsealed) {
  Start("[host]\nunsealed_max = \"1MiB\"\n");
  auto opened = OpenTestSequence(*client_, TestTokens(8192, 3));
  ASSERT_TRUE(opened.ok()) << opened.status();
  ExpectError(AppendLayer(*client_, opened->sequence, 0, 0, 4096),
              StatusCode::kResourceExhausted, "unsealed_max");
  EXPECT_TRUE(client_->Close(opened->sequence).ok());
}

TEST_F(WorkerErrors, TooManySequencesAndSessions) {
  Start("[limits]\nsequences_max = 2\nsessions_max = 2\nmodels_max = 1\n");
  auto second = OpenTestSequence(*client_, TestTokens(64, 5));
  ASSERT_TRUE(second.ok()) << second.status();
  ExpectError(OpenTestSequence(*client_, TestTokens(64, 6)).status(),
              StatusCode::kResourceExhausted, "sequences_max");
  auto two = client::Client::Connect({.socket = daemon_->socket()});
  ASSERT_TRUE(two.ok()) << two.status();
  ExpectError(client::Client::Connect({.socket = daemon_->socket()}).status(),
              StatusCode::kResourceExhausted, "sessions_max");
  retrieval::ModelSpec another = testing::TestModel();
  another.salt = "another";
  ExpectError(client_->RegisterModel(another).status(), StatusCode::kResourceExhausted,
              "models_max");
}

TEST_F(WorkerErrors, SecondMessageOnASession) {
  auto stub = v1::Worker::NewStub(testing::RawChannel(daemon_->socket()));
  grpc::ClientContext context;
  auto stream = stub->Session(&context);
  v1::SessionResponse response;
  ASSERT_TRUE(stream->Write(v1::SessionRequest()));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.limits().chunk_tokens(), kChunkTokens);
  EXPECT_EQ(response.limits().message_bytes_max(), 16u << 20);
  ASSERT_TRUE(stream->Write(v1::SessionRequest()));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(WorkerErrors, FormsThatAreNotServed) {
  auto stub = v1::Worker::NewStub(testing::RawChannel(daemon_->socket()));
  grpc::ClientContext context;
  auto stream = stub->Retrieve(&context);
  v1::RetrieveRequest request;
  request.set_session_id(client_->session().value());
  request.set_step(1);
  request.add_items()->set_form(v1::SELECTION_FORM_LOCATIONS);
  ASSERT_TRUE(stream->Write(request));
  v1::RetrieveResponse response;
  ASSERT_TRUE(stream->Read(&response));
  ASSERT_EQ(response.results_size(), 1);
  EXPECT_EQ(response.results(0).error().code(), grpc::StatusCode::UNIMPLEMENTED);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

}  // namespace
}  // namespace kvtier
