// Goal: under any sequence of calls memory stays within the budget, bytes read back are
// those appended, and all memory comes back. Method: random operations against a
// reference model that remembers, per token, which rows it was given; and four threads
// at once, which the sanitizers watch.

#include <atomic>
#include <random>
#include <thread>

#include "tests/daemon/store_fixture.h"

namespace kvtier::testing {
namespace {

constexpr uint64_t kCapacity = 3 << 20;

class StoreRandom : public StoreTest {
 protected:
  struct Expected {
    SequenceId id;
    std::vector<uint32_t> salt_of_token;  // ids follow from it
  };

  // Ids that name the rows: equal prefixes of ids have equal rows.
  static uint32_t IdOf(uint32_t salt, uint64_t token) {
    return salt * 100000 + static_cast<uint32_t>(token);
  }

  void ExpectSequence(const Expected& expected) {
    const uint64_t count = expected.salt_of_token.size();
    for (uint32_t l = 0; l < 2; ++l) {
      auto rows = ReadLayer(*session_, expected.id, l, 0, count);
      ASSERT_TRUE(rows.ok()) << rows.status();
      size_t at = 0;
      for (uint32_t h = 0; h < 2; ++h) {
        for (uint64_t t = 0; t < count; ++t, at += 256) {
          ASSERT_TRUE(rows->substr(at, 256) ==
                      StoredRow(model_, expected.salt_of_token[t], l, h, t))
              << "layer " << l << " head " << h << " token " << t;
        }
      }
    }
  }

  void Append(Expected* expected, uint32_t salt, uint32_t count) {
    const uint64_t begin = expected->salt_of_token.size();
    std::vector<uint32_t> ids;
    for (uint32_t i = 0; i < count; ++i) ids.push_back(IdOf(salt, begin + i));
    std::vector<std::unique_ptr<OwnedEntry>> owned;
    std::vector<AppendEntry> entries;
    for (uint32_t l = 0; l < 2; ++l) {
      owned.push_back(MakeEntry(model_, salt, expected->id, l, begin, count));
      entries.push_back(owned.back()->entry);
    }
    auto progress =
        session_->Append({TokenRun{expected->id, TokenIndex(begin), ids}}, entries);
    if (!progress.ok()) {
      ASSERT_EQ(progress.status().code(), absl::StatusCode::kResourceExhausted);
      return;
    }
    expected->salt_of_token.insert(expected->salt_of_token.end(), count, salt);
  }
};

TEST_F(StoreRandom, BudgetIsHardAndBytesAreRight) {
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    Start(Small(kCapacity));
    const uint64_t before = used();
    std::vector<Expected> open;
    for (int i = 0; i < 400; ++i) {
      const uint32_t what = random() % 10;
      if (open.empty() || (what == 0 && open.size() < 12)) {
        // A prefix that others have used, or not.
        const uint32_t salt = random() % 4;
        auto opened = Open(Ids(random() % 400, salt));
        if (!opened.ok()) continue;
        open.push_back(
            {opened->sequence, std::vector<uint32_t>(opened->cached_tokens, salt)});
        // Ids beyond the cached prefix were given: drop them, so that any may follow.
        ASSERT_TRUE(session_->Truncate(opened->sequence, opened->cached_tokens).ok());
        continue;
      }
      Expected& at = open[random() % open.size()];
      if (what <= 5) {
        Append(&at, random() % 4, 1 + random() % 150);
      } else if (what == 6) {
        const uint64_t to = random() % (at.salt_of_token.size() + 1);
        if (session_->Truncate(at.id, to).ok()) at.salt_of_token.resize(to);
      } else if (what == 7) {
        auto fork = session_->Fork(at.id);
        if (fork.ok()) open.push_back({*fork, at.salt_of_token});
      } else if (what == 8) {
        ExpectSequence(at);
      } else {
        ASSERT_TRUE(session_->Close(at.id).ok());
        at = open.back();
        open.pop_back();
      }
      ASSERT_LE(used(), kCapacity);
    }
    for (const Expected& expected : open) ExpectSequence(expected);
    space_->CloseSession(session_->id());
    // Cached chunks are all that is left; filling the store with another's evicts them.
    session_ = *space_->OpenSession("last", 1);
    OpenSequenceOptions options;
    options.model = digest_;
    options.anonymous = true;
    options.retrieval.system = "full";
    const SequenceId filler = session_->OpenSequence(options)->sequence;
    for (uint64_t t = 0; AppendAll(*session_, model_, 9, filler, t, 64).ok();) t += 64;
    EXPECT_EQ(Host().chunks,
              session_->Seal(filler, Durability::kNone)->sealed_tokens / 64);
    space_->CloseSession(session_->id());
    EXPECT_EQ(used(), before);
    EXPECT_EQ(Host().chunks, 0);
  }
}

TEST_F(StoreRandom, FourThreadsAppendRetrieveCloseAndEvict) {
  Start(Small(kCapacity));
  std::atomic<int> wrong{0};
  auto work = [&](uint32_t thread) {
    std::mt19937 random(thread);
    for (int round = 0; round < 12; ++round) {
      std::shared_ptr<Session> session = *space_->OpenSession("stress", thread);
      OpenSequenceOptions options;
      options.model = digest_;
      const uint32_t salt = random() % 3;
      const std::vector<uint32_t> ids = Ids(320, salt);
      options.token_ids = ids;
      options.retrieval.system = "oracle";
      options.retrieval.budget_tokens = 8;
      auto opened = session->OpenSequence(options);
      if (!opened.ok()) continue;
      const SequenceId sequence = opened->sequence;
      auto from = static_cast<uint32_t>(opened->cached_tokens);
      for (; from < 320; from += 64) {
        if (!AppendAll(*session, model_, salt, sequence, from, 64).ok()) break;
      }
      auto sealed = session->Seal(sequence, Durability::kNone)->sealed_tokens;
      for (uint64_t step = 1; step <= 4; ++step) {
        const std::vector<float> query = QueryOf(model_, random());
        if (!Collect(*session, ItemFor(sequence, 1, step, query, sealed)).ok()) ++wrong;
      }
      auto rows = ReadLayer(*session, sequence, 1, 0, sealed);
      if (!rows.ok() || *rows != StoredRows(model_, salt, 1, 0, sealed)) ++wrong;
      // Meanwhile somebody looks, and somebody closes.
      for (const auto& other : space_->Sessions()) (void)other->Sequences();
      (void)store_->Tiers();
      (void)space_->Stats();
      space_->CloseSession(session->id());
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) threads.emplace_back(work, t + 1);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_LE(used(), kCapacity);
}

}  // namespace
}  // namespace kvtier::testing
