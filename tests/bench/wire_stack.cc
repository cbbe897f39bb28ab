#include "tests/bench/wire_stack.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/append_messages.h"
#include "kvtier/v1/worker.pb.h"
#include "tests/bench/geometry.h"

namespace kvtier::bench {
namespace {

client::RowSource SourceOf(const std::byte* rows, uint32_t count) {
  client::RowSource source;
  source.buffer = {rows, count * kTokenBytes / 2};
  return source;
}

client::AppendRows EntryOf(SequenceId sequence, uint32_t layer, uint64_t start,
                           uint32_t count, const std::byte* keys,
                           const std::byte* values) {
  return {.sequence = sequence,
          .layer = LayerIndex(layer),
          .start = TokenIndex(start),
          .token_count = count,
          .key = SourceOf(keys, count),
          .value = SourceOf(values, count)};
}

}  // namespace

namespace {

std::string ConfigOf(const WireOptions& options) {
  std::string config = absl::StrCat(
      "[host]\ncapacity = ", options.host_capacity_bytes,
      "\nunsealed_max = ", std::max<uint64_t>(options.host_capacity_bytes, 1 << 20),
      "\n");
  if (!options.disk_directory.empty()) {
    absl::StrAppend(&config, "[disk]\ndirectory = \"", options.disk_directory,
                    "\"\ncapacity = ", options.disk_capacity_bytes,
                    "\nscrub_rate = \"0B\"\n");
  }
  return config;
}

}  // namespace

uint64_t CapacityFor(uint64_t tokens, uint32_t layers) {
  return tokens * kTokenBytes * layers * 5 / 4 + (uint64_t{256} << 20);
}

WireStack::WireStack(const WireOptions& options) : daemon_(ConfigOf(options)) {}

absl::StatusOr<std::unique_ptr<WireStack>> WireStack::Start(const WireOptions& options) {
  auto stack = std::unique_ptr<WireStack>(new WireStack(options));
  if (!stack->daemon_.ready()) {
    return absl::UnavailableError(
        absl::StrCat("kvtierd did not start: ", stack->daemon_.ready_line()));
  }
  auto client = client::Client::Connect({.socket = stack->daemon_.socket(),
                                         .worker_label = "bench",
                                         .deadline = absl::Minutes(2)});
  if (!client.ok()) return client.status();
  stack->client_ = *std::move(client);
  auto admin = client::AdminClient::Create(
      {.socket = stack->daemon_.admin_socket(), .deadline = absl::Minutes(1)});
  if (!admin.ok()) return admin.status();
  stack->admin_ = *std::move(admin);
  auto bare = BareWire::Start();
  if (!bare.ok()) return bare.status();
  stack->bare_ = *std::move(bare);
  retrieval::ModelSpec spec = Model(options.layers);
  spec.abstracts = options.abstracts;
  auto model = stack->client_->RegisterModel(spec);
  if (!model.ok()) return model.status();
  stack->model_ = *model;
  return stack;
}

absl::StatusOr<SequenceId> WireStack::Open(uint64_t tokens,
                                           const retrieval::SystemOptions& retrieval) {
  ++sequences_;
  auto opened = OpenLast(tokens, retrieval);
  if (!opened.ok()) return opened.status();
  if (opened->cached_tokens != 0) return absl::InternalError("the sequence isn't new");
  return opened->sequence;
}

absl::StatusOr<client::OpenedSequence> WireStack::Reopen(
    uint64_t tokens, const retrieval::SystemOptions& retrieval) {
  auto opened = OpenLast(tokens, retrieval);
  if (opened.ok() && opened->cached_tokens != tokens) {
    return absl::InternalError(
        absl::StrCat("only ", opened->cached_tokens, " tokens are cached of ", tokens));
  }
  return opened;
}

absl::StatusOr<client::OpenedSequence> WireStack::OpenLast(
    uint64_t tokens, const retrieval::SystemOptions& retrieval) {
  std::vector<uint32_t> ids(tokens);
  std::iota(ids.begin(), ids.end(), sequences_ * 1000);
  client::SequenceOptions options;
  options.model = model_;
  options.token_ids = ids;
  options.retrieval = retrieval;
  return client_->OpenSequence(options);
}

absl::Status WireStack::Fill(SequenceId sequence, uint64_t tokens, uint32_t layers,
                             const ContextRows& rows) {
  for (uint64_t start = 0; start < tokens; start += kPieceTokens) {
    const auto count =
        static_cast<uint32_t>(std::min<uint64_t>(kPieceTokens, tokens - start));
    for (uint32_t layer = 0; layer < layers; ++layer) {
      const std::vector<std::byte> piece = rows.Rows(layer, start, count);
      absl::Status status = Append(sequence, layer, start, count, piece.data(),
                                   piece.data() + piece.size() / 2);
      if (!status.ok()) return status;
    }
  }
  auto sealed = client_->Seal(sequence, false);
  if (!sealed.ok()) return sealed.status();
  if (sealed->sealed_tokens != tokens) {
    return absl::InternalError(
        absl::StrCat("only ", sealed->sealed_tokens, " tokens are sealed of ", tokens));
  }
  return absl::OkStatus();
}

absl::Status WireStack::Append(SequenceId sequence, uint32_t layer, uint64_t start,
                               uint32_t count, const std::byte* keys,
                               const std::byte* values) {
  const client::AppendRows rows = EntryOf(sequence, layer, start, count, keys, values);
  return client_->Append({}, {rows}).status();
}

absl::StatusOr<std::vector<uint64_t>> WireStack::AppendMessages(
    uint32_t count, const std::byte* keys, const std::byte* values) const {
  const client::RowShape shape{
      .kv_heads = kKvHeads, .key_bytes = kDim * 2, .value_bytes = kDim * 2};
  const client::AppendRows rows = EntryOf(SequenceId(1), 0, 0, count, keys, values);
  std::vector<uint64_t> sizes;
  absl::Status status = client::SendAppend(
      1, client_->limits().message_bytes_max, {}, {rows},
      [&](const client::AppendRows&) { return &shape; },
      [&](const v1::AppendRequest& request) {
        sizes.push_back(request.ByteSizeLong());
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return sizes;
}

absl::StatusOr<uint64_t> WireStack::DiskReadBytes() {
  auto stats = admin_->GetStats();
  if (!stats.ok()) return stats.status();
  for (const client::TierStats& tier : stats->tiers) {
    if (tier.tier == "disk") return tier.read_bytes;
  }
  return absl::NotFoundError("there is no disk tier");
}

absl::Status WireStack::EvictAll() { return admin_->Evict(0).status(); }

}  // namespace kvtier::bench
