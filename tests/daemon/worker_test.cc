// Goal: what a worker stores comes back byte for byte, equal prefixes are stored once,
// selections are what was asked for, and one worker's slowness is nobody else's.
// Method: a real kvtierd through the C++ client; rows that say where they belong.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstring>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/admin_client.h"
#include "client/cpp/client.h"
#include "client/cpp/held_selection.h"
#include "kvtier/v1/worker.grpc.pb.h"
#include "tests/daemon/kvtierd_process.h"
#include "tests/daemon/raw_call.h"
#include "tests/daemon/test_model.h"

namespace kvtier {
namespace {

using client::HeldSelection;
using client::RetrieveItem;
using client::RetrievePart;
using testing::AppendAll;
using testing::kKvHeads;
using testing::kLayers;
using testing::kRowBytes;
using testing::KvtierdProcess;
using testing::OpenTestSequence;
using testing::ReadLayer;
using testing::StoredRows;
using testing::TestTokens;

// Small messages, so that 200 tokens come in several parts.
constexpr char kSmallMessages[] = "[limits]\nmessage_max = \"256KiB\"\n";

class Worker : public ::testing::Test {
 protected:
  void Start(const std::string& toml = "") {
    daemon_ = std::make_unique<KvtierdProcess>(toml);
    ASSERT_TRUE(daemon_->ready());
    client_ = Connect();
    ASSERT_NE(client_, nullptr);
  }

  std::unique_ptr<client::Client> Connect() {
    auto client = client::Client::Connect({.socket = daemon_->socket()});
    EXPECT_TRUE(client.ok()) << client.status();
    return client.ok() ? *std::move(client) : nullptr;
  }

  client::Stats Stats() {
    auto admin = client::AdminClient::Create({.socket = daemon_->admin_socket()});
    absl::StatusOr<client::Stats> stats = (*admin)->GetStats();
    EXPECT_TRUE(stats.ok()) << stats.status();
    return stats.ok() ? *stats : client::Stats();
  }

  // A sequence of `count` stored tokens.
  SequenceId Store(client::Client& client, uint32_t count, const std::string& system,
                   uint32_t budget, uint32_t salt = 0) {
    auto opened = OpenTestSequence(client, TestTokens(count, salt), system, budget);
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (!opened.ok()) return SequenceId();
    const uint32_t cached = static_cast<uint32_t>(opened->cached_tokens);
    absl::Status status = AppendAll(client, opened->sequence, cached, count - cached);
    EXPECT_TRUE(status.ok()) << status;
    return opened->sequence;
  }

  std::unique_ptr<KvtierdProcess> daemon_;
  std::unique_ptr<client::Client> client_;
};

// The rows of a head's selection are those of its tokens.
void ExpectRowsAreThoseOfTheTokens(const HeldSelection& held, uint32_t layer) {
  for (uint32_t head = 0; head < kKvHeads; ++head) {
    const HeldSelection::Head& one = held.heads()[head];
    ASSERT_EQ(one.rows.size(), one.tokens.size() * kRowBytes);
    for (size_t i = 0; i < one.tokens.size(); ++i) {
      const std::string stored = StoredRows(layer, one.tokens[i], 1);
      EXPECT_EQ(one.rows.substr(i * kRowBytes, kRowBytes),
                stored.substr(head * kRowBytes, kRowBytes))
          << "head " << head << ", token " << one.tokens[i];
    }
  }
}

struct Answer {
  absl::Status status;
  int parts = 0;
  client::RetrieveCost cost;
  size_t rest_floats = 0;
  size_t added = 0;
};

Answer RetrieveInto(client::Client& client, SequenceId sequence, uint32_t layer,
                    uint64_t step, uint64_t begin, uint64_t end, HeldSelection* held,
                    uint32_t query_seed = 1) {
  const std::vector<float> query = testing::TestQuery(query_seed);
  RetrieveItem item;
  item.sequence = sequence;
  item.layer = LayerIndex(layer);
  item.query = query;
  item.candidates_begin = TokenIndex(begin);
  item.candidates_end = TokenIndex(end);
  item.held_step = held->step();
  Answer answer;
  answer.status = client.Retrieve(StepIndex(step), {item}, [&](RetrievePart part) {
    ++answer.parts;
    answer.cost = part.cost;
    answer.rest_floats += part.rest_output.size();
    answer.added += part.added.size();
    return held->Apply(StepIndex(step), part);
  });
  return answer;
}

TEST_F(Worker, ReadsBackWhatItAppended) {
  Start(kSmallMessages);
  const SequenceId sequence = Store(*client_, 200, "full", 0);
  auto sealed = client_->Seal(sequence, false);
  ASSERT_TRUE(sealed.ok()) << sealed.status();
  EXPECT_EQ(sealed->sealed_tokens, 192u);
  EXPECT_EQ(sealed->tail_tokens, 8u);
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    auto rows = ReadLayer(*client_, sequence, layer, 0, 200);
    ASSERT_TRUE(rows.ok()) << rows.status();
    EXPECT_TRUE(*rows == StoredRows(layer, 0, 200)) << "layer " << layer;
  }
  auto middle = ReadLayer(*client_, sequence, 1, 60, 10);
  ASSERT_TRUE(middle.ok()) << middle.status();
  EXPECT_TRUE(*middle == StoredRows(1, 60, 10));
}

TEST_F(Worker, FindsAnotherSessionsPrefixAndStoresItOnce) {
  Start();
  Store(*client_, 200, "full", 0);
  const uint64_t chunks = Stats().tiers.at(0).chunks;
  EXPECT_EQ(chunks, 3u);
  std::unique_ptr<client::Client> second = Connect();
  auto opened = OpenTestSequence(*second, TestTokens(200));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->cached_tokens, 192u);
  EXPECT_EQ(opened->exact_tokens, 192u);
  auto rows = ReadLayer(*second, opened->sequence, 1, 0, 192);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_TRUE(*rows == StoredRows(1, 0, 192));
  EXPECT_EQ(Stats().tiers.at(0).chunks, chunks);
}

TEST_F(Worker, KeepsAPrefixAfterItsSessionEnded) {
  Start();
  Store(*client_, 128, "full", 0);
  client_.reset();
  client_ = Connect();
  auto opened = OpenTestSequence(*client_, TestTokens(128));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->cached_tokens, 128u);
}

TEST_F(Worker, NamespacesShareNothing) {
  Start("[[namespace]]\nname = \"default\"\n[[namespace]]\nname = \"other\"\n");
  Store(*client_, 128, "full", 0);
  auto other = client::Client::Connect({.socket = daemon_->socket("other")});
  ASSERT_TRUE(other.ok()) << other.status();
  auto opened = OpenTestSequence(**other, TestTokens(128));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->cached_tokens, 0u);
}

TEST_F(Worker, FullSelectionComesInPartsAndIsEverything) {
  Start(kSmallMessages);
  const SequenceId sequence = Store(*client_, 256, "full", 0);
  HeldSelection held(kKvHeads, kRowBytes);
  const Answer answer = RetrieveInto(*client_, sequence, 1, 1, 4, 256, &held);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_GT(answer.parts, 1);
  for (const HeldSelection::Head& head : held.heads()) {
    EXPECT_EQ(std::set<uint32_t>(head.tokens.begin(), head.tokens.end()).size(), 252u);
  }
  ExpectRowsAreThoseOfTheTokens(held, 1);
}

TEST_F(Worker, AnAnswerThatWasCutOffIsNotCountedTwice) {
  Start(kSmallMessages);
  const SequenceId sequence = Store(*client_, 256, "full", 0);
  HeldSelection held(kKvHeads, kRowBytes);
  const std::vector<float> query = testing::TestQuery(1);
  RetrieveItem item;
  item.sequence = sequence;
  item.layer = LayerIndex(1);
  item.query = query;
  item.candidates_end = TokenIndex(256);
  // Often: parts arrive while the call that is cut off ends, at any moment of it.
  for (int i = 0; i < 200; ++i) {
    const absl::Status cut =
        client_->Retrieve(StepIndex(1), {item}, [&](const RetrievePart& part) {
          EXPECT_TRUE(held.Apply(StepIndex(1), part).ok());
          return absl::AbortedError("enough");
        });
    ASSERT_EQ(cut.code(), absl::StatusCode::kAborted);
  }
  const Answer again = RetrieveInto(*client_, sequence, 1, 1, 0, 256, &held);
  ASSERT_TRUE(again.status.ok()) << again.status;
  for (const HeldSelection::Head& head : held.heads()) {
    EXPECT_EQ(head.tokens.size(), 256u);
  }
  ExpectRowsAreThoseOfTheTokens(held, 1);
}

TEST_F(Worker, AReadersOwnComputingIsNotCountedAgainstTheDaemon) {
  Start(kSmallMessages);
  Store(*client_, 256, "full", 0);
  auto hurried = client::Client::Connect(
      {.socket = daemon_->socket(), .deadline = absl::Milliseconds(500)});
  ASSERT_TRUE(hurried.ok()) << hurried.status();
  auto opened = OpenTestSequence(**hurried, TestTokens(256), "full", 0);
  ASSERT_TRUE(opened.ok()) << opened.status();
  ASSERT_EQ(opened->cached_tokens, 256u);
  client::ReadRange range;
  range.sequence = opened->sequence;
  range.token_count = 256;
  uint64_t tokens = 0;
  const absl::Status status = (*hurried)->Read(range, [&](const client::ReadPart& part) {
    const absl::Time end = absl::Now() + absl::Milliseconds(tokens == 0 ? 1000 : 0);
    while (absl::Now() < end) {  // computes
    }
    tokens += part.token_count;
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(tokens, 256u * kLayers);
}

TEST_F(Worker, DeltasBuildTheSameSelectionAsAFreshAnswer) {
  Start();
  const SequenceId sequence = Store(*client_, 256, "oracle", 16);
  HeldSelection held(kKvHeads, kRowBytes);
  size_t added = 0;
  for (uint64_t step = 1; step <= 5; ++step) {
    const Answer answer =
        RetrieveInto(*client_, sequence, 1, step, 4, 256, &held, step / 2);
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    added += answer.added;
    HeldSelection fresh(kKvHeads, kRowBytes);
    ASSERT_TRUE(
        RetrieveInto(*client_, sequence, 1, step, 4, 256, &fresh, step / 2).status.ok());
    ExpectRowsAreThoseOfTheTokens(held, 1);
    for (uint32_t head = 0; head < kKvHeads; ++head) {
      const auto& a = held.heads()[head].tokens;
      const auto& b = fresh.heads()[head].tokens;
      EXPECT_EQ(std::set<uint32_t>(a.begin(), a.end()),
                std::set<uint32_t>(b.begin(), b.end()));
    }
  }
  // Steps 2 and 3, 4 and 5 ask with the same query: nothing is sent twice.
  EXPECT_LE(added, 3 * 2 * 16u);
}

TEST_F(Worker, KvtierSystemAnswersItsBudgetAndTheRest) {
  Start();
  const SequenceId sequence = Store(*client_, 256, "kvtier", 16);
  HeldSelection held(kKvHeads, kRowBytes);
  const Answer answer = RetrieveInto(*client_, sequence, 1, 1, 4, 256, &held);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  for (const HeldSelection::Head& head : held.heads()) {
    EXPECT_EQ(head.tokens.size(), 16u);
  }
  EXPECT_EQ(answer.rest_floats, testing::kQueryHeads * testing::kDim);
  EXPECT_EQ(answer.cost.tokens_selected, 32u);
  ExpectRowsAreThoseOfTheTokens(held, 1);
}

TEST_F(Worker, OneCallAsksForManyLayersAndAnErrorIsItsItems) {
  Start();
  const SequenceId sequence = Store(*client_, 128, "oracle", 8);
  const std::vector<float> query = testing::TestQuery();
  std::vector<RetrieveItem> items(3);
  for (uint32_t i = 0; i < items.size(); ++i) {
    items[i].sequence = sequence;
    items[i].layer = LayerIndex(i);  // the model has two
    items[i].query = query;
    items[i].candidates_end = TokenIndex(128);
  }
  std::vector<absl::StatusCode> codes;
  absl::Status status = client_->Retrieve(StepIndex(1), items, [&](RetrievePart part) {
    if (part.last) codes.push_back(part.error.code());
    return absl::OkStatus();
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(codes, ::testing::ElementsAre(absl::StatusCode::kOk, absl::StatusCode::kOk,
                                            absl::StatusCode::kInvalidArgument));
}

TEST_F(Worker, TruncatesAndForks) {
  Start();
  const SequenceId sequence = Store(*client_, 200, "full", 0);
  auto fork = client_->Fork(sequence);
  ASSERT_TRUE(fork.ok()) << fork.status();
  auto cut = client_->Truncate(sequence, 100);
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->sealed_tokens, 64u);
  EXPECT_EQ(cut->tail_tokens, 36u);
  auto forked = ReadLayer(*client_, *fork, 0, 0, 200);
  ASSERT_TRUE(forked.ok()) << forked.status();
  EXPECT_TRUE(*forked == StoredRows(0, 0, 200));
  auto left = ReadLayer(*client_, sequence, 0, 0, 100);
  ASSERT_TRUE(left.ok()) << left.status();
  EXPECT_TRUE(*left == StoredRows(0, 0, 100));
  EXPECT_TRUE(client_->Close(sequence).ok());
  EXPECT_EQ(client_->Close(sequence).code(), absl::StatusCode::kNotFound);
}

TEST_F(Worker, ClientThatNeverReadsHoldsOnePartAndNobodyUp) {
  Start();
  // 8 MiB at each of two layers.
  const SequenceId sequence = Store(*client_, 8192, "full", 0);
  const uint64_t before = daemon_->MemoryBytes("RssAnon");
  auto stub = v1::Worker::NewStub(testing::RawChannel(daemon_->socket()));
  constexpr int kStalled = 8;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<
      grpc::ClientReaderWriter<v1::RetrieveRequest, v1::RetrieveResponse>>>
      streams;
  v1::RetrieveRequest request;
  request.set_session_id(client_->session().value());
  request.set_step(1);
  v1::RetrieveItem* item = request.add_items();
  const std::vector<float> query = testing::TestQuery();
  item->set_sequence_id(sequence.value());
  item->set_query(query.data(), query.size() * sizeof(float));
  item->set_candidates_end(8192);
  for (int i = 0; i < kStalled; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    streams.push_back(stub->Retrieve(contexts.back().get()));
    ASSERT_TRUE(streams.back()->Write(request));
  }
  // Others get on with it meanwhile.
  std::unique_ptr<client::Client> other = Connect();
  const SequenceId mine = Store(*other, 256, "full", 0, /*salt=*/1);
  HeldSelection held(kKvHeads, kRowBytes);
  EXPECT_TRUE(RetrieveInto(*other, mine, 1, 1, 4, 256, &held).status.ok());
  EXPECT_TRUE(ReadLayer(*other, mine, 0, 0, 256).ok());
  // A part, its message and what gRPC makes of it.
  EXPECT_LT(daemon_->MemoryBytes("RssAnon"), before + kStalled * (uint64_t{8} << 20));
  const absl::Time start = absl::Now();
  daemon_->process().Signal(SIGTERM);
  EXPECT_EQ(daemon_->process().Wait(), 0);
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  for (auto& context : contexts) context->TryCancel();
  for (auto& stream : streams) stream->Finish();
}

}  // namespace
}  // namespace kvtier
