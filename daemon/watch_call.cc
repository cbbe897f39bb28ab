#include "daemon/watch_call.h"

#include <grpcpp/alarm.h>

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "daemon/stats_messages.h"
#include "daemon/to_grpc_status.h"

namespace kvtier::daemon {
namespace {

constexpr uint32_t kIntervalMsDefault = 1000;
constexpr uint32_t kIntervalMsMin = 100;
constexpr uint32_t kIntervalMsMax = 3'600'000;

class WatchCall final : public grpc::ServerWriteReactor<v1::StatsResponse>,
                        public LastingCall {
 public:
  static WatchCall* Start(const Store& store, absl::Time started, CallRegistry* calls,
                          uint32_t interval_ms) {
    auto call = std::make_shared<WatchCall>(store, started, calls, interval_ms);
    call->self_ = call;
    calls->Add(call);
    if (call->interval_ms_ < kIntervalMsMin || call->interval_ms_ > kIntervalMsMax) {
      call->End(absl::InvalidArgumentError(
          "interval_ms must be 100 to 3600000, or 0 for one second"));
    } else {
      call->WriteNow();
    }
    return call.get();
  }

  WatchCall(const Store& store, absl::Time started, CallRegistry* calls,
            uint32_t interval_ms)
      : store_(store),
        started_(started),
        calls_(calls),
        interval_ms_(interval_ms == 0 ? kIntervalMsDefault : interval_ms) {}

  void Stop() override { End(ShuttingDown()); }
  void OnCancel() override { End(absl::CancelledError("the watcher is gone")); }

  void OnWriteDone(bool ok) override {
    if (!ok) return End(absl::CancelledError("the watcher is gone"));
    const auto next =
        std::chrono::system_clock::now() + std::chrono::milliseconds(interval_ms_);
    absl::MutexLock lock(&mu_);
    if (finished_) return;
    // Weak: an alarm keeps its callback until it is destroyed, and this owns the alarm.
    alarm_.emplace().Set(next, [weak = std::weak_ptr<WatchCall>(self_)](bool expired) {
      std::shared_ptr<WatchCall> call = weak.lock();
      if (expired && call != nullptr) call->WriteNow();
    });
  }

  void OnDone() override {
    calls_->Remove(this);
    std::shared_ptr<WatchCall> last = std::move(self_);
  }

 private:
  void WriteNow() {
    absl::MutexLock lock(&mu_);
    if (finished_) return;
    response_.Clear();
    FillStats(store_, started_, &response_);
    StartWrite(&response_);
  }

  // The first one counts.
  void End(const absl::Status& status) {
    {
      absl::MutexLock lock(&mu_);
      if (std::exchange(finished_, true)) return;
    }
    Finish(ToGrpcStatus(status));
  }

  // Constant after construction.
  const Store& store_;
  const absl::Time started_;
  CallRegistry* const calls_;
  const uint32_t interval_ms_;

  // Owned by OnDone.
  std::shared_ptr<WatchCall> self_;

  absl::Mutex mu_;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  v1::StatsResponse response_ ABSL_GUARDED_BY(mu_);
  std::optional<grpc::Alarm> alarm_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

grpc::ServerWriteReactor<v1::StatsResponse>* StartWatchCall(const Store& store,
                                                            absl::Time started,
                                                            CallRegistry* calls,
                                                            uint32_t interval_ms) {
  return WatchCall::Start(store, started, calls, interval_ms);
}

}  // namespace kvtier::daemon
