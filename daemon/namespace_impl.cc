#include "daemon/namespace_impl.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

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
                               .limits = environment_.limits});
  MutexLock lock(&mu_);
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

NamespaceStats NamespaceImpl::Stats() const {
  NamespaceStats stats;
  stats.name = name_;
  stats.chunks = environment_.directory->ChunkCount(index_);
  stats.appended_tokens = counters_.appended_tokens.value();
  stats.retrieve_items = counters_.retrieve_items.value();
  std::vector<std::shared_ptr<SessionImpl>> sessions;
  {
    MutexLock lock(&mu_);
    stats.models = static_cast<uint32_t>(models_.size());
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
