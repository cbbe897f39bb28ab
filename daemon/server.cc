#include "daemon/server.h"

#include <grpc/grpc.h>
#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/admin_service.h"
#include "daemon/call_registry.h"
#include "daemon/instance_lock.h"
#include "daemon/runtime_dir.h"
#include "daemon/stream_threads.h"
#include "daemon/worker_context.h"
#include "daemon/worker_service.h"

namespace kvtier::daemon {
namespace {

// What health calls the disk tier.
constexpr char kDiskService[] = "kvtier.disk";

// The reflection library adds itself to every server; workers need none of it, and it
// costs threads.
class WithoutPlugins final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(
      std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->clear();
  }
};

absl::Status CheckPath(const std::string& path) {
  constexpr size_t kMax = sizeof(sockaddr_un::sun_path) - 1;
  if (path.size() <= kMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the socket path ", path,
                                                 " is longer than ", kMax,
                                                 " bytes: choose a shorter runtime_dir"));
}

// A service, its socket and the server between them.
struct Endpoint {
  std::string path;
  uint32_t mode = 0600;
  std::unique_ptr<grpc::Service> service;
  std::unique_ptr<grpc::Server> server;

  absl::Status Listen(grpc::ServerBuilder& builder) {
    if (absl::Status status = CheckPath(path); !status.ok()) return status;
    if (absl::Status status = RemoveStaleSocket(path); !status.ok()) return status;
    builder.RegisterService(service.get());
    builder.AddListeningPort(absl::StrCat("unix:", path),
                             grpc::InsecureServerCredentials());
    // Nobody may connect between bind and chmod.
    const mode_t old_mask = umask(0177);
    server = builder.BuildAndStart();
    umask(old_mask);
    if (server == nullptr) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen on ", path, ": see gRPC's message above"));
    }
    if (chmod(path.c_str(), mode) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot set the mode of ", path));
    }
    return absl::OkStatus();
  }
};

class GrpcServer final : public Server {
 public:
  GrpcServer(const Config& config, Store* store) : config_(config), store_(store) {
    if (!config.store.disk_directory.empty()) {
      blocking_ = std::make_unique<ThreadPool>(kBlockingThreads);
    }
  }

  ~GrpcServer() override { Shutdown(absl::ZeroDuration()); }

  absl::Status Listen() {
    // Never undone: gRPC's own shutdown, which the last server's end would start, waits
    // up to 10 s for a poller of a connection that is stalled. The process ends anyway.
    grpc_init();
    grpc::EnableDefaultHealthCheckService(true);
    for (const NamespaceConfig& space : config_.namespaces) {
      if (absl::Status status = AddWorkers(space); !status.ok()) return status;
    }
    if (absl::Status status = AddAdmin(); !status.ok()) return status;
    if (!config_.store.disk_directory.empty()) SetDiskServing(true);
    return absl::OkStatus();
  }

  void SetDiskServing(bool serving) override {
    endpoints_.back().server->GetHealthCheckService()->SetServingStatus(kDiskService,
                                                                        serving);
  }

  void Shutdown(absl::Duration patience) override {
    const auto deadline =
        std::chrono::system_clock::now() + absl::ToChronoMilliseconds(patience);
    calls_.StopAll();
    for (Endpoint& endpoint : endpoints_) {
      if (endpoint.server != nullptr) endpoint.server->Shutdown(deadline);
    }
    for (Endpoint& endpoint : endpoints_) {
      if (endpoint.server == nullptr) continue;
      endpoint.server->Wait();
      unlink(endpoint.path.c_str());
    }
    endpoints_.clear();
  }

 private:
  absl::Status AddWorkers(const NamespaceConfig& space) {
    absl::StatusOr<Namespace*> added = store_->AddNamespace(space.name);
    if (!added.ok()) return added.status();
    threads_.push_back(std::make_unique<StreamThreads>(kStreamThreadsMax));
    Endpoint& endpoint = endpoints_.emplace_back();
    endpoint.path = WorkerSocket(config_.runtime_dir, space.name);
    endpoint.mode = space.socket_mode;
    endpoint.service = MakeWorkerService({.space = *added,
                                          .limits = &store_->limits(),
                                          .message_bytes_max = config_.message_bytes_max,
                                          .first_message = config_.first_message,
                                          .calls = &calls_,
                                          .threads = threads_.back().get(),
                                          .blocking = blocking_.get()});
    grpc::ServerBuilder builder;
    builder.SetOption(std::make_unique<WithoutPlugins>());
    builder.SetOption(
        std::make_unique<grpc::HealthCheckServiceServerBuilderOption>(nullptr));
    builder.SetMaxReceiveMessageSize(static_cast<int>(config_.message_bytes_max));
    return endpoint.Listen(builder);
  }

  absl::Status AddAdmin() {
    Endpoint& endpoint = endpoints_.emplace_back();
    endpoint.path = AdminSocket(config_.runtime_dir);
    endpoint.service = MakeAdminService(store_, &calls_);
    // Without a reference to it the linker leaves the library out.
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    // Reflection is a synchronous service: as few threads as it can do with.
    builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
    builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
    return endpoint.Listen(builder);
  }

  // Constant after construction.
  const Config config_;
  Store* const store_;

  // Internally synchronized. Declared before the endpoints, whose calls use them.
  CallRegistry calls_;
  std::vector<std::unique_ptr<StreamThreads>> threads_;
  std::unique_ptr<ThreadPool> blocking_;

  // Owned by the caller's thread. The last is the operator's, which has the health
  // service.
  std::vector<Endpoint> endpoints_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Config& config,
                                                      Store* store) {
  auto server = std::make_unique<GrpcServer>(config, store);
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  return server;
}

}  // namespace kvtier::daemon
