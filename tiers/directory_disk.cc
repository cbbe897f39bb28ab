// The Directory's side towards the disk tier: writing behind, bringing in, loading pages.

#include <algorithm>
#include <cassert>
#include <cstring>
#include <deque>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tiers/directory.h"

namespace kvtier::tiers {
namespace {

// Pages dropped in one go: enough that the lock is not taken for each.
constexpr size_t kDropBatch = 64;
// Of the budget, what loads may pin at a time: 1 / this.
constexpr uint64_t kPinnedShare = 4;
// Chunks whose abstracts are asked for together, and how often that at a time: enough
// for the disk, and an error comes before all of a long sequence was read.
constexpr size_t kBringInBatch = 32;
constexpr size_t kBringInBatches = 3;

// Charged at a time for the disk tier's table.
constexpr uint64_t kDiskChargeStep = uint64_t{64} << 10;

// Waits for callbacks and keeps the first error.
class Completions {
 public:
  explicit Completions(size_t count) : left_(count) {}

  void Done(const absl::Status& status) {
    MutexLock lock(&mu_);
    if (first_error_.ok()) first_error_ = status;
    if (--left_ == 0) all_done_.SignalAll();
  }
  absl::Status Wait() {
    MutexLock lock(&mu_);
    while (left_ > 0) all_done_.Wait(&mu_);
    return first_error_;
  }

 private:
  Mutex mu_;
  CondVar all_done_;
  size_t left_ ABSL_GUARDED_BY(mu_);
  absl::Status first_error_ ABSL_GUARDED_BY(mu_);
};

uint64_t PageBytesOf(const PageCopy& copy) {
  return copy.chunk->geometry().layers[copy.layer.value()].page_bytes;
}

bool SameLayers(const ChunkGeometry& memory, const DiskGeometry& disk) {
  return std::equal(memory.layers.begin(), memory.layers.end(), disk.layers.begin(),
                    disk.layers.end(),
                    [](const BlockGeometry& a, const DiskGeometry::Layer& b) {
                      return a.kv_heads == b.kv_heads && a.page_bytes == b.page_bytes &&
                             a.abstract_bytes == b.abstract_bytes;
                    });
}

}  // namespace

PagePins::~PagePins() {
  for (const Chunk* chunk : chunks_) chunk->Unpin();
  if (directory_ != nullptr) directory_->EndPins(bytes_);
}

void Directory::AwaitPinTurn(uint64_t bytes) {
  MutexLock lock(&mu_);
  const uint64_t turn = ++last_pin_turn_;
  const uint64_t pinned_max = budget_->capacity_bytes() / kPinnedShare;
  while (turn != next_pin_turn_ ||
         (pinned_bytes_ > 0 && pinned_bytes_ + bytes > pinned_max)) {
    pins_changed_.Wait(&mu_);
  }
  ++next_pin_turn_;
  pinned_bytes_ += bytes;
  pins_changed_.SignalAll();
}

void Directory::EndPins(uint64_t bytes) {
  MutexLock lock(&mu_);
  pinned_bytes_ -= bytes;
  pins_changed_.SignalAll();
}

bool Directory::MakeRoom() {
  return EvictOne(EvictReason::kRoom) || DropPages() || AwaitAnyWrite();
}

bool Directory::DropPages() {
  std::vector<Slot> dropped;  // freed after the lock is gone
  MutexLock lock(&mu_);
  // A page that nobody selects any more is cold after two passes.
  for (size_t left = 3 * droppable_.size(); left > 0 && dropped.size() < kDropBatch;
       --left) {
    drop_hand_ = drop_hand_ < droppable_.size() ? drop_hand_ : 0;
    std::vector<Slot> cold =
        droppable_[drop_hand_++]->chunk->DropColdPages(kDropBatch - dropped.size());
    std::move(cold.begin(), cold.end(), std::back_inserter(dropped));
  }
  pages_ -= dropped.size();
  dropped_pages_ += dropped.size();
  return !dropped.empty();
}

bool Directory::AwaitAnyWrite() {
  MutexLock lock(&mu_);
  const uint64_t before = finished_writes_;
  if (writing_ == 0) return false;
  while (finished_writes_ == before) write_finished_.Wait(&mu_);
  return true;
}

// Writing.

void Directory::QueueWrite(Entry* entry) {
  entry->write = Entry::Write::kUnderWay;
  AddReferenceLocked(entry);
  ++writing_;
  to_write_.push_back(entry);
}

absl::Status Directory::ChargeDisk() {
  MutexLock order(&write_order_mu_);
  return ChargeDiskFor(0);
}

absl::Status Directory::ChargeDiskFor(uint64_t more_chunks) {
  const uint64_t needed = disk_->MemoryBytesMax(more_chunks);
  if (needed <= disk_charge_.bytes()) return absl::OkStatus();
  const uint64_t more = needed - disk_charge_.bytes() + kDiskChargeStep;
  while (true) {
    std::optional<Charge> charge = Charge::Take(budget_, more);
    if (charge.has_value()) {
      disk_charge_.Add(*std::move(charge));
      return absl::OkStatus();
    }
    if (EvictOne(EvictReason::kRoom) || DropPages()) continue;
    return absl::ResourceExhaustedError(
        absl::StrCat("no room for the disk tier's table and buffers: they take ", needed,
                     " bytes of host memory, of which ", budget_->used_bytes(), " of ",
                     budget_->capacity_bytes(), " are used: raise [host] capacity"));
  }
}

void Directory::StartWrites() {
  MutexLock order(&write_order_mu_);
  while (true) {
    Entry* entry;
    DiskWrite write;
    uint64_t unfinished;
    {
      MutexLock lock(&mu_);
      if (to_write_.empty()) return;
      unfinished = writing_;
      entry = to_write_.front();
      to_write_.pop_front();
      if (entry->parent != nullptr) write.parent = entry->parent->chunk->name();
    }
    if (absl::Status s = ChargeDiskFor(unfinished); !s.ok()) {
      FinishWrite(entry, s);
      continue;
    }
    const Chunk& chunk = *entry->chunk;
    const ChunkGeometry& geometry = chunk.geometry();
    write.name = chunk.name();
    write.approximate = chunk.approximate();
    write.geometry = geometry.disk;
    for (uint32_t l = 0; l < geometry.layers.size(); ++l) {
      const LayerIndex layer(l);
      write.abstracts.push_back(chunk.abstract(layer));
      for (uint32_t head = 0; head < geometry.layers[l].kv_heads; ++head) {
        write.pages.push_back(chunk.page(layer, head));
        write.page_crcs.push_back(chunk.crc(layer, head));
      }
    }
    disk_->Write(std::move(write), [this, entry](absl::StatusOr<DiskChunk> written) {
      FinishWrite(entry, std::move(written));
    });
  }
}

void Directory::FinishWrite(Entry* entry, absl::StatusOr<DiskChunk> written) {
  if (written.ok()) entry->chunk->SetDisk(*std::move(written));
  std::vector<std::unique_ptr<Chunk>> dropped;
  MutexLock lock(&mu_);
  if (entry->chunk->disk() != nullptr) {
    entry->write = Entry::Write::kNone;
    AddToDroppable(entry);
  } else {
    entry->write = Entry::Write::kFailed;
    entry->write_error = written.status();
    ++unwritten_;
  }
  // With the rest, so that who waited for the write finds the chunk as free as it is.
  ReleaseLocked(entry, &dropped, /*is_use=*/false);
  --writing_;
  ++finished_writes_;
  write_finished_.SignalAll();
}

void Directory::AddToDroppable(Entry* entry) {
  entry->droppable = droppable_.size();
  droppable_.push_back(entry);
}

absl::Status Directory::AwaitWritten(absl::Span<const ChunkRef> chunks) {
  if (disk_ == nullptr) {
    return absl::FailedPreconditionError(
        "this daemon has no disk tier, so nothing can be durable: configure [disk], or "
        "seal without `durable`");
  }
  {
    MutexLock lock(&mu_);
    for (const ChunkRef& chunk : chunks) {
      if (chunk.entry_->sharing == Sharing::kPrivate) {
        return absl::FailedPreconditionError(
            "an anonymous sequence can't be found after a restart, so it is not "
            "written: seal it without `durable`");
      }
      RetryWrite(chunk.entry_);
    }
  }
  StartWrites();
  absl::Status first_error;
  MutexLock lock(&mu_);
  for (const ChunkRef& chunk : chunks) {
    const Entry& entry = *chunk.entry_;
    while (entry.write == Entry::Write::kUnderWay) write_finished_.Wait(&mu_);
    if (entry.write == Entry::Write::kFailed) {
      first_error.Update(entry.write_error);
    } else if (chunk->disk_lost()) {
      first_error.Update(absl::DataLossError(
          "what was written doesn't verify any more: compute it and append it again"));
    }
  }
  return first_error;
}

void Directory::RetryWrite(Entry* entry) {
  std::vector<Entry*> failed;
  for (; entry != nullptr && entry->write == Entry::Write::kFailed;
       entry = entry->parent) {
    failed.push_back(entry);
  }
  // Parents first: the disk tier wants them so.
  for (auto next = failed.rbegin(); next != failed.rend(); ++next) {
    --unwritten_;
    QueueWrite(*next);
  }
}

absl::Status Directory::Flush() {
  if (disk_ == nullptr) {
    return absl::FailedPreconditionError(
        "this daemon has no disk tier: configure [disk] directory");
  }
  std::vector<ChunkRef> chunks;
  {
    MutexLock lock(&mu_);
    for (const auto& [name, entry] : entries_) {
      if (entry->sharing == Sharing::kPrivate) continue;
      if (entry->write == Entry::Write::kNone) continue;
      AddReferenceLocked(entry.get());
      chunks.push_back(ChunkRef(this, entry.get()));
    }
  }
  return AwaitWritten(chunks);
}

// Reading.

FoundChunk Directory::Lookup(const ChunkName& name) {
  FoundChunk found;
  found.name = name;
  found.host = Find(name);
  if (found.host.has_value()) {
    UseOnDisk(found.host->entry_, ChunkUse::kFound);
  } else if (disk_ != nullptr) {
    found.disk = disk_->Find(name);
  }
  return found;
}

// Chunks whose abstracts are being read.
struct Directory::Incoming {
  explicit Incoming(size_t count) : abstracts(count), crcs(count), completions(count) {}
  ~Incoming() { completions.Wait().IgnoreError(); }

  absl::Span<FoundChunk> found;
  std::vector<std::unique_ptr<Chunk>> chunks;
  std::vector<std::vector<Slot>> abstracts;  // [chunk][layer]
  std::vector<std::vector<uint32_t>> crcs;
  Completions completions;
};

absl::StatusOr<std::vector<ChunkRef>> Directory::BringIn(
    std::vector<FoundChunk> found, std::shared_ptr<const ChunkGeometry> geometry,
    const ChunkRef* parent) {
  std::vector<ChunkRef> chunks;
  // Some are read while others are put in their places.
  std::deque<std::unique_ptr<Incoming>> incoming;
  size_t next = 0;
  while (chunks.size() < found.size()) {
    absl::Status started;
    while (started.ok() && next < found.size() && incoming.size() < kBringInBatches) {
      size_t end = next;
      while (end < found.size() && end < next + kBringInBatch && found[end].disk) ++end;
      if (end == next) {
        ++next;  // here already
        continue;
      }
      started = StartBringIn(absl::MakeSpan(found).subspan(next, end - next), geometry,
                             &incoming);
      if (started.ok()) next = end;
    }
    if (found[chunks.size()].host.has_value()) {
      chunks.push_back(*std::move(found[chunks.size()].host));
      continue;
    }
    // What could not be started now may be when the others are done.
    const absl::Status status =
        incoming.empty() ? started
                         : EndBringIn(*incoming.front(),
                                      chunks.empty() ? parent : &chunks.back(), &chunks);
    if (absl::IsResourceExhausted(status)) return status;
    // What the disk does not give is as if it weren't there.
    if (!status.ok()) return chunks;
    incoming.pop_front();
  }
  return chunks;
}

absl::Status Directory::StartBringIn(absl::Span<FoundChunk> found,
                                     const std::shared_ptr<const ChunkGeometry>& geometry,
                                     std::deque<std::unique_ptr<Incoming>>* incoming) {
  std::vector<std::unique_ptr<Chunk>> chunks;
  for (const FoundChunk& one : found) {
    if (!SameLayers(*geometry, disk_->Geometry(*one.disk))) {
      return absl::NotFoundError("another geometry");
    }
    absl::StatusOr<std::unique_ptr<Chunk>> chunk = NewChunk(geometry);
    if (!chunk.ok()) return chunk.status();
    chunks.push_back(*std::move(chunk));
  }
  std::vector<std::vector<Slot>> slots;  // [layer][chunk]
  for (const BlockGeometry& layer : geometry->layers) {
    absl::StatusOr<std::vector<Slot>> of_layer =
        AllocateSlots(geometry->space, layer.abstract_bytes, found.size());
    if (!of_layer.ok()) return of_layer.status();
    slots.push_back(*std::move(of_layer));
  }
  auto started = std::make_unique<Incoming>(found.size());
  started->found = found;
  started->chunks = std::move(chunks);
  for (size_t i = 0; i < found.size(); ++i) {
    std::vector<std::byte*> abstracts;
    for (std::vector<Slot>& of_layer : slots) {
      abstracts.push_back(of_layer[i].data());
      started->abstracts[i].push_back(std::move(of_layer[i]));
    }
    disk_->ReadAbstracts(
        *found[i].disk, std::move(abstracts), &started->crcs[i], IoPriority::kDemand,
        [raw = started.get()](const absl::Status& s) { raw->completions.Done(s); });
  }
  incoming->push_back(std::move(started));
  return absl::OkStatus();
}

absl::Status Directory::EndBringIn(Incoming& incoming, const ChunkRef* parent,
                                   std::vector<ChunkRef>* chunks) {
  // The chunks before one that fails are lost to this sequence too: the next attempt
  // will not find the bad one.
  if (absl::Status s = incoming.completions.Wait(); !s.ok()) return s;
  for (size_t i = 0; i < incoming.chunks.size(); ++i) {
    FoundChunk& found = incoming.found[i];
    std::unique_ptr<Chunk>& chunk = incoming.chunks[i];
    if (disk_->approximate(*found.disk)) chunk->set_approximate();
    chunk->SetOnDisk(found.name, std::move(incoming.abstracts[i]),
                     std::move(incoming.crcs[i]), *std::move(found.disk));
    ChunkRef committed =
        CommitOnly(std::move(chunk), i == 0 ? parent : &chunks->back(), Sharing::kShared);
    chunks->push_back(std::move(committed));
  }
  return absl::OkStatus();
}

absl::Status Directory::Load(absl::Span<const PageNeed> needs, PagePins* pins,
                             uint64_t* disk_bytes) {
  struct Missing {
    PageNeed need;
    Slot slot;
  };
  if (disk_ == nullptr || needs.empty()) return absl::OkStatus();
  const auto page_bytes_of = [](const PageNeed& need) {
    return need.chunk->geometry().layers[need.layer.value()].page_bytes;
  };
  uint64_t bytes = 0;
  for (const PageNeed& need : needs) bytes += page_bytes_of(need);
  AwaitPinTurn(bytes);
  pins->directory_ = this;
  pins->bytes_ = bytes;
  absl::flat_hash_map<size_t, std::vector<PageNeed>> missing;  // by page's size
  for (const PageNeed& need : needs) {
    pins->Add(need.chunk);
    need.chunk->Touch(need.layer, need.kv_head);
    if (need.chunk->page(need.layer, need.kv_head) != nullptr) continue;
    missing[page_bytes_of(need)].push_back(need);
  }
  if (missing.empty()) return absl::OkStatus();

  std::vector<Missing> loads;
  for (const auto& [page_bytes, pages] : missing) {
    absl::StatusOr<std::vector<Slot>> slots =
        AllocateSlots(pages.front().chunk->geometry().space, page_bytes, pages.size());
    if (!slots.ok()) return slots.status();
    for (size_t i = 0; i < pages.size(); ++i) {
      loads.push_back(Missing{pages[i], std::move((*slots)[i])});
      *disk_bytes += page_bytes;
    }
  }
  absl::flat_hash_map<const Chunk*, std::vector<DiskPageRead>> reads;
  for (const Missing& load : loads) {
    reads[load.need.chunk].push_back(
        DiskPageRead{load.need.layer, load.need.kv_head, load.slot.data()});
  }
  Completions completions(reads.size());
  for (auto& [chunk, pages] : reads) {
    disk_->ReadPages(*chunk->disk(), std::move(pages), IoPriority::kDemand,
                     [&](const absl::Status& status) { completions.Done(status); });
  }
  if (absl::Status s = completions.Wait(); !s.ok()) return s;
  uint64_t loaded = 0;
  for (Missing& load : loads) {
    loaded += load.need.chunk->SetPage(load.need.layer, load.need.kv_head,
                                       std::move(load.slot));
  }
  MutexLock lock(&mu_);
  pages_ += loaded;
  loaded_pages_ += loaded;
  return absl::OkStatus();
}

class Directory::DiskCopies final : public PageCopies {
 public:
  DiskCopies(Directory* directory, std::vector<PageCopy> from_disk, size_t reads)
      : directory_(directory), from_disk_(std::move(from_disk)), completions_(reads) {}
  ~DiskCopies() override { completions_.Wait().IgnoreError(); }

  absl::Status Wait() override {
    absl::Status status = completions_.Wait();
    if (status.ok()) directory_->Keep(from_disk_);
    return status;
  }
  void Done(const absl::Status& status) { completions_.Done(status); }

 private:
  Directory* const directory_;
  const std::vector<PageCopy> from_disk_;
  Completions completions_;
};

std::unique_ptr<PageCopies> Directory::StartCopies(absl::Span<const PageCopy> copies) {
  std::vector<PageCopy> from_disk;
  absl::flat_hash_map<const Chunk*, std::vector<DiskPageRead>> reads;
  for (const PageCopy& copy : copies) {
    const Chunk& chunk = *copy.chunk;
    chunk.Pin();
    const std::byte* page = chunk.page(copy.layer, copy.kv_head);
    if (page != nullptr) std::memcpy(copy.data, page, PageBytesOf(copy));
    chunk.Unpin();
    if (page != nullptr) continue;
    from_disk.push_back(copy);
    reads[&chunk].push_back(DiskPageRead{copy.layer, copy.kv_head, copy.data});
  }
  auto started = std::make_unique<DiskCopies>(this, std::move(from_disk), reads.size());
  for (auto& [chunk, pages] : reads) {
    disk_->ReadPages(*chunk->disk(), std::move(pages), IoPriority::kPrefetch,
                     [raw = started.get()](const absl::Status& s) { raw->Done(s); });
  }
  return started;
}

void Directory::Keep(absl::Span<const PageCopy> copies) {
  uint64_t kept = 0;
  for (const PageCopy& copy : copies) {
    const Chunk& chunk = *copy.chunk;
    std::vector<Slot> slot;
    const absl::Status taken =
        host_->Take(chunk.geometry().space, PageBytesOf(copy), 1, &slot);
    if (!taken.ok()) break;
    std::memcpy(slot.front().data(), copy.data, PageBytesOf(copy));
    chunk.Pin();
    kept += chunk.SetPage(copy.layer, copy.kv_head, std::move(slot.front()));
    chunk.Unpin();
  }
  MutexLock lock(&mu_);
  pages_ += kept;
  loaded_pages_ += kept;
}

}  // namespace kvtier::tiers
