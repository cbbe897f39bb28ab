// Goal: a call's thread waits for exactly what it should, and for nothing once the call
// has ended; StreamThreads keeps its limit; CallRegistry stops late comers.
// Method: drive the callbacks by hand, from a second thread where one must wait.

#include "daemon/call_gate.h"

#include <gtest/gtest.h>

#include <thread>

#include "absl/synchronization/notification.h"
#include "daemon/call_registry.h"
#include "daemon/stream_threads.h"

namespace kvtier::daemon {
namespace {

TEST(CallGate, WaitsForTheReadUnderWay) {
  CallGate gate;
  gate.StartRead();
  std::thread callback([&] { gate.ReadDone(true); });
  EXPECT_EQ(gate.AwaitRead(), CallGate::Read::kMessage);
  callback.join();
}

TEST(CallGate, SaysWhenTheClientSendsNoMore) {
  CallGate gate;
  gate.StartRead();
  gate.ReadDone(false);
  EXPECT_EQ(gate.AwaitRead(), CallGate::Read::kNoMore);
  EXPECT_TRUE(gate.end().ok());
}

TEST(CallGate, WaitsForTheWriteUnderWay) {
  CallGate gate;
  EXPECT_TRUE(gate.AwaitWritable());
  gate.StartWrite();
  std::thread callback([&] { gate.WriteDone(true); });
  EXPECT_TRUE(gate.AwaitWritable());
  callback.join();
}

TEST(CallGate, EndsWhenAWriteFails) {
  CallGate gate;
  gate.StartWrite();
  gate.WriteDone(false);
  EXPECT_FALSE(gate.AwaitWritable());
  EXPECT_EQ(gate.end().code(), absl::StatusCode::kCancelled);
}

TEST(CallGate, EndWakesAWriterAndTheFirstReasonStays) {
  CallGate gate;
  gate.StartRead();
  gate.StartWrite();
  std::thread stop([&] {
    gate.End(absl::UnavailableError("stop"));
    gate.End(absl::CancelledError("later"));
  });
  EXPECT_FALSE(gate.AwaitWritable());
  EXPECT_EQ(gate.AwaitRead(), CallGate::Read::kEnded);
  stop.join();
  EXPECT_EQ(gate.end().code(), absl::StatusCode::kUnavailable);
}

TEST(CallGate, GivesUpOnAClientThatDoesNotTakeTheLastWrite) {
  CallGate gate;
  EXPECT_TRUE(gate.AwaitLastWrite(absl::ZeroDuration()));
  gate.StartWrite();
  gate.End(absl::UnavailableError("stop"));
  EXPECT_FALSE(gate.AwaitLastWrite(absl::ZeroDuration()));
  gate.WriteDone(true);
  EXPECT_TRUE(gate.AwaitLastWrite(absl::ZeroDuration()));
}

TEST(StreamThreads, RefusesMoreThanItsLimit) {
  absl::Notification release;
  StreamThreads threads(1);
  ASSERT_TRUE(threads.Start([&] { release.WaitForNotification(); }).ok());
  EXPECT_EQ(threads.Start([] {}).code(), absl::StatusCode::kResourceExhausted);
  release.Notify();
}

TEST(StreamThreads, DestructorWaitsForItsThreads) {
  bool done = false;
  {
    StreamThreads threads(4);
    ASSERT_TRUE(threads.Start([&] { done = true; }).ok());
  }
  EXPECT_TRUE(done);
}

struct CountingCall final : LastingCall {
  void Stop() override { ++stops; }
  int stops = 0;
};

TEST(CallRegistry, StopsThoseThereAndThoseThatComeLater) {
  CallRegistry registry;
  auto there = std::make_shared<CountingCall>();
  auto gone = std::make_shared<CountingCall>();
  auto late = std::make_shared<CountingCall>();
  registry.Add(there);
  registry.Add(gone);
  registry.Remove(gone.get());
  registry.StopAll();
  registry.Add(late);
  EXPECT_EQ(there->stops, 1);
  EXPECT_EQ(gone->stops, 0);
  EXPECT_EQ(late->stops, 1);
}

}  // namespace
}  // namespace kvtier::daemon
