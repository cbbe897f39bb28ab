// Goal: figures and ceilings are measured in turns, and rows are computed and written
// right.
// Method: measurements that are scripted and note when they were called.

#include "tests/bench/rounds.h"

#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

namespace kvtier::bench {
namespace {

using ::testing::HasSubstr;

google::protobuf::Struct Parsed(const std::string& json) {
  google::protobuf::Struct parsed;
  EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(json, &parsed).ok()) << json;
  return parsed;
}

TEST(Median, IsTheMiddleOrTheMeanOfTheMiddleTwo) {
  EXPECT_EQ(Median({3.0}), 3.0);
  EXPECT_EQ(Median({9.0, 1.0, 5.0}), 5.0);
  EXPECT_EQ(Median({4.0, 1.0, 2.0, 100.0}), 3.0);
}

// Scripted figures, one a call; the first is of the round that isn't counted.
class Script {
 public:
  Script(char name, std::vector<double> figures, std::string* calls)
      : name_(name), figures_(std::move(figures)), calls_(calls) {}
  absl::StatusOr<double> operator()() {
    *calls_ += name_;
    if (next_ == figures_.size()) return absl::UnavailableError("gone");
    return figures_[next_++];
  }

 private:
  const char name_;
  const std::vector<double> figures_;
  std::string* const calls_;
  size_t next_ = 0;
};

TEST(RunRounds, AlternatesWhoGoesFirst) {
  std::string calls;
  Script ours('o', {1, 1, 1, 1, 1}, &calls), ceiling('c', {1, 1, 1, 1, 1}, &calls);
  Row row;
  ASSERT_TRUE(
      RunRounds(4, Better::kHigher, std::ref(ours), std::ref(ceiling), &row).ok());
  EXPECT_EQ(calls,
            "co"
            "oc"
            "co"
            "oc"
            "co");
  EXPECT_EQ(row.rounds, 4);
}

TEST(RunRounds, RatioIsTheMedianOfRatiosNotTheRatioOfMedians) {
  std::string calls;
  Script ours('o', {1000, 1, 2, 9}, &calls), ceiling('c', {1, 10, 4, 10}, &calls);
  Row row;
  ASSERT_TRUE(
      RunRounds(3, Better::kHigher, std::ref(ours), std::ref(ceiling), &row).ok());
  EXPECT_DOUBLE_EQ(row.value, 2);
  EXPECT_DOUBLE_EQ(row.ceiling, 10);
  EXPECT_DOUBLE_EQ(row.ratio, 0.5);
  EXPECT_DOUBLE_EQ(row.ratio_low, 0.1);
  EXPECT_DOUBLE_EQ(row.ratio_high, 0.9);
}

TEST(RunRounds, OfADurationLessIsBetter) {
  std::string calls;
  Script ours('o', {1, 40}, &calls), ceiling('c', {1, 10}, &calls);
  Row row;
  ASSERT_TRUE(RunRounds(1, Better::kLower, std::ref(ours), std::ref(ceiling), &row).ok());
  EXPECT_DOUBLE_EQ(row.ratio, 0.25);
}

TEST(RunRounds, AnErrorEndsItAndLeavesTheRow) {
  for (const bool ours_fails : {true, false}) {
    std::string calls;
    Script fails('f', {1, 1}, &calls), works('w', {1, 1, 1}, &calls);
    Row row;
    const absl::Status status =
        ours_fails
            ? RunRounds(2, Better::kHigher, std::ref(fails), std::ref(works), &row)
            : RunRounds(2, Better::kHigher, std::ref(works), std::ref(fails), &row);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(row.rounds, 0);
  }
}

TEST(RunRounds, RefusesFiguresThatAreNoMeasurement) {
  for (const double bad : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN()}) {
    std::string calls;
    Script ours('o', {1, bad}, &calls), ceiling('c', {1, 1}, &calls);
    Row row;
    const absl::Status status =
        RunRounds(1, Better::kHigher, std::ref(ours), std::ref(ceiling), &row);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(status.message(), HasSubstr("our figure"));
  }
  std::string calls;
  Script ours('o', {1}, &calls), ceiling('c', {0}, &calls);
  Row row;
  EXPECT_THAT(
      RunRounds(1, Better::kHigher, std::ref(ours), std::ref(ceiling), &row).message(),
      HasSubstr("the ceiling"));
}

TEST(RunRounds, RefusesNoRounds) {
  std::string calls;
  Script ours('o', {1}, &calls), ceiling('c', {1}, &calls);
  Row row;
  EXPECT_EQ(RunRounds(0, Better::kHigher, std::ref(ours), std::ref(ceiling), &row).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(calls, "");
}

TEST(RowsAsJson, IsJsonWithAllFields) {
  Row row{.name = "wire.\"x\"",
          .value = 1.5,
          .unit = "GB/s",
          .ceiling = 3,
          .ratio = 0.5,
          .ratio_low = 0.25,
          .ratio_high = 0.75,
          .rounds = 7,
          .quick = true,
          .ceiling_is = "goal",
          .details = {{"keys", "synthetic"}}};
  const google::protobuf::Struct json =
      Parsed(RowsAsJson({.cpu = "a \"cpu\"", .cores = 2}, {row, row}));
  EXPECT_THAT(json.fields().at("geometry").string_value(), HasSubstr("8 kv heads x 128"));
  const auto& machine = json.fields().at("machine").struct_value().fields();
  EXPECT_EQ(machine.at("cpu").string_value(), "a \"cpu\"");
  EXPECT_EQ(machine.at("cores").number_value(), 2);
  const auto& rows = json.fields().at("rows").list_value();
  ASSERT_EQ(rows.values_size(), 2);
  const auto& fields = rows.values(1).struct_value().fields();
  EXPECT_EQ(fields.at("name").string_value(), "wire.\"x\"");
  EXPECT_EQ(fields.at("value").number_value(), 1.5);
  EXPECT_EQ(fields.at("unit").string_value(), "GB/s");
  EXPECT_EQ(fields.at("ceiling").number_value(), 3);
  EXPECT_EQ(fields.at("ratio").number_value(), 0.5);
  EXPECT_EQ(fields.at("ratio_low").number_value(), 0.25);
  EXPECT_EQ(fields.at("ratio_high").number_value(), 0.75);
  EXPECT_EQ(fields.at("rounds").number_value(), 7);
  EXPECT_TRUE(fields.at("quick").bool_value());
  EXPECT_EQ(fields.at("ceiling_is").string_value(), "goal");
  EXPECT_EQ(fields.at("keys").string_value(), "synthetic");
}

TEST(RowsAsJson, WithoutRowsIsJsonToo) {
  EXPECT_EQ(Parsed(RowsAsJson({}, {})).fields().at("rows").list_value().values_size(), 0);
}

}  // namespace
}  // namespace kvtier::bench
