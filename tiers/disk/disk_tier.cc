#include "tiers/disk/disk_tier.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tiers/disk/disk_engine.h"

namespace kvtier::tiers {

const char* NameOf(DiskFault fault) {
  constexpr const char* kNames[] = {"writing", "cataloging", "growing", "reading"};
  return kNames[static_cast<int>(fault)];
}

absl::StatusOr<std::unique_ptr<DiskTier>> DiskTier::Open(const DiskTierOptions& options,
                                                         BlockIo* io, rocksdb::Env* env,
                                                         Executor* executor) {
  bool is_new = false;
  auto catalog =
      Catalog::Open(options.directory, env, options.catalog_cache_bytes, &is_new);
  if (!catalog.ok()) return catalog.status();
  auto engine = std::make_unique<DiskEngine>(options, io, executor, *std::move(catalog));
  if (absl::Status s = engine->Load(is_new); !s.ok()) return s;
  return engine;
}

DiskEngine::DiskEngine(const DiskTierOptions& options, BlockIo* io, Executor* executor,
                       std::unique_ptr<Catalog> catalog)
    : options_(options),
      io_(io),
      executor_(executor),
      catalog_(std::move(catalog)),
      write_staging_(io, options.staging_bytes),
      read_staging_(io, options.staging_bytes) {}

DiskEngine::~DiskEngine() {
  Later later;
  {
    MutexLock lock(&mu_);
    stopping_ = true;
    const absl::Status cancelled = absl::CancelledError("the disk tier is closing");
    for (const auto& geometry : geometries_) {
      for (const WriteRef& op : std::exchange(geometry->waiting, {})) {
        FailWrite(op, cancelled, &later);
      }
    }
    for (auto& queue : waiting_reads_) {
      for (const ReadRef& op : std::exchange(queue, {})) {
        later.work.push_back([op, cancelled] { op->done(cancelled); });
      }
    }
  }
  Run(std::move(later));
  outstanding_->Wait();
  StoreHeatsAtClose();
  std::vector<Change> changes;
  {
    MutexLock lock(&mu_);
    changes.swap(changes_);
  }
  for (Change& change : changes) {
    for (ReadDone& done : change.done) done(absl::CancelledError("the catalog failed"));
  }
}

void DiskEngine::Run(Later later) {
  for (IoRequest& request : later.io) {
    outstanding_->Add();
    request.done = [outstanding = outstanding_,
                    done = std::move(request.done)](absl::Status status) mutable {
      done(std::move(status));
      done = nullptr;
      outstanding->Done();
    };
    if (!request.released) continue;
    outstanding_->Add();
    request.released = [outstanding = outstanding_,
                        released = std::move(request.released)]() mutable {
      released();
      released = nullptr;
      outstanding->Done();
    };
  }
  if (!later.io.empty()) io_->Submit(std::move(later.io));
  for (std::function<void()>& work : later.work) {
    outstanding_->Add();
    executor_->Post([outstanding = outstanding_, work = std::move(work)]() mutable {
      work();
      work = nullptr;
      outstanding->Done();
    });
  }
}

DiskEngine::Pin* DiskEngine::AddPin(Index index) {
  std::unique_ptr<Pin>& pin = pins_[index];
  if (pin == nullptr) {
    pin = std::make_unique<Pin>();
    pin->index = index;
    table_[index].held = true;
    table_.UpdateOrder(index);
  }
  ++pin->references;
  return pin.get();
}

void DiskEngine::DropPin(Pin* pin) {
  if (--pin->references > 0) return;
  const Index index = pin->index;
  pins_.erase(index);
  ChunkTable::Entry& entry = table_[index];
  entry.held = false;
  if (entry.live) {
    table_.UpdateOrder(index);
  } else {
    MaybeFree(index);
  }
}

void DiskEngine::TouchEntry(Index index, ChunkUse use) {
  ChunkTable::Entry& entry = table_[index];
  if (!entry.live) return;
  table_.SetHeat(index, entry.heat.Used(++clock_, use));
  if (use == ChunkUse::kFound) entry.heat_changed = true;
}

DiskEngine::Index DiskEngine::FindGood(const ChunkName& name) const {
  const Index index = table_.Find(name);
  if (index == ChunkTable::kNone) return ChunkTable::kNone;
  return table_[index].unreadable || table_[index].hole ? ChunkTable::kNone : index;
}

std::optional<DiskChunk> DiskEngine::Find(const ChunkName& name) {
  MutexLock lock(&mu_);
  const Index index = FindGood(name);
  if (index == ChunkTable::kNone) return std::nullopt;
  TouchEntry(index, ChunkUse::kFound);
  return MakeChunk(this, AddPin(index));
}

bool DiskEngine::Contains(const ChunkName& name) const {
  MutexLock lock(&mu_);
  return FindGood(name) != ChunkTable::kNone;
}

std::optional<ChunkName> DiskEngine::Parent(const DiskChunk& chunk) const {
  MutexLock lock(&mu_);
  const Index parent = table_[PinOf(chunk)->index].parent;
  if (parent == ChunkTable::kNone) return std::nullopt;
  return table_[parent].name;
}

const DiskGeometry& DiskEngine::Geometry(const DiskChunk& chunk) const {
  MutexLock lock(&mu_);
  return geometries_[table_[PinOf(chunk)->index].geometry]->geometry;
}

bool DiskEngine::approximate(const DiskChunk& chunk) const {
  MutexLock lock(&mu_);
  return table_[PinOf(chunk)->index].approximate;
}

void DiskEngine::Touch(const DiskChunk& chunk, ChunkUse use) {
  MutexLock lock(&mu_);
  TouchEntry(PinOf(chunk)->index, use);
}

DiskChunk DiskEngine::ShareEntry(DiskPin* entry) {
  MutexLock lock(&mu_);
  ++static_cast<Pin*>(entry)->references;
  return MakeChunk(this, entry);
}

void DiskEngine::ReleaseEntry(DiskPin* entry) {
  Later later;
  {
    MutexLock lock(&mu_);
    DropPin(static_cast<Pin*>(entry));
    PumpWrites(&later);
  }
  Run(std::move(later));
}

void DiskEngine::Remove(const ChunkName& name, ReadDone done) {
  Later later;
  {
    MutexLock lock(&mu_);
    absl::Status status;
    const Index index = table_.Find(name);
    if (index == ChunkTable::kNone) {
      status = absl::NotFoundError("no such chunk on disk");
    } else if (table_[index].held || table_[index].children > 0) {
      status =
          absl::FailedPreconditionError("the chunk is in use, or another continues it");
    } else if (stopping_) {
      status = absl::CancelledError("the disk tier is closing");
    }
    if (status.ok()) {
      RemoveEntry(index, {std::move(done)}, &later);
    } else {
      later.work.push_back([done = std::move(done), status] { done(status); });
    }
  }
  Run(std::move(later));
}

DiskStats DiskEngine::Stats() const {
  MutexLock lock(&mu_);
  DiskStats stats = counts_;
  stats.chunks = table_.live_count();
  stats.hole_chunks = holes_;
  for (const auto& geometry : geometries_) {
    stats.pages += geometry->chunks * geometry->layout.page_count();
  }
  stats.used_bytes = space_.used_bytes();
  stats.segment_bytes = space_.segment_bytes();
  stats.capacity_bytes = options_.capacity_bytes;
  stats.memory_bytes = table_.memory_bytes() + write_staging_.memory_bytes() +
                       read_staging_.memory_bytes() + options_.catalog_cache_bytes;
  const auto add = [&stats](DiskFault name, const Fault& fault) {
    if (!fault.message.empty()) stats.degraded.push_back({name, fault.message});
  };
  add(DiskFault::kWriting, write_fault_);
  add(DiskFault::kCatalog, catalog_fault_);
  add(DiskFault::kGrowing, create_fault_);
  add(DiskFault::kReading, read_fault_);
  return stats;
}

uint64_t DiskEngine::MemoryBytesMax(uint64_t more_chunks) const {
  MutexLock lock(&mu_);
  const uint64_t table =
      std::max<uint64_t>(table_.memory_bytes(), table_.live_count() * kChunkMemoryBytes);
  return table + more_chunks * kChunkMemoryBytes + 2 * options_.staging_bytes +
         options_.catalog_cache_bytes;
}

uint64_t DiskEngine::UsedBytes(const std::string& space) const {
  MutexLock lock(&mu_);
  uint64_t bytes = 0;
  for (const auto& geometry : geometries_) {
    if (geometry->geometry.space != space) continue;
    bytes += geometry->chunks * geometry->layout.extent_bytes();
  }
  return bytes;
}

}  // namespace kvtier::tiers
