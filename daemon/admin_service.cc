#include "daemon/admin_service.h"

#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "daemon/parsed_call.h"
#include "daemon/stats_messages.h"
#include "daemon/stream_threads.h"
#include "daemon/to_grpc_status.h"
#include "daemon/watch_call.h"
#include "kvtier/v1/admin.grpc.pb.h"

namespace kvtier::daemon {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

// Calls that may take long, at a time.
constexpr uint32_t kWorkingMax = 16;
// How often a drain looks whether the sessions have ended.
constexpr absl::Duration kDrainPoll = absl::Milliseconds(50);

ServerUnaryReactor* Reply(CallbackServerContext* call, const absl::Status& status) {
  ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

// Those with names in them are parsed here.
template <typename Base>
using RawPins =
    v1::Admin::WithRawCallbackMethod_Pin<v1::Admin::WithRawCallbackMethod_Unpin<Base>>;
template <typename Base>
using RawCare =
    v1::Admin::WithRawCallbackMethod_Evict<v1::Admin::WithRawCallbackMethod_Verify<Base>>;
template <typename Base>
using RawLists = v1::Admin::WithRawCallbackMethod_ListSequences<
    v1::Admin::WithRawCallbackMethod_ListSessions<
        v1::Admin::WithRawCallbackMethod_ListModels<Base>>>;
using AdminMethods = RawLists<RawCare<RawPins<v1::Admin::CallbackService>>>;

// Ends the waiting of drains when the daemon stops.
class StopSignal final : public LastingCall {
 public:
  void Stop() override { stopped_.Notify(); }
  // True if it stops within that time.
  bool Await(absl::Duration patience) {
    return stopped_.WaitForNotificationWithTimeout(patience);
  }

 private:
  absl::Notification stopped_;
};

class AdminService final : public AdminMethods {
 public:
  AdminService(Store* store, CallRegistry* calls)
      : store_(store), calls_(calls), started_(absl::Now()) {
    calls_->Add(stop_);
  }
  ~AdminService() override { calls_->Remove(stop_.get()); }

  ServerUnaryReactor* Stats(CallbackServerContext* call, const v1::StatsRequest*,
                            v1::StatsResponse* response) override {
    FillStats(*store_, started_, response);
    return Reply(call, absl::OkStatus());
  }

  grpc::ServerWriteReactor<v1::StatsResponse>* WatchStats(
      CallbackServerContext*, const v1::WatchStatsRequest* request) override {
    return StartWatchCall(*store_, started_, calls_, request->interval_ms());
  }

  ServerUnaryReactor* ListSequences(CallbackServerContext* call,
                                    const grpc::ByteBuffer* bytes,
                                    grpc::ByteBuffer* reply) override {
    // A sequence that waits for the disk keeps this waiting too.
    return Start<v1::ListSequencesRequest, v1::ListSequencesResponse>(
        call, bytes, reply, &working_, [this](const auto& request, auto* response) {
          return ForNamespaces(request.namespace_name(), [&](Namespace& space) {
            for (const std::shared_ptr<Session>& session : space.Sessions()) {
              FillSequences(space.name(), *session, response);
            }
          });
        });
  }

  ServerUnaryReactor* ListSessions(CallbackServerContext* call,
                                   const grpc::ByteBuffer* bytes,
                                   grpc::ByteBuffer* reply) override {
    return Start<v1::ListSessionsRequest, v1::ListSessionsResponse>(
        call, bytes, reply, nullptr, [this](const auto& request, auto* response) {
          return ForNamespaces(request.namespace_name(), [&](Namespace& space) {
            for (const std::shared_ptr<Session>& session : space.Sessions()) {
              FillSession(space.name(), session->Info(), response->add_sessions());
            }
          });
        });
  }

  ServerUnaryReactor* ListModels(CallbackServerContext* call,
                                 const grpc::ByteBuffer* bytes,
                                 grpc::ByteBuffer* reply) override {
    return Start<v1::ListModelsRequest, v1::ListModelsResponse>(
        call, bytes, reply, nullptr, [this](const auto& request, auto* response) {
          return ForNamespaces(request.namespace_name(),
                               [&](Namespace& space) { FillModels(space, response); });
        });
  }

  ServerUnaryReactor* Pin(CallbackServerContext* call, const grpc::ByteBuffer* bytes,
                          grpc::ByteBuffer* reply) override {
    return Start<v1::PinRequest, v1::PinResponse>(
        call, bytes, reply, &working_, [this](const auto& request, auto* response) {
          const SequenceId sequence(request.sequence_id());
          absl::StatusOr<uint64_t> pinned = absl::NotFoundError("there is no namespace");
          absl::Status found =
              ForNamespaces(request.namespace_name(), [&](Namespace& space) {
                if (!pinned.ok()) pinned = space.Pin(sequence);
              });
          if (!found.ok()) return found;
          if (pinned.ok()) response->set_pinned_bytes(*pinned);
          return pinned.status();
        });
  }

  ServerUnaryReactor* Unpin(CallbackServerContext* call, const grpc::ByteBuffer* bytes,
                            grpc::ByteBuffer* reply) override {
    return Start<v1::UnpinRequest, v1::UnpinResponse>(
        call, bytes, reply, nullptr, [this](const auto& request, auto*) {
          size_t unpinned = 0;
          absl::Status found =
              ForNamespaces(request.namespace_name(), [&](Namespace& space) {
                unpinned += space.Unpin(SequenceId(request.sequence_id()));
              });
          if (!found.ok() || unpinned > 0 || request.sequence_id() == 0) return found;
          return absl::NotFoundError(
              absl::StrCat("sequence ", request.sequence_id(), " isn't pinned"));
        });
  }

  ServerUnaryReactor* Evict(CallbackServerContext* call, const grpc::ByteBuffer* bytes,
                            grpc::ByteBuffer* reply) override {
    return Start<v1::EvictRequest, v1::EvictResponse>(
        call, bytes, reply, &working_,
        [this](const auto& request, auto* response) -> absl::Status {
          if (!request.namespace_name().empty()) {
            return NotServed("Evict of one namespace");
          }
          if (!request.tier().empty() && request.tier() != "host") {
            return absl::InvalidArgumentError(absl::StrCat(
                "only the tier 'host' can be evicted from, not '", request.tier(), "'"));
          }
          const uint64_t all = std::numeric_limits<uint64_t>::max();
          response->set_freed_bytes(
              store_->Evict(request.bytes() == 0 ? all : request.bytes()));
          return absl::OkStatus();
        });
  }

  ServerUnaryReactor* Verify(CallbackServerContext* call, const grpc::ByteBuffer* bytes,
                             grpc::ByteBuffer* reply) override {
    return Start<v1::VerifyRequest, v1::VerifyResponse>(
        call, bytes, reply, &verifying_,
        [this](const auto& request, auto* response) -> absl::Status {
          if (!request.namespace_name().empty()) {
            return NotServed("Verify of one namespace");
          }
          absl::StatusOr<Store::VerifyResult> result = store_->Verify(request.tier());
          if (!result.ok()) return result.status();
          response->set_pages(result->pages);
          response->set_bad_pages(result->bad_pages);
          for (std::string& one : result->findings) {
            response->add_findings(std::move(one));
          }
          return absl::OkStatus();
        });
  }

  ServerUnaryReactor* Flush(CallbackServerContext* call, const v1::FlushRequest*,
                            v1::FlushResponse*) override {
    return OnThread(call, [this] { return store_->Flush(); });
  }

  ServerUnaryReactor* Drain(CallbackServerContext* call, const v1::DrainRequest* request,
                            v1::DrainResponse*) override {
    store_->StartDraining();
    const absl::Time deadline = absl::Now() + absl::Milliseconds(request->deadline_ms());
    return OnThread(call, [this, deadline] { return FinishDraining(deadline); });
  }

  ServerUnaryReactor* SetQuota(CallbackServerContext* call, const v1::SetQuotaRequest*,
                               v1::SetQuotaResponse*) override {
    return Reply(call, NotServed("SetQuota"));
  }

 private:
  // Serves a call: at once, or on a thread of its own where it may take long.
  template <typename Request, typename Response, typename Work>
  ServerUnaryReactor* Start(CallbackServerContext* call, const grpc::ByteBuffer* bytes,
                            grpc::ByteBuffer* reply, StreamThreads* threads, Work work) {
    ServerUnaryReactor* reactor = call->DefaultReactor();
    auto parsed = ParsedCall<Request, Response>::Parse(reactor, *bytes, reply);
    if (parsed == nullptr) return reactor;
    const auto run = [parsed, work] {
      parsed->Finish(work(parsed->request, &parsed->response));
    };
    if (threads == nullptr) {
      run();
    } else if (absl::Status started = threads->Start(run); !started.ok()) {
      parsed->Finish(started);
    }
    return reactor;
  }

  // Answers with what `work` returns, from a thread of its own.
  template <typename Work>
  ServerUnaryReactor* OnThread(CallbackServerContext* call, Work work) {
    ServerUnaryReactor* reactor = call->DefaultReactor();
    absl::Status started =
        working_.Start([reactor, work] { reactor->Finish(ToGrpcStatus(work())); });
    if (!started.ok()) reactor->Finish(ToGrpcStatus(started));
    return reactor;
  }

  // Of one namespace, or of all if `name` is empty.
  template <typename Visit>
  absl::Status ForNamespaces(const std::string& name, Visit visit) {
    bool found = name.empty();
    for (Namespace* space : store_->Namespaces()) {
      if (!name.empty() && space->name() != name) continue;
      found = true;
      visit(*space);
    }
    if (found) return absl::OkStatus();
    return absl::NotFoundError(absl::StrCat("there is no namespace '", name,
                                            "': `kvtierctl status` lists them"));
  }

  uint32_t OpenSessions() const {
    uint32_t sessions = 0;
    for (const Namespace* space : store_->Namespaces()) {
      sessions += space->Stats().sessions;
    }
    return sessions;
  }

  absl::Status FinishDraining(absl::Time deadline) {
    uint32_t sessions = OpenSessions();
    while (sessions > 0 && absl::Now() < deadline) {
      if (stop_->Await(kDrainPoll)) return ShuttingDown();
      sessions = OpenSessions();
    }
    absl::Status flushed = store_->Flush();
    // Without a disk tier there is nothing to flush.
    if (!flushed.ok() && !absl::IsFailedPrecondition(flushed)) return flushed;
    if (sessions == 0) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat(sessions,
                     " sessions are still open: end their workers (`kvtierctl sessions` "
                     "lists them) and drain again; nothing new is admitted meanwhile"));
  }

  // Constant after construction.
  Store* const store_;
  CallRegistry* const calls_;
  const absl::Time started_;

  const std::shared_ptr<StopSignal> stop_ = std::make_shared<StopSignal>();

  // Internally synchronized. The threads end before the rest does.
  StreamThreads verifying_{1};
  StreamThreads working_{kWorkingMax};
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminService(Store* store, CallRegistry* calls) {
  return std::make_unique<AdminService>(store, calls);
}

}  // namespace kvtier::daemon
