// The catalog's queue. One batch at a time, in the order of the decisions, so that after
// a kill the catalog is as it was between two of them: a child's record never without its
// parent's, a name's new record never before the old one's delete. Only a hole's record
// is replaced, by that of the write which fills it.

#include <utility>

#include "absl/strings/str_cat.h"
#include "tiers/disk/disk_engine.h"

namespace kvtier::tiers {

void DiskEngine::StartCatalog(Later* later) {
  if (catalog_busy_ || changes_.empty() || catalog_fault_.active) return;
  catalog_busy_ = true;
  later->work.push_back([this] { RunCatalog(); });
}

void DiskEngine::RunCatalog() {
  std::vector<Change> changes;
  std::vector<uint32_t> geometries;
  std::vector<CatalogChange> batch;
  {
    MutexLock lock(&mu_);
    changes.swap(changes_);
    std::vector<bool> listed(geometries_.size());
    for (const Change& change : changes) {
      if (change.write == nullptr) continue;
      const uint32_t id = change.change.record.geometry;
      if (geometries_[id]->persisted || listed[id]) continue;
      listed[id] = true;
      geometries.push_back(id);
      batch.push_back(PutOf(*change.write, CatalogChange::Kind::kPutGeometry));
    }
  }
  for (const Change& change : changes) batch.push_back(change.change);
  const absl::Status status = batch.empty() ? absl::OkStatus() : catalog_->Write(batch);
  OnCatalogDone(std::move(changes), geometries, status);
}

void DiskEngine::OnCatalogDone(std::vector<Change> changes,
                               const std::vector<uint32_t>& geometries,
                               const absl::Status& status) {
  Later later;
  {
    MutexLock lock(&mu_);
    catalog_busy_ = false;
    if (!status.ok()) {
      OnCatalogFailed(std::move(changes), status, &later);
    } else {
      Recover(catalog_fault_);
      for (const uint32_t id : geometries) geometries_[id]->persisted = true;
      for (Change& change : changes) {
        if (change.is_heat()) heat_queued_ = false;
        if (change.write != nullptr) Publish(change.write, &later);
        if (change.extent) space_.Free(*change.extent, /*was_leaving=*/false);
        if (change.removed != ChunkTable::kNone) {
          table_[change.removed].deleted = true;
          MaybeFree(change.removed);
        }
        for (ReadDone& done : change.done) {
          later.work.push_back([done = std::move(done)] { done(absl::OkStatus()); });
        }
      }
      StartCatalog(&later);
    }
    PumpWrites(&later);
  }
  Run(std::move(later));
}

// It is not known whether the batch is there. Its deletes are done again; its puts are
// taken back, by deletes or, where one fills a hole, by the hole's record, and until that
// is durable the extents stay taken. Puts that were not tried just fail. Heats are
// forgotten.
void DiskEngine::OnCatalogFailed(std::vector<Change> changes, const absl::Status& status,
                                 Later* later) {
  const absl::Status unavailable = absl::UnavailableError(status.message());
  Degrade(catalog_fault_, status);
  std::vector<Change> queue;
  heat_queued_ = false;
  for (Change& change : changes) {
    if (change.is_heat()) continue;
    if (change.write == nullptr) {
      queue.push_back(std::move(change));
      continue;
    }
    Change undo;
    undo.change = {.kind = CatalogChange::Kind::kDeleteChunk, .name = change.change.name};
    if (const Index hole = change.write->hole; hole != ChunkTable::kNone) {
      undo.change.kind = CatalogChange::Kind::kPutChunk;
      undo.change.record = RecordOf(hole);
    }
    undo.extent = change.write->extent;
    queue.push_back(std::move(undo));
    FailWrite(change.write, unavailable, later);
  }
  for (Change& change : std::exchange(changes_, {})) {
    if (change.is_heat()) continue;
    if (change.write == nullptr) {
      queue.push_back(std::move(change));
      continue;
    }
    change.write->queued = false;
    FailWrite(change.write, unavailable, later);
  }
  changes_ = std::move(queue);
  FailWaiting(status, later);
}

}  // namespace kvtier::tiers
