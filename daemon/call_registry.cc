#include "daemon/call_registry.h"

#include <vector>

namespace kvtier::daemon {

void CallRegistry::Add(const std::shared_ptr<LastingCall>& call) {
  {
    absl::MutexLock lock(&mu_);
    calls_[call.get()] = call;
    if (!stopped_) return;
  }
  call->Stop();
}

void CallRegistry::Remove(LastingCall* call) {
  std::shared_ptr<LastingCall> removed;  // dropped without the lock
  absl::MutexLock lock(&mu_);
  auto it = calls_.find(call);
  if (it == calls_.end()) return;
  removed = std::move(it->second);
  calls_.erase(it);
}

void CallRegistry::StopAll() {
  std::vector<std::shared_ptr<LastingCall>> calls;
  {
    absl::MutexLock lock(&mu_);
    stopped_ = true;
    for (const auto& [key, call] : calls_) calls.push_back(call);
  }
  for (const auto& call : calls) call->Stop();
}

}  // namespace kvtier::daemon
