#include "daemon/admin_service.h"

#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "daemon/stats_messages.h"
#include "daemon/stream_threads.h"
#include "daemon/to_grpc_status.h"
#include "daemon/watch_call.h"
#include "kvtier/v1/admin.grpc.pb.h"

namespace kvtier::daemon {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

ServerUnaryReactor* Reply(CallbackServerContext* call, const absl::Status& status) {
  ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

class AdminService final : public v1::Admin::CallbackService {
 public:
  AdminService(Store* store, CallRegistry* calls)
      : store_(store), calls_(calls), started_(absl::Now()) {}

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
                                    const v1::ListSequencesRequest* request,
                                    v1::ListSequencesResponse* response) override {
    return ForSessions(call, request->namespace_name(),
                       [&](const std::string& space, const Session& session) {
                         FillSequences(space, session, response);
                       });
  }

  ServerUnaryReactor* ListSessions(CallbackServerContext* call,
                                   const v1::ListSessionsRequest* request,
                                   v1::ListSessionsResponse* response) override {
    return ForSessions(call, request->namespace_name(),
                       [&](const std::string& space, const Session& session) {
                         FillSession(space, session.Info(), response->add_sessions());
                       });
  }

  ServerUnaryReactor* Pin(CallbackServerContext* call, const v1::PinRequest*,
                          v1::PinResponse*) override {
    return Reply(call, NotServed("Pin"));
  }
  ServerUnaryReactor* Unpin(CallbackServerContext* call, const v1::UnpinRequest*,
                            v1::UnpinResponse*) override {
    return Reply(call, NotServed("Unpin"));
  }
  ServerUnaryReactor* Evict(CallbackServerContext* call, const v1::EvictRequest* request,
                            v1::EvictResponse* response) override {
    if (!request->namespace_name().empty()) {
      return Reply(call, NotServed("Evict of one namespace"));
    }
    if (!request->tier().empty() && request->tier() != "host") {
      return Reply(call, absl::InvalidArgumentError(absl::StrCat(
                             "only the tier 'host' can be evicted from, not '",
                             request->tier(), "'")));
    }
    const uint64_t all = std::numeric_limits<uint64_t>::max();
    response->set_freed_bytes(
        store_->Evict(request->bytes() == 0 ? all : request->bytes()));
    return Reply(call, absl::OkStatus());
  }
  ServerUnaryReactor* SetQuota(CallbackServerContext* call, const v1::SetQuotaRequest*,
                               v1::SetQuotaResponse*) override {
    return Reply(call, NotServed("SetQuota"));
  }
  ServerUnaryReactor* Verify(CallbackServerContext* call,
                             const v1::VerifyRequest* request,
                             v1::VerifyResponse* response) override {
    if (!request->namespace_name().empty()) {
      return Reply(call, NotServed("Verify of one namespace"));
    }
    ServerUnaryReactor* reactor = call->DefaultReactor();
    // Minutes, at times: not on one of gRPC's threads.
    absl::Status started = verifying_.Start([this, request, response, reactor] {
      absl::StatusOr<Store::VerifyResult> result = store_->Verify(request->tier());
      if (result.ok()) {
        response->set_pages(result->pages);
        response->set_bad_pages(result->bad_pages);
      }
      reactor->Finish(ToGrpcStatus(result.status()));
    });
    if (!started.ok()) reactor->Finish(ToGrpcStatus(started));
    return reactor;
  }
  ServerUnaryReactor* Flush(CallbackServerContext* call, const v1::FlushRequest*,
                            v1::FlushResponse*) override {
    return Reply(call, NotServed("Flush"));
  }
  ServerUnaryReactor* Drain(CallbackServerContext* call, const v1::DrainRequest*,
                            v1::DrainResponse*) override {
    return Reply(call, NotServed("Drain"));
  }

 private:
  // Of one namespace, or of all if `name` is empty.
  template <typename Visit>
  ServerUnaryReactor* ForSessions(CallbackServerContext* call, const std::string& name,
                                  Visit visit) {
    bool found = name.empty();
    for (Namespace* space : store_->Namespaces()) {
      if (!name.empty() && space->name() != name) continue;
      found = true;
      for (const std::shared_ptr<Session>& session : space->Sessions()) {
        visit(space->name(), *session);
      }
    }
    if (found) return Reply(call, absl::OkStatus());
    return Reply(call,
                 absl::NotFoundError(absl::StrCat("there is no namespace '", name,
                                                  "': `kvtierctl status` lists them")));
  }

  // Constant after construction.
  Store* const store_;
  CallRegistry* const calls_;
  const absl::Time started_;

  // Internally synchronized.
  StreamThreads verifying_{1};
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminService(Store* store, CallRegistry* calls) {
  return std::make_unique<AdminService>(store, calls);
}

}  // namespace kvtier::daemon
