// Heat on its way to the catalog, so that a restart evicts by what was known before.
//
// It is advice: written late, a little at a time, without a sync of its own, and dropped
// when the catalog fails. It goes through the catalog's queue, so that a chunk's heat is
// never written after its delete, and has a key of its own, so that it can't bring a
// record back in any case. Of what was never found again nothing is written: its
// generation says when it came.

#include <algorithm>
#include <utility>

#include "tiers/disk/disk_engine.h"

namespace kvtier::tiers {
namespace {

// In one Tick: a context of 128 thousand tokens in six seconds, at 5 Ticks a second, and
// 1.5 GB a day at most.
constexpr uint32_t kChangesPerTick = 64;
// In one Tick under the mutex: a million chunks are looked through in 50 s.
constexpr uint32_t kEntriesPerTick = 4096;
// A close takes well below a second.
constexpr uint32_t kChangesAtClose = 1 << 16;
constexpr uint32_t kChangesPerBatch = 1 << 12;

}  // namespace

std::vector<CatalogChange> DiskEngine::ChangedHeats(uint32_t changes_max,
                                                    uint32_t entries_max) {
  std::vector<CatalogChange> changes;
  entries_max = std::min(entries_max, table_.index_end());
  for (; entries_max > 0 && changes.size() < changes_max; --entries_max) {
    if (heat_cursor_ >= table_.index_end()) heat_cursor_ = 0;
    ChunkTable::Entry& entry = table_[heat_cursor_++];
    if (!entry.live || !entry.heat_changed) continue;
    entry.heat_changed = false;
    changes.push_back(
        {.kind = CatalogChange::Kind::kPutHeat, .name = entry.name, .heat = entry.heat});
  }
  return changes;
}

void DiskEngine::QueueHeats(Later* later) {
  if (heat_queued_ || catalog_fault_.active) return;
  for (CatalogChange& heat : ChangedHeats(kChangesPerTick, kEntriesPerTick)) {
    heat_queued_ = true;
    Change change;
    change.change = std::move(heat);
    changes_.push_back(std::move(change));
  }
  StartCatalog(later);
}

void DiskEngine::StoreHeatsAtClose() {
  for (uint32_t left = kChangesAtClose; left > 0; left -= kChangesPerBatch) {
    std::vector<CatalogChange> heats;
    {
      MutexLock lock(&mu_);
      if (catalog_fault_.active) return;
      heats = ChangedHeats(kChangesPerBatch, UINT32_MAX);
    }
    if (heats.empty() || !catalog_->Write(heats).ok()) return;
  }
}

}  // namespace kvtier::tiers
