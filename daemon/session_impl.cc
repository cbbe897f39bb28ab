#include "daemon/session_impl.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/append_batch.h"

namespace kvtier::daemon {
namespace {

constexpr size_t kExtraKeyBytesMax = 4096;
constexpr size_t kComputedUnderBytesMax = 256;

// Part of the names of approximate chunks.
std::string ComputedUnder(const OpenSequenceOptions& options) {
  const retrieval::SystemOptions& system = options.retrieval;
  const std::string dense =
      system.dense_layers.has_value() ? absl::StrCat(*system.dense_layers) : "default";
  return absl::StrCat(system.system, " budget ", system.budget_tokens, " dense ", dense,
                      " ", options.computed_under);
}

absl::Status CheckOptions(const OpenSequenceOptions& options) {
  if (options.extra_key.size() > kExtraKeyBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("extra_key has ", options.extra_key.size(), " bytes, at most ",
                     kExtraKeyBytesMax, " are allowed: send a digest of it"));
  }
  if (options.computed_under.size() > kComputedUnderBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "computed_under has ", options.computed_under.size(), " bytes, at most ",
        kComputedUnderBytesMax, " are allowed: send a digest of it"));
  }
  if (options.anonymous && !options.token_ids.empty()) {
    return absl::InvalidArgumentError(
        "an anonymous sequence has no token ids: leave one of the two out");
  }
  return absl::OkStatus();
}

}  // namespace

SessionImpl::SessionImpl(SessionId id, std::string worker_label, uint64_t worker_pid,
                         Environment environment)
    : id_(id),
      worker_label_(std::move(worker_label)),
      worker_pid_(worker_pid),
      opened_(absl::Now()),
      environment_(std::move(environment)),
      unsealed_(std::make_shared<tiers::MemoryBudget>(
          environment_.limits->unsealed_bytes_max)) {}

SessionInfo SessionImpl::Info() const {
  SessionInfo info;
  info.session = id_;
  info.worker_label = worker_label_;
  info.worker_pid = worker_pid_;
  info.age_seconds = static_cast<uint64_t>(absl::ToInt64Seconds(absl::Now() - opened_));
  info.sequences = sequence_count();
  info.unsealed_bytes = unsealed_bytes();
  return info;
}

std::vector<SequenceInfo> SessionImpl::Sequences() const {
  std::vector<SequenceInfo> infos;
  for (const std::shared_ptr<Sequence>& sequence : All()) {
    infos.push_back(sequence->Info());
  }
  return infos;
}

absl::StatusOr<OpenedSequence> SessionImpl::OpenSequence(
    const OpenSequenceOptions& options) {
  {
    MutexLock lock(&mu_);
    if (absl::Status s = CheckRoom(); !s.ok()) return s;
  }
  if (absl::Status s = CheckOptions(options); !s.ok()) return s;
  SequenceContext context;
  context.session = id_;
  context.directory = environment_.directory;
  context.store_counters = environment_.store_counters;
  context.counters = environment_.counters;
  context.helpers = environment_.helpers;
  context.unsealed = unsealed_;
  context.model = environment_.models->FindModel(options.model);
  if (context.model == nullptr) {
    return absl::NotFoundError(
        "the model isn't registered in this namespace: call RegisterModel first");
  }
  absl::StatusOr<std::unique_ptr<const retrieval::System>> system =
      retrieval::System::Create(options.retrieval);
  if (!system.ok()) return system.status();
  if (absl::Status s = (*system)->CheckModel(context.model->spec); !s.ok()) return s;
  context.system = *std::move(system);
  context.computed_under = ComputedUnder(options);
  context.root =
      tiers::RootName(environment_.space, context.model->digest, options.extra_key);
  if (options.anonymous) context.sharing = tiers::Sharing::kPrivate;

  absl::StatusOr<std::shared_ptr<Sequence>> sequence = Sequence::Open(
      SequenceId(++*environment_.last_sequence), std::move(context), options);
  if (!sequence.ok()) return sequence.status();
  OpenedSequence opened{(*sequence)->id(), (*sequence)->cached_tokens(),
                        (*sequence)->exact_tokens()};
  if (absl::Status s = Insert(*std::move(sequence)); !s.ok()) return s;
  return opened;
}

absl::StatusOr<std::vector<SequenceProgress>> SessionImpl::Append(
    absl::Span<const TokenRun> tokens, absl::Span<const AppendEntry> entries) {
  AppendBatch batch;
  auto part_of = [&](SequenceId id) -> absl::StatusOr<AppendBatch::Part*> {
    if (AppendBatch::Part* part = batch.Find(id)) return part;
    absl::StatusOr<std::shared_ptr<Sequence>> sequence = Find(id);
    if (!sequence.ok()) return sequence.status();
    return batch.Add(*std::move(sequence));
  };
  for (const TokenRun& run : tokens) {
    absl::StatusOr<AppendBatch::Part*> part = part_of(run.sequence);
    if (!part.ok()) return part.status();
    (*part)->runs.push_back(&run);
  }
  for (const AppendEntry& entry : entries) {
    absl::StatusOr<AppendBatch::Part*> part = part_of(entry.sequence);
    if (!part.ok()) return part.status();
    (*part)->entries.push_back(&entry);
  }
  return batch.Run();
}

absl::StatusOr<SealedTokens> SessionImpl::Seal(SequenceId id, Durability durability) {
  absl::StatusOr<std::shared_ptr<Sequence>> sequence = Find(id);
  if (!sequence.ok()) return sequence.status();
  if (durability == Durability::kDurable) {
    return (*sequence)->SealDurably();
  }
  return (*sequence)->Sealed();
}

absl::Status SessionImpl::Retrieve(const RetrieveItem& item, uint64_t part_bytes_max,
                                   absl::FunctionRef<bool(RetrievePart)> sink) {
  absl::StatusOr<std::shared_ptr<Sequence>> sequence = Find(item.sequence);
  if (!sequence.ok()) return sequence.status();
  return (*sequence)->Retrieve(item, part_bytes_max, sink);
}

absl::Status SessionImpl::Read(const ReadRange& range, uint64_t part_bytes_max,
                               absl::FunctionRef<bool(ReadPart)> sink) {
  absl::StatusOr<std::shared_ptr<Sequence>> sequence = Find(range.sequence);
  if (!sequence.ok()) return sequence.status();
  return (*sequence)->Read(range, part_bytes_max, sink);
}

absl::Status SessionImpl::Refill(SequenceId id, uint64_t chunk,
                                 absl::Span<const AppendEntry> entries) {
  absl::StatusOr<std::shared_ptr<Sequence>> sequence = Find(id);
  if (!sequence.ok()) return sequence.status();
  return (*sequence)->Refill(chunk, entries);
}

absl::StatusOr<SealedTokens> SessionImpl::Truncate(SequenceId id, uint64_t token_count) {
  absl::StatusOr<std::shared_ptr<Sequence>> sequence = Find(id);
  if (!sequence.ok()) return sequence.status();
  return (*sequence)->Truncate(token_count);
}

absl::StatusOr<SequenceId> SessionImpl::Fork(SequenceId id) {
  absl::StatusOr<std::shared_ptr<Sequence>> sequence = Find(id);
  if (!sequence.ok()) return sequence.status();
  {
    MutexLock lock(&mu_);
    if (absl::Status s = CheckRoom(); !s.ok()) return s;
  }
  const SequenceId fork_id(++*environment_.last_sequence);
  absl::StatusOr<std::shared_ptr<Sequence>> fork = (*sequence)->Fork(fork_id);
  if (!fork.ok()) return fork.status();
  if (absl::Status s = Insert(*std::move(fork)); !s.ok()) return s;
  return fork_id;
}

absl::StatusOr<std::vector<tiers::ChunkRef>> SessionImpl::SealedChunks(
    SequenceId id) const {
  absl::StatusOr<std::shared_ptr<Sequence>> sequence = Find(id);
  if (!sequence.ok()) return sequence.status();
  return (*sequence)->SealedChunks();
}

absl::Status SessionImpl::Close(SequenceId id) {
  std::shared_ptr<Sequence> closed;  // freed after the lock is gone
  MutexLock lock(&mu_);
  auto found = sequences_.find(id);
  if (found == sequences_.end()) {
    return absl::NotFoundError(
        absl::StrCat("sequence ", id.value(), " isn't open in session ", id_.value()));
  }
  closed = std::move(found->second);
  sequences_.erase(found);
  return absl::OkStatus();
}

void SessionImpl::CloseAll() {
  std::map<SequenceId, std::shared_ptr<Sequence>> closed;
  {
    MutexLock lock(&mu_);
    closed_ = true;
    closed.swap(sequences_);
  }
}

uint32_t SessionImpl::sequence_count() const {
  MutexLock lock(&mu_);
  return static_cast<uint32_t>(sequences_.size());
}

absl::StatusOr<std::shared_ptr<Sequence>> SessionImpl::Find(SequenceId id) const {
  MutexLock lock(&mu_);
  auto found = sequences_.find(id);
  if (found != sequences_.end()) return found->second;
  if (closed_) {
    return absl::NotFoundError(absl::StrCat("session ", id_.value(), " is closed"));
  }
  return absl::NotFoundError(
      absl::StrCat("sequence ", id.value(), " isn't open in session ", id_.value()));
}

absl::Status SessionImpl::CheckRoom() const {
  if (closed_) {
    return absl::NotFoundError(absl::StrCat("session ", id_.value(), " is closed"));
  }
  if (environment_.limits->draining) {
    return absl::FailedPreconditionError(
        "kvtierd is draining: it takes no new sequences until it is started again");
  }
  if (sequences_.size() < environment_.limits->sequences_max) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the session has ", sequences_.size(),
                   " open sequences: close some, or raise [limits] sequences_max"));
}

absl::Status SessionImpl::Insert(std::shared_ptr<Sequence> sequence) {
  MutexLock lock(&mu_);
  if (absl::Status s = CheckRoom(); !s.ok()) return s;
  const SequenceId id = sequence->id();
  sequences_.emplace(id, std::move(sequence));
  return absl::OkStatus();
}

std::vector<std::shared_ptr<Sequence>> SessionImpl::All() const {
  MutexLock lock(&mu_);
  std::vector<std::shared_ptr<Sequence>> all;
  for (const auto& [id, sequence] : sequences_) all.push_back(sequence);
  return all;
}

}  // namespace kvtier::daemon
