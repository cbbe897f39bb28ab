#include "client/cpp/held_selection.h"

#include <numeric>

namespace kvtier::client {
namespace {

uint64_t Sum(const std::vector<uint32_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), uint64_t{0});
}

}  // namespace

HeldSelection::HeldSelection(uint32_t kv_heads, size_t row_bytes)
    : row_bytes_(row_bytes), heads_(kv_heads), next_(kv_heads) {}

void HeldSelection::Clear() {
  step_ = StepIndex();
  heads_.assign(heads_.size(), Head());
  next_.assign(next_.size(), Head());
}

absl::Status HeldSelection::Check(const RetrievePart& part) const {
  if (part.kept_counts.size() != heads_.size() ||
      part.added_counts.size() != heads_.size() ||
      Sum(part.kept_counts) != part.kept.size() ||
      Sum(part.added_counts) != part.added.size() ||
      part.rows.size() != part.added.size() * row_bytes_) {
    return absl::InvalidArgumentError(
        "the selection's counts and bytes don't fit together: is it of another layer?");
  }
  size_t kept = 0;
  for (size_t head = 0; head < heads_.size(); ++head) {
    for (uint32_t i = 0; i < part.kept_counts[head]; ++i) {
      if (part.kept[kept++] >= heads_[head].tokens.size()) {
        return absl::InvalidArgumentError(
            "the selection keeps a token that isn't held: ask with held_step 0");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status HeldSelection::Apply(StepIndex step, const RetrievePart& part) {
  absl::Status status = part.error;
  if (status.ok() && !part.unchanged) status = Check(part);
  if (!status.ok()) {
    next_.assign(next_.size(), Head());
    return status;
  }
  if (part.unchanged) {
    step_ = step;
    return absl::OkStatus();
  }
  if (part.first) next_.assign(next_.size(), Head());
  size_t kept = 0, added = 0;
  for (size_t head = 0; head < heads_.size(); ++head) {
    const Head& old = heads_[head];
    Head& next = next_[head];
    for (uint32_t i = 0; i < part.kept_counts[head]; ++i, ++kept) {
      next.tokens.push_back(old.tokens[part.kept[kept]]);
      next.rows.append(old.rows, part.kept[kept] * row_bytes_, row_bytes_);
    }
    const uint32_t count = part.added_counts[head];
    next.tokens.insert(next.tokens.end(), part.added.begin() + added,
                       part.added.begin() + added + count);
    next.rows.append(part.rows, added * row_bytes_, count * row_bytes_);
    added += count;
  }
  if (part.last) {
    heads_.swap(next_);
    next_.assign(next_.size(), Head());
    step_ = step;
  }
  return absl::OkStatus();
}

}  // namespace kvtier::client
