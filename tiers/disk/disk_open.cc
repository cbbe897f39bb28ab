// What happens once, before anything else: the catalog's records become the table. No
// other thread is there yet; the mutex is held for the analysis' sake.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tiers/disk/disk_engine.h"

namespace kvtier::tiers {
namespace {

// A segment is the least that goes from one geometry to another: a small capacity gets
// small ones, so that several geometries can share it.
constexpr uint64_t kSegmentsWanted = 32;
// Of the capacity, what is made and zeroed ahead of its use: what comes in a burst finds
// room that needs no second write.
constexpr uint64_t kReadyShare = 8;
constexpr uint64_t kReadyBytesMax = uint64_t{1} << 30;
// Of the capacity, for the catalog's files.
constexpr uint64_t kCatalogShare = 64;
constexpr uint64_t kCatalogBytesMin = uint64_t{16} << 20;
// Below this a capacity gives the catalog less than its minimum.
constexpr uint64_t kCatalogShareMax = 8;
// Uses and generations of one start; the next one's are higher.
constexpr int kClockBits = 40;
constexpr uint32_t kGeometriesMax = UINT16_MAX;

uint64_t CatalogAllowance(uint64_t capacity_bytes) {
  return std::min(capacity_bytes / kCatalogShareMax,
                  std::max(kCatalogBytesMin, capacity_bytes / kCatalogShare));
}

}  // namespace

absl::Status DiskEngine::Load(bool catalog_is_new) {
  Later later;
  {
    MutexLock lock(&mu_);
    if (absl::Status s = LoadAll(catalog_is_new); !s.ok()) return s;
    KeepReady(&later);
  }
  Run(std::move(later));
  return absl::OkStatus();
}

absl::Status DiskEngine::LoadAll(bool catalog_is_new) {
  segment_bytes_max_ =
      options_.capacity_bytes - CatalogAllowance(options_.capacity_bytes);
  segment_bytes_ =
      std::min(options_.segment_bytes, segment_bytes_max_ / kSegmentsWanted) / kIoUnit *
      kIoUnit;
  if (segment_bytes_ == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the disk tier's capacity of ", options_.capacity_bytes, " bytes is too small"));
  }
  ready_bytes_ = std::clamp(options_.capacity_bytes / kReadyShare, segment_bytes_,
                            std::max(segment_bytes_, kReadyBytesMax));
  now_ = absl::UnixEpoch();
  clock_ = uint64_t{catalog_->starts()} << kClockBits;
  if (absl::Status s = LoadSegments(catalog_is_new); !s.ok()) return s;
  if (absl::Status s = LoadChunks(); !s.ok()) return s;
  return ShrinkToCapacity();
}

absl::Status DiskEngine::LoadSegments(bool catalog_is_new) {
  const auto segments = io_->OpenSegments();
  if (!segments.ok()) return segments.status();
  if (catalog_is_new && !segments->empty()) {
    return absl::DataLossError(absl::StrCat(
        "the disk tier has ", segments->size(), " segments in ", options_.directory,
        " but no catalog that names their chunks; `kvtierd --wipe` empties the directory "
        "and starts afresh"));
  }
  for (const BlockIo::Segment& segment : *segments) {
    space_.AddSegment(segment.number, segment.bytes);
  }
  return absl::OkStatus();
}

void DiskEngine::AddGeometry(uint32_t id, const DiskGeometry& geometry, bool persisted) {
  while (geometries_.size() <= id) {
    const auto next = static_cast<uint16_t>(geometries_.size());
    // Ids are given in order; one that is missing in the catalog stays without chunks.
    geometries_.push_back(
        std::make_unique<GeometryState>(next, next == id ? geometry : DiskGeometry{}));
  }
  geometries_[id]->persisted = persisted;
  geometry_ids_.emplace(EncodeGeometry(geometry), static_cast<uint16_t>(id));
}

absl::StatusOr<uint16_t> DiskEngine::GeometryId(const DiskGeometry& geometry) {
  const auto it = geometry_ids_.find(EncodeGeometry(geometry));
  if (it != geometry_ids_.end()) return it->second;
  if (geometries_.size() >= kGeometriesMax) {
    return absl::ResourceExhaustedError(
        "the disk tier has seen too many models; `kvtierd --wipe` empties the directory");
  }
  const auto id = static_cast<uint16_t>(geometries_.size());
  AddGeometry(id, geometry, /*persisted=*/false);
  return id;
}

absl::Status DiskEngine::LoadChunks() {
  std::vector<std::pair<uint32_t, DiskGeometry>> geometries;
  absl::Status status = catalog_->LoadGeometries([&](uint32_t id, DiskGeometry geometry) {
    geometries.emplace_back(id, std::move(geometry));
  });
  if (!status.ok()) return status;
  for (const auto& [id, geometry] : geometries) {
    // The ids are ours; a mad one is left to its chunks' check.
    if (id < kGeometriesMax) AddGeometry(id, geometry, /*persisted=*/true);
  }
  std::vector<std::optional<ChunkName>> parents;  // [index]
  std::vector<CatalogChange> deletes;
  const auto drop = [&deletes](const ChunkName& name) {
    deletes.push_back({.kind = CatalogChange::Kind::kDeleteChunk, .name = name});
  };
  status = catalog_->LoadChunks(
      [&](const ChunkName& name, const ChunkRecord& record, std::optional<Heat> heat)
          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
            if (record.geometry >= geometries_.size() ||
                !geometries_[record.geometry]->persisted ||
                !space_.Claim(record.place, record.geometry,
                              geometries_[record.geometry]->layout.extent_bytes())) {
              return drop(name);
            }
            ChunkTable::Entry entry;
            entry.name = name;
            entry.generation = record.generation;
            entry.heat = Heat::New(std::min(record.generation, clock_));
            // Of the future is what this tier never wrote.
            if (heat && heat->last_use() <= clock_) entry.heat = *heat;
            entry.place = record.place;
            entry.geometry = static_cast<uint16_t>(record.geometry);
            entry.approximate = record.approximate;
            entry.owns_extent = true;
            table_.Add(entry);
            parents.push_back(record.parent);
          });
  if (!status.ok()) return status;
  const std::vector<bool> lost = LinkParents(parents);
  for (Index index = 0; index < parents.size(); ++index) {
    if (!lost[index]) {
      table_.UpdateOrder(index);
      ++GeometryOf(index).chunks;
      continue;
    }
    drop(table_[index].name);
    space_.Free(table_[index].place, /*was_leaving=*/false);
    table_.MakeDead(index);
    table_.Free(index);
  }
  counts_.lost_chunks += deletes.size();
  return deletes.empty() ? absl::OkStatus() : catalog_->Write(deletes);
}

std::vector<bool> DiskEngine::LinkParents(
    const std::vector<std::optional<ChunkName>>& parents) {
  std::vector<bool> orphan(parents.size());
  // A parent is written before its children, but for holes that were filled, and for bad
  // records, which may make a circle.
  bool younger_parent = false;
  for (Index index = 0; index < parents.size(); ++index) {
    if (!parents[index]) continue;
    ChunkTable::Entry& entry = table_[index];
    entry.parent = table_.Find(*parents[index]);
    orphan[index] = entry.parent == ChunkTable::kNone;
    younger_parent =
        younger_parent ||
        (!orphan[index] && table_[entry.parent].generation >= entry.generation);
  }
  if (younger_parent) {
    std::vector<bool> in_circle(parents.size(), true);
    for (const Index index : table_.ChildrenFirst(in_circle)) in_circle[index] = false;
    for (Index index = 0; index < parents.size(); ++index) {
      if (!in_circle[index]) continue;
      orphan[index] = true;
      table_[index].parent = ChunkTable::kNone;
    }
  }
  std::vector<bool> lost = table_.WithDescendants(
      [&](Index index, const ChunkTable::Entry&) -> bool { return orphan[index]; });
  for (Index index = 0; index < parents.size(); ++index) {
    const Index parent = table_[index].parent;
    if (!lost[index] && parent != ChunkTable::kNone) ++table_[parent].children;
  }
  return lost;
}

absl::Status DiskEngine::ShrinkToCapacity() {
  while (space_.segment_bytes() > segment_bytes_max_) {
    const std::map<SegmentNumber, SegmentHeat> heats = SegmentHeats();
    SegmentNumber coldest = space_.segments().begin()->first;
    Heat coldest_heat = Heat::FromBits(UINT64_MAX);
    for (const auto& [number, segment] : space_.segments()) {
      const auto heat = heats.find(number);
      const Heat hottest = heat == heats.end() ? Heat() : heat->second.hottest;
      if (hottest >= coldest_heat) continue;
      coldest = number;
      coldest_heat = hottest;
    }
    std::vector<CatalogChange> deletes;
    for (const Index index : ContentsOf(coldest)) {
      const ChunkTable::Entry& entry = table_[index];
      deletes.push_back({.kind = CatalogChange::Kind::kDeleteChunk, .name = entry.name});
      --GeometryOf(index).chunks;
      ++counts_.evicted_chunks;
      space_.Free(entry.place, /*was_leaving=*/false);
      const Index parent = entry.parent;
      const Heat heat_of_child = entry.heat;
      table_.MakeDead(index);
      table_.Free(index);
      if (parent != ChunkTable::kNone) Unchild(parent, heat_of_child);
    }
    if (!deletes.empty()) {
      if (absl::Status s = catalog_->Write(deletes); !s.ok()) return s;
    }
    if (absl::Status s = io_->RemoveSegment(coldest); !s.ok()) return s;
    space_.RemoveSegment(coldest);
  }
  return absl::OkStatus();
}

}  // namespace kvtier::tiers
