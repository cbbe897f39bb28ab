// Sequence's Truncate and Fork.

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/sequence.h"

namespace kvtier::daemon {

absl::StatusOr<Sequence::Making> Sequence::CopyChunk(const tiers::Chunk& chunk,
                                                     uint32_t rows_max) const {
  absl::StatusOr<std::unique_ptr<tiers::Chunk>> copy =
      context_.directory->NewChunk(context_.model->geometry);
  if (!copy.ok()) return copy.status();
  Making making{*std::move(copy), {}};
  if (chunk.approximate()) making.chunk->set_approximate();
  const tiers::ChunkGeometry& geometry = *context_.model->geometry;
  for (uint32_t l = 0; l < geometry.layers.size(); ++l) {
    const LayerIndex layer(l);
    if (!chunk.has_block(layer)) continue;
    if (absl::Status s = AddBlock(layer, &making); !s.ok()) return s;
    const tiers::BlockGeometry& block = geometry.layers[l];
    const uint32_t rows = std::min(chunk.rows(layer), rows_max);
    for (uint32_t head = 0; head < block.kv_heads; ++head) {
      std::memcpy(making.chunk->page(layer, head), chunk.page(layer, head),
                  rows * (block.page_bytes / kChunkTokens));
      making.chunk->set_crc(layer, head, chunk.crc(layer, head));
    }
    // Complete pages, which only a chunk in the making has here, keep their abstracts.
    if (rows == kChunkTokens) {
      std::memcpy(making.chunk->abstract(layer), chunk.abstract(layer),
                  block.abstract_bytes);
    }
    making.chunk->set_rows(layer, rows);
  }
  return making;
}

absl::StatusOr<SealedTokens> Sequence::Truncate(uint64_t token_count) {
  MutexLock lock(&mu_);
  if (token_count > CompleteTokens()) {
    return absl::InvalidArgumentError(absl::StrCat("can't truncate to ", token_count,
                                                   " tokens: the sequence has ",
                                                   CompleteTokens(), " complete ones"));
  }
  const uint64_t whole_chunks = token_count / kChunkTokens;
  const auto rows_left = static_cast<uint32_t>(token_count % kChunkTokens);
  std::optional<Making> tail;
  if (whole_chunks < sealed_.size() && rows_left > 0) {
    // A chunk that is being written may be on disk, and lose its pages, at any moment.
    const std::vector<tiers::BlockGeometry>& layers = context_.model->geometry->layers;
    std::vector<SealedPage> pages;
    for (uint32_t l = 0; l < layers.size(); ++l) {
      for (uint32_t head = 0; head < layers[l].kv_heads; ++head) {
        pages.push_back(SealedPage{whole_chunks, LayerIndex(l), head});
      }
    }
    tiers::PagePins pins;
    uint64_t disk_bytes = 0;
    if (absl::Status s = LoadSealed(pages, &pins, &disk_bytes); !s.ok()) return s;
    absl::StatusOr<Making> copy = CopyChunk(*sealed_[whole_chunks], rows_left);
    if (!copy.ok()) return copy.status();
    tail = *std::move(copy);
  }
  DropFrom(token_count);
  if (tail.has_value()) making_.push_back(*std::move(tail));
  return SealedTokens{SealedTokenCount(), CompleteTokens() - SealedTokenCount()};
}

void Sequence::DropFrom(uint64_t token_count) {
  ++truncations_;
  const uint64_t whole_chunks = token_count / kChunkTokens;
  const auto rows_left = static_cast<uint32_t>(token_count % kChunkTokens);
  if (whole_chunks < sealed_.size()) {
    making_.clear();
    // Last first: a chunk can go only before its parent.
    while (sealed_.size() > whole_chunks) sealed_.pop_back();
  } else {
    const uint64_t kept = whole_chunks - sealed_.size() + (rows_left > 0 ? 1 : 0);
    if (making_.size() > kept) making_.resize(kept);
    if (rows_left > 0) {
      for (uint32_t l = 0; l < next_token_.size(); ++l) {
        making_.back().chunk->set_rows(LayerIndex(l), rows_left);
      }
    }
  }
  std::fill(next_token_.begin(), next_token_.end(), token_count);
  if (token_ids_.size() > token_count) token_ids_.resize(token_count);
  for (uint32_t l = 0; l < memory_.size(); ++l) {
    if (pages_[l].chunk_count > sealed_.size()) pages_[l] = LayerPages{};
    LayerMemory& memory = memory_[l];
    if (memory.held.ForgetFrom(static_cast<uint32_t>(token_count))) {
      memory.state = context_.system->NewState();
      memory.state_before.reset();
    }
  }
}

absl::StatusOr<std::shared_ptr<Sequence>> Sequence::Fork(SequenceId id) const {
  std::shared_ptr<Sequence> fork(new Sequence(id, context_));
  MutexLock lock(&mu_);
  MutexLock fork_lock(&fork->mu_);  // nobody else has it yet
  absl::StatusOr<tiers::Charge> tables = context_.directory->Reserve(tables_.bytes());
  if (!tables.ok()) return tables.status();
  fork->tables_ = *std::move(tables);
  fork->cached_tokens_ = cached_tokens_;
  fork->exact_tokens_ = exact_tokens_;
  for (const tiers::ChunkRef& chunk : sealed_) fork->sealed_.push_back(chunk.Share());
  for (const Making& making : making_) {
    absl::StatusOr<Making> copy = CopyChunk(*making.chunk, kChunkTokens);
    if (!copy.ok()) return copy.status();
    fork->making_.push_back(*std::move(copy));
  }
  fork->token_ids_ = token_ids_;
  fork->next_token_ = next_token_;
  fork->last_step_ = last_step_;
  for (size_t l = 0; l < memory_.size(); ++l) {
    const LayerMemory& from = memory_[l];
    LayerMemory& to = fork->memory_[l];
    if (from.state != nullptr) to.state = from.state->Clone();
    if (from.state_before != nullptr) to.state_before = from.state_before->Clone();
    to.step = from.step;
    to.held = from.held;
  }
  return fork;
}

}  // namespace kvtier::daemon
