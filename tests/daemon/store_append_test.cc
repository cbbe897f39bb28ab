// Goal: rows come back byte for byte, prefixes are stored once, a refused append
// changes nothing. Method: an in-process store, rows that name their own place, every
// error made to happen.

#include "tests/daemon/store_fixture.h"

namespace kvtier::testing {
namespace {

using Code = absl::StatusCode;

class StoreAppend : public StoreTest {
 protected:
  absl::Status AppendOne(const AppendEntry& entry) {
    return session_->Append({}, absl::MakeConstSpan(&entry, 1)).status();
  }
};

TEST_F(StoreAppend, RowsComeBackByteForByte) {
  const SequenceId sequence = Filled(200);
  ExpectRows(sequence, 0, 0, 200);
  ExpectRows(sequence, 0, 63, 70);
  EXPECT_EQ(session_->Seal(sequence, Durability::kNone)->sealed_tokens, 192);
  EXPECT_EQ(session_->Seal(sequence, Durability::kNone)->tail_tokens, 8);
}

TEST_F(StoreAppend, PrefillLayerByLayerSealsWithTheLastLayer) {
  const SequenceId sequence = Open(Ids(130))->sequence;
  auto first = MakeEntry(model_, 0, sequence, 0, 0, 130);
  auto progress = session_->Append({}, {first->entry});
  ASSERT_TRUE(progress.ok());
  EXPECT_EQ(progress->front().sealed_tokens, 0);
  EXPECT_EQ(progress->front().complete_tokens, 0);
  EXPECT_GT(session_->Info().unsealed_bytes, 0);
  auto second = MakeEntry(model_, 0, sequence, 1, 0, 130);
  progress = session_->Append({}, {second->entry});
  EXPECT_EQ(progress->front().sealed_tokens, 128);
  EXPECT_EQ(progress->front().complete_tokens, 130);
  ExpectRows(sequence, 0, 0, 130);
}

TEST_F(StoreAppend, ConsecutiveRunsOfOneLayerInOneCall) {
  const SequenceId sequence = Open(Ids(100))->sequence;
  std::vector<std::unique_ptr<OwnedEntry>> owned;
  std::vector<AppendEntry> entries;
  for (uint32_t layer : {0, 1}) {
    for (uint32_t begin : {0, 50}) {
      owned.push_back(MakeEntry(model_, 0, sequence, layer, begin, 50));
      entries.push_back(owned.back()->entry);
    }
  }
  ASSERT_TRUE(session_->Append({}, entries).ok());
  ExpectRows(sequence, 0, 0, 100);
}

TEST_F(StoreAppend, IdsSentAfterTheRowsSeal) {
  const SequenceId sequence = Open({})->sequence;
  EXPECT_EQ(AppendAll(*session_, model_, 0, sequence, 0, 64)->sealed_tokens, 0);
  const std::vector<uint32_t> ids = Ids(64);
  const TokenRun run{sequence, TokenIndex(0), ids};
  EXPECT_EQ(session_->Append({run}, {})->front().sealed_tokens, 64);
  EXPECT_EQ(Open(ids)->cached_tokens, 64);
  EXPECT_TRUE(session_->Append({run}, {}).ok());  // again, equal
}

TEST_F(StoreAppend, WrongIdsAreRefused) {
  const SequenceId sequence = Open(Ids(10))->sequence;
  const std::vector<uint32_t> ids = {77};
  EXPECT_THAT(session_->Append({TokenRun{sequence, TokenIndex(3), ids}}, {}).status(),
              Fails(Code::kInvalidArgument, "token 3 is known"));
  EXPECT_THAT(session_->Append({TokenRun{sequence, TokenIndex(11), ids}}, {}).status(),
              Fails(Code::kFailedPrecondition, "the next is 10"));
}

TEST_F(StoreAppend, SecondSequenceWithTheSamePrefixStoresNothing) {
  Filled(256);
  const uint64_t pages = Host().pages;
  const uint64_t written = Host().written_bytes;
  const uint64_t before = used();
  auto opened = Open(Ids(256));
  EXPECT_EQ(opened->cached_tokens, 256);
  EXPECT_EQ(opened->exact_tokens, 256);
  EXPECT_EQ(Host().pages, pages);
  EXPECT_EQ(Host().written_bytes, written);
  EXPECT_LT(used() - before, 16 << 10);  // its own tables
  ExpectRows(opened->sequence, 0, 0, 256);
  EXPECT_EQ(Host().hit_chunks, 4);
  EXPECT_EQ(Host().miss_chunks, 4);
}

TEST_F(StoreAppend, FirstCommitOfANameWins) {
  const SequenceId a = Open(Ids(64))->sequence;
  const SequenceId b = Open(Ids(64))->sequence;
  ASSERT_TRUE(AppendAll(*session_, model_, 1, a, 0, 64).ok());
  ASSERT_TRUE(AppendAll(*session_, model_, 2, b, 0, 64).ok());
  EXPECT_EQ(Host().chunks, 1);
  ExpectRows(a, 1, 0, 64);
  ExpectRows(b, 1, 0, 64);
}

TEST_F(StoreAppend, CachedTokensMaxIsFlooredToChunks) {
  Filled(256);
  OpenSequenceOptions options;
  options.model = digest_;
  const std::vector<uint32_t> ids = Ids(256);
  options.token_ids = ids;
  options.retrieval.system = "full";
  options.cached_tokens_max = 255;
  EXPECT_EQ(session_->OpenSequence(options)->cached_tokens, 192);
  options.cached_tokens_max = 63;
  EXPECT_EQ(session_->OpenSequence(options)->cached_tokens, 0);
}

TEST_F(StoreAppend, ApproximateRowsServeOnlyTheirOwnSystem) {
  const auto ids = Ids(192);
  const SequenceId sequence = Open(ids, "quest", 16)->sequence;
  ASSERT_TRUE(AppendAll(*session_, model_, 0, sequence, 0, 64).ok());
  ASSERT_TRUE(
      AppendAll(*session_, model_, 0, sequence, 64, 64, Exactness::kApproximate).ok());
  ASSERT_TRUE(AppendAll(*session_, model_, 0, sequence, 128, 64).ok());
  auto same = Open(ids, "quest", 16);
  EXPECT_EQ(same->cached_tokens, 192);
  EXPECT_EQ(same->exact_tokens, 64);
  EXPECT_EQ(Open(ids, "full")->cached_tokens, 64);
  EXPECT_EQ(Open(ids, "quest", 17)->cached_tokens, 64);
  OpenSequenceOptions options;
  options.model = digest_;
  options.token_ids = ids;
  options.retrieval = {.system = "quest", .budget_tokens = 16, .dense_layers = 0};
  EXPECT_EQ(session_->OpenSequence(options)->cached_tokens, 192);
  options.computed_under = "recent 1000";
  EXPECT_EQ(session_->OpenSequence(options)->cached_tokens, 64);
}

TEST_F(StoreAppend, AnonymousSequencesAreNeverShared) {
  OpenSequenceOptions options;
  options.model = digest_;
  options.anonymous = true;
  options.retrieval.system = "full";
  const uint64_t before = used();
  const SequenceId sequence = session_->OpenSequence(options)->sequence;
  EXPECT_EQ(AppendAll(*session_, model_, 0, sequence, 0, 128)->sealed_tokens, 128);
  ExpectRows(sequence, 0, 0, 128);
  ASSERT_TRUE(session_->Close(sequence).ok());
  EXPECT_EQ(Host().chunks, 0);
  EXPECT_EQ(used(), before);
  const std::vector<uint32_t> ids = {1};
  options.token_ids = ids;
  EXPECT_THAT(session_->OpenSequence(options).status(),
              Fails(Code::kInvalidArgument, "anonymous"));
}

TEST_F(StoreAppend, RefusedEntriesSayWhy) {
  const SequenceId sequence = Open(Ids(100))->sequence;
  auto good = MakeEntry(model_, 0, sequence, 0, 0, 10);
  AppendEntry entry = good->entry;
  entry.layer = LayerIndex(2);
  EXPECT_THAT(AppendOne(entry), Fails(Code::kInvalidArgument, "layer 2"));
  entry = good->entry;
  entry.start = TokenIndex(1);
  EXPECT_THAT(AppendOne(entry), Fails(Code::kFailedPrecondition, "next token is 0"));
  entry = good->entry;
  entry.token_count = 0;
  EXPECT_THAT(AppendOne(entry), Fails(Code::kInvalidArgument, "token_count"));
  entry = good->entry;
  entry.token_count = 11;
  EXPECT_THAT(AppendOne(entry), Fails(Code::kInvalidArgument, "key has"));
  entry = good->entry;
  entry.value.buffer = entry.value.buffer.subspan(4);
  EXPECT_THAT(AppendOne(entry), Fails(Code::kInvalidArgument, "value has"));
  entry = good->entry;
  entry.sequence = SequenceId(999);
  EXPECT_THAT(AppendOne(entry), Fails(Code::kNotFound, "999"));
  for (const float bad : {NAN, INFINITY}) {
    auto not_finite = MakeEntry(model_, 0, sequence, 1, 0, 10);
    not_finite->key[32 * 13] = bad;
    EXPECT_THAT(AppendOne(not_finite->entry),
                Fails(Code::kInvalidArgument, "key of token 3, layer 1, kv head 1"));
    not_finite->key[32 * 13] = 0;
    not_finite->value[32 * 20 - 1] = bad;
    EXPECT_THAT(AppendOne(not_finite->entry),
                Fails(Code::kInvalidArgument, "value of token 9, layer 1, kv head 1"));
  }
  EXPECT_EQ(session_->Seal(sequence, Durability::kNone)->tail_tokens, 0);
}

TEST_F(StoreAppend, StridesAndBlockTables) {
  const SequenceId sequence = Open(Ids(10))->sequence;
  // [token][kv_head][K, V] with K and V in one buffer, tokens in blocks of 4 that lie
  // in reverse order.
  const uint32_t row = 2 * 32 * 4;
  const uint32_t token_bytes = 2 * row;
  std::vector<std::unique_ptr<std::string>> buffers;
  std::vector<AppendEntry> entries;
  const std::vector<uint64_t> key_blocks = {2 * 4 * token_bytes, 1 * 4 * token_bytes, 0};
  std::vector<uint64_t> value_blocks = key_blocks;
  for (uint64_t& offset : value_blocks) offset += row / 2;
  for (uint32_t layer : {0, 1}) {
    buffers.push_back(std::make_unique<std::string>(3 * 4 * token_bytes, '\0'));
    for (uint32_t t = 0; t < 10; ++t) {
      for (uint32_t h = 0; h < 2; ++h) {
        std::memcpy(
            buffers.back()->data() + key_blocks[t / 4] + t % 4 * token_bytes + h * row,
            StoredRow(model_, 0, layer, h, t).data(), row);
      }
    }
    AppendEntry entry;
    entry.sequence = sequence;
    entry.layer = LayerIndex(layer);
    entry.token_count = 10;
    entry.default_key_layout = entry.default_value_layout = false;
    entry.key.buffer = {reinterpret_cast<const std::byte*>(buffers.back()->data()),
                        buffers.back()->size()};
    entry.key.head_stride_bytes = row;
    entry.key.token_stride_bytes = token_bytes;
    entry.key.block_tokens = 4;
    entry.value = entry.key;
    entry.key.block_offset_bytes = key_blocks;
    entry.value.block_offset_bytes = value_blocks;
    entries.push_back(entry);
  }
  AppendEntry bad = entries[0];
  bad.key.block_offset_bytes = absl::MakeConstSpan(key_blocks).subspan(1);
  EXPECT_THAT(AppendOne(bad), Fails(Code::kInvalidArgument, "block offsets"));
  bad = entries[0];
  bad.key.block_tokens = 0;
  EXPECT_THAT(AppendOne(bad), Fails(Code::kInvalidArgument, "block_tokens is 0"));
  bad = entries[0];
  const std::vector<uint64_t> outside = {~uint64_t{0} - 10, 0, 0};
  bad.key.block_offset_bytes = outside;
  EXPECT_THAT(AppendOne(bad), Fails(Code::kInvalidArgument, "outside"));
  bad.key.block_tokens = 0;
  bad.key.block_offset_bytes = {};
  bad.key.head_stride_bytes = ~uint64_t{0} / 2;
  bad.key.token_stride_bytes = ~uint64_t{0} / 2;
  EXPECT_THAT(AppendOne(bad), Fails(Code::kInvalidArgument, "outside"));
  // A message of a few bytes that stands for gigabytes.
  bad = entries[0];
  bad.key.token_stride_bytes = 0;
  EXPECT_THAT(AppendOne(bad), Fails(Code::kInvalidArgument, "rows overlap"));
  bad = entries[0];
  bad.value.head_stride_bytes = row / 2 - 4;
  EXPECT_THAT(AppendOne(bad), Fails(Code::kInvalidArgument, "rows overlap"));
  ASSERT_TRUE(session_->Append({}, entries).ok());
  ExpectRows(sequence, 0, 0, 10);
}

TEST_F(StoreAppend, IsWholeOrNothingOverSeveralSequences) {
  const SequenceId a = Open(Ids(64, 1))->sequence;
  const SequenceId b = Open(Ids(64, 2))->sequence;
  auto good = MakeEntry(model_, 1, a, 0, 0, 64);
  auto bad = MakeEntry(model_, 2, b, 0, 5, 10);
  const uint64_t before = used();
  EXPECT_THAT(session_->Append({}, {good->entry, bad->entry}).status(),
              Fails(Code::kFailedPrecondition, "next token is 0"));
  EXPECT_EQ(used(), before);
  EXPECT_EQ(session_->Info().unsealed_bytes, 0);
  EXPECT_TRUE(session_->Append({}, {good->entry}).ok());  // still at token 0
}

TEST_F(StoreAppend, UnsealedRowsAreBounded) {
  StoreOptions options;
  options.unsealed_bytes_max = 64 << 10;  // two chunks at one layer
  Start(options);
  const SequenceId sequence = Open(Ids(1000))->sequence;
  auto fits = MakeEntry(model_, 0, sequence, 0, 0, 128);
  ASSERT_TRUE(session_->Append({}, {fits->entry}).ok());
  auto over = MakeEntry(model_, 0, sequence, 0, 128, 1);
  EXPECT_THAT(session_->Append({}, {over->entry}).status(),
              Fails(Code::kResourceExhausted, "unsealed_max"));
  EXPECT_EQ(Host().evicted_chunks, 0);
  ASSERT_TRUE(session_->Close(sequence).ok());
  EXPECT_EQ(session_->Info().unsealed_bytes, 0);
}

TEST_F(StoreAppend, FullOfOpenSequencesIsRefusedAndNothingIsLost) {
  Start(Small(1 << 20));
  const SequenceId sequence = Open(Ids(4096))->sequence;
  absl::Status status;
  uint32_t count = 0;
  while (status.ok()) {
    status = AppendAll(*session_, model_, 0, sequence, count, 64).status();
    if (status.ok()) count += 64;
  }
  EXPECT_THAT(status, Fails(Code::kResourceExhausted, "[host] capacity"));
  EXPECT_LE(used(), 1 << 20);
  EXPECT_GT(count, 0);
  ExpectRows(sequence, 0, 0, count);
  // Another sequence's memory helps once it is closed.
  ASSERT_TRUE(session_->Close(sequence).ok());
  const SequenceId next = Open(Ids(64, 1))->sequence;
  ASSERT_TRUE(AppendAll(*session_, model_, 1, next, 0, 64).ok());
  EXPECT_GT(Host().evicted_chunks, 0);
}

TEST_F(StoreAppend, WhatCanNotFitEvictsNothing) {
  Start(Small(2 << 20));
  for (uint32_t salt = 1; salt <= 4; ++salt) {
    ASSERT_TRUE(session_->Close(Filled(5 * 64, salt)).ok());
  }
  const SequenceId open = Filled(5 * 64, 9);
  const uint64_t chunks = Host().chunks;
  ASSERT_EQ(chunks, 25u);
  ASSERT_EQ(Host().evicted_chunks, 0u);
  // More than the budget, and more than what isn't open; in one call and as ids.
  for (const uint32_t tokens : {28 * 64, 40 * 64}) {
    const SequenceId sequence = Open(Ids(64, 7))->sequence;
    EXPECT_THAT(AppendAll(*session_, model_, 7, sequence, 0, tokens).status(),
                Fails(Code::kResourceExhausted, "can't be freed"));
    ASSERT_TRUE(session_->Close(sequence).ok());
  }
  EXPECT_THAT(Open(Ids(2 << 20, 8)).status(),
              Fails(Code::kResourceExhausted, "[host] capacity"));
  EXPECT_EQ(Host().chunks, chunks);
  EXPECT_EQ(Host().evicted_chunks, 0u);
  // What can, does.
  const SequenceId sequence = Open(Ids(64, 7))->sequence;
  auto fits = AppendAll(*session_, model_, 7, sequence, 0, 20 * 64);
  EXPECT_TRUE(fits.ok()) << fits.status();
  EXPECT_GT(Host().evicted_chunks, 0u);
  ExpectRows(open, 9, 0, 5 * 64);
}

TEST_F(StoreAppend, ASmallerCapacityEvictsAndALargerOneServesMore) {
  Start(Small(2 << 20));
  for (uint32_t salt = 1; salt <= 4; ++salt) {
    ASSERT_TRUE(session_->Close(Filled(5 * 64, salt)).ok());
  }
  const SequenceId open = Filled(5 * 64, 9);
  ASSERT_TRUE(store_->Reconfigure(Small(1 << 20)).ok());
  EXPECT_LE(used(), 1u << 20);
  EXPECT_EQ(Host().capacity_bytes, 1u << 20);
  EXPECT_GT(Host().evicted_chunks, 0u);
  // Below what is open: that stays, and nothing is added to it.
  ASSERT_TRUE(store_->Reconfigure(Small(128 << 10)).ok());
  EXPECT_EQ(Host().chunks, 5u);
  ExpectRows(open, 9, 0, 5 * 64);
  EXPECT_THAT(Open(Ids(64, 7)).status(),
              Fails(Code::kResourceExhausted, "[host] capacity"));
  StoreOptions options = Small(4 << 20);
  options.sequences_max = 2;
  ASSERT_TRUE(store_->Reconfigure(options).ok());
  ASSERT_TRUE(session_->Close(Filled(40 * 64, 8)).ok());
  EXPECT_GT(used(), 2u << 20);
  ASSERT_TRUE(Open(Ids(64, 5)).ok());
  EXPECT_THAT(Open(Ids(64, 6)).status(),
              Fails(Code::kResourceExhausted, "sequences_max"));
  options.models_max = 0;
  EXPECT_THAT(store_->Reconfigure(options), Fails(Code::kInvalidArgument, "models_max"));
}

TEST_F(StoreAppend, ASecondModelOfAnotherPageSizeGetsMemory) {
  Start(Small(2 << 20));
  for (uint32_t salt = 1; salt <= 8; ++salt) {
    const SequenceId sequence = Filled(5 * 64, salt);
    ASSERT_TRUE(session_->Close(sequence).ok());
  }
  ASSERT_GT(Host().evicted_chunks, 0);  // the budget is full
  const retrieval::ModelSpec wide = SmallModel(2, 2, 64, "wide");
  OpenSequenceOptions options;
  options.model = *space_->RegisterModel(wide);
  const std::vector<uint32_t> ids = Ids(320);
  options.token_ids = ids;
  options.retrieval.system = "full";
  const SequenceId sequence = session_->OpenSequence(options)->sequence;
  auto progress = AppendAll(*session_, wide, 0, sequence, 0, 320);
  ASSERT_TRUE(progress.ok()) << progress.status();
  EXPECT_EQ(*ReadLayer(*session_, sequence, 1, 0, 320), StoredRows(wide, 0, 1, 0, 320));
  EXPECT_LE(used(), 2 << 20);
}

}  // namespace
}  // namespace kvtier::testing
