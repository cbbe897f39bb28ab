// Goal: whatever was acknowledged survives a power failure at any step, nothing that is
// found is wrong, and what a bad byte spoils is just its chunk. Method: simulation.h,
// many seeds; then the same with a bug in the order of writing, which the simulation must
// find, or it proves nothing.

#include <cstdlib>
#include <iostream>

#include "gtest/gtest.h"
#include "tests/sim/simulation.h"

namespace kvtier::tiers::sim {
namespace {

constexpr uint64_t kSeeds = 40;
constexpr uint64_t kCyclesPerSeed = 100;

class CrashTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(CrashTest, NothingIsLostOrWrong) {
  Simulation simulation(GetParam(), DiskBug::kNone);
  const SimulationResult result = simulation.Run(kCyclesPerSeed);
  EXPECT_EQ(result.failure, "");
  EXPECT_EQ(result.cycles, kCyclesPerSeed);
  // It did what it is there for.
  EXPECT_GT(result.acknowledged, kCyclesPerSeed);
  EXPECT_GT(result.evicted, 0u);
  EXPECT_GT(result.found_after_restart, kCyclesPerSeed);
  EXPECT_GT(result.crashes_in_catalog + result.crashes_in_open, 0u);
  EXPECT_GT(result.holes, 0u);
  EXPECT_GT(result.filled, 0u);
  std::cout << "seed " << GetParam() << ": acknowledged " << result.acknowledged
            << ", evicted " << result.evicted << ", found after restarts "
            << result.found_after_restart << ", crashes in open "
            << result.crashes_in_open << ", in the catalog " << result.crashes_in_catalog
            << ", holes " << result.holes << ", filled " << result.filled << "\n";
}

INSTANTIATE_TEST_SUITE_P(Seeds, CrashTest, ::testing::Range<uint64_t>(1, 1 + kSeeds));

constexpr uint64_t kBugCycles = 200;

// Runs seeds until one shows the bug.
std::string FindBug(DiskBug bug) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Simulation simulation(seed, bug);
    const SimulationResult result = simulation.Run(kBugCycles);
    if (result.failure.empty()) continue;
    std::cout << "found after " << (seed - 1) * kBugCycles + result.cycles
              << " cycles: " << result.failure << "\n";
    return result.failure;
  }
  return "";
}

TEST(BugTest, WithoutSyncsTheSimulationFails) {
  EXPECT_NE(FindBug(DiskBug::kNoSync), "");
}

TEST(BugTest, WithTheCatalogFirstTheSimulationFails) {
  EXPECT_NE(FindBug(DiskBug::kCatalogFirst), "");
}

TEST(BugTest, WithExtentsReusedTooEarlyTheSimulationFails) {
  EXPECT_NE(FindBug(DiskBug::kReuseEarly), "");
}

}  // namespace
}  // namespace kvtier::tiers::sim
