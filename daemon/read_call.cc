#include "daemon/read_call.h"

#include <grpcpp/server_context.h>

#include <memory>
#include <utility>

#include "daemon/call_gate.h"
#include "daemon/convert.h"
#include "daemon/to_grpc_status.h"

namespace kvtier::daemon {
namespace {

class ReadCall final : public grpc::ServerWriteReactor<v1::ReadResponse>,
                       public LastingCall {
 public:
  static ReadCall* Start(const WorkerContext& context,
                         grpc::CallbackServerContext* server_call,
                         const v1::ReadRequest* request) {
    auto call = std::make_shared<ReadCall>(context, server_call, request);
    call->self_ = call;
    context.calls->Add(call);
    ReadCall* reactor = call.get();
    absl::Status started = context.threads->Start([call] { call->Run(); });
    if (!started.ok()) reactor->Finish(ToGrpcStatus(started));
    return reactor;
  }

  ReadCall(const WorkerContext& context, grpc::CallbackServerContext* call,
           const v1::ReadRequest* request)
      : context_(context), call_(call), request_(request) {}

  void Stop() override { gate_.End(ShuttingDown()); }
  void OnWriteDone(bool ok) override { gate_.WriteDone(ok); }
  void OnCancel() override { gate_.End(absl::CancelledError("the worker is gone")); }
  void OnDone() override {
    context_.calls->Remove(this);
    std::shared_ptr<ReadCall> last = std::move(self_);
  }

 private:
  void Run() {
    absl::Status status = Serve();
    if (!gate_.AwaitWritable() && !gate_.AwaitLastWrite(kLastWritePatience)) {
      call_->TryCancel();
    }
    absl::Status end = gate_.end();
    Finish(ToGrpcStatus(end.ok() ? status : end));
  }

  absl::Status Serve() {
    absl::StatusOr<std::shared_ptr<Session>> session =
        context_.space->FindSession(SessionId(request_->session_id()));
    if (!session.ok()) return session.status();
    return (*session)->Read(FromMessage(*request_), context_.part_bytes_max(),
                            [&](ReadPart part) {
                              ToMessage(std::move(part), &response_);
                              gate_.StartWrite();
                              StartWrite(&response_);
                              return gate_.AwaitWritable();
                            });
  }

  // Constant after construction.
  const WorkerContext context_;
  grpc::CallbackServerContext* const call_;
  const v1::ReadRequest* const request_;

  // Internally synchronized.
  CallGate gate_;

  // Owned by the call's thread; gRPC's while a write is under way.
  v1::ReadResponse response_;

  // Owned by OnDone.
  std::shared_ptr<ReadCall> self_;
};

}  // namespace

grpc::ServerWriteReactor<v1::ReadResponse>* StartReadCall(
    const WorkerContext& context, grpc::CallbackServerContext* call,
    const v1::ReadRequest* request) {
  return ReadCall::Start(context, call, request);
}

}  // namespace kvtier::daemon
