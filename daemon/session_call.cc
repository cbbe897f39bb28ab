#include "daemon/session_call.h"

#include <grpcpp/alarm.h>

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "daemon/to_grpc_status.h"
#include "daemon/version.h"

namespace kvtier::daemon {
namespace {

class SessionCall final
    : public grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>,
      public LastingCall {
 public:
  static SessionCall* Start(const WorkerContext& context) {
    auto call = std::make_shared<SessionCall>(context);
    call->self_ = call;
    context.calls->Add(call);
    call->Begin();
    return call.get();
  }

  explicit SessionCall(const WorkerContext& context) : context_(context) {}

  void Stop() override { End(ShuttingDown()); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      return End(opened_.has_value() ? absl::OkStatus()
                                     : absl::InvalidArgumentError(
                                           "the session's first message never came, or "
                                           "isn't a SessionRequest with a UTF-8 label"));
    }
    if (opened_.has_value()) {
      return End(absl::InvalidArgumentError(
          "a session takes one message; leave its stream open and send no more"));
    }
    absl::Status status = Open();
    if (!status.ok()) return End(status);
    absl::MutexLock lock(&mu_);
    if (finished_) return;
    StartWrite(&response_);
    StartRead(&request_);
  }

  void OnCancel() override { End(absl::CancelledError("the worker is gone")); }

  void OnDone() override {
    if (opened_.has_value()) context_.space->CloseSession(*opened_);
    context_.calls->Remove(this);
    std::shared_ptr<SessionCall> last = std::move(self_);
  }

 private:
  void Begin() {
    const auto deadline = absl::ToChronoTime(absl::Now() + context_.first_message);
    // Weak: an alarm keeps its callback until it is destroyed, and this owns the alarm.
    alarm_.Set(deadline, [weak = std::weak_ptr<SessionCall>(self_)](bool expired) {
      std::shared_ptr<SessionCall> call = weak.lock();
      if (expired && call != nullptr) call->EndIfSilent();
    });
    absl::MutexLock lock(&mu_);
    if (!finished_) StartRead(&request_);
  }

  absl::Status Open() {
    {
      absl::MutexLock lock(&mu_);
      silent_ = false;
    }
    alarm_.Cancel();
    absl::StatusOr<std::shared_ptr<Session>> session =
        context_.space->OpenSession(request_.worker_label(), request_.worker_pid());
    if (!session.ok()) return session.status();
    opened_ = (*session)->id();
    response_.set_session_id(opened_->value());
    response_.set_daemon_version(kVersion);
    v1::Limits* limits = response_.mutable_limits();
    limits->set_message_bytes_max(context_.message_bytes_max);
    limits->set_unsealed_bytes_max(context_.limits->unsealed_bytes_max);
    limits->set_sequences_max(context_.limits->sequences_max);
    limits->set_chunk_tokens(kChunkTokens);
    return absl::OkStatus();
  }

  void EndIfSilent() {
    {
      absl::MutexLock lock(&mu_);
      if (!silent_) return;
    }
    End(absl::DeadlineExceededError(absl::StrCat(
        "no first message within ", absl::FormatDuration(context_.first_message),
        ": send a SessionRequest right after opening the stream")));
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
  const WorkerContext context_;

  // Owned by the read callback, then by OnDone.
  std::optional<SessionId> opened_;
  v1::SessionRequest request_;
  v1::SessionResponse response_;
  std::shared_ptr<SessionCall> self_;
  grpc::Alarm alarm_;

  absl::Mutex mu_;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  bool silent_ ABSL_GUARDED_BY(mu_) = true;
};

}  // namespace

grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>* StartSessionCall(
    const WorkerContext& context) {
  return SessionCall::Start(context);
}

}  // namespace kvtier::daemon
