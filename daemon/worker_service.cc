#include "daemon/worker_service.h"

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "daemon/convert.h"
#include "daemon/parsed_call.h"
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

// Those with names in them are parsed here.
using WorkerMethods = v1::Worker::WithRawCallbackMethod_RegisterModel<
    v1::Worker::WithRawCallbackMethod_OpenSequence<v1::Worker::CallbackService>>;

class WorkerService final : public WorkerMethods {
 public:
  explicit WorkerService(const WorkerContext& context) : context_(context) {}

  ServerUnaryReactor* RegisterModel(CallbackServerContext* call,
                                    const grpc::ByteBuffer* bytes,
                                    grpc::ByteBuffer* reply) override {
    ServerUnaryReactor* reactor = call->DefaultReactor();
    auto parsed = ParsedCall<v1::RegisterModelRequest, v1::RegisterModelResponse>::Parse(
        reactor, *bytes, reply);
    if (parsed == nullptr) return reactor;
    absl::StatusOr<retrieval::ModelSpec> model = FromMessage(parsed->request.model());
    absl::Status status = model.status();
    if (status.ok()) {
      auto digest = context_.space->RegisterModel(*model);
      status = digest.status();
      if (digest.ok()) parsed->response.set_model_digest(digest->data(), digest->size());
    }
    parsed->Finish(status);
    return reactor;
  }

  grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>* Session(
      CallbackServerContext*) override {
    return StartSessionCall(context_);
  }

  ServerUnaryReactor* OpenSequence(CallbackServerContext* call,
                                   const grpc::ByteBuffer* bytes,
                                   grpc::ByteBuffer* reply) override {
    ServerUnaryReactor* reactor = call->DefaultReactor();
    auto parsed = ParsedCall<v1::OpenSequenceRequest, v1::OpenSequenceResponse>::Parse(
        reactor, *bytes, reply);
    if (parsed == nullptr) return reactor;
    const auto open = [parsed](daemon::Session& session) -> absl::Status {
      absl::StatusOr<OpenSequenceOptions> options = FromMessage(parsed->request);
      if (!options.ok()) return options.status();
      absl::StatusOr<OpenedSequence> opened = session.OpenSequence(*options);
      if (!opened.ok()) return opened.status();
      parsed->response.set_sequence_id(opened->sequence.value());
      parsed->response.set_cached_tokens(opened->cached_tokens);
      parsed->response.set_exact_tokens(opened->exact_tokens);
      return absl::OkStatus();
    };
    Run(SessionId(parsed->request.session_id()), open,
        [parsed](const absl::Status& status) { parsed->Finish(status); });
    return reactor;
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

  ServerUnaryReactor* Refill(CallbackServerContext* call,
                             const v1::RefillRequest* request,
                             v1::RefillResponse*) override {
    return InSession(call, *request, [=](daemon::Session& session) -> absl::Status {
      absl::StatusOr<std::vector<AppendEntry>> entries = FromMessage(*request);
      if (!entries.ok()) return entries.status();
      return session.Refill(SequenceId(request->sequence_id()), request->chunk_index(),
                            *entries);
    });
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
    Run(SessionId(request.session_id()), work,
        [reactor](const absl::Status& status) { reactor->Finish(ToGrpcStatus(status)); });
    return reactor;
  }

  template <typename Work, typename Finish>
  void Run(SessionId id, Work work, Finish finish) {
    const auto run = [this, id, work, finish] {
      absl::StatusOr<std::shared_ptr<daemon::Session>> session =
          context_.space->FindSession(id);
      finish(session.ok() ? work(**session) : session.status());
    };
    if (context_.blocking == nullptr) {
      run();
    } else if (!context_.blocking->TryPost(kBlockingWaitingMax, run)) {
      finish(absl::ResourceExhaustedError(
          absl::StrCat("the daemon is overloaded: ", kBlockingWaitingMax,
                       " calls wait already; try again later")));
    }
  }

  const WorkerContext context_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeWorkerService(const WorkerContext& context) {
  return std::make_unique<WorkerService>(context);
}

}  // namespace kvtier::daemon
