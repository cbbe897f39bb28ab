// Goal: a worker that applies the deltas holds just what was selected, whatever is
// repeated or lost; parts stay in their bounds. Method: an in-process store; the
// worker's side is replayed and held against full answers of a second sequence.

#include <cmath>
#include <limits>
#include <set>

#include "tests/daemon/store_fixture.h"

namespace kvtier::testing {
namespace {

using Code = absl::StatusCode;

class StoreRetrieve : public StoreTest {};

std::vector<std::set<uint32_t>> Sets(const HeadTokens& tokens) {
  std::vector<std::set<uint32_t>> sets;
  for (const auto& of_head : tokens) sets.emplace_back(of_head.begin(), of_head.end());
  return sets;
}

TEST_F(StoreRetrieve, DeltasAddUpToTheFullSelectionOverManySteps) {
  const SequenceId sequence = Filled(512, 0, "oracle", 20);
  const SequenceId fresh = Filled(512, 0, "oracle", 20);
  HeadTokens held;
  uint64_t held_step = 0;
  uint64_t kept = 0;
  for (uint64_t step = 1; step <= 40; ++step) {
    std::vector<float> query = QueryOf(model_, 1);
    for (size_t i = 0; i < query.size(); ++i) {
      query[i] += 0.3f * std::sin(static_cast<float>(step * (i + 1)));
    }
    RetrieveItem item = ItemFor(sequence, 1, step, query, 512);
    item.held_step = StepIndex(held_step);
    auto parts = Collect(*session_, item, 1000);
    ASSERT_TRUE(parts.ok()) << parts.status();
    auto full = Collect(*session_, ItemFor(fresh, 1, step, query, 512));
    kept += parts->front().kept.size();
    if (step % 3 == 0) {
      // The answer was lost: asking again with the same held step gives the same.
      auto again = Collect(*session_, item, 1000);
      ASSERT_EQ(again->size(), parts->size());
      for (size_t i = 0; i < parts->size(); ++i) {
        EXPECT_EQ((*again)[i].kept, (*parts)[i].kept);
        EXPECT_EQ((*again)[i].added, (*parts)[i].added);
        EXPECT_EQ((*again)[i].rows, (*parts)[i].rows);
      }
    }
    const HeadTokens now = ApplyParts(*parts, held);
    EXPECT_EQ(Sets(now), Sets(ApplyParts(*full, {})));
    if (step % 7 == 0) continue;  // the worker forgot to take this one
    held = now;
    held_step = step;
  }
  EXPECT_GT(kept, 0);
}

TEST_F(StoreRetrieve, RowsAreThoseOfTheAddedTokens) {
  const SequenceId sequence = Filled(256, 0, "oracle", 10);
  const std::vector<float> query = QueryOf(model_, 3);
  auto parts = Collect(*session_, ItemFor(sequence, 1, 1, query, 256));
  ASSERT_TRUE(parts.ok());
  ASSERT_EQ(parts->size(), 1);
  std::string expected;
  size_t i = 0;
  for (uint32_t head = 0; head < 2; ++head) {
    ASSERT_EQ(parts->front().added_counts[head], 10);
    for (uint32_t n = 0; n < 10; ++n) {
      expected += StoredRow(model_, 0, 1, head, parts->front().added[i++]);
    }
  }
  EXPECT_EQ(parts->front().rows, expected);
  EXPECT_EQ(parts->front().cost.tokens_selected, 20);
  EXPECT_GE(parts->front().cost.host_bytes, expected.size());
}

TEST_F(StoreRetrieve, AnUnknownHeldStepGetsTheWholeSelection) {
  const SequenceId sequence = Filled(256, 0, "oracle", 10);
  const std::vector<float> query = QueryOf(model_, 3);
  ASSERT_TRUE(Collect(*session_, ItemFor(sequence, 0, 5, query, 256)).ok());
  RetrieveItem item = ItemFor(sequence, 0, 6, query, 256);
  item.held_step = StepIndex(3);
  EXPECT_EQ(Collect(*session_, item)->front().added.size(), 20);
  item.step = StepIndex(7);
  item.held_step = StepIndex(6);
  EXPECT_EQ(Collect(*session_, item)->front().added.size(), 0);
  EXPECT_EQ(Collect(*session_, item)->front().kept.size(), 20);
}

TEST_F(StoreRetrieve, EverythingComesInPartsOfTheSameTokensForAllHeads) {
  const SequenceId sequence = Filled(200);
  const std::vector<float> query = QueryOf(model_, 1);
  RetrieveItem item = ItemFor(sequence, 0, 1, query, 192);
  item.candidates_begin = TokenIndex(4);
  const uint64_t part_bytes = 20 * 256;
  auto parts = Collect(*session_, item, part_bytes);
  ASSERT_TRUE(parts.ok());
  EXPECT_EQ(parts->size(), 19);
  uint32_t next = 4;
  for (const RetrievePart& part : *parts) {
    EXPECT_LE(part.rows.size(), part_bytes);
    EXPECT_EQ(part.added_counts[0], part.added_counts[1]);
    EXPECT_EQ(part.added[0], next);
    EXPECT_EQ(part.last, &part == &parts->back());
    EXPECT_EQ(part.rows, StoredRows(model_, 0, 0, next, part.added_counts[0]));
    next += part.added_counts[0];
  }
  EXPECT_EQ(next, 192);
  EXPECT_EQ(parts->back().cost.tokens_selected, 2 * 188);
  // Less room than a row: one token at a time.
  EXPECT_EQ(Collect(*session_, item, 1)->size(), 188);
}

TEST_F(StoreRetrieve, NoCandidatesIsOneEmptyPart) {
  const SequenceId sequence = Filled(64);
  const std::vector<float> query = QueryOf(model_, 1);
  auto parts = Collect(*session_, ItemFor(sequence, 0, 1, query, 0));
  ASSERT_TRUE(parts.ok()) << parts.status();
  ASSERT_EQ(parts->size(), 1);
  EXPECT_TRUE(parts->front().last);
  EXPECT_TRUE(parts->front().rows.empty());
}

TEST_F(StoreRetrieve, TokensFormHasNoRows) {
  const SequenceId sequence = Filled(256, 0, "kvtier", 10);
  const std::vector<float> query = QueryOf(model_, 1);
  RetrieveItem item = ItemFor(sequence, 0, 1, query, 256);
  item.form = SelectionForm::kTokens;
  auto parts = Collect(*session_, item);
  EXPECT_TRUE(parts->front().rows.empty());
  EXPECT_FALSE(parts->front().added.empty());
  EXPECT_FALSE(parts->back().rest_lse.empty());
  EXPECT_GT(parts->back().cost.abstract_bytes, 0);
}

TEST_F(StoreRetrieve, NewChunksAreSeenAsTheySeal) {
  const SequenceId sequence = Filled(64, 0, "oracle", 1000);
  const std::vector<float> query = QueryOf(model_, 1);
  ASSERT_TRUE(Collect(*session_, ItemFor(sequence, 0, 1, query, 64)).ok());
  const std::vector<uint32_t> ids = Ids(192);
  ASSERT_TRUE(session_->Append({TokenRun{sequence, TokenIndex(0), ids}}, {}).ok());
  ASSERT_TRUE(AppendAll(*session_, model_, 0, sequence, 64, 128).ok());
  auto parts = Collect(*session_, ItemFor(sequence, 0, 2, query, 192));
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ(parts->front().rows, StoredRows(model_, 0, 0, 0, 192));
}

TEST_F(StoreRetrieve, RefusesWhatCanNotBeRight) {
  const SequenceId sequence = Filled(100, 0, "oracle", 10);
  std::vector<float> query = QueryOf(model_, 1);
  auto status = [&](const RetrieveItem& item) {
    return Collect(*session_, item).status();
  };
  EXPECT_THAT(status(ItemFor(sequence, 9, 1, query, 64)),
              Fails(Code::kInvalidArgument, "layer 9"));
  EXPECT_THAT(status(ItemFor(SequenceId(77), 0, 1, query, 64)),
              Fails(Code::kNotFound, "77"));
  EXPECT_THAT(status(ItemFor(sequence, 0, 0, query, 64)),
              Fails(Code::kInvalidArgument, "step is 0"));
  EXPECT_THAT(status(ItemFor(sequence, 0, 1, query, 65)),
              Fails(Code::kInvalidArgument, "64 tokens are sealed"));
  RetrieveItem item = ItemFor(sequence, 0, 1, query, 10);
  item.candidates_begin = TokenIndex(11);
  EXPECT_THAT(status(item), Fails(Code::kInvalidArgument, "candidates_begin"));
  item = ItemFor(sequence, 0, 1, query, 64);
  item.query = item.query.subspan(4);
  EXPECT_THAT(status(item), Fails(Code::kInvalidArgument, "query has"));
  ASSERT_TRUE(status(ItemFor(sequence, 0, 5, query, 64)).ok());
  EXPECT_THAT(status(ItemFor(sequence, 1, 4, query, 64)),
              Fails(Code::kFailedPrecondition, "steps never go back"));
  query[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(status(ItemFor(sequence, 0, 6, query, 64)),
              Fails(Code::kInvalidArgument, ""));
}

TEST_F(StoreRetrieve, ASinkThatStopsEndsTheCall) {
  const SequenceId sequence = Filled(128);
  const std::vector<float> query = QueryOf(model_, 1);
  int parts = 0;
  EXPECT_EQ(session_
                ->Retrieve(ItemFor(sequence, 0, 1, query, 128), 1024,
                           [&](RetrievePart) { return ++parts < 3; })
                .code(),
            Code::kCancelled);
  EXPECT_EQ(parts, 3);
}

TEST_F(StoreRetrieve, TruncationBetweenPartsEndsTheCall) {
  const SequenceId sequence = Filled(128);
  const std::vector<float> query = QueryOf(model_, 1);
  absl::Status status =
      session_->Retrieve(ItemFor(sequence, 0, 1, query, 128), 1024, [&](RetrievePart) {
        EXPECT_TRUE(session_->Truncate(sequence, 10).ok());
        return true;
      });
  EXPECT_THAT(status, Fails(Code::kFailedPrecondition, "truncated"));
}

}  // namespace
}  // namespace kvtier::testing
