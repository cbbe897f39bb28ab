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

namespace {

// A bit a token: selections are compared in one pass, without a search.
class TokenSet {
 public:
  void SetAll(const std::vector<uint32_t>& ascending) {
    if (ascending.empty()) return;
    const size_t words = ascending.back() / 64 + 1;
    if (bits_.size() < words) bits_.resize(words);
    for (const uint32_t token : ascending) bits_[token / 64] |= Bit(token);
  }
  // Whether it was there; it isn't any more.
  bool Take(uint32_t token) {
    if (token / 64 >= bits_.size()) return false;
    uint64_t& word = bits_[token / 64];
    const bool there = (word & Bit(token)) != 0;
    word &= ~Bit(token);
    return there;
  }

 private:
  static uint64_t Bit(uint32_t token) { return uint64_t{1} << token % 64; }

  std::vector<uint64_t> bits_;
};

}  // namespace

SelectionDelta MakeDelta(const HeldTokens* held,
                         std::vector<std::vector<uint32_t>> selected) {
  // Empty again after each head.
  thread_local TokenSet unseen;
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
    unseen.SetAll(tokens);
    delta.order[head].reserve(tokens.size());
    for (uint32_t i = 0; i < of_head.size(); ++i) {
      if (!unseen.Take(of_head[i])) continue;
      delta.kept[head].push_back(i);
      delta.order[head].push_back(of_head[i]);
    }
    for (const uint32_t token : tokens) {
      if (unseen.Take(token)) delta.added[head].push_back(token);
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
