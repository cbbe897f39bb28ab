// Sequence's Read: rows as they were appended, streamed.
//
// What is sent is made ahead in stretches, so that the disk reads one while another is
// on its way to the worker. Pages that are not in memory are read past it.

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/sequence.h"

namespace kvtier::daemon {
namespace {

// One is sent while two are read.
constexpr size_t kStretches = 3;

}  // namespace

// A part of the answer whose rows are being read.
struct Sequence::Stretch {
  Stretch() = default;
  Stretch(const Stretch&) = delete;  // reads point to it
  Stretch& operator=(const Stretch&) = delete;
  ~Stretch() {
    copies.reset();
    // Last first: a chunk can go only before its parent.
    while (!chunks.empty()) chunks.pop_back();
  }

  // A page of which only some rows are wanted.
  struct Cut {
    std::vector<std::byte> page;
    size_t from = 0;
    size_t to = 0;  // in the part's rows
    size_t bytes = 0;
  };

  ReadPart part;
  uint64_t first_chunk = 0;
  std::vector<tiers::ChunkRef> chunks;
  std::vector<Cut> cuts;
  std::unique_ptr<tiers::PageCopies> copies;
};

absl::Status Sequence::Read(const ReadRange& range, uint64_t part_bytes_max,
                            absl::FunctionRef<bool(ReadPart)> sink) {
  uint64_t truncations = 0;
  absl::StatusOr<std::vector<ReadPart>> plan =
      PlanRead(range, part_bytes_max, &truncations);
  if (!plan.ok()) return plan.status();
  std::deque<std::unique_ptr<Stretch>> stretches;
  for (size_t next = 0; next < plan->size() || !stretches.empty();) {
    while (next < plan->size() && stretches.size() < kStretches) {
      absl::StatusOr<std::unique_ptr<Stretch>> stretch =
          StartStretch((*plan)[next], truncations);
      if (!stretch.ok()) return stretch.status();
      stretches.push_back(*std::move(stretch));
      ++next;
    }
    if (absl::Status s = EndStretch(stretches.front().get()); !s.ok()) return s;
    ReadPart part = std::move(stretches.front()->part);
    stretches.pop_front();
    context_.store_counters->read_bytes.Add(part.rows.size());
    if (!sink(std::move(part))) return absl::CancelledError("the reader went away");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ReadPart>> Sequence::PlanRead(const ReadRange& range,
                                                         uint64_t part_bytes_max,
                                                         uint64_t* truncations) const {
  const retrieval::ModelSpec& spec = context_.model->spec;
  const uint64_t layer_begin = range.layer_begin.value();
  const uint64_t layer_end =
      range.layer_count == 0 ? spec.layers.size() : layer_begin + range.layer_count;
  if (layer_begin >= spec.layers.size() || layer_end > spec.layers.size()) {
    return absl::InvalidArgumentError(absl::StrCat("layers [", layer_begin, ", ",
                                                   layer_end, ") are out of range: the ",
                                                   "model has ", spec.layers.size()));
  }
  const uint64_t token_begin = range.token_begin.value();
  uint64_t token_end;
  {
    MutexLock lock(&mu_);
    *truncations = truncations_;
    if (__builtin_add_overflow(token_begin, range.token_count, &token_end) ||
        token_end > CompleteTokens()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tokens from ", token_begin, ", ", range.token_count,
          " of them, reach beyond the ", CompleteTokens(), " complete ones"));
    }
  }
  std::vector<ReadPart> plan;
  for (uint64_t l = layer_begin; l < layer_end; ++l) {
    const LayerIndex layer(static_cast<uint32_t>(l));
    const retrieval::LayerSpec& layer_spec = context_.model->layer(layer);
    const uint64_t token_bytes = layer_spec.kv_heads * layer_spec.RowBytes(spec.dtype);
    const uint64_t tokens_max = std::max<uint64_t>(1, part_bytes_max / token_bytes);
    for (uint64_t token = token_begin; token < token_end;) {
      uint64_t end = std::min(token_end, token + tokens_max);
      // A chunk that is cut is read for both parts.
      if (end < token_end && end / kChunkTokens > token / kChunkTokens) {
        end = end / kChunkTokens * kChunkTokens;
      }
      ReadPart& part = plan.emplace_back();
      part.layer = layer;
      part.token_begin = TokenIndex(token);
      part.token_count = static_cast<uint32_t>(end - token);
      token = end;
    }
  }
  return plan;
}

absl::StatusOr<std::unique_ptr<Sequence::Stretch>> Sequence::StartStretch(
    const ReadPart& part, uint64_t truncations) {
  const retrieval::LayerSpec& layer = context_.model->layer(part.layer);
  const size_t row_bytes = layer.RowBytes(context_.model->spec.dtype);
  const uint64_t bytes = uint64_t{layer.kv_heads} * part.token_count * row_bytes;
  auto stretch = std::make_unique<Stretch>();
  stretch->part = part;
  stretch->part.rows.resize(bytes);

  const uint64_t begin = part.token_begin.value();
  const uint64_t end = begin + part.token_count;
  stretch->first_chunk = begin / kChunkTokens;
  std::vector<tiers::PageCopy> copies;
  MutexLock lock(&mu_);
  if (truncations_ != truncations) {
    return absl::FailedPreconditionError(
        "the sequence was truncated while it was read: read again");
  }
  for (uint64_t c = stretch->first_chunk; c * kChunkTokens < end; ++c) {
    const uint64_t from = std::max(begin, c * kChunkTokens);
    const uint64_t count = std::min(end, (c + 1) * kChunkTokens) - from;
    if (c < sealed_.size()) {
      absl::StatusOr<tiers::ChunkRef> chunk = ShareForRead(c, part.layer);
      if (!chunk.ok()) return chunk.status();
      stretch->chunks.push_back(*std::move(chunk));
    }
    for (uint32_t head = 0; head < layer.kv_heads; ++head) {
      const size_t to = (uint64_t{head} * part.token_count + from - begin) * row_bytes;
      auto* rows = reinterpret_cast<std::byte*>(stretch->part.rows.data()) + to;
      const size_t in_page = from % kChunkTokens * row_bytes;
      if (c >= sealed_.size()) {
        std::memcpy(rows, ChunkAt(c).page(part.layer, head) + in_page, count * row_bytes);
      } else if (count == kChunkTokens) {
        copies.push_back({&*stretch->chunks.back(), part.layer, head, rows});
      } else {
        stretch->cuts.push_back({std::vector<std::byte>(kChunkTokens * row_bytes),
                                 in_page, to, count * row_bytes});
        copies.push_back({&*stretch->chunks.back(), part.layer, head,
                          stretch->cuts.back().page.data()});
      }
    }
  }
  stretch->copies = context_.directory->StartCopies(copies);
  return stretch;
}

absl::StatusOr<tiers::ChunkRef> Sequence::ShareForRead(uint64_t chunk, LayerIndex layer) {
  if (sealed_[chunk]->disk_lost()) {
    absl::Status replaced = ReplaceHole(chunk);
    for (uint32_t head = 0; head < context_.model->layer(layer).kv_heads; ++head) {
      if (!replaced.ok() && sealed_[chunk]->page(layer, head) == nullptr) return replaced;
    }
  }
  return sealed_[chunk].Share();
}

absl::Status Sequence::EndStretch(Stretch* stretch) const {
  const absl::Status status = stretch->copies->Wait();
  if (absl::IsDataLoss(status)) {
    for (size_t i = 0; i < stretch->chunks.size(); ++i) {
      if (!stretch->chunks[i]->disk_lost()) continue;
      return FoundBad(stretch->first_chunk + i, status.message());
    }
  }
  if (!status.ok()) return status;
  for (const Stretch::Cut& cut : stretch->cuts) {
    std::memcpy(stretch->part.rows.data() + cut.to, cut.page.data() + cut.from,
                cut.bytes);
  }
  return absl::OkStatus();
}

}  // namespace kvtier::daemon
