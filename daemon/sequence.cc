#include "daemon/sequence.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kvtier::daemon {
namespace {

// Per chunk of a sequence: its token ids and its reference, twice, since vectors grow
// by doubling.
constexpr uint64_t kSequenceChunkBytes =
    2 * (kChunkTokens * sizeof(uint32_t) + sizeof(tiers::ChunkRef) +
         sizeof(std::unique_ptr<tiers::Chunk>) + sizeof(tiers::Charge));

uint64_t ChunksFor(uint64_t tokens) { return (tokens + kChunkTokens - 1) / kChunkTokens; }

}  // namespace

Sequence::Sequence(SequenceId id, SequenceContext context)
    : id_(id), context_(std::move(context)) {
  const size_t layers = context_.model->spec.layers.size();
  next_token_.resize(layers);
  pages_.resize(layers);
  memory_.resize(layers);
  for (LayerMemory& memory : memory_) memory.state = context_.system->NewState();
}

Sequence::~Sequence() {
  // Last first: a chunk can go only before its parent.
  while (!sealed_.empty()) sealed_.pop_back();
}

absl::StatusOr<std::shared_ptr<Sequence>> Sequence::Open(
    SequenceId id, SequenceContext context, const OpenSequenceOptions& options) {
  std::shared_ptr<Sequence> sequence(new Sequence(id, std::move(context)));
  MutexLock lock(&sequence->mu_);
  absl::StatusOr<tiers::Charge> tables = sequence->context_.directory->Reserve(
      sequence->TableBytes(ChunksFor(options.token_ids.size())));
  if (!tables.ok()) return tables.status();
  sequence->tables_ = *std::move(tables);
  sequence->token_ids_.assign(options.token_ids.begin(), options.token_ids.end());
  if (absl::Status s = sequence->FindPrefix(options); !s.ok()) return s;
  return sequence;
}

absl::Status Sequence::FindPrefix(const OpenSequenceOptions& options) {
  if (context_.sharing == tiers::Sharing::kPrivate) return absl::OkStatus();
  const uint64_t tokens_max = std::min<uint64_t>(
      options.cached_tokens_max.value_or(token_ids_.size()), token_ids_.size());
  const uint64_t chunks_max = tokens_max / kChunkTokens;
  const absl::Span<const uint32_t> ids(token_ids_);
  std::string_view computed_under;
  std::vector<tiers::FoundChunk> prefix;
  uint64_t exact_chunks = 0;
  while (prefix.size() < chunks_max) {
    const absl::Span<const uint32_t> chunk_ids =
        ids.subspan(prefix.size() * kChunkTokens, kChunkTokens);
    const tiers::ChunkName& parent = prefix.empty() ? context_.root : prefix.back().name;
    tiers::FoundChunk found =
        context_.directory->Lookup(tiers::ChildName(parent, chunk_ids, computed_under));
    if (found) {
      prefix.push_back(std::move(found));
      if (computed_under.empty()) ++exact_chunks;
      continue;
    }
    // From here on only what this very system computed.
    if (!computed_under.empty() || context_.system->exact()) break;
    computed_under = context_.computed_under;
  }
  absl::StatusOr<std::vector<tiers::ChunkRef>> chunks =
      context_.directory->BringIn(std::move(prefix), context_.model->geometry,
                                  /*parent=*/nullptr);
  if (!chunks.ok()) return chunks.status();
  sealed_ = *std::move(chunks);
  exact_tokens_ = std::min<uint64_t>(exact_chunks, sealed_.size()) * kChunkTokens;
  cached_tokens_ = SealedTokenCount();
  std::fill(next_token_.begin(), next_token_.end(), cached_tokens_);
  context_.store_counters->hit_chunks.Add(sealed_.size());
  context_.store_counters->miss_chunks.Add(chunks_max - sealed_.size());
  return absl::OkStatus();
}

SequenceInfo Sequence::Info() const {
  MutexLock lock(&mu_);
  SequenceInfo info;
  info.sequence = id_;
  info.session = context_.session;
  info.model_label = context_.model->spec.label;
  info.system = context_.system->options().system;
  info.budget_tokens = context_.system->options().budget_tokens;
  info.sealed_tokens = SealedTokenCount();
  info.tail_tokens = CompleteTokens() - SealedTokenCount();
  info.cached_tokens = cached_tokens_;
  return info;
}

SealedTokens Sequence::Sealed() const {
  MutexLock lock(&mu_);
  return SealedTokens{SealedTokenCount(), CompleteTokens() - SealedTokenCount()};
}

absl::StatusOr<SealedTokens> Sequence::SealDurably() {
  std::vector<tiers::ChunkRef> chunks;
  SealedTokens sealed;
  {
    MutexLock lock(&mu_);
    for (uint64_t chunk = 0; chunk < sealed_.size(); ++chunk) {
      if (!sealed_[chunk]->disk_lost()) continue;
      if (absl::Status s = ReplaceHole(chunk); !s.ok()) return s;
    }
    chunks = ShareSealed();
    sealed = {SealedTokenCount(), CompleteTokens() - SealedTokenCount()};
  }
  absl::Status status = context_.directory->AwaitWritten(chunks);
  for (size_t chunk = 0; absl::IsDataLoss(status) && chunk < chunks.size(); ++chunk) {
    if (!chunks[chunk]->disk_lost()) continue;
    status = FoundBad(chunk, "it was written, and found to be bad since");
    break;
  }
  while (!chunks.empty()) chunks.pop_back();
  if (!status.ok()) return status;
  return sealed;
}

std::vector<tiers::ChunkRef> Sequence::SealedChunks() const {
  MutexLock lock(&mu_);
  return ShareSealed();
}

std::vector<tiers::ChunkRef> Sequence::ShareSealed() const {
  std::vector<tiers::ChunkRef> chunks;
  for (const tiers::ChunkRef& chunk : sealed_) chunks.push_back(chunk.Share());
  return chunks;
}

uint64_t Sequence::CompleteTokens() const {
  return *std::min_element(next_token_.begin(), next_token_.end());
}

uint64_t Sequence::TableBytes(uint64_t chunks) const {
  const uint64_t per_layer = sizeof(uint64_t) + sizeof(LayerPages) + sizeof(LayerMemory);
  return sizeof(Sequence) + context_.model->spec.layers.size() * per_layer +
         chunks * kSequenceChunkBytes;
}

}  // namespace kvtier::daemon
