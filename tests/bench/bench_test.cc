// Goal: a filter selects what it says, and a bench that fails stops no other.
// Method: benches that only note that they ran; the roofs at tiny sizes.

#include "tests/bench/bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/bench/roof.h"

namespace kvtier::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<Bench> Three() {
  const auto works = [](const Settings& settings, Row* row) {
    row->rounds = settings.rounds;
    return absl::OkStatus();
  };
  const auto fails = [](const Settings&, Row*) { return absl::DataLossError("broken"); };
  return {{"wire.read", works}, {"wire.append", fails}, {"score.sketch", works}};
}

std::vector<std::string> NamesOf(const std::vector<Bench>& benches) {
  std::vector<std::string> names;
  for (const Bench& bench : benches) names.push_back(bench.name);
  return names;
}

TEST(Select, TakesWhatMatchesInOrder) {
  EXPECT_THAT(NamesOf(*Select(Three(), "")),
              ElementsAre("wire.read", "wire.append", "score.sketch"));
  EXPECT_THAT(NamesOf(*Select(Three(), "^wire\\.")),
              ElementsAre("wire.read", "wire.append"));
  EXPECT_THAT(NamesOf(*Select(Three(), "read|sketch$")),
              ElementsAre("wire.read", "score.sketch"));
}

TEST(Select, RefusesWhatMatchesNothingAndListsWhatThereIs) {
  const absl::Status status = Select(Three(), "disk").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("wire.read, wire.append, score.sketch"));
}

TEST(Select, RefusesWhatIsNoExpression) {
  const absl::Status status = Select(Three(), "wire(").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("not an extended regular expression"));
}

TEST(RunBenches, OneThatFailsStopsNoOther) {
  std::vector<std::string> reports;
  const std::vector<Row> rows = RunBenches(
      Three(), Settings::Quick(), [&](const std::string& name, const auto& row) {
        reports.push_back(name + (row.ok() ? "" : " " + row.status().ToString()));
      });
  EXPECT_THAT(reports,
              ElementsAre("wire.read", "wire.append DATA_LOSS: broken", "score.sketch"));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1].name, "score.sketch");
  EXPECT_TRUE(rows[1].quick);
  EXPECT_EQ(rows[1].rounds, Settings::Quick().rounds);
}

TEST(Settings, FullRunsAreOfAGibibyteAndSevenRounds) {
  EXPECT_EQ(Settings().footprint_bytes, uint64_t{1} << 30);
  EXPECT_EQ(Settings().rounds, 7);
  EXPECT_FALSE(Settings().quick);
}

// The least of some: the machine may be busy with something else.
template <typename Run>
double Least(Run run) {
  double least = run();
  for (int i = 0; i < 20; ++i) least = std::min(least, run());
  return least;
}

TEST(Roof, TakesTimeInProportionToTheWork) {
  EXPECT_GT(DotF32Seconds(400'000'000),
            10 * Least([] { return DotF32Seconds(4'000'000); }));
  EXPECT_GT(DotInt8Seconds(400'000'000),
            10 * Least([] { return DotInt8Seconds(4'000'000); }));
  const std::vector<std::byte> memory(32 << 20);
  const auto read = [&](size_t count) {
    return ReadSeconds({memory.data(), count, 2048, 4096});
  };
  EXPECT_GT(read(8000), 10 * Least([&] { return read(80); }));
}

}  // namespace
}  // namespace kvtier::bench
