// Inside the client library: a streaming call whose reads and writes have deadlines.
// gRPC's callbacks report; the caller waits here, never inside gRPC.
//
//   ReadStream<Reactor, Response>   what Session, Retrieve and WatchStats share
//   BidiCall<Request, Response>     with writes
//
// A read is always under way, so the end of the call is noticed when it comes and not
// when somebody next asks.
//
// Thread safety: one thread reads and writes; ended() from any.

#ifndef KVTIER_CLIENT_CPP_STREAM_CALL_H_
#define KVTIER_CLIENT_CPP_STREAM_CALL_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace kvtier::client {

enum class StreamOutcome { kDone, kEnded, kTooLate };

template <typename Reactor, typename Response>
class ReadStream : public Reactor {
 public:
  ~ReadStream() override = default;

  grpc::ClientContext* context() { return &context_; }

  // After the stub has bound this reactor.
  void Begin() {
    // Reads are started from outside gRPC's callbacks: the hold keeps the call alive
    // between them.
    this->AddHold();
    this->StartRead(&incoming_);
    this->StartCall();
  }

  StreamOutcome Read(absl::Time deadline, Response* message) {
    absl::MutexLock lock(&mu_);
    if (!mu_.AwaitWithDeadline(absl::Condition(this, &ReadStream::CanRead), deadline)) {
      return StreamOutcome::kTooLate;
    }
    if (!has_message_) return StreamOutcome::kEnded;
    message->Swap(&incoming_);
    has_message_ = false;
    if (!over_) this->StartRead(&incoming_);
    return StreamOutcome::kDone;
  }

  bool ended() const {
    absl::MutexLock lock(&mu_);
    return over_;
  }

  // Cancels what is left and waits for gRPC to let go of this object; what the call
  // ended with.
  grpc::Status End() {
    context_.TryCancel();
    absl::MutexLock lock(&mu_);
    ending_ = true;
    // Else a read is under way, and drops the hold however it ends.
    if (!over_ && has_message_) LetGo();
    mu_.Await(absl::Condition(&done_));
    return status_;
  }

  // As End, but gives the daemon until `deadline` to end the call itself.
  grpc::Status EndAfter(absl::Time deadline) {
    {
      absl::MutexLock lock(&mu_);
      mu_.AwaitWithDeadline(absl::Condition(&done_), deadline);
    }
    return End();
  }

  void OnReadDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    if (ok && !ending_) {
      has_message_ = true;
      return;
    }
    LetGo();
  }

  void OnDone(const grpc::Status& status) override {
    absl::MutexLock lock(&mu_);
    status_ = status;
    done_ = true;
  }

 protected:
  // No read is under way any more, and none will be.
  void LetGo() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    over_ = true;
    this->RemoveHold();
  }
  bool CanRead() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return has_message_ || done_; }

  mutable absl::Mutex mu_;
  // No more messages; the hold is gone, so nothing may be started any more.
  bool over_ ABSL_GUARDED_BY(mu_) = false;
  bool done_ ABSL_GUARDED_BY(mu_) = false;

 private:
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  bool has_message_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mu_);
  // gRPC's while a read is under way, else guarded by mu_.
  Response incoming_;
  grpc::ClientContext context_;
};

template <typename Request, typename Response>
class BidiCall final
    : public ReadStream<grpc::ClientBidiReactor<Request, Response>, Response> {
 public:
  // Takes the message. Returns when gRPC has sent it.
  StreamOutcome Write(absl::Time deadline, Request message) {
    absl::MutexLock lock(&this->mu_);
    if (this->over_) return StreamOutcome::kEnded;
    outgoing_ = std::move(message);
    writing_ = true;
    this->StartWrite(&outgoing_);
    if (!this->mu_.AwaitWithDeadline(absl::Condition(this, &BidiCall::WriteIsDone),
                                     deadline)) {
      return StreamOutcome::kTooLate;
    }
    return write_ok_ ? StreamOutcome::kDone : StreamOutcome::kEnded;
  }

  void HalfClose() {
    absl::MutexLock lock(&this->mu_);
    if (!this->over_) this->StartWritesDone();
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&this->mu_);
    writing_ = false;
    write_ok_ = ok;
  }

 private:
  bool WriteIsDone() const ABSL_SHARED_LOCKS_REQUIRED(this->mu_) { return !writing_; }

  bool writing_ ABSL_GUARDED_BY(this->mu_) = false;
  bool write_ok_ ABSL_GUARDED_BY(this->mu_) = false;
  Request outgoing_;
};

}  // namespace kvtier::client

#endif  // KVTIER_CLIENT_CPP_STREAM_CALL_H_
