// Goal: a chunk whose bytes on disk went bad is told apart from all else, never served
// wrong, and whole again once its rows were computed again, by whomever.
// Method: a store over real files, of which single pages are damaged.

#include <limits>

#include "absl/functional/function_ref.h"
#include "tests/daemon/store_disk_fixture.h"

namespace kvtier::testing {
namespace {

using absl::StatusCode;

class StoreHoles : public StoreDisk {
 protected:
  // A sequence of 512 tokens that is only on disk, open.
  SequenceId OnlyOnDisk(uint32_t salt, const std::string& system = "full") {
    Seal(Filled(512, salt), 512);
    Start(OnDisk());
    auto opened = Open(Ids(512, salt), system);
    EXPECT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(opened->cached_tokens, 512u);
    return opened->sequence;
  }
  absl::Status Read(SequenceId sequence, uint32_t layer, uint64_t begin, uint64_t count) {
    return ReadLayer(*session_, sequence, layer, begin, count).status();
  }
  // With the rows of a document that is named by a number.
  absl::Status Refill(SequenceId sequence, uint64_t chunk, uint32_t salt) {
    return RefillWith(sequence, chunk, salt, [](std::vector<AppendEntry>*) {});
  }
  absl::Status RefillWith(SequenceId sequence, uint64_t chunk, uint32_t salt,
                          absl::FunctionRef<void(std::vector<AppendEntry>*)> spoil) {
    std::vector<std::unique_ptr<OwnedEntry>> owned;
    std::vector<AppendEntry> entries;
    for (uint32_t l = 0; l < model_.layers.size(); ++l) {
      owned.push_back(MakeEntry(model_, salt, sequence, l, chunk * 64, 64));
      entries.push_back(owned.back()->entry);
    }
    spoil(&entries);
    return session_->Refill(sequence, chunk, entries);
  }
};

TEST_F(StoreHoles, IsDataLossOnceAndAHoleUntilItIsRefilled) {
  const SequenceId sequence = OnlyOnDisk(7);
  Damage(7, 2, 1);
  EXPECT_THAT(Read(sequence, 0, 128, 64),
              Fails(StatusCode::kDataLoss, "chunk 2, tokens 128 to 191, is damaged"));
  EXPECT_EQ(Disk().lost_chunks, 1u);
  EXPECT_EQ(Disk().hole_chunks, 1u);
  const std::string hole = "hole at chunk 2: tokens 128 to 191";
  for (uint32_t layer = 0; layer < 2; ++layer) {
    EXPECT_THAT(Read(sequence, layer, 0, 512),
                Fails(StatusCode::kFailedPrecondition, hole));
    EXPECT_THAT(
        Collect(*session_, ItemFor(sequence, layer, 1, QueryOf(model_, 1), 512)).status(),
        Fails(StatusCode::kFailedPrecondition, hole));
  }
  EXPECT_THAT(session_->Truncate(sequence, 140).status(),
              Fails(StatusCode::kFailedPrecondition, hole));
  EXPECT_THAT(session_->Seal(sequence, Durability::kDurable).status(),
              Fails(StatusCode::kFailedPrecondition, hole));
  // Around it all goes on.
  ExpectRows(sequence, 7, 0, 128);
  ExpectRows(sequence, 7, 192, 320);
  auto fork = session_->Fork(sequence);
  ASSERT_TRUE(fork.ok()) << fork.status();
  EXPECT_THAT(Read(*fork, 1, 128, 1), Fails(StatusCode::kFailedPrecondition, hole));

  ASSERT_EQ(Refill(sequence, 2, 7), absl::OkStatus());
  ExpectRows(sequence, 7, 0, 512);
  ExpectRows(*fork, 7, 0, 512);
  EXPECT_EQ(Refill(sequence, 2, 7), absl::OkStatus()) << "a retry changes nothing";
  Seal(sequence, 512);
  EXPECT_EQ(Disk().hole_chunks, 0u);
  EXPECT_EQ(Disk().lost_chunks, 1u);
  EXPECT_EQ(Disk().chunks, 8u);
  Start(OnDisk());
  auto opened = Open(Ids(512, 7));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->cached_tokens, 512u);
  ExpectRows(opened->sequence, 7, 0, 512);
}

TEST_F(StoreHoles, TheFirstChunkAndSelectionsToo) {
  const SequenceId sequence = OnlyOnDisk(8);
  Damage(8, 0, 3);
  const std::vector<float> query = QueryOf(model_, 1);
  const RetrieveItem item = ItemFor(sequence, 1, 1, query, 512);
  EXPECT_THAT(Collect(*session_, item).status(),
              Fails(StatusCode::kDataLoss, "chunk 0, tokens 0 to 63, is damaged"));
  EXPECT_THAT(Collect(*session_, item).status(),
              Fails(StatusCode::kFailedPrecondition, "hole at chunk 0"));
  ASSERT_EQ(Refill(sequence, 0, 8), absl::OkStatus());
  auto parts = Collect(*session_, item);
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_TRUE(parts->front().rows == StoredRows(model_, 8, 1, 0, 512));
}

// What selections are made by must be the new rows' too.
TEST_F(StoreHoles, SelectionsAreThoseOfTheRefilledRows) {
  Seal(Filled(512, 19), 512);
  Start(OnDisk());
  const SequenceId sequence = Open(Ids(512, 19), "kvtier", 8)->sequence;
  const std::vector<float> query = QueryOf(model_, 3);
  ASSERT_TRUE(Collect(*session_, ItemFor(sequence, 1, 1, query, 512)).ok());
  for (uint32_t page = 0; page < 4; ++page) Damage(19, 2, page);
  ASSERT_FALSE(store_->Verify("disk")->findings.empty());
  ASSERT_EQ(Refill(sequence, 2, 23), absl::OkStatus());
  const SequenceId fresh = Open(Ids(512, 19), "kvtier", 8)->sequence;
  auto refilled = Collect(*session_, ItemFor(sequence, 1, 2, query, 512));
  auto right = Collect(*session_, ItemFor(fresh, 1, 2, query, 512));
  ASSERT_TRUE(refilled.ok()) << refilled.status();
  ASSERT_TRUE(right.ok()) << right.status();
  EXPECT_EQ(refilled->front().added, right->front().added);
  EXPECT_EQ(refilled->front().rows, right->front().rows);
  EXPECT_EQ(refilled->front().rest_output, right->front().rest_output);
  EXPECT_EQ(refilled->front().rest_lse, right->front().rest_lse);
}

TEST_F(StoreHoles, WhatNobodyHasReadIsAHoleFromTheStart) {
  const SequenceId sequence = OnlyOnDisk(9);
  Damage(9, 5, 0);
  auto verified = store_->Verify("disk");
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_EQ(verified->bad_pages, 1u);
  EXPECT_THAT(verified->findings,
              ::testing::ElementsAre(::testing::HasSubstr("of namespace test")));
  EXPECT_THAT(Read(sequence, 1, 320, 64),
              Fails(StatusCode::kFailedPrecondition, "hole at chunk 5"));
  // Who opens now finds what is before it.
  EXPECT_EQ(Open(Ids(512, 9))->cached_tokens, 320u);
  ASSERT_EQ(Refill(sequence, 5, 9), absl::OkStatus());
  EXPECT_EQ(Open(Ids(512, 9))->cached_tokens, 512u);
}

TEST_F(StoreHoles, OnlyExactlyThatChunkRefillsIt) {
  const SequenceId sequence = OnlyOnDisk(10);
  const SequenceId other = Filled(512, 20);
  Damage(10, 2, 0);
  ASSERT_THAT(Read(sequence, 0, 128, 64), Fails(StatusCode::kDataLoss, ""));
  const auto refused = [&](const std::string& why, uint64_t chunk,
                           absl::FunctionRef<void(std::vector<AppendEntry>*)> spoil) {
    EXPECT_THAT(RefillWith(sequence, chunk, 10, spoil),
                Fails(StatusCode::kInvalidArgument, why));
  };
  using Entries = std::vector<AppendEntry>;
  const auto as_is = [](Entries*) {};
  refused("the sequence has 8 sealed chunks", 8, as_is);
  refused("64 from 128", 2, [](Entries* e) { e->back().start = TokenIndex(192); });
  refused("64 from 128", 2, [](Entries* e) { e->back().token_count = 63; });
  refused("of sequence", 2, [&](Entries* e) { e->back().sequence = other; });
  refused("layer 1 is missing", 2, [](Entries* e) { e->pop_back(); });
  refused("layer 0 is missing", 2, [](Entries* e) { e->clear(); });
  refused("layer 0 is there twice", 2, [](Entries* e) { e->push_back(e->front()); });
  refused("out of range", 2, [](Entries* e) { e->back().layer = LayerIndex(2); });
  refused("is exact", 2,
          [](Entries* e) { e->back().exactness = Exactness::kApproximate; });
  refused("key has", 2,
          [](Entries* e) { e->back().key.buffer = e->back().key.buffer.subspan(4); });
  std::vector<float> bad(2 * 64 * 32, 1.0f);
  bad[77] = std::numeric_limits<float>::quiet_NaN();
  refused("has a NaN", 2, [&](Entries* e) { e->back().key.buffer = Bytes(bad); });
  // None of that filled it, nor took memory.
  EXPECT_THAT(Read(sequence, 0, 128, 64),
              Fails(StatusCode::kFailedPrecondition, "hole at chunk 2"));
  EXPECT_EQ(session_->Info().unsealed_bytes, 0u);
  // And what is no hole isn't overwritten.
  EXPECT_THAT(Refill(sequence, 3, 99),
              Fails(StatusCode::kFailedPrecondition, "chunk 3 is no hole"));
  ASSERT_EQ(Refill(sequence, 2, 10), absl::OkStatus());
  EXPECT_THAT(Refill(sequence, 2, 99),
              Fails(StatusCode::kFailedPrecondition, "chunk 2 is no hole"));
  ExpectRows(sequence, 10, 0, 512);
  EXPECT_EQ(session_->Refill(SequenceId(99), 2, {}).code(), StatusCode::kNotFound);
}

TEST_F(StoreHoles, AnAnonymousSequenceHasNone) {
  OpenSequenceOptions options;
  options.model = digest_;
  options.anonymous = true;
  options.retrieval.system = "full";
  auto opened = session_->OpenSequence(options);
  ASSERT_TRUE(opened.ok()) << opened.status();
  ASSERT_TRUE(AppendAll(*session_, model_, 12, opened->sequence, 0, 64).ok());
  EXPECT_THAT(Refill(opened->sequence, 0, 12),
              Fails(StatusCode::kFailedPrecondition, "anonymous"));
}

TEST_F(StoreHoles, ARefillNeedsRoomLikeAnAppend) {
  Seal(Filled(512, 13), 512);
  StoreOptions tight = OnDisk();
  tight.unsealed_bytes_max = 40 << 10;
  Start(tight);
  const SequenceId sequence = Open(Ids(512, 13))->sequence;
  Damage(13, 2, 0);
  ASSERT_THAT(Read(sequence, 0, 128, 64), Fails(StatusCode::kDataLoss, ""));
  EXPECT_THAT(Refill(sequence, 2, 13),
              Fails(StatusCode::kResourceExhausted, "unsealed_max"));
  EXPECT_EQ(session_->Info().unsealed_bytes, 0u);
  EXPECT_THAT(Read(sequence, 0, 128, 64), Fails(StatusCode::kFailedPrecondition, "hole"));
}

// Its rows, of all layers, never some of these and some of those.
TEST_F(StoreHoles, SomebodyElsesAppendFillsIt) {
  const SequenceId sequence = OnlyOnDisk(14);
  ExpectRows(sequence, 14, 0, 512);
  // In memory is what was read; the disk is asked again after this.
  Start(OnDisk());
  const SequenceId first = Open(Ids(512, 14))->sequence;
  ASSERT_EQ(Read(first, 0, 128, 64), absl::OkStatus());
  Damage(14, 2, 2);
  EXPECT_THAT(Read(first, 1, 128, 64), Fails(StatusCode::kDataLoss, "chunk 2"));
  EXPECT_EQ(Read(first, 0, 128, 64), absl::OkStatus()) << "it is in memory";
  auto second = Open(Ids(512, 14));
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->cached_tokens, 128u);
  // Computed on another machine, say: other bytes.
  ASSERT_TRUE(AppendAll(*session_, model_, 15, second->sequence, 128, 64).ok());
  for (const SequenceId sequence : {first, second->sequence}) {
    ExpectRows(sequence, 15, 128, 64);
  }
  ExpectRows(first, 14, 192, 320);
  // What continues it is found, and was not stored twice.
  auto third = Open(Ids(512, 14));
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_EQ(third->cached_tokens, 512u);
  Seal(third->sequence, 512);
  EXPECT_EQ(Disk().chunks, 8u);
  for (const SequenceId id : {first, second->sequence, third->sequence}) {
    ASSERT_TRUE(session_->Close(id).ok());
  }
  store_->Evict(~uint64_t{0});
  EXPECT_EQ(Host().chunks, 0u) << "the former chunk went with those who referred to it";
  auto last = Open(Ids(512, 14));
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(last->cached_tokens, 512u);
  ExpectRows(last->sequence, 15, 128, 64);
  ExpectRows(last->sequence, 14, 192, 320);
  EXPECT_EQ(store_->Verify("")->bad_pages, 0u);
}

TEST_F(StoreHoles, WhatFilledItIsTakenFromDiskWhenMemoryHasForgottenIt) {
  const SequenceId sequence = OnlyOnDisk(16);
  Damage(16, 7, 0);
  ASSERT_THAT(Read(sequence, 0, 448, 64), Fails(StatusCode::kDataLoss, "chunk 7"));
  auto second = Open(Ids(512, 16));
  ASSERT_TRUE(second.ok()) << second.status();
  ASSERT_EQ(second->cached_tokens, 448u);
  ASSERT_TRUE(AppendAll(*session_, model_, 16, second->sequence, 448, 64).ok());
  Seal(second->sequence, 512);
  ASSERT_TRUE(session_->Close(second->sequence).ok());
  EXPECT_GT(store_->Evict(~uint64_t{0}), 0u);
  ExpectRows(sequence, 16, 0, 512);
}

// A sequence goes on over its hole; what it appends is stored and found after the fill.
TEST_F(StoreHoles, AHoleIsContinued) {
  const SequenceId sequence = OnlyOnDisk(17);
  Damage(17, 7, 0);
  ASSERT_THAT(Read(sequence, 0, 448, 64), Fails(StatusCode::kDataLoss, "chunk 7"));
  TokenRun run;
  const std::vector<uint32_t> ids = Ids(640, 17);
  run.sequence = sequence;
  run.start = TokenIndex(512);
  run.token_ids = absl::MakeSpan(ids).subspan(512);
  ASSERT_TRUE(session_->Append({run}, {}).ok());
  ASSERT_TRUE(AppendAll(*session_, model_, 17, sequence, 512, 64).ok());
  ASSERT_EQ(Refill(sequence, 7, 17), absl::OkStatus());
  ASSERT_TRUE(AppendAll(*session_, model_, 17, sequence, 576, 64).ok());
  Seal(sequence, 640);
  Start(OnDisk());
  auto opened = Open(ids);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->cached_tokens, 640u);
  ExpectRows(opened->sequence, 17, 0, 640);
}

TEST_F(StoreHoles, WhatIsInMemoryOfAHoleStaysThere) {
  Seal(Filled(8192, 18), 8192);
  Start(OnDisk(uint64_t{3} << 20));
  const SequenceId sequence = Open(Ids(8192, 18))->sequence;
  ASSERT_EQ(Read(sequence, 0, 128, 64), absl::OkStatus());
  Damage(18, 2, 2);
  ASSERT_THAT(Read(sequence, 1, 128, 64), Fails(StatusCode::kDataLoss, "chunk 2"));
  // Far more than memory holds goes by.
  const std::vector<float> query = QueryOf(model_, 1);
  for (uint64_t step = 1; step <= 20; ++step) {
    RetrieveItem item = ItemFor(sequence, step % 2, step, query, 192 + 400 * step);
    item.candidates_begin = TokenIndex(192 + 400 * (step - 1));
    ASSERT_TRUE(Collect(*session_, item).ok());
  }
  EXPECT_GT(Host().dropped_pages, 0u);
  auto rows = ReadLayer(*session_, sequence, 0, 128, 64);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_TRUE(*rows == StoredRows(model_, 18, 0, 128, 64));
}

}  // namespace
}  // namespace kvtier::testing
