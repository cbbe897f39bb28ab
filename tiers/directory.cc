#include "tiers/directory.h"

#include <algorithm>
#include <cassert>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "kernels/host/checksum.h"
#include "tiers/page_checksum.h"

namespace kvtier::tiers {
namespace {

// What comes free with a chunk whose pages are all in memory.
uint64_t BytesOf(const Chunk& chunk) {
  const ChunkGeometry& geometry = chunk.geometry();
  return geometry.table_bytes() + geometry.rows_bytes + geometry.abstract_bytes;
}

}  // namespace

Heat& Directory::OrderAccess::heat(Entry* entry) const { return entry->heat; }

uint32_t& Directory::OrderAccess::position(Entry* entry) const {
  return entry->order_position;
}

uint64_t Directory::OrderAccess::weight(Entry* entry) const {
  return BytesOf(*entry->chunk);
}

ChunkRef& ChunkRef::operator=(ChunkRef&& other) noexcept {
  if (this != &other) {
    Reset();
    directory_ = other.directory_;
    entry_ = std::exchange(other.entry_, nullptr);
  }
  return *this;
}

ChunkRef ChunkRef::Share() const {
  if (entry_ != nullptr) directory_->AddReference(entry_);
  return ChunkRef(directory_, entry_);
}

void ChunkRef::Reset() {
  if (entry_ != nullptr) directory_->Release(std::exchange(entry_, nullptr));
}

Directory::~Directory() {
  while (AwaitAnyWrite()) {
  }
  EvictAll();
  assert(Stats().chunks == 0);
}

absl::Status Directory::CheckFits(uint64_t bytes) const {
  const uint64_t capacity = budget_->capacity_bytes();
  uint64_t busy = 0;
  if (disk_ == nullptr) {  // else pages of open sequences may go too
    MutexLock lock(&mu_);
    busy = std::min(busy_bytes_, capacity);
  }
  if (bytes <= capacity - busy) return absl::OkStatus();
  return NothingToEvict(absl::ResourceExhaustedError(absl::StrCat(
      "no room for ", bytes, " bytes: of ", capacity, ", ", busy, " can't be freed")));
}

absl::StatusOr<Charge> Directory::Reserve(uint64_t bytes) {
  while (true) {
    std::optional<Charge> charge = Charge::Take(budget_, bytes);
    if (charge.has_value()) return *std::move(charge);
    if (absl::Status s = CheckFits(bytes); !s.ok()) return s;
    if (!MakeRoom()) {
      return NothingToEvict(absl::ResourceExhaustedError(
          absl::StrCat("no room for ", bytes, " bytes of tables: ", budget_->used_bytes(),
                       " of ", budget_->capacity_bytes(), " bytes are used")));
    }
  }
}

absl::StatusOr<std::vector<Slot>> Directory::AllocateSlots(NamespaceIndex space,
                                                           size_t slot_bytes,
                                                           size_t count) {
  std::vector<Slot> slots;
  slots.reserve(count);
  while (true) {
    absl::Status status = host_->Take(space, slot_bytes, count, &slots);
    if (status.ok()) return slots;
    if (absl::Status s = CheckFits((count - slots.size()) * slot_bytes); !s.ok())
      return s;
    // Slots of other classes come free too, but their regions give memory back only
    // when they are empty: hence on, coldest first, until it is enough.
    if (!MakeRoom()) return NothingToEvict(status);
  }
}

absl::StatusOr<std::unique_ptr<Chunk>> Directory::NewChunk(
    std::shared_ptr<const ChunkGeometry> geometry) {
  absl::StatusOr<Charge> charge = Reserve(geometry->table_bytes());
  if (!charge.ok()) return charge.status();
  return std::make_unique<Chunk>(std::move(geometry), *std::move(charge));
}

std::optional<ChunkRef> Directory::Find(const ChunkName& name) {
  MutexLock lock(&mu_);
  auto found = entries_.find(name);
  if (found == entries_.end()) return std::nullopt;
  Entry* entry = found->second.get();
  if (entry->sharing == Sharing::kPrivate || entry->chunk->disk_lost()) {
    return std::nullopt;
  }
  AddReferenceLocked(entry);
  Use(entry, ChunkUse::kFound);
  return ChunkRef(this, entry);
}

ChunkRef Directory::Commit(std::unique_ptr<Chunk> chunk, const ChunkRef* parent,
                           Sharing sharing) {
  ChunkRef committed = CommitOnly(std::move(chunk), parent, sharing);
  if (disk_ != nullptr) StartWrites();
  return committed;
}

ChunkRef Directory::CommitOnly(std::unique_ptr<Chunk> chunk, const ChunkRef* parent,
                               Sharing sharing) {
  std::unique_ptr<Chunk> loser;  // freed after the lock is gone
  std::vector<std::unique_ptr<Chunk>> dropped;
  MutexLock lock(&mu_);
  std::unique_ptr<Entry> hole = TakeHole(chunk->name());
  auto [place, is_new] = entries_.try_emplace(chunk->name());
  if (!is_new) {
    ++duplicates_;
    loser = std::move(chunk);
    AddReferenceLocked(place->second.get());
    Use(place->second.get(), ChunkUse::kFound);
    return ChunkRef(this, place->second.get());
  }
  place->second = std::make_unique<Entry>();
  Entry* entry = place->second.get();
  entry->chunk = std::move(chunk);
  entry->sharing = sharing;
  entry->references = 1;
  if (parent != nullptr) {
    entry->parent = Current(parent->entry_);
    if (in_order(entry->parent)) order_.SetEvictable(entry->parent, false);
    ++entry->parent->children;
  }
  BecomeBusy(entry);
  if (in_order(entry)) {
    ++clock_;
    order_.Add(entry, hole == nullptr ? Heat::New(clock_)
                                      : hole->heat.Used(clock_, ChunkUse::kStill));
  }
  const ChunkGeometry& geometry = entry->chunk->geometry();
  pages_ += entry->chunk->resident_pages();
  if (chunks_of_space_.size() <= geometry.space.value()) {
    chunks_of_space_.resize(geometry.space.value() + 1);
  }
  ++chunks_of_space_[geometry.space.value()];
  if (entry->chunk->disk() != nullptr) {
    AddToDroppable(entry);
  } else if (disk_ != nullptr && sharing == Sharing::kShared) {
    QueueWrite(entry);
  }
  if (hole != nullptr) Supersede(std::move(hole), entry, &dropped);
  return ChunkRef(this, entry);
}

uint64_t Directory::EvictAll() {
  uint64_t count = 0;
  while (EvictOne(EvictReason::kAsked)) ++count;
  return count;
}

uint64_t Directory::Evict(uint64_t bytes) {
  const uint64_t before = budget_->used_bytes();
  const auto freed = [&] {
    const uint64_t used = budget_->used_bytes();
    return used < before ? before - used : 0;
  };
  while (freed() < bytes && EvictOne(EvictReason::kAsked)) {
  }
  return freed();
}

void Directory::FitBudget() {
  while (budget_->used_bytes() > budget_->capacity_bytes() &&
         (EvictOne(EvictReason::kCapacity) || DropPages())) {
  }
}

Directory::VerifyResult Directory::Verify() {
  std::vector<ChunkName> names;
  {
    MutexLock lock(&mu_);
    names.reserve(entries_.size());
    for (const auto& [name, entry] : entries_) names.push_back(name);
  }
  VerifyResult result;
  for (const ChunkName& name : names) {
    Entry* entry;
    {
      MutexLock lock(&mu_);
      auto found = entries_.find(name);
      if (found == entries_.end()) continue;
      entry = found->second.get();
      AddReferenceLocked(entry);
    }
    const Chunk* chunk = entry->chunk.get();
    chunk->Pin();
    const ChunkGeometry& geometry = chunk->geometry();
    for (uint32_t l = 0; l < geometry.layers.size(); ++l) {
      const LayerIndex layer(l);
      for (uint32_t head = 0; head < geometry.layers[l].kv_heads; ++head) {
        const std::byte* page = chunk->page(layer, head);
        if (page == nullptr) continue;
        ++result.pages;
        const uint32_t crc = kernels::Crc32c(PageSeed(name, layer, head), page,
                                             geometry.layers[l].page_bytes);
        result.bad_pages += crc != chunk->crc(layer, head);
      }
    }
    chunk->Unpin();
    std::vector<std::unique_ptr<Chunk>> dropped;
    MutexLock lock(&mu_);
    ReleaseLocked(entry, &dropped, /*is_use=*/false);
  }
  return result;
}

DirectoryStats Directory::Stats() const {
  MutexLock lock(&mu_);
  return DirectoryStats{
      .chunks = entries_.size() + superseded_.size(),
      .pages = pages_,
      .evictable_chunks = order_.evictable_count(),
      .evicted_chunks = std::accumulate(evicted_.begin(), evicted_.end(), uint64_t{0}),
      .evicted_for = evicted_,
      .duplicate_chunks = duplicates_,
      .dropped_pages = dropped_pages_,
      .loaded_pages = loaded_pages_,
      .writing_chunks = writing_,
      .unwritten_chunks = unwritten_};
}

uint64_t Directory::ChunkCount(NamespaceIndex space) const {
  MutexLock lock(&mu_);
  return space.value() < chunks_of_space_.size() ? chunks_of_space_[space.value()] : 0;
}

void Directory::AddReference(Entry* entry) {
  MutexLock lock(&mu_);
  AddReferenceLocked(entry);
}

void Directory::AddReferenceLocked(Entry* entry) {
  if (entry->references++ > 0) return;
  if (in_order(entry)) order_.SetEvictable(entry, false);
  if (entry->busy_children == 0) BecomeBusy(entry);
}

void Directory::BecomeBusy(Entry* entry) {
  while (true) {
    busy_bytes_ += BytesOf(*entry->chunk);
    Entry* parent = entry->parent;
    if (parent == nullptr || parent->busy_children++ > 0 || parent->references > 0)
      return;
    entry = parent;
  }
}

void Directory::BecomeIdle(Entry* entry) {
  while (true) {
    busy_bytes_ -= BytesOf(*entry->chunk);
    Entry* parent = entry->parent;
    if (parent == nullptr || --parent->busy_children > 0 || parent->references > 0)
      return;
    entry = parent;
  }
}

std::unique_ptr<Directory::Entry> Directory::TakeHole(const ChunkName& name) {
  auto found = entries_.find(name);
  if (found == entries_.end() || !found->second->chunk->disk_lost()) return nullptr;
  std::unique_ptr<Entry> hole = std::move(found->second);
  entries_.erase(found);
  if (in_order(hole.get())) order_.Remove(hole.get());
  hole->superseded = true;
  return hole;
}

// Looks at all entries, since none knows its children: holes are rare.
void Directory::Supersede(std::unique_ptr<Entry> former, Entry* entry,
                          std::vector<std::unique_ptr<Chunk>>* dropped) {
  const bool was_busy = former->references > 0 || former->busy_children > 0;
  const auto adopt = [&](Entry* child) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (child->parent != former.get()) return;
    child->parent = entry;
    --former->children;
    ++entry->children;
    if (child->references == 0 && child->busy_children == 0) return;
    --former->busy_children;
    ++entry->busy_children;
  };
  for (const auto& [name, child] : entries_) adopt(child.get());
  for (const auto& [child, owned] : superseded_) adopt(child);
  Entry* gone = former.get();
  superseded_.emplace(gone, std::move(former));
  if (gone->references > 0) return;
  if (was_busy) BecomeIdle(gone);
  MaybeEvictable(gone, dropped);
}

Directory::Entry* Directory::Current(Entry* entry) {
  if (!entry->superseded) return entry;
  auto found = entries_.find(entry->chunk->name());
  return found == entries_.end() ? entry : found->second.get();
}

bool Directory::in_order(const Entry* entry) const {
  return entry->sharing == Sharing::kShared && !entry->superseded;
}

void Directory::Use(Entry* entry, ChunkUse use) {
  if (in_order(entry)) order_.SetHeat(entry, entry->heat.Used(++clock_, use));
}

void Directory::UseOnDisk(const Entry* entry, ChunkUse use) {
  const DiskChunk* chunk = entry->chunk->disk();
  if (chunk != nullptr) disk_->Touch(*chunk, use);
}

void Directory::Release(Entry* entry) {
  UseOnDisk(entry, ChunkUse::kStill);
  std::vector<std::unique_ptr<Chunk>> dropped;
  MutexLock lock(&mu_);
  ReleaseLocked(entry, &dropped, /*is_use=*/true);
}

void Directory::ReleaseLocked(Entry* entry, std::vector<std::unique_ptr<Chunk>>* dropped,
                              bool is_use) {
  assert(entry->references > 0);
  if (is_use) Use(entry, ChunkUse::kStill);
  if (--entry->references > 0) return;
  if (entry->busy_children == 0) BecomeIdle(entry);
  if (entry->children == 0) MaybeEvictable(entry, dropped);
}

bool Directory::EvictOne(EvictReason reason) {
  std::vector<std::unique_ptr<Chunk>> dropped;
  MutexLock lock(&mu_);
  const std::optional<Entry*> coldest = order_.Coldest();
  if (!coldest) return false;
  ++evicted_[static_cast<size_t>(reason)];
  if (Entry* parent = Remove(*coldest, &dropped)) MaybeEvictable(parent, &dropped);
  return true;
}

void Directory::MaybeEvictable(Entry* entry,
                               std::vector<std::unique_ptr<Chunk>>* dropped) {
  while (entry != nullptr && entry->references == 0 && entry->children == 0) {
    if (in_order(entry)) return order_.SetEvictable(entry, true);
    entry = Remove(entry, dropped);
  }
}

Directory::Entry* Directory::Remove(Entry* entry,
                                    std::vector<std::unique_ptr<Chunk>>* dropped) {
  Entry* parent = entry->parent;
  const ChunkGeometry& geometry = entry->chunk->geometry();
  pages_ -= entry->chunk->resident_pages();
  if (entry->write == Entry::Write::kFailed) --unwritten_;
  if (entry->droppable.has_value()) {
    droppable_.back()->droppable = entry->droppable;
    droppable_[*entry->droppable] = droppable_.back();
    droppable_.pop_back();
  }
  --chunks_of_space_[geometry.space.value()];
  if (parent != nullptr) {
    --parent->children;
    if (in_order(parent)) order_.SetHeat(parent, std::max(parent->heat, entry->heat));
  }
  if (in_order(entry)) order_.Remove(entry);
  dropped->push_back(std::move(entry->chunk));
  if (entry->superseded) {
    superseded_.erase(entry);
  } else {
    entries_.erase(ChunkName(dropped->back()->name()));
  }
  return parent != nullptr && parent->children == 0 ? parent : nullptr;
}

absl::Status Directory::NothingToEvict(const absl::Status& cause) const {
  return absl::ResourceExhaustedError(absl::StrCat(
      cause.message(), ", all by open sequences: close some, or raise [host] capacity"));
}

}  // namespace kvtier::tiers
