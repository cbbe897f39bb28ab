// Goal: what is left after Truncate, Fork, Close and CloseSession is right byte for byte,
// and all memory comes back. Method: an in-process store; budget before against after.

#include "tests/daemon/store_fixture.h"

namespace kvtier::testing {
namespace {

using Code = absl::StatusCode;

class StoreEdit : public StoreTest {};

TEST_F(StoreEdit, TruncateInASealedChunkMakesItTheTail) {
  const SequenceId sequence = Filled(200);
  auto left = session_->Truncate(sequence, 100);
  ASSERT_TRUE(left.ok()) << left.status();
  EXPECT_EQ(left->sealed_tokens, 64);
  EXPECT_EQ(left->tail_tokens, 36);
  ExpectRows(sequence, 0, 0, 100);
  // Another continuation: other ids, other rows.
  const std::vector<uint32_t> ids = Ids(100, 9);
  ASSERT_TRUE(session_->Append({TokenRun{sequence, TokenIndex(100), ids}}, {}).ok());
  auto progress = AppendAll(*session_, model_, 9, sequence, 100, 100);
  ASSERT_TRUE(progress.ok()) << progress.status();
  EXPECT_EQ(progress->sealed_tokens, 192);
  ExpectRows(sequence, 0, 0, 100);
  ExpectRows(sequence, 9, 100, 100);
  EXPECT_EQ(Open(Ids(200))->cached_tokens, 192);  // the old continuation too
}

TEST_F(StoreEdit, TruncateInTheTailAndAtChunkEdges) {
  const SequenceId sequence = Filled(200);
  EXPECT_EQ(session_->Truncate(sequence, 195)->tail_tokens, 3);
  ExpectRows(sequence, 0, 0, 195);
  EXPECT_EQ(session_->Truncate(sequence, 192)->tail_tokens, 0);
  EXPECT_EQ(session_->Truncate(sequence, 128)->sealed_tokens, 128);
  ExpectRows(sequence, 0, 0, 128);
  ASSERT_TRUE(AppendAll(*session_, model_, 0, sequence, 128, 5).ok());
  ExpectRows(sequence, 0, 0, 133);
  EXPECT_EQ(session_->Truncate(sequence, 0)->sealed_tokens, 0);
  ASSERT_TRUE(AppendAll(*session_, model_, 3, sequence, 0, 70).ok());
  ExpectRows(sequence, 3, 0, 70);
}

TEST_F(StoreEdit, TruncateDropsRowsOfLayersThatWereAhead) {
  const SequenceId sequence = Open(Ids(300))->sequence;
  ASSERT_TRUE(AppendAll(*session_, model_, 0, sequence, 0, 100).ok());
  auto ahead = MakeEntry(model_, 0, sequence, 0, 100, 150);
  ASSERT_TRUE(session_->Append({}, {ahead->entry}).ok());
  ASSERT_TRUE(session_->Truncate(sequence, 90).ok());
  ASSERT_TRUE(AppendAll(*session_, model_, 5, sequence, 90, 110).ok());
  ExpectRows(sequence, 0, 0, 90);
  ExpectRows(sequence, 5, 90, 110);
}

TEST_F(StoreEdit, TruncateBeyondTheEndIsRefused) {
  const SequenceId sequence = Filled(10);
  EXPECT_THAT(session_->Truncate(sequence, 11).status(),
              Fails(Code::kInvalidArgument, "10 complete"));
  EXPECT_THAT(session_->Truncate(SequenceId(99), 1).status(),
              Fails(Code::kNotFound, "99"));
}

TEST_F(StoreEdit, TruncateForgetsSelectionsOfCutTokens) {
  const SequenceId sequence = Filled(256, 0, "oracle", 1000);
  const std::vector<float> query = QueryOf(model_, 1);
  OpenSequenceOptions unused;
  RetrieveItem item = ItemFor(sequence, 0, 1, query, 256);
  ASSERT_TRUE(Collect(*session_, item).ok());
  ASSERT_TRUE(session_->Truncate(sequence, 128).ok());
  item = ItemFor(sequence, 0, 2, query, 128);
  item.held_step = StepIndex(1);
  auto parts = Collect(*session_, item);
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_TRUE(parts->front().kept.empty());
  EXPECT_EQ(parts->front().added.size(), 256);
}

TEST_F(StoreEdit, APinKeepsWhatIsCutOffLater) {
  const SequenceId sequence = Filled(192);
  const uint64_t whole = *space_->Pin(sequence);
  ASSERT_TRUE(session_->Truncate(sequence, 64).ok());
  const std::vector<uint32_t> ids = Ids(64, 9);
  ASSERT_TRUE(session_->Append({TokenRun{sequence, TokenIndex(64), ids}}, {}).ok());
  ASSERT_TRUE(AppendAll(*session_, model_, 9, sequence, 64, 64).ok());
  const uint64_t chunk = whole / 3;
  EXPECT_EQ(*space_->Pin(sequence), whole + chunk) << "one more, and none less";
  EXPECT_EQ(space_->Stats().pinned_chunks, 4);
  ASSERT_TRUE(session_->Close(sequence).ok());
  store_->Evict(~uint64_t{0});
  EXPECT_EQ(Open(Ids(192))->cached_tokens, 192);
  EXPECT_EQ(space_->Unpin(sequence), 1);
  EXPECT_EQ(space_->Stats().pinned_bytes, 0);
}

TEST_F(StoreEdit, WhatTwoPinsShareCountsOnce) {
  const SequenceId sequence = Filled(128);
  const SequenceId fork = *session_->Fork(sequence);
  const uint64_t bytes = *space_->Pin(sequence);
  EXPECT_EQ(*space_->Pin(fork), bytes);
  EXPECT_EQ(space_->Stats().pinned_bytes, bytes);
  EXPECT_EQ(space_->Stats().pinned_chunks, 2);
}

TEST_F(StoreEdit, ForkSharesChunksAndCopiesTheTail) {
  const SequenceId sequence = Filled(150);
  const uint64_t pages = Host().pages;
  auto fork = session_->Fork(sequence);
  ASSERT_TRUE(fork.ok()) << fork.status();
  EXPECT_EQ(Host().pages, pages);
  ASSERT_TRUE(AppendAll(*session_, model_, 1, *fork, 150, 20).ok());
  ASSERT_TRUE(AppendAll(*session_, model_, 2, sequence, 150, 20).ok());
  ExpectRows(*fork, 0, 0, 150);
  ExpectRows(*fork, 1, 150, 20);
  ExpectRows(sequence, 0, 0, 150);
  ExpectRows(sequence, 2, 150, 20);
  ASSERT_TRUE(session_->Close(sequence).ok());
  ExpectRows(*fork, 0, 0, 150);
}

TEST_F(StoreEdit, ForkKeepsHeldSelections) {
  const SequenceId sequence = Filled(256, 0, "oracle", 10);
  const std::vector<float> query = QueryOf(model_, 1);
  ASSERT_TRUE(Collect(*session_, ItemFor(sequence, 0, 1, query, 256)).ok());
  const SequenceId fork = *session_->Fork(sequence);
  RetrieveItem item = ItemFor(fork, 0, 2, query, 256);
  item.held_step = StepIndex(1);
  EXPECT_EQ(Collect(*session_, item)->front().kept.size(), 20);
}

TEST_F(StoreEdit, ReadRefusesWhatIsNotThere) {
  const SequenceId sequence = Filled(100);
  EXPECT_THAT(ReadLayer(*session_, sequence, 0, 50, 51).status(),
              Fails(Code::kInvalidArgument, "100 complete"));
  EXPECT_THAT(ReadLayer(*session_, sequence, 2, 0, 1).status(),
              Fails(Code::kInvalidArgument, "layers"));
  EXPECT_THAT(ReadLayer(*session_, sequence, 0, ~uint64_t{0}, 2).status(),
              Fails(Code::kInvalidArgument, "complete"));
  EXPECT_EQ(*ReadLayer(*session_, sequence, 0, 100, 0), "");
}

TEST_F(StoreEdit, ReadComesInParts) {
  const SequenceId sequence = Filled(100);
  ReadRange range;
  range.sequence = sequence;
  range.token_count = 100;
  std::vector<std::string> layers(2);
  uint64_t next = 0;
  ASSERT_TRUE(session_
                  ->Read(range, 10 * 512,
                         [&](ReadPart part) {
                           EXPECT_LE(part.rows.size(), 10 * 512);
                           EXPECT_EQ(part.token_begin.value(), next % 100);
                           EXPECT_EQ(part.rows, StoredRows(model_, 0, part.layer.value(),
                                                           next % 100, part.token_count));
                           next += part.token_count;
                           return true;
                         })
                  .ok());
  EXPECT_EQ(next, 200);
  EXPECT_EQ(session_->Read(range, 512, [](ReadPart) { return false; }).code(),
            Code::kCancelled);
}

TEST_F(StoreEdit, DurableNeedsADisk) {
  const SequenceId sequence = Filled(64);
  EXPECT_THAT(session_->Seal(sequence, Durability::kDurable).status(),
              Fails(Code::kFailedPrecondition, "no disk tier"));
}

TEST_F(StoreEdit, AClosedSessionAnswersNotFoundAndGivesMemoryBack) {
  const uint64_t before = used();
  const SequenceId sequence = Open(Ids(200))->sequence;
  auto half = MakeEntry(model_, 0, sequence, 0, 0, 200);  // layer 1 never comes
  ASSERT_TRUE(session_->Append({}, {half->entry}).ok());
  EXPECT_GT(used(), before);
  space_->CloseSession(session_->id());
  space_->CloseSession(session_->id());
  EXPECT_EQ(used(), before);
  EXPECT_EQ(Host().chunks, 0);
  EXPECT_THAT(session_->Append({}, {half->entry}).status(),
              Fails(Code::kNotFound, "closed"));
  EXPECT_THAT(Open({}).status(), Fails(Code::kNotFound, "closed"));
  EXPECT_THAT(space_->FindSession(session_->id()).status(),
              Fails(Code::kNotFound, "open another"));
}

TEST_F(StoreEdit, ASessionClosedInMidCallFinishesIt) {
  const SequenceId sequence = Filled(128);
  const std::vector<float> query = QueryOf(model_, 1);
  uint32_t tokens = 0;
  absl::Status status = session_->Retrieve(ItemFor(sequence, 0, 1, query, 128), 1024,
                                           [&](RetrievePart part) {
                                             space_->CloseSession(session_->id());
                                             tokens += part.added_counts[0];
                                             return true;
                                           });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(tokens, 128);
}

TEST_F(StoreEdit, LimitsAreTypedErrors) {
  StoreOptions options;
  options.sequences_max = 1;
  options.sessions_max = 1;
  options.models_max = 1;
  Start(options);
  const SequenceId sequence = Filled(10);
  EXPECT_THAT(Open({}).status(), Fails(Code::kResourceExhausted, "sequences_max"));
  EXPECT_THAT(session_->Fork(sequence).status(),
              Fails(Code::kResourceExhausted, "sequences_max"));
  EXPECT_THAT(space_->OpenSession("", 0).status(),
              Fails(Code::kResourceExhausted, "sessions_max"));
  EXPECT_THAT(space_->RegisterModel(SmallModel(1)).status(),
              Fails(Code::kResourceExhausted, "models_max"));
  EXPECT_EQ(*space_->RegisterModel(model_), digest_);
  EXPECT_THAT(space_->OpenSession(std::string(257, 'x'), 0).status(),
              Fails(Code::kInvalidArgument, "worker_label"));
}

TEST_F(StoreEdit, OpenRefusesWhatCanNotBeRight) {
  OpenSequenceOptions options;
  options.retrieval.system = "full";
  EXPECT_THAT(session_->OpenSequence(options).status(),
              Fails(Code::kNotFound, "RegisterModel"));
  options.model = digest_;
  options.extra_key = std::string(4097, 'x');
  EXPECT_THAT(session_->OpenSequence(options).status(),
              Fails(Code::kInvalidArgument, "extra_key"));
  options.extra_key.clear();
  options.computed_under = std::string(257, 'x');
  EXPECT_THAT(session_->OpenSequence(options).status(),
              Fails(Code::kInvalidArgument, "computed_under"));
  EXPECT_THAT(Open({}, "no such").status(), Fails(Code::kInvalidArgument, ""));
  EXPECT_THAT(Open({}, "kvtier", 0).status(), Fails(Code::kInvalidArgument, ""));
  retrieval::ModelSpec bare = SmallModel();
  bare.abstracts.bounds = false;
  options = OpenSequenceOptions{};
  options.model = *space_->RegisterModel(bare);
  options.retrieval.system = "quest";
  options.retrieval.budget_tokens = 16;
  EXPECT_THAT(session_->OpenSequence(options).status(),
              Fails(Code::kFailedPrecondition, ""));
}

TEST_F(StoreEdit, StoreOptionsAndNamesAreChecked) {
  StoreOptions options;
  options.host_region_bytes = 100;
  EXPECT_THAT(Store::Create(options).status(), Fails(Code::kInvalidArgument, "region"));
  options = StoreOptions{};
  options.host_capacity_bytes = options.host_region_bytes;
  EXPECT_THAT(Store::Create(options).status(),
              Fails(Code::kInvalidArgument, "two regions"));
  options = StoreOptions{};
  options.models_max = 0;
  EXPECT_THAT(Store::Create(options).status(),
              Fails(Code::kInvalidArgument, "models_max"));
  EXPECT_THAT(store_->AddNamespace("test").status(), Fails(Code::kAlreadyExists, "test"));
  EXPECT_THAT(store_->AddNamespace("No").status(), Fails(Code::kInvalidArgument, "No"));
}

}  // namespace
}  // namespace kvtier::testing
