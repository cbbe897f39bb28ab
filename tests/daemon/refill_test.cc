// Goal: what a worker is told of a damaged chunk, and how it mends it.
// Method: a real kvtierd with a disk tier, started anew over segments of which one row
// was changed, through the C++ client.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "client/cpp/admin_client.h"
#include "client/cpp/client.h"
#include "kvtier/v1/worker.grpc.pb.h"
#include "tests/daemon/damage.h"
#include "tests/daemon/kvtierd_process.h"
#include "tests/daemon/raw_call.h"
#include "tests/daemon/test_model.h"

namespace kvtier {
namespace {

using absl::StatusCode;
using client::AppendRows;
using testing::kLayers;
using testing::ReadLayer;
using testing::StoredRows;
using testing::TestTokens;

class Refill : public ::testing::Test {
 protected:
  // 256 tokens on disk, in a daemon that has read none of them. Chunk 2 is damaged.
  void SetUp() override {
    Start();
    auto opened = testing::OpenTestSequence(*client_, TestTokens(256));
    ASSERT_TRUE(opened.ok()) << opened.status();
    ASSERT_TRUE(testing::AppendAll(*client_, opened->sequence, 0, 256).ok());
    ASSERT_TRUE(client_->Seal(opened->sequence, true).ok());
    Start();
    ASSERT_EQ(
        testing::DamageRow(disk_.path() + "/disk", StoredRows(0, 130, 1).substr(0, 512)),
        1);
    opened = testing::OpenTestSequence(*client_, TestTokens(256));
    ASSERT_TRUE(opened.ok()) << opened.status();
    ASSERT_EQ(opened->cached_tokens, 256u);
    sequence_ = opened->sequence;
  }

  void Start() {
    client_.reset();
    if (daemon_ != nullptr) {
      daemon_->process().Signal(SIGTERM);
      ASSERT_EQ(daemon_->process().Wait(), 0);
    }
    daemon_ = std::make_unique<testing::KvtierdProcess>(
        "[disk]\ndirectory = \"" + disk_.path() + "/disk\"\nscrub_rate = 0\n");
    ASSERT_TRUE(daemon_->ready());
    auto client = client::Client::Connect({.socket = daemon_->socket()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  // Of the first layers of a chunk.
  absl::Status Send(uint64_t chunk, uint32_t layers = kLayers) {
    const auto begin = static_cast<uint32_t>(chunk * kChunkTokens);
    std::vector<std::vector<float>> keys, values;
    std::vector<AppendRows> rows;
    for (uint32_t layer = 0; layer < layers; ++layer) {
      keys.push_back(TestRows(testing::Side::kKey, layer, begin, kChunkTokens));
      values.push_back(TestRows(testing::Side::kValue, layer, begin, kChunkTokens));
    }
    for (uint32_t layer = 0; layer < layers; ++layer) {
      AppendRows of_layer;
      of_layer.sequence = sequence_;
      of_layer.layer = LayerIndex(layer);
      of_layer.start = TokenIndex(begin);
      of_layer.token_count = kChunkTokens;
      of_layer.key.buffer = testing::AsBytes(keys[layer]);
      of_layer.value.buffer = testing::AsBytes(values[layer]);
      rows.push_back(of_layer);
    }
    return client_->Refill(sequence_, chunk, rows);
  }

  client::TierStats Disk() {
    auto admin = client::AdminClient::Create({.socket = daemon_->admin_socket()});
    auto stats = (*admin)->GetStats();
    EXPECT_TRUE(stats.ok()) << stats.status();
    return stats->tiers.at(1);
  }

  testing::TempDir disk_;
  std::unique_ptr<testing::KvtierdProcess> daemon_;
  std::unique_ptr<client::Client> client_;
  SequenceId sequence_;
};

TEST_F(Refill, MendsWhatReadingFoundDamaged) {
  absl::Status status = ReadLayer(*client_, sequence_, 0, 0, 256).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()),
              ::testing::HasSubstr("chunk 2, tokens 128 to 191"));
  status = ReadLayer(*client_, sequence_, 1, 0, 256).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("hole at chunk 2"));
  EXPECT_EQ(Disk().hole_chunks, 1u);

  EXPECT_EQ(Send(2, 1).code(), StatusCode::kInvalidArgument) << "a layer is missing";
  EXPECT_EQ(Send(2, 0).code(), StatusCode::kInvalidArgument) << "all layers are";
  EXPECT_EQ(Send(4).code(), StatusCode::kInvalidArgument) << "no such chunk";
  ASSERT_EQ(Send(2), absl::OkStatus());
  ASSERT_EQ(Send(2), absl::OkStatus()) << "again";
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    auto rows = ReadLayer(*client_, sequence_, layer, 0, 256);
    ASSERT_TRUE(rows.ok()) << rows.status();
    EXPECT_TRUE(*rows == StoredRows(layer, 0, 256)) << "layer " << layer;
  }
  ASSERT_TRUE(client_->Seal(sequence_, true).ok());
  EXPECT_EQ(Disk().hole_chunks, 0u);
  EXPECT_EQ(Disk().lost_chunks, 1u);
}

TEST_F(Refill, AnEntryWithoutRowsIsRefused) {
  auto stub = v1::Worker::NewStub(testing::RawChannel(daemon_->socket()));
  grpc::ClientContext context;
  v1::RefillRequest request;
  request.set_session_id(client_->session().value());
  request.set_sequence_id(sequence_.value());
  request.set_chunk_index(2);
  request.add_entries();
  v1::RefillResponse response;
  EXPECT_EQ(stub->Refill(&context, request, &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(Refill, RowsLongerThanAMessageAreRefusedByTheClient) {
  const std::vector<float> long_rows(5 << 20);
  AppendRows rows;
  rows.sequence = sequence_;
  rows.token_count = kChunkTokens;
  rows.key.buffer = rows.value.buffer = testing::AsBytes(long_rows);
  const absl::Status status = client_->Refill(sequence_, 2, {rows});
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("limits.message_max"));
}

}  // namespace
}  // namespace kvtier
