#include "daemon/selection_parts.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace kvtier::daemon {

void SelectionParts::SetDelta(std::vector<std::vector<uint32_t>> kept,
                              std::vector<std::vector<uint32_t>> added) {
  kept_ = std::move(kept);
  added_ = std::move(added);
}

void SelectionParts::SetEverything(uint32_t begin, uint32_t end) {
  everything_ = true;
  range_begin_ = begin;
  range_end_ = end;
}

void SelectionParts::SetRest(std::vector<float> output, std::vector<float> lse) {
  rest_output_ = std::move(output);
  rest_lse_ = std::move(lse);
}

uint64_t SelectionParts::added_rows() const {
  if (everything_) return uint64_t{shape_.kv_heads} * (range_end_ - range_begin_);
  uint64_t rows = 0;
  for (const std::vector<uint32_t>& tokens : added_) rows += tokens.size();
  return rows;
}

uint64_t SelectionParts::TokensPerPart() const {
  const size_t bytes_per_token =
      shape_.form == SelectionForm::kRows ? shape_.row_bytes : sizeof(uint32_t);
  return std::max<uint64_t>(1, shape_.part_bytes_max / bytes_per_token);
}

RetrievePart SelectionParts::Next() {
  RetrievePart part;
  part.unchanged = unchanged_;
  part.kept_counts.resize(shape_.kv_heads);
  part.added_counts.resize(shape_.kv_heads);
  for (uint32_t head = 0; head < kept_.size(); ++head) {
    part.kept_counts[head] = static_cast<uint32_t>(kept_[head].size());
    part.kept.insert(part.kept.end(), kept_[head].begin(), kept_[head].end());
  }
  kept_.clear();
  if (everything_) {
    AddRange(&part);
  } else {
    AddListed(&part);
  }
  if (done_) {
    part.last = true;
    part.rest_output = std::move(rest_output_);
    part.rest_lse = std::move(rest_lse_);
    part.cost = cost_;
  }
  return part;
}

void SelectionParts::AddListed(RetrievePart* part) {
  uint64_t left = TokensPerPart();
  while (next_head_ < added_.size() && left > 0) {
    const std::vector<uint32_t>& tokens = added_[next_head_];
    const uint64_t count = std::min<uint64_t>(left, tokens.size() - next_of_head_);
    AddTokens(next_head_, absl::MakeConstSpan(tokens).subspan(next_of_head_, count),
              part);
    left -= count;
    next_of_head_ += count;
    if (next_of_head_ < tokens.size()) return;
    ++next_head_;
    next_of_head_ = 0;
  }
  while (next_head_ < added_.size() && added_[next_head_].empty()) ++next_head_;
  done_ = next_head_ == added_.size();
}

void SelectionParts::AddRange(RetrievePart* part) {
  const uint64_t count =
      std::min<uint64_t>(std::max<uint64_t>(1, TokensPerPart() / shape_.kv_heads),
                         range_end_ - range_begin_);
  std::vector<uint32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), range_begin_);
  for (uint32_t head = 0; head < shape_.kv_heads; ++head) {
    AddTokens(head, tokens, part);
  }
  range_begin_ += static_cast<uint32_t>(count);
  done_ = range_begin_ == range_end_;
}

void SelectionParts::AddTokens(uint32_t head, absl::Span<const uint32_t> tokens,
                               RetrievePart* part) {
  part->added_counts[head] += static_cast<uint32_t>(tokens.size());
  part->added.insert(part->added.end(), tokens.begin(), tokens.end());
}

void SelectionParts::FillRows(const retrieval::LayerView& view,
                              RetrievePart* part) const {
  if (shape_.form != SelectionForm::kRows) return;
  part->rows.reserve(part->added.size() * shape_.row_bytes);
  size_t next = 0;
  for (uint32_t head = 0; head < part->added_counts.size(); ++head) {
    for (const size_t end = next + part->added_counts[head]; next < end; ++next) {
      const uint32_t token = part->added[next];
      const std::byte* row = view.page(head, token / kChunkTokens).rows +
                             (token % kChunkTokens) * shape_.row_bytes;
      part->rows.append(reinterpret_cast<const char*>(row), shape_.row_bytes);
    }
  }
}

}  // namespace kvtier::daemon
