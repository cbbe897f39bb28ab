#include "tiers/host/host_tier.h"

#include <algorithm>
#include <cassert>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace kvtier::tiers {
namespace {

// Abstracts are read with vector loads.
constexpr size_t kSlotAlignment = 64;
constexpr size_t kSystemPageBytes = 4096;

size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

void Slot::Reset() {
  if (region_ == nullptr) return;
  Region* region = std::exchange(region_, nullptr);
  region->tier()->Free(region, index_);
}

HostTier::~HostTier() {
  // A slot left now would point to memory that is gone.
  assert(region_count() == 0);
}

absl::Status HostTier::Take(NamespaceIndex space, size_t slot_bytes, size_t count,
                            std::vector<Slot>* slots) {
  const SlotClass slot_class{space, RoundUp(slot_bytes, kSlotAlignment)};
  MutexLock lock(&mu_);
  RegionsOfClass& regions = classes_[slot_class];
  while (slots->size() < count) {
    if (regions.with_free_slots.empty()) {
      if (absl::Status s = AddRegion(slot_class, &regions); !s.ok()) {
        if (regions.all.empty()) classes_.erase(slot_class);
        return s;
      }
    }
    Region* region = *regions.with_free_slots.begin();
    const auto wanted = static_cast<uint32_t>(
        std::min<size_t>(count - slots->size(), region->free_count()));
    std::optional<SlotIndex> first = region->TakeRun(wanted);
    const uint32_t taken = first.has_value() ? wanted : 1;
    if (!first.has_value()) first = region->TakeRun(1);
    for (uint32_t i = 0; i < taken; ++i) {
      slots->emplace_back(region, SlotIndex(first->value() + i));
    }
    if (region->free_count() == 0) regions.with_free_slots.erase(region);
  }
  return absl::OkStatus();
}

absl::Status HostTier::AddRegion(const SlotClass& slot_class, RegionsOfClass* regions) {
  const size_t bytes =
      std::max(options_.region_bytes, RoundUp(slot_class.slot_bytes, kSystemPageBytes));
  std::optional<Charge> charge = Charge::Take(budget_, bytes);
  if (!charge.has_value()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no room for a region of ", bytes, " bytes: ", budget_->used_bytes(),
                     " of ", budget_->capacity_bytes(), " bytes are used"));
  }
  absl::StatusOr<std::unique_ptr<Region>> region =
      Region::Create(this, slot_class, bytes, *std::move(charge));
  if (!region.ok()) return region.status();
  Region* added = region->get();
  regions->all.emplace(added, *std::move(region));
  regions->with_free_slots.insert(added);
  return absl::OkStatus();
}

void HostTier::Free(Region* region, SlotIndex index) {
  std::unique_ptr<Region> empty;  // unmapped after the lock is gone
  MutexLock lock(&mu_);
  region->Free(index);
  auto of_class = classes_.find(region->slot_class());
  RegionsOfClass& regions = of_class->second;
  if (region->free_count() < region->slot_count()) {
    regions.with_free_slots.insert(region);
    return;
  }
  regions.with_free_slots.erase(region);
  auto found = regions.all.find(region);
  empty = std::move(found->second);
  regions.all.erase(found);
  if (regions.all.empty()) classes_.erase(of_class);
}

uint64_t HostTier::region_count() const {
  MutexLock lock(&mu_);
  uint64_t count = 0;
  for (const auto& [slot_class, regions] : classes_) count += regions.all.size();
  return count;
}

}  // namespace kvtier::tiers
