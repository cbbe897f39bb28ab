// Sequence's holes: sealed chunks whose bytes on disk did not verify.

#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/sequence.h"

namespace kvtier::daemon {
namespace {

std::string TokensOf(uint64_t chunk) {
  return absl::StrCat("tokens ", chunk * kChunkTokens, " to ",
                      (chunk + 1) * kChunkTokens - 1);
}

constexpr char kWayOut[] =
    "compute them again and send them with Refill, or open the sequence again and "
    "append from there";

absl::Status HoleAt(uint64_t chunk) {
  return absl::FailedPreconditionError(
      absl::StrCat("hole at chunk ", chunk, ": ", TokensOf(chunk),
                   " did not verify on disk: ", kWayOut));
}

}  // namespace

absl::Status Sequence::FoundBad(uint64_t chunk, absl::string_view why) {
  return absl::DataLossError(absl::StrCat("chunk ", chunk, ", ", TokensOf(chunk),
                                          ", is damaged on disk (", why, "): ", kWayOut));
}

absl::Status Sequence::LoadSealed(absl::Span<const SealedPage> pages,
                                  tiers::PagePins* pins, uint64_t* disk_bytes) {
  const auto is_gone = [this](const SealedPage& page) ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    const tiers::Chunk& chunk = *sealed_[page.chunk];
    return chunk.page(page.layer, page.kv_head) == nullptr && chunk.disk_lost();
  };
  for (const SealedPage& page : pages) {
    if (!sealed_[page.chunk]->disk_lost()) continue;
    absl::Status replaced = ReplaceHole(page.chunk);
    if (!replaced.ok() && is_gone(page)) return replaced;
  }
  std::vector<tiers::PageNeed> needs;
  needs.reserve(pages.size());
  for (const SealedPage& page : pages) {
    needs.push_back(tiers::PageNeed{&*sealed_[page.chunk], page.layer, page.kv_head});
  }
  absl::Status status = context_.directory->Load(needs, pins, disk_bytes);
  if (!absl::IsDataLoss(status)) return status;
  for (const SealedPage& page : pages) {
    if (is_gone(page)) return FoundBad(page.chunk, status.message());
  }
  return status;
}

absl::Status Sequence::ReplaceHole(uint64_t chunk) {
  std::vector<tiers::FoundChunk> found;
  found.push_back(context_.directory->Lookup(sealed_[chunk]->name()));
  if (!found.front()) return HoleAt(chunk);
  absl::StatusOr<std::vector<tiers::ChunkRef>> brought = context_.directory->BringIn(
      std::move(found), context_.model->geometry, ParentOf(chunk));
  if (!brought.ok()) return brought.status();
  if (brought->empty()) return HoleAt(chunk);
  Replace(chunk, std::move(brought->front()));
  return absl::OkStatus();
}

void Sequence::Replace(uint64_t chunk, tiers::ChunkRef by) {
  for (uint32_t l = 0; l < pages_.size(); ++l) {
    LayerPages& known = pages_[l];
    if (chunk >= known.chunk_count) continue;
    const LayerIndex layer(l);
    const size_t abstract_bytes = context_.model->layouts[l].page_abstract_bytes;
    for (uint32_t head = 0; head < context_.model->layer(layer).kv_heads; ++head) {
      known.pages[head * known.chunk_count + chunk] =
          retrieval::PageView{.rows = by->page(layer, head),
                              .abstract = by->abstract(layer) + head * abstract_bytes};
    }
  }
  sealed_[chunk] = std::move(by);
}

absl::StatusOr<std::vector<AppendPlan::Rows>> Sequence::PlanRefill(
    uint64_t chunk, absl::Span<const AppendEntry> entries) const {
  if (chunk >= sealed_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("chunk ", chunk,
                                                   " is out of range: the sequence has ",
                                                   sealed_.size(), " sealed chunks"));
  }
  const uint64_t start = chunk * kChunkTokens;
  AppendPlan plan;
  std::vector<uint64_t> next(context_.model->spec.layers.size(), start);
  for (const AppendEntry& entry : entries) {
    if (entry.sequence != id_ || entry.start.value() != start ||
        entry.token_count != kChunkTokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("an entry has ", entry.token_count, " tokens from ",
                       entry.start.value(), " of sequence ", entry.sequence.value(),
                       ": chunk ", chunk, " is refilled with ", kChunkTokens, " from ",
                       start, " of sequence ", id_.value()));
    }
    if (entry.exactness == Exactness::kApproximate && !sealed_[chunk]->approximate()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "chunk ", chunk, " is exact: compute its rows with attention to everything"));
    }
    if (entry.layer.value() < next.size() && next[entry.layer.value()] != start) {
      return absl::InvalidArgumentError(
          absl::StrCat("layer ", entry.layer.value(), " is there twice"));
    }
    if (absl::Status s = PlanEntry(entry, &next, &plan); !s.ok()) return s;
    if (absl::Status s = CheckFinite(plan.rows.back()); !s.ok()) return s;
  }
  for (size_t layer = 0; layer < next.size(); ++layer) {
    if (next[layer] != start) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", layer, " is missing: a chunk is refilled at all layers at once"));
  }
  return std::move(plan.rows);
}

absl::StatusOr<Sequence::Making> Sequence::MakeAgain(
    uint64_t chunk, absl::Span<const AppendPlan::Rows> rows) const {
  absl::StatusOr<std::unique_ptr<tiers::Chunk>> made =
      context_.directory->NewChunk(context_.model->geometry);
  if (!made.ok()) return made.status();
  Making making{*std::move(made), {}};
  if (sealed_[chunk]->approximate()) making.chunk->set_approximate();
  for (const AppendPlan::Rows& of_layer : rows) {
    if (absl::Status s = AddBlock(of_layer.entry->layer, &making); !s.ok()) return s;
    CopyRowsInto(of_layer, 0, kChunkTokens, 0, making.chunk.get());
  }
  making.chunk->SetName(sealed_[chunk]->name());
  return making;
}

absl::Status Sequence::Refill(uint64_t chunk, absl::Span<const AppendEntry> entries) {
  if (context_.sharing == tiers::Sharing::kPrivate) {
    return absl::FailedPreconditionError(
        "an anonymous sequence is never on disk: it has no holes");
  }
  MutexLock lock(&mu_);
  absl::StatusOr<std::vector<AppendPlan::Rows>> rows = PlanRefill(chunk, entries);
  if (!rows.ok()) return rows.status();
  absl::StatusOr<Making> made = MakeAgain(chunk, *rows);
  if (!made.ok()) return made.status();
  if (sealed_[chunk]->disk_lost()) {
    Replace(chunk, context_.directory->Commit(std::move(made->chunk), ParentOf(chunk),
                                              context_.sharing));
    return absl::OkStatus();
  }
  // The same rows again: a retry of the call that filled it.
  if (sealed_[chunk]->SameRows(*made->chunk)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("chunk ", chunk, " is no hole: its rows are there"));
}

}  // namespace kvtier::daemon
