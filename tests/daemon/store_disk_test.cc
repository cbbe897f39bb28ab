// Goal: what was sealed is found again on disk, byte for byte, by a store that starts
// later or has too little memory for it; what can't be read harms nobody.
// Method: stores in this process over real files in a directory of the test's own.

#include <atomic>
#include <thread>

#include "tests/daemon/store_disk_fixture.h"

namespace kvtier::testing {
namespace {

TEST_F(StoreDisk, AStoreThatStartsLaterFindsWhatWasSealed) {
  const SequenceId sequence = Filled(1000, 3, "oracle", 40);
  Seal(sequence, 960);
  const std::vector<float> query = QueryOf(model_, 1);
  auto before = Collect(*session_, ItemFor(sequence, 1, 1, query, 960));
  ASSERT_TRUE(before.ok()) << before.status();

  Start(OnDisk());
  auto opened = Open(Ids(1000, 3), "oracle", 40);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->cached_tokens, 960u);
  EXPECT_EQ(opened->exact_tokens, 960u);
  EXPECT_EQ(Host().pages, 0u) << "only abstracts are read before a query";
  auto after = Collect(*session_, ItemFor(opened->sequence, 1, 1, query, 960));
  ASSERT_TRUE(after.ok()) << after.status();
  ASSERT_EQ(after->size(), before->size());
  for (size_t i = 0; i < after->size(); ++i) {
    EXPECT_EQ((*after)[i].added, (*before)[i].added);
    EXPECT_EQ((*after)[i].rows, (*before)[i].rows);
  }
  EXPECT_GT(after->back().cost.disk_bytes, 0u);
  ExpectRows(opened->sequence, 3, 0, 960);
}

TEST_F(StoreDisk, SelectionsReadJustThePagesThatTheyNeed) {
  Seal(Filled(2048, 4), 2048);
  Start(OnDisk());
  auto opened = Open(Ids(2048, 4), "kvtier", 2);
  ASSERT_TRUE(opened.ok()) << opened.status();
  ASSERT_EQ(opened->cached_tokens, 2048u);
  const std::vector<float> query = QueryOf(model_, 2);
  auto parts = Collect(*session_, ItemFor(opened->sequence, 1, 1, query, 2048));
  ASSERT_TRUE(parts.ok()) << parts.status();
  // Two tokens for each of two heads: at most four pages of 16 KiB.
  EXPECT_LE(parts->back().cost.disk_bytes, 4 * (16u << 10));
  EXPECT_LE(Host().pages, 4u);
  size_t row = 0;
  for (uint32_t head = 0; head < 2; ++head) {
    for (uint32_t i = 0; i < parts->front().added_counts[head]; ++i, ++row) {
      EXPECT_EQ(parts->front().rows.substr(row * 256, 256),
                StoredRow(model_, 4, 1, head, parts->front().added[row]));
    }
  }
  // Asked again it is in memory.
  auto again = Collect(*session_, ItemFor(opened->sequence, 1, 2, query, 2048));
  EXPECT_EQ(again->back().cost.disk_bytes, 0u);
}

// The bounded loss: what was appended is on disk once no chunk is being written, without
// anybody having asked; the tail never is.
TEST_F(StoreDisk, WhatWasAppendedIsWrittenWithoutASeal) {
  Filled(1000, 17);
  ASSERT_TRUE(store_->Flush().ok());
  EXPECT_EQ(Disk().writing_chunks, 0u);
  EXPECT_EQ(Disk().unwritten_chunks, 0u);
  Start(OnDisk());
  auto opened = Open(Ids(1000, 17));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->cached_tokens, 960u);
  ExpectRows(opened->sequence, 17, 0, 960);
}

TEST_F(StoreDisk, WhatEachNamespaceHasOnDiskAddsUp) {
  Seal(Filled(512, 18), 512);
  const uint64_t extent = space_->Models().front().disk_bytes;
  EXPECT_EQ(space_->Stats().disk_bytes, 8 * extent);
  const auto add = [&](const std::string& name, uint32_t layers) {
    space_ = *store_->AddNamespace(name);
    model_ = SmallModel(layers);
    digest_ = *space_->RegisterModel(model_);
    session_ = *space_->OpenSession("worker", 1);
    Seal(Filled(256, 18), 256);
    EXPECT_EQ(space_->Stats().disk_bytes, 4 * space_->Models().front().disk_bytes);
    return space_->Stats().disk_bytes;
  };
  const uint64_t second = add("second", 3);
  const uint64_t third = add("third", 5);
  EXPECT_EQ(Disk().used_bytes, 8 * extent + second + third);
}

TEST_F(StoreDisk, ASequenceLargerThanMemoryIsServedFromDisk) {
  Start(OnDisk(uint64_t{4} << 20));
  // 8 MiB of rows in 4 MiB of memory: writing goes on as pages reach the disk.
  auto opened = Open(Ids(8192, 5));
  ASSERT_TRUE(opened.ok()) << opened.status();
  for (uint32_t begin = 0; begin < 8192; begin += 256) {
    auto progress = AppendAll(*session_, model_, 5, opened->sequence, begin, 256);
    ASSERT_TRUE(progress.ok()) << begin << ": " << progress.status();
  }
  EXPECT_LE(used(), uint64_t{4} << 20);
  for (uint64_t begin : {0, 4000, 7000, 0}) {
    ExpectRows(opened->sequence, 5, begin, 1000);
  }
  EXPECT_GT(Host().dropped_pages, 0u);
  Seal(opened->sequence, 8192);
  EXPECT_EQ(Disk().chunks, 128u);
}

TEST_F(StoreDisk, ItsOwnMemoryIsChargedToTheHostTier) {
  // Buffers to read and to write, 1 MiB each of 64, and half a MiB for the catalog.
  EXPECT_GE(used(), uint64_t{5} << 19);
  session_.reset();
  store_.reset();
  EXPECT_THAT(Store::Create(OnDisk(uint64_t{256} << 10)).status(),
              Fails(absl::StatusCode::kResourceExhausted, "raise [host] capacity"));
  Start(OnDisk());
}

TEST_F(StoreDisk, ATruncatedSequenceKeepsTheRowsOfItsTail) {
  Seal(Filled(256, 6), 256);
  Start(OnDisk());
  auto opened = Open(Ids(256, 6));
  ASSERT_TRUE(opened.ok()) << opened.status();
  auto cut = session_->Truncate(opened->sequence, 100);
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->tail_tokens, 36u);
  ExpectRows(opened->sequence, 6, 0, 100);
}

TEST_F(StoreDisk, ManyWorkersOverTooLittleMemoryReadRightBytes) {
  Start(OnDisk(uint64_t{6} << 20));
  for (uint32_t salt = 10; salt < 14; ++salt) {
    const SequenceId sequence = Filled(2048, salt);
    Seal(sequence, 2048);
    ASSERT_TRUE(session_->Close(sequence).ok());
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> workers;
  for (uint32_t salt = 10; salt < 14; ++salt) {
    workers.emplace_back([&, salt] {
      auto opened = Open(Ids(2048, salt), "kvtier", 64);
      ASSERT_TRUE(opened.ok()) << opened.status();
      ASSERT_EQ(opened->cached_tokens, 2048u);
      for (uint64_t step = 1; step <= 60; ++step) {
        const uint32_t layer = step % 2;
        auto parts = Collect(*session_,
                             ItemFor(opened->sequence, layer, step,
                                     QueryOf(model_, static_cast<uint32_t>(step)), 2048));
        EXPECT_TRUE(parts.ok()) << parts.status();
        if (!parts.ok()) continue;
        const RetrievePart& part = parts->front();
        size_t row = 0;
        for (uint32_t head = 0; head < 2; ++head) {
          for (uint32_t i = 0; i < part.added_counts[head]; ++i, ++row) {
            wrong += part.rows.substr(row * 256, 256) !=
                     StoredRow(model_, salt, layer, head, part.added[row]);
          }
        }
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(used(), uint64_t{6} << 20);
}

TEST_F(StoreDisk, EvictionLeavesWhatIsOnDiskToBeFound) {
  const SequenceId sequence = Filled(512, 15);
  Seal(sequence, 512);
  EXPECT_EQ(store_->Evict(~uint64_t{0}), 0u) << "it is open";
  ASSERT_TRUE(session_->Close(sequence).ok());
  EXPECT_GE(store_->Evict(~uint64_t{0}), 8 * (64u << 10));
  EXPECT_EQ(Host().chunks, 0u);
  auto opened = Open(Ids(512, 15));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->cached_tokens, 512u);
  ExpectRows(opened->sequence, 15, 0, 512);
}

TEST_F(StoreDisk, VerifyReadsEveryTier) {
  Seal(Filled(512, 16), 512);
  auto host = store_->Verify("host");
  ASSERT_TRUE(host.ok()) << host.status();
  EXPECT_EQ(host->pages, 8u * 4);
  EXPECT_EQ(host->bad_pages, 0u);
  auto disk = store_->Verify("disk");
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_EQ(disk->pages, 8u * 4);
  EXPECT_EQ(disk->bad_pages, 0u);
  EXPECT_EQ(store_->Verify("")->pages, 16u * 4);
  EXPECT_EQ(store_->Verify("tape").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(StoreDisk, AnAnonymousSequenceIsNotDurable) {
  OpenSequenceOptions options;
  options.model = digest_;
  options.anonymous = true;
  options.retrieval.system = "full";
  auto opened = session_->OpenSequence(options);
  ASSERT_TRUE(opened.ok()) << opened.status();
  ASSERT_TRUE(AppendAll(*session_, model_, 8, opened->sequence, 0, 64).ok());
  EXPECT_THAT(session_->Seal(opened->sequence, Durability::kDurable).status(),
              Fails(absl::StatusCode::kFailedPrecondition, "anonymous"));
  EXPECT_EQ(Disk().chunks, 0u);
}

TEST_F(StoreDisk, AnotherModelsChunksAreNotTaken) {
  Seal(Filled(256, 9), 256);
  Start(OnDisk());
  model_ = SmallModel(3);
  digest_ = *space_->RegisterModel(model_);
  auto opened = Open(Ids(256, 9));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->cached_tokens, 0u);
}

}  // namespace
}  // namespace kvtier::testing
