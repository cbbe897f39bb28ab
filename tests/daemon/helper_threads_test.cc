// Goal: all of the work is done once, whoever does it, and a busy pool holds nobody up.
// Method: work that counts, from several callers; work that waits for the caller.

#include "daemon/helper_threads.h"

#include <atomic>
#include <thread>
#include <vector>

#include "absl/synchronization/barrier.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace kvtier::daemon {
namespace {

TEST(HelperThreads, EachPieceIsDoneOnce) {
  for (const size_t threads : {0, 1, 3}) {
    const HelperThreads helpers(threads);
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 3; ++caller) {
      callers.emplace_back([&] {
        for (const size_t count : {0, 1, 2, 8, 100}) {
          std::vector<std::atomic<int>> done(count);
          helpers.For(count, [&](size_t i) { ++done[i]; });
          for (const std::atomic<int>& one : done) EXPECT_EQ(one, 1) << count;
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
  }
}

TEST(HelperThreads, TwoWorkAtATime) {
  const HelperThreads helpers(1);
  absl::Barrier* both = new absl::Barrier(2);
  helpers.For(2, [&](size_t) {
    if (both->Block()) delete both;  // passed only if two are here
  });
}

TEST(HelperThreads, ABusyHelperHoldsNobodyUp) {
  const HelperThreads helpers(1);
  absl::Notification busy;
  absl::Notification gate;
  std::atomic<int> entered{0};
  std::thread other([&] {
    helpers.For(2, [&](size_t) {
      if (++entered == 2) busy.Notify();
      gate.WaitForNotification();
    });
  });
  busy.WaitForNotification();
  std::atomic<int> done{0};
  helpers.For(50, [&](size_t) { ++done; });
  EXPECT_EQ(done, 50);
  gate.Notify();
  other.join();
}

}  // namespace
}  // namespace kvtier::daemon
