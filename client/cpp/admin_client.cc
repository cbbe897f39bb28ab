#include "client/cpp/admin_client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "client/cpp/channel.h"
#include "client/cpp/stream_call.h"
#include "kvtier/v1/admin.grpc.pb.h"

namespace kvtier::client {
namespace {

using WatchStream =
    ReadStream<grpc::ClientReadReactor<v1::StatsResponse>, v1::StatsResponse>;

TierStats FromMessage(const v1::TierStats& tier) {
  std::vector<TierStats::Eviction> evictions;
  for (const v1::EvictionCount& count : tier.evictions()) {
    evictions.push_back({count.reason(), count.chunks()});
  }
  return {.tier = tier.tier(),
          .capacity_bytes = tier.capacity_bytes(),
          .used_bytes = tier.used_bytes(),
          .pages = tier.pages(),
          .chunks = tier.chunks(),
          .hit_chunks = tier.hit_chunks(),
          .miss_chunks = tier.miss_chunks(),
          .evicted_chunks = tier.evicted_chunks(),
          .written_bytes = tier.written_bytes(),
          .read_bytes = tier.read_bytes(),
          .dropped_pages = tier.dropped_pages(),
          .lost_chunks = tier.lost_chunks(),
          .unwritten_chunks = tier.unwritten_chunks(),
          .hole_chunks = tier.hole_chunks(),
          .writing_chunks = tier.writing_chunks(),
          .complaints = {tier.complaints().begin(), tier.complaints().end()},
          .evictions = std::move(evictions)};
}

NamespaceStats FromMessage(const v1::NamespaceStats& space) {
  return {.name = space.name(),
          .models = space.models(),
          .sessions = space.sessions(),
          .sequences = space.sequences(),
          .chunks = space.chunks(),
          .unsealed_bytes = space.unsealed_bytes(),
          .appended_tokens = space.appended_tokens(),
          .retrieve_items = space.retrieve_items(),
          .pinned_chunks = space.pinned_chunks(),
          .pinned_bytes = space.pinned_bytes(),
          .disk_bytes = space.disk_bytes()};
}

Stats FromMessage(const v1::StatsResponse& message) {
  Stats stats;
  stats.daemon_version = message.daemon_version();
  stats.uptime_seconds = message.uptime_seconds();
  stats.resident_bytes = message.resident_bytes();
  stats.draining = message.draining();
  for (const v1::TierStats& tier : message.tiers()) {
    stats.tiers.push_back(FromMessage(tier));
  }
  for (const v1::NamespaceStats& space : message.namespaces()) {
    stats.namespaces.push_back(FromMessage(space));
  }
  return stats;
}

SequenceInfo FromMessage(const v1::SequenceInfo& info) {
  return {.namespace_name = info.namespace_name(),
          .sequence_id = info.sequence_id(),
          .session_id = info.session_id(),
          .model_label = info.model_label(),
          .system = info.system(),
          .budget_tokens = info.budget_tokens(),
          .sealed_tokens = info.sealed_tokens(),
          .tail_tokens = info.tail_tokens(),
          .cached_tokens = info.cached_tokens()};
}

SessionInfo FromMessage(const v1::SessionInfo& info) {
  return {.namespace_name = info.namespace_name(),
          .session_id = info.session_id(),
          .worker_label = info.worker_label(),
          .worker_pid = info.worker_pid(),
          .age_seconds = info.age_seconds(),
          .sequences = info.sequences(),
          .unsealed_bytes = info.unsealed_bytes()};
}

ModelInfo FromMessage(const v1::ModelInfo& info) {
  return {.namespace_name = info.namespace_name(),
          .label = info.label(),
          .digest = absl::BytesToHexString(info.model_digest()),
          .layers = info.layers(),
          .dtype = info.dtype(),
          .chunk_tokens = info.chunk_tokens(),
          .rows_bytes = info.rows_bytes(),
          .abstract_bytes = info.abstract_bytes(),
          .table_bytes = info.table_bytes(),
          .disk_bytes = info.disk_bytes()};
}

class GrpcAdminClient final : public AdminClient {
 public:
  explicit GrpcAdminClient(Channel channel)
      : channel_(std::move(channel)), stub_(v1::Admin::NewStub(channel_.grpc())) {}

  absl::StatusOr<Stats> GetStats() override {
    v1::StatsResponse response;
    absl::Status status = Call(&v1::Admin::Stub::Stats, v1::StatsRequest(), &response);
    if (!status.ok()) return status;
    return FromMessage(response);
  }

  absl::Status WatchStats(absl::Duration interval,
                          absl::FunctionRef<bool(const Stats&)> sink) override {
    if (interval <= absl::ZeroDuration() || interval > absl::Hours(1)) {
      return absl::InvalidArgumentError("the interval must be 100 ms to 1 h");
    }
    v1::WatchStatsRequest request;
    request.set_interval_ms(
        static_cast<uint32_t>(std::max<int64_t>(1, absl::ToInt64Milliseconds(interval))));
    WatchStream stream;
    stub_->async()->WatchStats(stream.context(), &request, &stream);
    stream.Begin();
    v1::StatsResponse response;
    StreamOutcome outcome = stream.Read(channel_.Deadline(), &response);
    while (outcome == StreamOutcome::kDone && sink(FromMessage(response))) {
      outcome = stream.Read(channel_.Deadline() + interval, &response);
    }
    const grpc::Status end = stream.End();
    if (outcome == StreamOutcome::kDone) return absl::OkStatus();
    if (outcome == StreamOutcome::kTooLate) return channel_.TooLate();
    return channel_.ToStatus(end);
  }

  absl::StatusOr<std::vector<SequenceInfo>> ListSequences(
      const std::string& namespace_name) override {
    v1::ListSequencesRequest request;
    request.set_namespace_name(namespace_name);
    v1::ListSequencesResponse response;
    absl::Status status = Call(&v1::Admin::Stub::ListSequences, request, &response);
    if (!status.ok()) return status;
    std::vector<SequenceInfo> result;
    for (const v1::SequenceInfo& info : response.sequences()) {
      result.push_back(FromMessage(info));
    }
    return result;
  }

  absl::StatusOr<std::vector<SessionInfo>> ListSessions(
      const std::string& namespace_name) override {
    v1::ListSessionsRequest request;
    request.set_namespace_name(namespace_name);
    v1::ListSessionsResponse response;
    absl::Status status = Call(&v1::Admin::Stub::ListSessions, request, &response);
    if (!status.ok()) return status;
    std::vector<SessionInfo> result;
    for (const v1::SessionInfo& info : response.sessions()) {
      result.push_back(FromMessage(info));
    }
    return result;
  }

  absl::StatusOr<std::vector<ModelInfo>> ListModels(
      const std::string& namespace_name) override {
    v1::ListModelsRequest request;
    request.set_namespace_name(namespace_name);
    v1::ListModelsResponse response;
    absl::Status status = Call(&v1::Admin::Stub::ListModels, request, &response);
    if (!status.ok()) return status;
    std::vector<ModelInfo> result;
    for (const v1::ModelInfo& info : response.models()) {
      result.push_back(FromMessage(info));
    }
    return result;
  }

  absl::StatusOr<uint64_t> Pin(const std::string& namespace_name,
                               uint64_t sequence) override {
    v1::PinRequest request;
    request.set_namespace_name(namespace_name);
    request.set_sequence_id(sequence);
    v1::PinResponse response;
    absl::Status status = Call(&v1::Admin::Stub::Pin, request, &response);
    if (!status.ok()) return status;
    return response.pinned_bytes();
  }

  absl::Status Unpin(const std::string& namespace_name, uint64_t sequence) override {
    v1::UnpinRequest request;
    request.set_namespace_name(namespace_name);
    request.set_sequence_id(sequence);
    v1::UnpinResponse response;
    return Call(&v1::Admin::Stub::Unpin, request, &response);
  }

  absl::Status Flush(absl::Duration patience) override {
    v1::FlushResponse response;
    return Call(&v1::Admin::Stub::Flush, v1::FlushRequest(), &response, patience);
  }

  absl::Status Drain(absl::Duration patience) override {
    v1::DrainRequest request;
    request.set_deadline_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(patience)));
    v1::DrainResponse response;
    return Call(&v1::Admin::Stub::Drain, request, &response, patience + absl::Hours(1));
  }

  absl::StatusOr<uint64_t> Evict(uint64_t bytes) override {
    v1::EvictRequest request;
    request.set_bytes(bytes);
    v1::EvictResponse response;
    absl::Status status = Call(&v1::Admin::Stub::Evict, request, &response);
    if (!status.ok()) return status;
    return response.freed_bytes();
  }

  absl::StatusOr<Verified> Verify(const std::string& tier) override {
    v1::VerifyRequest request;
    request.set_tier(tier);
    v1::VerifyResponse response;
    absl::Status status =
        Call(&v1::Admin::Stub::Verify, request, &response, absl::Hours(1));
    if (!status.ok()) return status;
    return Verified{response.pages(),
                    response.bad_pages(),
                    {response.findings().begin(), response.findings().end()}};
  }

 private:
  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (v1::Admin::Stub::*method)(grpc::ClientContext*,
                                                            const Request&, Response*),
                    const Request& request, Response* response,
                    absl::Duration longer = absl::ZeroDuration()) {
    grpc::ClientContext context;
    channel_.SetDeadline(&context, longer);
    return channel_.ToStatus((stub_.get()->*method)(&context, request, response));
  }

  const Channel channel_;
  const std::unique_ptr<v1::Admin::Stub> stub_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AdminClient>> AdminClient::Create(
    const AdminOptions& options) {
  absl::StatusOr<Channel> channel = Channel::Open(options.socket, options.deadline);
  if (!channel.ok()) return channel.status();
  return std::make_unique<GrpcAdminClient>(*std::move(channel));
}

}  // namespace kvtier::client
