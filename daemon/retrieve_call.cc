#include "daemon/retrieve_call.h"

#include <grpcpp/server_context.h>

#include <array>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/call_gate.h"
#include "daemon/convert.h"
#include "daemon/to_grpc_status.h"

namespace kvtier::daemon {
namespace {

class RetrieveCall final
    : public grpc::ServerBidiReactor<v1::RetrieveRequest, v1::RetrieveResponse>,
      public LastingCall {
 public:
  static RetrieveCall* Start(const WorkerContext& context,
                             grpc::CallbackServerContext* server_call) {
    auto call = std::make_shared<RetrieveCall>(context, server_call);
    call->self_ = call;
    context.calls->Add(call);
    RetrieveCall* reactor = call.get();
    absl::Status started = context.threads->Start([call] { call->Run(); });
    if (!started.ok()) reactor->Finish(ToGrpcStatus(started));
    return reactor;
  }

  RetrieveCall(const WorkerContext& context, grpc::CallbackServerContext* call)
      : context_(context), call_(call) {}

  void Stop() override { gate_.End(ShuttingDown()); }
  void OnReadDone(bool ok) override { gate_.ReadDone(ok); }
  void OnWriteDone(bool ok) override { gate_.WriteDone(ok); }
  void OnCancel() override { gate_.End(absl::CancelledError("the worker is gone")); }
  void OnDone() override {
    context_.calls->Remove(this);
    std::shared_ptr<RetrieveCall> last = std::move(self_);
  }

 private:
  void Run() {
    ReadNext();
    while (gate_.AwaitRead() == CallGate::Read::kMessage) {
      Serve(incoming_);
      // After the answer is on its way: who asked waits for that.
      ReadNext();
    }
    if (!gate_.AwaitWritable() && !gate_.AwaitLastWrite(kLastWritePatience)) {
      call_->TryCancel();
    }
    Finish(ToGrpcStatus(gate_.end()));
  }

  void Serve(const v1::RetrieveRequest& request) {
    response().set_step(request.step());
    absl::StatusOr<std::shared_ptr<Session>> session =
        context_.space->FindSession(SessionId(request.session_id()));
    for (const v1::RetrieveItem& item : request.items()) {
      absl::Status status =
          session.ok() ? ServeItem(**session, item, request.step()) : session.status();
      if (!gate_.end().ok()) return;
      if (status.ok()) continue;
      v1::RetrieveResult* result = response().add_results();
      result->set_sequence_id(item.sequence_id());
      result->set_layer(item.layer());
      ToMessage(status, result->mutable_error());
      result->set_last_part(true);
    }
    if (response().results_size() > 0 || request.items().empty()) Write();
  }

  absl::Status ServeItem(Session& session, const v1::RetrieveItem& message,
                         uint64_t step) {
    absl::StatusOr<RetrieveItem> item = FromMessage(message, StepIndex(step));
    if (!item.ok()) return item.status();
    absl::Status too_long;
    absl::Status status =
        session.Retrieve(*item, context_.part_bytes_max(), [&](RetrievePart part) {
          too_long = CheckFits(part);
          return too_long.ok() && AddPart(message, std::move(part));
        });
    return too_long.ok() ? status : too_long;
  }

  // Indices aren't split, only rows are.
  absl::Status CheckFits(const RetrievePart& part) const {
    const uint64_t bytes =
        part.rows.size() + 4 * (part.kept.size() + part.added.size() +
                                part.rest_output.size() + part.rest_lse.size());
    if (bytes + kMessageOverheadBytes <= context_.message_bytes_max) {
      return absl::OkStatus();
    }
    return absl::ResourceExhaustedError(absl::StrCat(
        "a part of this selection takes ", bytes, " bytes, over limits.message_max of ",
        context_.message_bytes_max, ": raise it, or ask for fewer tokens or queries"));
  }

  // False if the call has ended.
  bool AddPart(const v1::RetrieveItem& item, RetrievePart part) {
    const uint64_t bytes = part.rows.size() + 4 * (part.kept.size() + part.added.size());
    if (response_rows_bytes_ > 0 &&
        response_rows_bytes_ + bytes > context_.part_bytes_max()) {
      if (!WriteAndGoOn()) return false;
    }
    const bool last = part.last;
    v1::RetrieveResult* result = response().add_results();
    result->set_sequence_id(item.sequence_id());
    result->set_layer(item.layer());
    ToMessage(std::move(part), result);
    response_rows_bytes_ += bytes;
    return last || WriteAndGoOn();
  }

  // Writes the response and begins the next, of the same step, while it is on its way.
  bool WriteAndGoOn() {
    const uint64_t step = response().step();
    if (!Write()) return false;
    response().set_step(step);
    return true;
  }

  // False if the call has ended.
  bool Write() {
    if (!gate_.AwaitWritable()) return false;
    gate_.StartWrite();
    StartWrite(&response());
    current_ = 1 - current_;
    response().Clear();
    response_rows_bytes_ = 0;
    return true;
  }

  void ReadNext() {
    gate_.StartRead();
    StartRead(&incoming_);
  }

  // Fields, lengths and the costs of a result, generously.
  static constexpr uint64_t kMessageOverheadBytes = 4096;

  // Constant after construction.
  const WorkerContext context_;
  grpc::CallbackServerContext* const call_;

  // Internally synchronized.
  CallGate gate_;

  v1::RetrieveResponse& response() { return responses_[current_]; }

  // Owned by the call's thread; gRPC's while a read or a write is under way. The current
  // response is made while the other may be written.
  v1::RetrieveRequest incoming_;
  std::array<v1::RetrieveResponse, 2> responses_;
  size_t current_ = 0;
  uint64_t response_rows_bytes_ = 0;

  // Owned by OnDone.
  std::shared_ptr<RetrieveCall> self_;
};

}  // namespace

grpc::ServerBidiReactor<v1::RetrieveRequest, v1::RetrieveResponse>* StartRetrieveCall(
    const WorkerContext& context, grpc::CallbackServerContext* call) {
  return RetrieveCall::Start(context, call);
}

}  // namespace kvtier::daemon
