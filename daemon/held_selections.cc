#include "daemon/held_selections.h"

#include <algorithm>

namespace kvtier::daemon {

uint64_t HeldTokens::BytesFor(const std::vector<std::vector<uint32_t>>& of_head) {
  constexpr uint64_t kAllocationBytes = 32;
  uint64_t bytes = sizeof(HeldTokens) + 2 * kAllocationBytes;
  for (const std::vector<uint32_t>& tokens : of_head) {
    bytes += sizeof(tokens) + kAllocationBytes + tokens.capacity() * sizeof(uint32_t);
  }
  return bytes;
}

bool HeldTokens::MentionsFrom(uint32_t token) const {
  for (const std::vector<uint32_t>& tokens : of_head) {
    for (uint32_t t : tokens) {
      if (t >= token) return true;
    }
  }
  return false;
}

SelectionDelta MakeDelta(const HeldTokens* held,
                         std::vector<std::vector<uint32_t>> selected) {
  SelectionDelta delta;
  const size_t heads = selected.size();
  delta.kept.resize(heads);
  delta.added.resize(heads);
  delta.order.resize(heads);
  for (size_t head = 0; head < heads; ++head) {
    if (held == nullptr) {
      delta.order[head] = selected[head];
      delta.added[head] = std::move(selected[head]);
      continue;
    }
    const std::vector<uint32_t>& tokens = selected[head];
    const std::vector<uint32_t>& of_head = held->of_head[head];
    std::vector<bool> is_kept(tokens.size(), false);
    delta.order[head].reserve(tokens.size());
    for (uint32_t i = 0; i < of_head.size(); ++i) {
      auto found = std::lower_bound(tokens.begin(), tokens.end(), of_head[i]);
      if (found == tokens.end() || *found != of_head[i]) continue;
      is_kept[found - tokens.begin()] = true;
      delta.kept[head].push_back(i);
      delta.order[head].push_back(of_head[i]);
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (!is_kept[i]) delta.added[head].push_back(tokens[i]);
    }
    delta.order[head].insert(delta.order[head].end(), delta.added[head].begin(),
                             delta.added[head].end());
  }
  return delta;
}

const HeldTokens* HeldSelections::Find(StepIndex step) const {
  if (step == StepIndex(0)) return nullptr;
  if (current_.step == step) return current_.tokens.get();
  if (previous_.step == step) return previous_.tokens.get();
  return nullptr;
}

void HeldSelections::Remember(StepIndex step, StepIndex held_step,
                              std::shared_ptr<const HeldTokens> tokens) {
  const bool from_previous = held_step != StepIndex(0) && previous_.step == held_step;
  if (current_.step != step && !from_previous) previous_ = std::move(current_);
  current_ = HeldSelection{step, std::move(tokens)};
}

bool HeldSelections::ForgetFrom(uint32_t token) {
  bool forgot = false;
  for (HeldSelection* selection : {&current_, &previous_}) {
    if (selection->tokens == nullptr || !selection->tokens->MentionsFrom(token)) continue;
    selection->tokens.reset();
    forgot = true;
  }
  return forgot;
}

}  // namespace kvtier::daemon
