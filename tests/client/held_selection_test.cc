// Goal: deltas applied one after another give the selection they describe; a delta that
// doesn't fit changes nothing.
// Method: hand-made parts over two heads, rows of four bytes that name their token.

#include "client/cpp/held_selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvtier::client {
namespace {

using ::testing::ElementsAre;

RetrievePart Part(std::vector<uint32_t> kept_counts, std::vector<uint32_t> kept,
                  std::vector<uint32_t> added_counts, std::vector<uint32_t> added,
                  bool last) {
  RetrievePart part;
  part.kept_counts = std::move(kept_counts);
  part.kept = std::move(kept);
  part.added_counts = std::move(added_counts);
  for (const uint32_t token : added) part.rows += "r" + std::to_string(token) + "..";
  part.added = std::move(added);
  part.last = last;
  return part;
}

RetrievePart First(RetrievePart part) {
  part.first = true;
  return part;
}

// Tokens of one digit, so that rows are four bytes.
constexpr size_t kBytes = 4;

TEST(HeldSelection, BuildsFromPartsAndKeepsByIndex) {
  HeldSelection held(2, kBytes);
  ASSERT_TRUE(held.Apply(StepIndex(1), Part({0, 0}, {}, {2, 1}, {3, 5, 4}, false)).ok());
  EXPECT_EQ(held.step(), StepIndex(0));  // not before the last part
  EXPECT_TRUE(held.heads()[0].tokens.empty());
  ASSERT_TRUE(held.Apply(StepIndex(1), Part({0, 0}, {}, {0, 1}, {6}, true)).ok());
  EXPECT_EQ(held.step(), StepIndex(1));
  EXPECT_THAT(held.heads()[0].tokens, ElementsAre(3, 5));
  EXPECT_THAT(held.heads()[1].tokens, ElementsAre(4, 6));

  ASSERT_TRUE(held.Apply(StepIndex(2), Part({1, 2}, {1, 0, 1}, {1, 0}, {7}, true)).ok());
  EXPECT_THAT(held.heads()[0].tokens, ElementsAre(5, 7));
  EXPECT_EQ(held.heads()[0].rows, "r5..r7..");
  EXPECT_THAT(held.heads()[1].tokens, ElementsAre(4, 6));
  EXPECT_EQ(held.heads()[1].rows, "r4..r6..");
}

TEST(HeldSelection, UnchangedKeepsAllAndMovesTheStep) {
  HeldSelection held(1, kBytes);
  ASSERT_TRUE(held.Apply(StepIndex(1), Part({0}, {}, {1}, {3}, true)).ok());
  RetrievePart unchanged;
  unchanged.unchanged = true;
  unchanged.last = true;
  ASSERT_TRUE(held.Apply(StepIndex(2), unchanged).ok());
  EXPECT_EQ(held.step(), StepIndex(2));
  EXPECT_THAT(held.heads()[0].tokens, ElementsAre(3));
}

TEST(HeldSelection, RefusesWhatDoesNotFitAndStaysAsItWas) {
  HeldSelection held(1, kBytes);
  ASSERT_TRUE(held.Apply(StepIndex(1), Part({0}, {}, {1}, {3}, true)).ok());
  RetrievePart short_rows = Part({0}, {}, {1}, {4}, true);
  short_rows.rows.pop_back();
  RetrievePart failed;
  failed.error = absl::NotFoundError("gone");
  failed.last = true;
  for (const RetrievePart& part :
       {Part({1}, {1}, {0}, {}, true), Part({2}, {0}, {0}, {}, true),
        Part({0, 0}, {}, {0, 0}, {}, true), Part({0}, {}, {2}, {4}, true), short_rows}) {
    EXPECT_EQ(held.Apply(StepIndex(2), part).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(held.Apply(StepIndex(2), failed).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(held.step(), StepIndex(1));
  EXPECT_THAT(held.heads()[0].tokens, ElementsAre(3));
}

TEST(HeldSelection, AnAnswerThatIsCutOffCountsOnceWhenAskedAgain) {
  HeldSelection held(1, kBytes);
  ASSERT_TRUE(held.Apply(StepIndex(1), First(Part({0}, {}, {1}, {3}, false))).ok());
  ASSERT_TRUE(held.Apply(StepIndex(1), First(Part({0}, {}, {1}, {3}, false))).ok());
  ASSERT_TRUE(held.Apply(StepIndex(1), Part({0}, {}, {1}, {4}, true)).ok());
  EXPECT_THAT(held.heads()[0].tokens, ElementsAre(3, 4));
}

TEST(HeldSelection, AnErrorInMidAnswerDropsItsFirstParts) {
  HeldSelection held(1, kBytes);
  ASSERT_TRUE(held.Apply(StepIndex(1), Part({0}, {}, {1}, {3}, false)).ok());
  RetrievePart failed;
  failed.error = absl::DataLossError("gone");
  EXPECT_FALSE(held.Apply(StepIndex(1), failed).ok());
  ASSERT_TRUE(held.Apply(StepIndex(1), Part({0}, {}, {1}, {4}, true)).ok());
  EXPECT_THAT(held.heads()[0].tokens, ElementsAre(4));
  held.Clear();
  EXPECT_EQ(held.step(), StepIndex(0));
  EXPECT_TRUE(held.heads()[0].tokens.empty());
}

}  // namespace
}  // namespace kvtier::client
