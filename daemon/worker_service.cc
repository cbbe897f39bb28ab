#include "daemon/worker_service.h"

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "daemon/convert.h"
#include "daemon/read_call.h"
#include "daemon/retrieve_call.h"
#include "daemon/session_call.h"
#include "daemon/to_grpc_status.h"
#include "kvtier/v1/worker.grpc.pb.h"

namespace kvtier::daemon {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

ServerUnaryReactor* Reply(CallbackServerContext* call, const absl::Status& status) {
  ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

class WorkerService final : public v1::Worker::CallbackService {
 public:
  explicit WorkerService(const WorkerContext& context) : context_(context) {}

  ServerUnaryReactor* RegisterModel(CallbackServerContext* call,
                                    const v1::RegisterModelRequest* request,
                                    v1::RegisterModelResponse* response) override {
    absl::StatusOr<retrieval::ModelSpec> model = FromMessage(request->model());
    if (!model.ok()) return Reply(call, model.status());
    absl::StatusOr<retrieval::ModelDigest> digest = context_.space->RegisterModel(*model);
    if (!digest.ok()) return Reply(call, digest.status());
    response->set_model_digest(digest->data(), digest->size());
    return Reply(call, absl::OkStatus());
  }

  grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>* Session(
      CallbackServerContext*) override {
    return StartSessionCall(context_);
  }

  ServerUnaryReactor* OpenSequence(CallbackServerContext* call,
                                   const v1::OpenSequenceRequest* request,
                                   v1::OpenSequenceResponse* response) override {
    return InSession(call, *request, [=](daemon::Session& session) -> absl::Status {
      absl::StatusOr<OpenSequenceOptions> options = FromMessage(*request);
      if (!options.ok()) return options.status();
      absl::StatusOr<OpenedSequence> opened = session.OpenSequence(*options);
      if (!opened.ok()) return opened.status();
      response->set_sequence_id(opened->sequence.value());
      response->set_cached_tokens(opened->cached_tokens);
      response->set_exact_tokens(opened->exact_tokens);
      return absl::OkStatus();
    });
  }

  ServerUnaryReactor* Append(CallbackServerContext* call,
                             const v1::AppendRequest* request,
                             v1::AppendResponse* response) override {
    return InSession(call, *request, [=](daemon::Session& session) -> absl::Status {
      absl::StatusOr<AppendArguments> arguments = FromMessage(*request);
      if (!arguments.ok()) return arguments.status();
      absl::StatusOr<std::vector<SequenceProgress>> progress =
          session.Append(arguments->tokens, arguments->entries);
      if (!progress.ok()) return progress.status();
      for (const SequenceProgress& one : *progress) {
        v1::SequenceProgress* message = response->add_progress();
        message->set_sequence_id(one.sequence.value());
        message->set_sealed_tokens(one.sealed_tokens);
        message->set_complete_tokens(one.complete_tokens);
      }
      return absl::OkStatus();
    });
  }

  ServerUnaryReactor* Seal(CallbackServerContext* call, const v1::SealRequest* request,
                           v1::SealResponse* response) override {
    return InSession(call, *request, [=](daemon::Session& session) -> absl::Status {
      absl::StatusOr<SealedTokens> sealed =
          session.Seal(SequenceId(request->sequence_id()),
                       request->durable() ? Durability::kDurable : Durability::kNone);
      if (!sealed.ok()) return sealed.status();
      response->set_sealed_tokens(sealed->sealed_tokens);
      response->set_tail_tokens(sealed->tail_tokens);
      return absl::OkStatus();
    });
  }

  grpc::ServerBidiReactor<v1::RetrieveRequest, v1::RetrieveResponse>* Retrieve(
      CallbackServerContext* call) override {
    return StartRetrieveCall(context_, call);
  }

  grpc::ServerWriteReactor<v1::ReadResponse>* Read(
      CallbackServerContext* call, const v1::ReadRequest* request) override {
    return StartReadCall(context_, call, request);
  }

  ServerUnaryReactor* Prefetch(CallbackServerContext* call, const v1::PrefetchRequest*,
                               v1::PrefetchResponse*) override {
    return Reply(call, NotServed("Prefetch"));
  }

  ServerUnaryReactor* Truncate(CallbackServerContext* call,
                               const v1::TruncateRequest* request,
                               v1::TruncateResponse* response) override {
    return InSession(call, *request, [=](daemon::Session& session) -> absl::Status {
      absl::StatusOr<SealedTokens> sealed =
          session.Truncate(SequenceId(request->sequence_id()), request->token_count());
      if (!sealed.ok()) return sealed.status();
      response->set_sealed_tokens(sealed->sealed_tokens);
      response->set_tail_tokens(sealed->tail_tokens);
      return absl::OkStatus();
    });
  }

  ServerUnaryReactor* Fork(CallbackServerContext* call, const v1::ForkRequest* request,
                           v1::ForkResponse* response) override {
    return InSession(call, *request, [=](daemon::Session& session) -> absl::Status {
      absl::StatusOr<SequenceId> fork = session.Fork(SequenceId(request->sequence_id()));
      if (!fork.ok()) return fork.status();
      response->set_sequence_id(fork->value());
      return absl::OkStatus();
    });
  }

  ServerUnaryReactor* Refill(CallbackServerContext* call, const v1::RefillRequest*,
                             v1::RefillResponse*) override {
    return Reply(call, NotServed("Refill"));
  }

  ServerUnaryReactor* Close(CallbackServerContext* call, const v1::CloseRequest* request,
                            v1::CloseResponse*) override {
    return InSession(call, *request, [=](daemon::Session& session) {
      return session.Close(SequenceId(request->sequence_id()));
    });
  }

 private:
  // `work` may outlive the handler: it captures by value what gRPC keeps until Finish.
  template <typename Request, typename Work>
  ServerUnaryReactor* InSession(CallbackServerContext* call, const Request& request,
                                Work work) {
    ServerUnaryReactor* reactor = call->DefaultReactor();
    const auto run = [this, reactor, &request, work] {
      absl::StatusOr<std::shared_ptr<daemon::Session>> session =
          context_.space->FindSession(SessionId(request.session_id()));
      reactor->Finish(ToGrpcStatus(session.ok() ? work(**session) : session.status()));
    };
    if (context_.blocking == nullptr) {
      run();
    } else if (!context_.blocking->TryPost(kBlockingWaitingMax, run)) {
      reactor->Finish(ToGrpcStatus(absl::ResourceExhaustedError(
          absl::StrCat("the daemon is overloaded: ", kBlockingWaitingMax,
                       " calls wait already; try again later"))));
    }
    return reactor;
  }

  const WorkerContext context_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeWorkerService(const WorkerContext& context) {
  return std::make_unique<WorkerService>(context);
}

}  // namespace kvtier::daemon
