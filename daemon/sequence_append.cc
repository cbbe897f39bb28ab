// Sequence's rows: planning an append (everything that can fail) and applying it
// (everything else).

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/sequence.h"
#include "kernels/host/convert.h"
#include "retrieval/abstract.h"

namespace kvtier::daemon {
namespace {

// Selections name tokens by 32-bit numbers.
constexpr uint64_t kSequenceTokensMax = uint64_t{1} << 31;

uint64_t ChunksFor(uint64_t tokens) { return (tokens + kChunkTokens - 1) / kChunkTokens; }

}  // namespace

absl::StatusOr<AppendPlan> Sequence::PlanAppend(
    absl::Span<const TokenRun* const> runs,
    absl::Span<const AppendEntry* const> entries) {
  AppendPlan plan;
  for (const TokenRun* run : runs) {
    if (absl::Status s = PlanRun(*run, &plan); !s.ok()) return s;
  }
  std::vector<uint64_t> next = next_token_;
  for (const AppendEntry* entry : entries) {
    if (absl::Status s = PlanEntry(*entry, &next, &plan); !s.ok()) return s;
  }
  for (uint32_t l = 0; l < next.size(); ++l) {
    if (absl::Status s = ChargeBlocks(LayerIndex(l), ChunksFor(next_token_[l]),
                                      ChunksFor(next[l]), &plan.blocks);
        !s.ok()) {
      return s;
    }
  }
  for (const AppendPlan::Rows& rows : plan.rows) {
    if (absl::Status s = CheckFinite(rows); !s.ok()) return s;
  }
  if (absl::Status s = PlanMemory(next, &plan); !s.ok()) return s;
  return plan;
}

absl::Status Sequence::CheckFinite(const AppendPlan::Rows& rows) const {
  const AppendEntry& entry = *rows.entry;
  const retrieval::LayerSpec& layer = context_.model->layer(entry.layer);
  const DType dtype = context_.model->spec.dtype;
  for (uint32_t head = 0; head < layer.kv_heads; ++head) {
    for (uint32_t token = 0; token < entry.token_count; ++token) {
      const bool key_is =
          kernels::AllFinite(dtype, rows.key.row(head, token), layer.key_dim);
      if (key_is &&
          kernels::AllFinite(dtype, rows.value.row(head, token), layer.value_dim)) {
        continue;
      }
      return absl::InvalidArgumentError(absl::StrCat(
          "the ", key_is ? "value" : "key", " of token ", entry.start.value() + token,
          ", layer ", entry.layer.value(), ", kv head ", head,
          " has a NaN or an infinity: attention over it has no meaning"));
    }
  }
  return absl::OkStatus();
}

absl::Status Sequence::PlanRun(const TokenRun& run, AppendPlan* plan) const {
  if (context_.sharing == tiers::Sharing::kPrivate) {
    return absl::InvalidArgumentError(
        "an anonymous sequence has no token ids: open it with `anonymous` unset");
  }
  const uint64_t known = token_ids_.size() + plan->new_ids.size();
  const uint64_t start = run.start.value();
  if (start > known) {
    return absl::FailedPreconditionError(absl::StrCat(
        "token ids must follow the known ones: the next is ", known, ", not ", start));
  }
  if (start + run.token_ids.size() > kSequenceTokensMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a sequence has at most ", kSequenceTokensMax, " tokens"));
  }
  for (size_t i = 0; i < run.token_ids.size(); ++i) {
    const uint64_t position = start + i;
    if (position >= token_ids_.size() + plan->new_ids.size()) {
      plan->new_ids.push_back(run.token_ids[i]);
      continue;
    }
    const uint32_t old = position < token_ids_.size()
                             ? token_ids_[position]
                             : plan->new_ids[position - token_ids_.size()];
    if (old == run.token_ids[i]) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("token ", position, " is known as id ", old, ", not ",
                     run.token_ids[i], ": truncate the sequence to change it"));
  }
  return absl::OkStatus();
}

absl::Status Sequence::PlanEntry(const AppendEntry& entry, std::vector<uint64_t>* next,
                                 AppendPlan* plan) const {
  const retrieval::ModelSpec& spec = context_.model->spec;
  if (entry.layer.value() >= spec.layers.size()) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", entry.layer.value(),
                                                   " is out of range: the model has ",
                                                   spec.layers.size()));
  }
  uint64_t& next_token = (*next)[entry.layer.value()];
  if (entry.start.value() != next_token) {
    return absl::FailedPreconditionError(absl::StrCat("layer ", entry.layer.value(),
                                                      "'s next token is ", next_token,
                                                      ", not ", entry.start.value()));
  }
  if (entry.token_count == 0 || next_token + entry.token_count > kSequenceTokensMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("token_count is ", entry.token_count, ": an entry has at least 1, ",
                     "and a sequence at most ", kSequenceTokensMax, " tokens"));
  }
  const retrieval::LayerSpec& layer = spec.layers[entry.layer.value()];
  const RowSource::Shape key_shape{layer.kv_heads, entry.token_count,
                                   layer.key_dim * ElementBytes(spec.dtype)};
  const RowSource::Shape value_shape{layer.kv_heads, entry.token_count,
                                     layer.value_dim * ElementBytes(spec.dtype)};
  absl::StatusOr<RowSource> key =
      entry.default_key_layout ? RowSource::Packed(entry.key.buffer, key_shape, "key")
                               : RowSource::Strided(entry.key, key_shape, "key");
  if (!key.ok()) return key.status();
  absl::StatusOr<RowSource> value =
      entry.default_value_layout
          ? RowSource::Packed(entry.value.buffer, value_shape, "value")
          : RowSource::Strided(entry.value, value_shape, "value");
  if (!value.ok()) return value.status();
  next_token += entry.token_count;
  plan->rows.push_back(AppendPlan::Rows{&entry, *key, *value});
  return absl::OkStatus();
}

absl::Status Sequence::PlanMemory(const std::vector<uint64_t>& next, AppendPlan* plan) {
  const tiers::ChunkGeometry& geometry = *context_.model->geometry;
  const uint64_t chunks_before = sealed_.size() + making_.size();
  const uint64_t chunks_after =
      std::max(chunks_before, ChunksFor(*std::max_element(next.begin(), next.end())));
  const uint64_t table_bytes = TableBytes(
      std::max(chunks_after, ChunksFor(token_ids_.size() + plan->new_ids.size())));
  const uint64_t more_tables =
      table_bytes - std::min<uint64_t>(table_bytes, tables_.bytes());
  // All of it is checked before anybody's chunk has to go for a part of it.
  uint64_t bytes = more_tables + (chunks_after - chunks_before) * geometry.table_bytes();
  for (uint32_t l = 0; l < next.size(); ++l) {
    const uint64_t block_bytes =
        geometry.layers[l].rows_bytes() + geometry.layers[l].abstract_bytes;
    bytes += (ChunksFor(next[l]) - ChunksFor(next_token_[l])) * block_bytes;
  }
  if (absl::Status s = context_.directory->CheckFits(bytes); !s.ok()) return s;
  if (more_tables > 0) {
    absl::StatusOr<tiers::Charge> tables = context_.directory->Reserve(more_tables);
    if (!tables.ok()) return tables.status();
    plan->tables = *std::move(tables);
  }
  for (uint64_t chunk = chunks_before; chunk < chunks_after; ++chunk) {
    absl::StatusOr<std::unique_ptr<tiers::Chunk>> made =
        context_.directory->NewChunk(context_.model->geometry);
    if (!made.ok()) return made.status();
    plan->chunks.push_back(*std::move(made));
  }
  for (size_t begin = 0; begin < plan->blocks.size();) {
    size_t end = begin;
    while (end < plan->blocks.size() &&
           plan->blocks[end].layer == plan->blocks[begin].layer) {
      ++end;
    }
    if (absl::Status s =
            FillBlocks(absl::MakeSpan(plan->blocks).subspan(begin, end - begin));
        !s.ok()) {
      return s;
    }
    begin = end;
  }
  return absl::OkStatus();
}

absl::Status Sequence::ChargeBlocks(LayerIndex layer, uint64_t chunk_begin,
                                    uint64_t chunk_end,
                                    std::vector<AppendPlan::NewBlock>* blocks) const {
  const tiers::BlockGeometry& block = context_.model->geometry->layers[layer.value()];
  tiers::MemoryBudget* unsealed = context_.unsealed.get();
  for (uint64_t chunk = chunk_begin; chunk < chunk_end; ++chunk) {
    std::optional<tiers::Charge> charge =
        tiers::Charge::Take(unsealed, block.rows_bytes());
    if (!charge.has_value()) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the session has ", unsealed->used_bytes(), " bytes of unsealed rows of at ",
          "most ", unsealed->capacity_bytes(), ": complete chunks at all layers, send ",
          "token ids, close sequences, or raise [host] unsealed_max"));
    }
    blocks->push_back(AppendPlan::NewBlock{chunk, layer, {}, *std::move(charge)});
  }
  return absl::OkStatus();
}

absl::Status Sequence::FillBlocks(absl::Span<AppendPlan::NewBlock> blocks) const {
  const tiers::ChunkGeometry& geometry = *context_.model->geometry;
  const tiers::BlockGeometry& block = geometry.layers[blocks.front().layer.value()];
  absl::StatusOr<std::vector<tiers::Slot>> pages = context_.directory->AllocateSlots(
      geometry.space, block.page_bytes, blocks.size() * block.kv_heads);
  if (!pages.ok()) return pages.status();
  absl::StatusOr<std::vector<tiers::Slot>> abstracts = context_.directory->AllocateSlots(
      geometry.space, block.abstract_bytes, blocks.size());
  if (!abstracts.ok()) return abstracts.status();
  for (size_t i = 0; i < blocks.size(); ++i) {
    auto first = pages->begin() + static_cast<ptrdiff_t>(i * block.kv_heads);
    blocks[i].block.pages.assign(std::make_move_iterator(first),
                                 std::make_move_iterator(first + block.kv_heads));
    blocks[i].block.abstract = std::move((*abstracts)[i]);
  }
  return absl::OkStatus();
}

absl::Status Sequence::AddBlock(LayerIndex layer, Making* making) const {
  std::vector<AppendPlan::NewBlock> blocks;
  if (absl::Status s = ChargeBlocks(layer, 0, 1, &blocks); !s.ok()) return s;
  if (absl::Status s = FillBlocks(absl::MakeSpan(blocks)); !s.ok()) return s;
  making->chunk->SetBlock(layer, std::move(blocks.front().block));
  making->unsealed.Add(std::move(blocks.front().unsealed));
  return absl::OkStatus();
}

SequenceProgress Sequence::ApplyAppend(AppendPlan plan) {
  const uint64_t complete_before = CompleteTokens();
  tables_.Add(std::move(plan.tables));
  token_ids_.insert(token_ids_.end(), plan.new_ids.begin(), plan.new_ids.end());
  for (std::unique_ptr<tiers::Chunk>& chunk : plan.chunks) {
    making_.push_back(Making{std::move(chunk), {}});
  }
  for (AppendPlan::NewBlock& added : plan.blocks) {
    Making& making = making_[added.chunk - sealed_.size()];
    making.chunk->SetBlock(added.layer, std::move(added.block));
    making.unsealed.Add(std::move(added.unsealed));
  }
  for (const AppendPlan::Rows& rows : plan.rows) CopyRows(rows);
  SealComplete();
  context_.counters->appended_tokens.Add(CompleteTokens() - complete_before);
  return SequenceProgress{id_, SealedTokenCount(), CompleteTokens()};
}

void Sequence::CopyRows(const AppendPlan::Rows& rows) {
  const AppendEntry& entry = *rows.entry;
  uint64_t& next = next_token_[entry.layer.value()];
  for (uint32_t token = 0; token < entry.token_count;) {
    tiers::Chunk* chunk = MakingAt(next / kChunkTokens);
    const auto in_chunk = static_cast<uint32_t>(next % kChunkTokens);
    const uint32_t count = std::min(kChunkTokens - in_chunk, entry.token_count - token);
    CopyRowsInto(rows, token, count, in_chunk, chunk);
    if (entry.exactness == Exactness::kApproximate) chunk->set_approximate();
    token += count;
    next += count;
  }
}

void Sequence::CopyRowsInto(const AppendPlan::Rows& rows, uint32_t begin, uint32_t count,
                            uint32_t row, tiers::Chunk* chunk) const {
  const LayerIndex layer_index = rows.entry->layer;
  const retrieval::LayerSpec& layer = context_.model->layer(layer_index);
  const DType dtype = context_.model->spec.dtype;
  const size_t key_bytes = layer.key_dim * ElementBytes(dtype);
  const size_t value_bytes = layer.value_dim * ElementBytes(dtype);
  const size_t row_bytes = key_bytes + value_bytes;
  for (uint32_t head = 0; head < layer.kv_heads; ++head) {
    std::byte* to = chunk->page(layer_index, head) + row * row_bytes;
    for (uint32_t i = 0; i < count; ++i, to += row_bytes) {
      std::memcpy(to, rows.key.row(head, begin + i), key_bytes);
      std::memcpy(to + key_bytes, rows.value.row(head, begin + i), value_bytes);
    }
  }
  chunk->set_rows(layer_index, row + count);
  if (row + count == kChunkTokens) CompletePages(layer_index, chunk);
  context_.store_counters->written_bytes.Add(uint64_t{count} * layer.kv_heads *
                                             row_bytes);
}

void Sequence::CompletePages(LayerIndex layer, tiers::Chunk* chunk) const {
  const retrieval::LayerSpec& spec = context_.model->layer(layer);
  const retrieval::AbstractLayout& layout = context_.model->layouts[layer.value()];
  for (uint32_t head = 0; head < spec.kv_heads; ++head) {
    // From seed 0: the chunk's name, part of the seed, comes with the last layer.
    chunk->set_crc(layer, head,
                   retrieval::BuildAbstract(
                       spec, context_.model->spec.dtype, layout, chunk->page(layer, head),
                       0, chunk->abstract(layer) + head * layout.page_abstract_bytes));
  }
  context_.store_counters->written_bytes.Add(spec.kv_heads * layout.page_abstract_bytes);
}

void Sequence::SealComplete() {
  const bool anonymous = context_.sharing == tiers::Sharing::kPrivate;
  size_t sealed = 0;
  for (; sealed < making_.size(); ++sealed) {
    std::unique_ptr<tiers::Chunk>& chunk = making_[sealed].chunk;
    if (!chunk->complete()) break;
    const uint64_t begin = sealed_.size() * kChunkTokens;
    if (!anonymous && token_ids_.size() < begin + kChunkTokens) break;
    const tiers::ChunkRef* parent = sealed_.empty() ? nullptr : &sealed_.back();
    if (parent != nullptr && (*parent)->approximate()) chunk->set_approximate();
    chunk->SetName(
        anonymous
            ? tiers::RandomName()
            : tiers::ChildName(
                  parent == nullptr ? context_.root : (*parent)->name(),
                  absl::Span<const uint32_t>(token_ids_).subspan(begin, kChunkTokens),
                  chunk->approximate() ? context_.computed_under : ""));
    sealed_.push_back(
        context_.directory->Commit(std::move(chunk), parent, context_.sharing));
  }
  making_.erase(making_.begin(), making_.begin() + static_cast<ptrdiff_t>(sealed));
}

}  // namespace kvtier::daemon
