// A chunk's way to the disk.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tiers/disk/disk_engine.h"
#include "tiers/disk/extent_writer.h"

namespace kvtier::tiers {
namespace {

absl::Status CheckShape(const DiskWrite& write, const ExtentLayout& layout) {
  if (write.abstracts.size() != layout.layer_count() ||
      write.pages.size() != layout.page_count() ||
      write.page_crcs.size() != layout.page_count()) {
    return absl::InvalidArgumentError("a chunk's pages are not as its geometry says");
  }
  return absl::OkStatus();
}

}  // namespace

void DiskEngine::Write(DiskWrite write, WriteDone done) {
  Later later;
  {
    MutexLock lock(&mu_);
    const Index index = FindGood(write.name);
    const auto under_way = writes_.find(write.name);
    if (index != ChunkTable::kNone) {
      TouchEntry(index, ChunkUse::kFound);
      auto chunk = std::make_shared<DiskChunk>(MakeChunk(this, AddPin(index)));
      later.work.push_back([chunk, done = std::move(done)] { done(std::move(*chunk)); });
    } else if (under_way != writes_.end()) {
      under_way->second->done.push_back(std::move(done));
    } else {
      auto op = std::make_shared<WriteOp>();
      op->write = std::move(write);
      op->done.push_back(std::move(done));
      if (absl::Status s = Admit(op); s.ok()) {
        PumpGeometry(*op->geometry, &later);
      } else {
        ++counts_.dropped_writes;
        later.work.push_back([done = std::move(op->done.front()), s] { done(s); });
      }
    }
  }
  Run(std::move(later));
}

absl::Status DiskEngine::Admit(const WriteRef& op) {
  const DiskWrite& write = op->write;
  if (stopping_) return absl::CancelledError("the disk tier is closing");
  op->hole = table_.Find(write.name);
  if (op->hole != ChunkTable::kNone && table_[op->hole].unreadable) {
    return absl::UnavailableError("the chunk is on disk but can't be read now");
  }
  for (const Fault* fault : {&write_fault_, &catalog_fault_}) {
    if (fault->active) return absl::UnavailableError(fault->message);
  }
  const absl::StatusOr<uint16_t> id = GeometryId(*write.geometry);
  if (!id.ok()) return id.status();
  op->geometry = geometries_[*id].get();
  if (absl::Status s = CheckShape(write, op->geometry->layout); !s.ok()) return s;
  if (op->geometry->layout.extent_bytes() > segment_bytes_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a chunk of ", op->geometry->layout.extent_bytes(),
                     " bytes does not fit a segment of ", segment_bytes_,
                     ": give the disk tier more capacity"));
  }
  if (absl::Status s = Anchor(op); !s.ok()) return s;
  op->generation = ++clock_;
  writes_.emplace(write.name, op);
  op->geometry->waiting.push_back(op);
  return absl::OkStatus();
}

absl::Status DiskEngine::Anchor(const WriteRef& op) {
  const std::optional<ChunkName>& parent = op->write.parent;
  if (op->hole != ChunkTable::kNone) {
    const ChunkRecord record = RecordOf(op->hole);
    if (record.geometry != op->geometry->id || record.parent != parent) {
      return absl::InvalidArgumentError(
          "a chunk is written anew with the geometry and the parent that it had");
    }
  } else if (parent) {
    op->parent = table_.Find(*parent);
    const auto parent_write = writes_.find(*parent);
    if (op->parent == ChunkTable::kNone && parent_write == writes_.end()) {
      return absl::FailedPreconditionError("the chunk's parent is not on disk");
    }
    if (op->parent == ChunkTable::kNone) {
      op->parent_write = parent_write->second;
      ++op->parent_write->children;
    }
  }
  if (const Index anchor = AnchorOf(*op); anchor != ChunkTable::kNone) {
    ++table_[anchor].children;
    table_.UpdateOrder(anchor);
  }
  return absl::OkStatus();
}

void DiskEngine::PumpWrites(Later* later) {
  for (const auto& geometry : geometries_) {
    if (!geometry->waiting.empty()) PumpGeometry(*geometry, later);
  }
}

void DiskEngine::PumpGeometry(GeometryState& geometry, Later* later) {
  const uint64_t extent_bytes = geometry.layout.extent_bytes();
  while (!geometry.waiting.empty()) {
    const WriteRef op = geometry.waiting.front();
    if (op->parent_write && op->parent_write->ended && !op->parent_write->published) {
      geometry.waiting.pop_front();
      FailWrite(op, absl::FailedPreconditionError("the chunk's parent was not written"),
                later);
      continue;
    }
    if (!op->extent) op->extent = space_.Allocate(geometry.id, extent_bytes);
    if (!op->extent) {
      const bool coming = MakeRoom(geometry, later);
      op->extent = space_.Allocate(geometry.id, extent_bytes);
      if (!op->extent && coming) return;
    }
    if (!op->extent) {
      geometry.waiting.pop_front();
      FailWrite(op,
                create_fault_.message.empty()
                    ? absl::ResourceExhaustedError(
                          "the disk tier is full of chunks in use: give it more capacity")
                    : absl::UnavailableError(create_fault_.message),
                later);
      continue;
    }
    const absl::Status staged =
        write_staging_.Take(ExtentPieceSizes(extent_bytes), &op->buffers);
    // Somebody's staging comes back, and with it another call.
    if (absl::IsResourceExhausted(staged)) return;
    geometry.waiting.pop_front();
    if (!staged.ok()) {
      FailWrite(op, staged, later);
      continue;
    }
    op->unfinished = op->unreleased = op->buffers.size();
    to_fill_.push_back(op);
    if (!std::exchange(filling_, true)) later->work.push_back([this] { FillNext(); });
    KeepReady(later);
  }
}

void DiskEngine::FillNext() {
  WriteRef op;
  {
    MutexLock lock(&mu_);
    op = to_fill_.front();
    to_fill_.pop_front();
  }
  Fill(op);
  Later later;
  {
    MutexLock lock(&mu_);
    filling_ = !to_fill_.empty();
    // Behind what the executor got meanwhile.
    if (filling_) later.work.push_back([this] { FillNext(); });
  }
  Run(std::move(later));
}

void DiskEngine::Fill(const WriteRef& op) {
  const ExtentLayout& layout = op->geometry->layout;
  FillExtent(op->write, op->geometry->id, op->generation, layout, op->buffers);
  Later later;
  {
    MutexLock lock(&mu_);
    uint64_t offset = space_.OffsetOf(*op->extent);
    uint64_t left = layout.extent_bytes();
    for (BlockIo::Buffer& buffer : op->buffers) {
      const uint64_t bytes = std::min(kExtentPieceBytes, left);
      later.io.push_back(
          {.kind = IoKind::kWrite,
           .priority = IoPriority::kWriteBehind,
           .segment = op->extent->segment,
           .offset = offset,
           .data = buffer.data(),
           .bytes = bytes,
           .done = [this, op](absl::Status s) { OnWritten(op, std::move(s)); },
           .released = [this, op] { OnReleased(op); }});
      offset += bytes;
      left -= bytes;
    }
    if (options_.bug == DiskBug::kCatalogFirst) {
      (void)catalog_->Write({PutOf(*op, CatalogChange::Kind::kPutGeometry),
                             PutOf(*op, CatalogChange::Kind::kPutChunk)});
    }
  }
  Run(std::move(later));
}

CatalogChange DiskEngine::PutOf(const WriteOp& op, CatalogChange::Kind kind) {
  return {.kind = kind,
          .name = op.write.name,
          .record = {.place = *op.extent,
                     .geometry = op.geometry->id,
                     .generation = op.generation,
                     .approximate = op.write.approximate,
                     .parent = op.write.parent},
          .geometry = &op.geometry->geometry};
}

void DiskEngine::OnWritten(const WriteRef& op, absl::Status status) {
  Later later;
  {
    MutexLock lock(&mu_);
    op->status.Update(status);
    if (--op->unfinished > 0) return;
    if (!op->status.ok()) {
      FailWrite(op, absl::UnavailableError(op->status.message()), &later);
      StopWrites(op->status, &later);
    } else if (options_.bug == DiskBug::kNoSync) {
      CommitWrite(op, &later);
    } else {
      SegmentSync& sync = syncs_[op->extent->segment];
      sync.next.push_back(op);
      if (!sync.under_way) StartSync(op->extent->segment, &later);
    }
  }
  Run(std::move(later));
}

void DiskEngine::OnReleased(const WriteRef& op) {
  Later later;
  {
    MutexLock lock(&mu_);
    if (--op->unreleased > 0) return;
    for (BlockIo::Buffer& buffer : op->buffers) write_staging_.Return(std::move(buffer));
    op->buffers.clear();
    MaybeFreeExtent(op);
    PumpWrites(&later);
  }
  Run(std::move(later));
}

void DiskEngine::StartSync(SegmentNumber segment, Later* later) {
  SegmentSync& sync = syncs_[segment];
  sync.under_way = true;
  sync.covered = std::exchange(sync.next, {});
  later->io.push_back(
      {.kind = IoKind::kSync,
       .priority = IoPriority::kWriteBehind,
       .segment = segment,
       .done = [this, segment](absl::Status s) { OnSynced(segment, std::move(s)); },
       .released = nullptr});
}

void DiskEngine::OnSynced(SegmentNumber segment, absl::Status status) {
  Later later;
  {
    MutexLock lock(&mu_);
    SegmentSync& sync = syncs_[segment];
    sync.under_way = false;
    for (const WriteRef& op : std::exchange(sync.covered, {})) {
      if (status.ok()) {
        CommitWrite(op, &later);
      } else {
        FailWrite(op, absl::UnavailableError(status.message()), &later);
      }
    }
    if (status.ok()) {
      Recover(write_fault_);
    } else {
      StopWrites(status, &later);
    }
    if (!sync.next.empty()) StartSync(segment, &later);
    PumpWrites(&later);
  }
  Run(std::move(later));
}

void DiskEngine::CommitWrite(const WriteRef& op, Later* later) {
  if (const WriteRef& parent = op->parent_write;
      parent && !parent->ended && !parent->queued) {
    parent->children_synced.push_back(op);
    return;
  }
  if (op->parent_write && op->parent_write->ended && !op->parent_write->published) {
    FailWrite(op, absl::FailedPreconditionError("the chunk's parent was not written"),
              later);
    return;
  }
  if (catalog_fault_.active) {
    FailWrite(op, absl::UnavailableError(catalog_fault_.message), later);
    return;
  }
  op->queued = true;
  Change change;
  change.change = PutOf(*op, CatalogChange::Kind::kPutChunk);
  change.write = op;
  changes_.push_back(std::move(change));
  for (const WriteRef& child : std::exchange(op->children_synced, {})) {
    CommitWrite(child, later);
  }
  StartCatalog(later);
}

DiskEngine::Index DiskEngine::AnchorOf(const WriteOp& op) const {
  if (op.hole != ChunkTable::kNone) return op.hole;
  if (op.parent_write == nullptr) return op.parent;
  return op.parent_write->published ? op.parent_write->index : ChunkTable::kNone;
}

ChunkRecord DiskEngine::RecordOf(Index index) const {
  const ChunkTable::Entry& entry = table_[index];
  ChunkRecord record;
  record.place = entry.place;
  record.geometry = entry.geometry;
  record.generation = entry.generation;
  record.approximate = entry.approximate;
  if (entry.parent != ChunkTable::kNone) record.parent = table_[entry.parent].name;
  return record;
}

void DiskEngine::AddEntry(const WriteRef& op) {
  ChunkTable::Entry entry;
  entry.name = op->write.name;
  entry.generation = op->generation;
  entry.heat = Heat::New(++clock_);
  entry.parent = AnchorOf(*op);
  entry.children = op->children;
  entry.place = *op->extent;
  entry.geometry = op->geometry->id;
  entry.approximate = op->write.approximate;
  entry.owns_extent = true;
  op->index = table_.Add(entry);
  ++op->geometry->chunks;
}

void DiskEngine::Publish(const WriteRef& op, Later* later) {
  if (op->hole != ChunkTable::kNone) {
    FillHole(*op);
    op->index = op->hole;
  } else {
    AddEntry(op);
  }
  op->published = op->ended = true;
  writes_.erase(op->write.name);
  counts_.written_bytes += op->geometry->layout.extent_bytes();
  for (WriteDone& done : std::exchange(op->done, {})) {
    auto chunk = std::make_shared<DiskChunk>(MakeChunk(this, AddPin(op->index)));
    later->work.push_back([chunk, done = std::move(done)] { done(std::move(*chunk)); });
  }
  table_.UpdateOrder(op->index);
  op->parent_write.reset();
  op->write.keep.reset();
}

void DiskEngine::FailWrite(const WriteRef& op, const absl::Status& status, Later* later) {
  if (op->ended) return;
  op->ended = true;
  ++counts_.dropped_writes;
  writes_.erase(op->write.name);
  if (const Index anchor = AnchorOf(*op); anchor != ChunkTable::kNone) {
    Unchild(anchor, Heat());
  } else if (op->parent_write) {
    --op->parent_write->children;
  }
  op->parent_write.reset();
  for (WriteDone& done : std::exchange(op->done, {})) {
    later->work.push_back([done = std::move(done), status] { done(status); });
  }
  for (const WriteRef& child : std::exchange(op->children_synced, {})) {
    FailWrite(child, absl::FailedPreconditionError("the chunk's parent was not written"),
              later);
  }
  op->write.keep.reset();
  MaybeFreeExtent(op);
}

void DiskEngine::MaybeFreeExtent(const WriteRef& op) {
  const bool failed = op->ended && !op->published;
  if (!failed || op->queued || op->unreleased > 0 || !op->extent) return;
  space_.Free(*std::exchange(op->extent, std::nullopt), /*was_leaving=*/false);
}

}  // namespace kvtier::tiers
