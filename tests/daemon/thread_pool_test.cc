// Goal: a pool whose threads are all busy refuses at once what it could only pile up, and
// runs what it took. Method: one thread, held at a gate.

#include "daemon/thread_pool.h"

#include <atomic>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace kvtier::daemon {
namespace {

TEST(ThreadPool, RefusesAtOnceWhatIsTooMuch) {
  std::atomic<int> ran{0};
  {
    absl::Notification started;
    absl::Notification gate;
    ThreadPool pool(1);
    ASSERT_TRUE(pool.TryPost(2, [&] {
      started.Notify();
      gate.WaitForNotification();
    }));
    started.WaitForNotification();
    EXPECT_TRUE(pool.TryPost(2, [&] { ++ran; }));
    EXPECT_TRUE(pool.TryPost(2, [&] { ++ran; }));
    EXPECT_FALSE(pool.TryPost(2, [&] { ran += 100; }));
    gate.Notify();
  }
  EXPECT_EQ(ran, 2);
}

}  // namespace
}  // namespace kvtier::daemon
