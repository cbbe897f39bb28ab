#include "daemon/namespace_impl.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tiers/disk/extent_layout.h"

namespace kvtier::daemon {
namespace {

constexpr size_t kWorkerLabelBytesMax = 256;

// Random, so that a worker that still has an id of a daemon that ran before finds nobody
// else's session. 53 bits: JSON readers that know only doubles keep it whole.
SessionId RandomSessionId() {
  static_assert(std::random_device::max() == ~uint32_t{0});
  std::random_device random;
  const uint64_t bits = (uint64_t{random()} << 32 | random()) >> 11;
  return SessionId(std::max<uint64_t>(bits, 1));
}

}  // namespace

absl::StatusOr<retrieval::ModelDigest> NamespaceImpl::RegisterModel(
    const retrieval::ModelSpec& model) {
  if (absl::Status s = model.Validate(); !s.ok()) return s;
  auto registered = std::make_shared<const RegisteredModel>(index_, name_, model);
  MutexLock lock(&mu_);
  if (models_.contains(registered->digest)) return registered->digest;
  if (models_.size() >= environment_.limits->models_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the namespace has ", models_.size(),
                     " models: raise [limits] models_max, or restart the daemon"));
  }
  models_.emplace(registered->digest, registered);
  return registered->digest;
}

absl::StatusOr<std::shared_ptr<Session>> NamespaceImpl::OpenSession(
    std::string worker_label, uint64_t worker_pid) {
  if (worker_label.size() > kWorkerLabelBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker_label has ", worker_label.size(), " bytes: at most ",
                     kWorkerLabelBytesMax, " are allowed"));
  }
  const SessionId id = RandomSessionId();
  auto session = std::make_shared<SessionImpl>(
      id, std::move(worker_label), worker_pid,
      SessionImpl::Environment{.space = name_,
                               .models = this,
                               .directory = environment_.directory,
                               .store_counters = environment_.store_counters,
                               .counters = &counters_,
                               .last_sequence = environment_.last_sequence,
                               .limits = environment_.limits,
                               .helpers = environment_.helpers});
  MutexLock lock(&mu_);
  // Here, so that a drain that counts the sessions misses none.
  if (environment_.limits->draining) {
    return absl::UnavailableError(
        "kvtierd is draining: it takes no new sessions until it is started again");
  }
  if (sessions_.size() >= environment_.limits->sessions_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the namespace has ", sessions_.size(),
                     " sessions: end some workers, or raise [limits] sessions_max"));
  }
  if (!sessions_.emplace(id, session).second) {
    return absl::UnavailableError("two sessions drew the same id: open it again");
  }
  return session;
}

absl::StatusOr<std::shared_ptr<Session>> NamespaceImpl::FindSession(SessionId id) {
  MutexLock lock(&mu_);
  auto found = sessions_.find(id);
  if (found == sessions_.end()) {
    return absl::NotFoundError(
        absl::StrCat("session ", id.value(),
                     " isn't open: it ends with its Session stream; open ", "another"));
  }
  return found->second;
}

void NamespaceImpl::CloseSession(SessionId id) {
  std::shared_ptr<SessionImpl> closed;
  {
    MutexLock lock(&mu_);
    auto found = sessions_.find(id);
    if (found == sessions_.end()) return;
    closed = std::move(found->second);
    sessions_.erase(found);
  }
  closed->CloseAll();
}

std::vector<std::shared_ptr<Session>> NamespaceImpl::Sessions() const {
  MutexLock lock(&mu_);
  std::vector<std::shared_ptr<Session>> sessions;
  for (const auto& [id, session] : sessions_) sessions.push_back(session);
  return sessions;
}

void NamespaceImpl::Pinned::Add(std::vector<tiers::ChunkRef> chunks) {
  absl::flat_hash_set<const tiers::Chunk*> there;
  for (const tiers::ChunkRef& chunk : chunks_) there.insert(&*chunk);
  for (tiers::ChunkRef& chunk : chunks) {
    if (!there.contains(&*chunk)) chunks_.push_back(std::move(chunk));
  }
}

void NamespaceImpl::Pinned::CountInto(PinCount* count) const {
  for (const tiers::ChunkRef& chunk : chunks_) {
    if (!count->seen.insert(&*chunk).second) continue;
    count->bytes += chunk->geometry().rows_bytes + chunk->geometry().abstract_bytes;
  }
}

absl::StatusOr<uint64_t> NamespaceImpl::Pin(SequenceId sequence) {
  std::vector<std::shared_ptr<SessionImpl>> sessions;
  {
    MutexLock lock(&mu_);
    for (const auto& [id, session] : sessions_) sessions.push_back(session);
  }
  for (const std::shared_ptr<SessionImpl>& session : sessions) {
    auto chunks = session->SealedChunks(sequence);
    if (!chunks.ok()) continue;
    PinCount count;
    MutexLock lock(&mu_);
    Pinned& pinned = pinned_[sequence];
    pinned.Add(*std::move(chunks));
    pinned.CountInto(&count);
    return count.bytes;
  }
  return absl::NotFoundError(
      absl::StrCat("sequence ", sequence.value(), " isn't open in ", name_,
                   ": `kvtierctl sequences` lists those that are"));
}

size_t NamespaceImpl::Unpin(SequenceId sequence) {
  std::map<SequenceId, Pinned> unpinned;  // dropped after the lock is gone
  MutexLock lock(&mu_);
  if (sequence == SequenceId()) {
    unpinned.swap(pinned_);
  } else if (auto found = pinned_.find(sequence); found != pinned_.end()) {
    unpinned.insert(pinned_.extract(found));
  }
  return unpinned.size();
}

std::vector<ModelInfo> NamespaceImpl::Models() const {
  std::vector<ModelInfo> models;
  MutexLock lock(&mu_);
  for (const auto& [digest, model] : models_) {
    const tiers::ChunkGeometry& geometry = *model->geometry;
    models.push_back({.label = model->spec.label,
                      .digest = digest,
                      .layers = static_cast<uint32_t>(geometry.layers.size()),
                      .dtype = model->spec.dtype,
                      .rows_bytes = geometry.rows_bytes,
                      .abstract_bytes = geometry.abstract_bytes,
                      .table_bytes = geometry.table_bytes(),
                      .disk_bytes = tiers::ExtentLayout(*geometry.disk).extent_bytes()});
  }
  return models;
}

NamespaceStats NamespaceImpl::Stats() const {
  NamespaceStats stats;
  stats.name = name_;
  stats.chunks = environment_.directory->ChunkCount(index_);
  if (environment_.disk != nullptr)
    stats.disk_bytes = environment_.disk->UsedBytes(name_);
  stats.appended_tokens = counters_.appended_tokens.value();
  stats.retrieve_items = counters_.retrieve_items.value();
  std::vector<std::shared_ptr<SessionImpl>> sessions;
  {
    MutexLock lock(&mu_);
    stats.models = static_cast<uint32_t>(models_.size());
    PinCount count;
    for (const auto& [sequence, pinned] : pinned_) pinned.CountInto(&count);
    stats.pinned_chunks = count.seen.size();
    stats.pinned_bytes = count.bytes;
    for (const auto& [id, session] : sessions_) sessions.push_back(session);
  }
  stats.sessions = static_cast<uint32_t>(sessions.size());
  for (const std::shared_ptr<SessionImpl>& session : sessions) {
    stats.sequences += session->sequence_count();
    stats.unsealed_bytes += session->unsealed_bytes();
  }
  return stats;
}

std::shared_ptr<const RegisteredModel> NamespaceImpl::FindModel(
    const retrieval::ModelDigest& digest) const {
  MutexLock lock(&mu_);
  auto found = models_.find(digest);
  return found == models_.end() ? nullptr : found->second;
}

}  // namespace kvtier::daemon
