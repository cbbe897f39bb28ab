// Goal: each fault of the disk tier is told once when it begins and once when it is over,
// however often it comes and goes meanwhile. Method: the object alone, with times of the
// test's own.

#include "daemon/disk_health.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kvtier::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using tiers::DiskDegraded;
using tiers::DiskFault;

class DiskHealthTest : public ::testing::Test {
 protected:
  DiskHealthTest() { Watch(); }

  void Watch() {
    health_.Watch([this](const DiskEvent& event) {
      told_.push_back(event.kind == DiskEvent::Kind::kBegins
                          ? absl::StrCat(event.what, ": ", event.message)
                          : absl::StrCat(event.what, " after ",
                                         absl::FormatDuration(event.lasted),
                                         event.all_well ? ", all well" : ""));
    });
  }
  // What is told at a second.
  std::vector<std::string> At(double second, std::vector<DiskDegraded> degraded) {
    told_.clear();
    health_.Update(degraded, absl::UnixEpoch() + absl::Seconds(second));
    return told_;
  }

  DiskHealth health_;
  std::vector<std::string> told_;
};

TEST_F(DiskHealthTest, TellsTheBeginningAndTheEnd) {
  EXPECT_THAT(At(0, {}), IsEmpty());
  EXPECT_THAT(At(1, {{DiskFault::kWriting, "full"}}), ElementsAre("writing: full"));
  EXPECT_THAT(At(2, {{DiskFault::kWriting, "still full"}}), IsEmpty());
  EXPECT_THAT(At(3, {}), IsEmpty());
  EXPECT_THAT(At(3.9, {}), IsEmpty());
  EXPECT_THAT(At(4, {}), ElementsAre("writing after 1s, all well"));
  EXPECT_THAT(At(5, {}), IsEmpty());
  EXPECT_THAT(At(6, {{DiskFault::kWriting, "again"}}), ElementsAre("writing: again"));
}

TEST_F(DiskHealthTest, WhatComesBackSoonIsTheSame) {
  EXPECT_THAT(At(0, {{DiskFault::kCatalog, "full"}}), ElementsAre("cataloging: full"));
  for (int second = 1; second < 20; ++second) {
    EXPECT_THAT(At(second, {}), IsEmpty());
    EXPECT_THAT(At(second + 0.5, {{DiskFault::kCatalog, "full"}}), IsEmpty());
  }
  EXPECT_THAT(At(22, {}), ElementsAre("cataloging after 19.5s, all well"));
}

TEST_F(DiskHealthTest, TellsEachFaultByItself) {
  EXPECT_THAT(At(0, {{DiskFault::kReading, "cut"}, {DiskFault::kGrowing, "full"}}),
              ElementsAre("reading: cut", "growing: full"));
  EXPECT_THAT(At(2, {{DiskFault::kGrowing, "full"}}), ElementsAre("reading after 0"));
  EXPECT_THAT(At(4, {}), ElementsAre("growing after 2s, all well"));
}

TEST_F(DiskHealthTest, WhoComesLaterIsToldWhatIsWrong) {
  health_.Watch(nullptr);
  EXPECT_THAT(At(0, {{DiskFault::kGrowing, "full"}}), IsEmpty());
  Watch();
  EXPECT_THAT(At(1, {{DiskFault::kGrowing, "full"}}), ElementsAre("growing: full"));
}

}  // namespace
}  // namespace kvtier::daemon
