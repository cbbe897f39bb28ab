// Room for what is to be written: in this order a segment that is free, a new one within
// the capacity, another geometry's, the coldest chunks of the same geometry.

#include <algorithm>
#include <cassert>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tiers/disk/disk_engine.h"

namespace kvtier::tiers {

bool DiskEngine::MakeRoom(GeometryState& geometry, Later* later) {
  const uint64_t extent_bytes = geometry.layout.extent_bytes();
  const uint64_t per_segment = segment_bytes_ / extent_bytes;
  // A geometry without a segment would have nothing to evict.
  if (TakeSegment(geometry, Reason::kShare, later)) return true;
  const auto coming = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return geometry.leaving_extents + space_.PromisedExtents(geometry.id, extent_bytes);
  };
  while (coming() < geometry.waiting.size()) {
    if (creating_) return true;
    if (CanCreateSegment()) {
      StartCreate(later);
      return true;
    }
    if (geometry.evictions >= per_segment) {
      geometry.evictions = 0;
      if (TakeSegment(geometry, Reason::kColder, later)) continue;
    }
    if (EvictColdest(geometry, later)) continue;
    if (TakeSegment(geometry, Reason::kMust, later)) continue;
    break;
  }
  return coming() > 0;
}

bool DiskEngine::CanCreateSegment() const {
  return !creating_ && !create_fault_.active && !stopping_ &&
         space_.segment_bytes() + segment_bytes_ <= segment_bytes_max_;
}

void DiskEngine::KeepReady(Later* later) {
  if (space_.empty_bytes() < ready_bytes_ && CanCreateSegment()) StartCreate(later);
}

void DiskEngine::StartCreate(Later* later) {
  creating_ = true;
  later->work.push_back([this, number = space_.NextNumber()] { Create(number); });
}

void DiskEngine::Create(SegmentNumber number) {
  const absl::Status status = io_->CreateSegment(number, segment_bytes_);
  Later later;
  {
    MutexLock lock(&mu_);
    creating_ = false;
    if (status.ok()) {
      space_.AddSegment(number, segment_bytes_);
      Recover(create_fault_);
    } else {
      Degrade(create_fault_,
              absl::Status(status.code(), absl::StrCat("the disk tier can't grow beyond ",
                                                       space_.segment_bytes(),
                                                       " bytes: ", status.message())));
    }
    PumpWrites(&later);
    KeepReady(&later);
  }
  Run(std::move(later));
}

bool DiskEngine::EvictColdest(GeometryState& geometry, Later* later) {
  const Index index = table_.Coldest(geometry.id);
  if (index == ChunkTable::kNone) return false;
  ++counts_.evicted_chunks;
  ++geometry.evictions;
  RemoveEntry(index, {}, later);
  return true;
}

// Who may take a segment from whom:
//   kShare   who has less than an equal share, from who has more
//   kColder  from anybody, if all in it is colder than what would have to go instead
//   kMust    from anybody, when nothing of one's own may go
bool DiskEngine::TakeSegment(GeometryState& geometry, Reason reason, Later* later) {
  uint64_t share = 0;
  if (reason == Reason::kShare) {
    if (CanCreateSegment() || creating_) return false;
    uint64_t active = 0;
    for (const auto& g : geometries_) {
      if (space_.SegmentsOf(g->id) > 0 || !g->waiting.empty()) ++active;
    }
    share = space_.segments().size() / std::max<uint64_t>(active, 1);
    if (space_.SegmentsOf(geometry.id) >= std::max<uint64_t>(share, 1)) return false;
  }
  Heat limit = Heat::FromBits(UINT64_MAX);
  if (reason == Reason::kColder) {
    const Index own = table_.Coldest(geometry.id);
    if (own == ChunkTable::kNone) return false;
    limit = table_[own].heat;
  }
  const std::map<SegmentNumber, SegmentHeat> heats = SegmentHeats();
  std::optional<SegmentNumber> best;
  uint32_t best_owner_segments = 0;
  Heat best_heat = limit;
  for (const auto& [number, segment] : space_.segments()) {
    if (segment.geometry == SegmentSpace::kNoGeometry ||
        segment.geometry == geometry.id ||
        segment.promised_to != SegmentSpace::kNoGeometry ||
        segment.bytes < geometry.layout.extent_bytes()) {
      continue;
    }
    const auto it = heats.find(number);
    const SegmentHeat heat = it == heats.end() ? SegmentHeat() : it->second;
    // What is used but not live is being written, or read although it was lost.
    if (heat.blocked || heat.live + segment.leaving != segment.used) continue;
    uint32_t owner_segments = 0;
    if (reason == Reason::kShare) {
      owner_segments = space_.SegmentsOf(segment.geometry);
      if (owner_segments <= std::max<uint64_t>(share, 1)) continue;
    }
    if (owner_segments < best_owner_segments) continue;
    if (owner_segments == best_owner_segments && heat.hottest >= best_heat) continue;
    best = number;
    best_owner_segments = owner_segments;
    best_heat = heat.hottest;
  }
  if (!best) return false;
  const std::vector<Index> contents = ContentsOf(*best);
  space_.Promise(*best, geometry.id, geometry.layout.extent_bytes());
  for (const Index index : contents) {
    ++counts_.evicted_chunks;
    RemoveEntry(index, {}, later);
  }
  return true;
}

std::map<SegmentNumber, DiskEngine::SegmentHeat> DiskEngine::SegmentHeats() const {
  std::map<SegmentNumber, SegmentHeat> heats;
  const auto block = [&](Index index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    for (; index != ChunkTable::kNone; index = table_[index].parent) {
      heats[table_[index].place.segment].blocked = true;
    }
  };
  for (const auto& [index, pin] : pins_) {
    if (table_[index].live) block(index);
  }
  for (const auto& [name, op] : writes_) block(AnchorOf(*op));
  for (Index index = 0; index < table_.index_end(); ++index) {
    const ChunkTable::Entry& entry = table_[index];
    if (!entry.live) continue;
    SegmentHeat& heat = heats[entry.place.segment];
    ++heat.live;
    heat.hottest = std::max(heat.hottest, entry.heat);
  }
  return heats;
}

std::vector<DiskEngine::Index> DiskEngine::ContentsOf(SegmentNumber segment) const {
  return table_.ChildrenFirst(
      table_.WithDescendants([segment](Index, const ChunkTable::Entry& entry) {
        return entry.live && entry.place.segment == segment;
      }));
}

void DiskEngine::RemoveEntry(Index index, std::vector<ReadDone> done, Later* later) {
  ChunkTable::Entry& entry = table_[index];
  assert(!entry.held);
  --GeometryOf(index).chunks;
  if (entry.hole) --holes_;
  table_.MakeDead(index);
  const Index parent = std::exchange(entry.parent, ChunkTable::kNone);
  if (parent != ChunkTable::kNone) Unchild(parent, entry.heat);
  Change change;
  change.change = {.kind = CatalogChange::Kind::kDeleteChunk, .name = entry.name};
  change.removed = index;
  change.done = std::move(done);
  changes_.push_back(std::move(change));
  if (options_.bug == DiskBug::kReuseEarly) {
    entry.owns_extent = false;
    space_.Free(entry.place, /*was_leaving=*/false);
  } else {
    entry.leaving = true;
    space_.BeginFree(entry.place);
    ++GeometryOf(index).leaving_extents;
  }
  StartCatalog(later);
}

void DiskEngine::Unchild(Index parent, Heat heat) {
  ChunkTable::Entry& entry = table_[parent];
  --entry.children;
  table_.SetHeat(parent, std::max(entry.heat, heat));
  table_.UpdateOrder(parent);
}

void DiskEngine::MaybeFree(Index index) {
  ChunkTable::Entry& entry = table_[index];
  if (entry.live || entry.held || !entry.deleted) return;
  if (entry.owns_extent) {
    entry.owns_extent = false;
    if (entry.leaving) --GeometryOf(index).leaving_extents;
    space_.Free(entry.place, entry.leaving);
  }
  table_.Free(index);
}

void DiskEngine::MarkHole(Index index) {
  ChunkTable::Entry& entry = table_[index];
  ++counts_.lost_chunks;
  ++holes_;
  entry.hole = true;
  if (entry.unreadable) ReadsAgain(index);
  pins_.at(index)->lost.store(true, std::memory_order_release);
}

void DiskEngine::FillHole(const WriteOp& op) {
  ++counts_.filled_chunks;
  --holes_;
  const Index index = op.hole;
  ChunkTable::Entry& entry = table_[index];
  const Index former = table_.Retire(index);
  table_[former].deleted = true;  // its record is replaced
  if (entry.held) {
    // Who has it pinned reads on from the former extent, which is freed after them.
    std::unique_ptr<Pin> pin = std::move(pins_.at(index));
    pins_.erase(index);
    pin->index = former;
    pins_.emplace(former, std::move(pin));
  }
  MaybeFree(former);
  entry.generation = op.generation;
  entry.place = *op.extent;
  entry.approximate = op.write.approximate;
  entry.hole = false;
  entry.held = false;
  Unchild(index, entry.heat.Used(++clock_, ChunkUse::kStill));
}

}  // namespace kvtier::tiers
