// The host tier: regions of memory, cut into slots, within a budget.
//
// A class of slots is (namespace, slot size): namespaces never share a region. Regions
// appear when a class has no free slot and the budget has room; one whose last slot is
// freed is given back at once, so its memory can serve any other class. A slot larger
// than a region gets a region of its own size. Consecutive slots are preferred for what
// is taken in one call and never promised.
//
// The tier evicts nothing: it says ResourceExhausted, and the Directory, which knows
// what is cold, frees chunks and asks again.
//
// Thread safety: internally synchronized; a Slot belongs to one owner at a time. The
// tier must outlive its slots.

#ifndef KVTIER_TIERS_HOST_HOST_TIER_H_
#define KVTIER_TIERS_HOST_HOST_TIER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "kernels/base/mutex.h"
#include "tiers/host/region.h"
#include "tiers/memory_budget.h"

namespace kvtier::tiers {

// One slot; gives it back when it ends.
class Slot {
 public:
  Slot() = default;
  Slot(Region* region, SlotIndex index) : region_(region), index_(index) {}
  Slot(Slot&& other) noexcept
      : region_(std::exchange(other.region_, nullptr)), index_(other.index_) {}
  Slot& operator=(Slot&& other) noexcept {
    if (this != &other) {
      Reset();
      region_ = std::exchange(other.region_, nullptr);
      index_ = other.index_;
    }
    return *this;
  }
  Slot(const Slot&) = delete;  // would be freed twice
  Slot& operator=(const Slot&) = delete;
  ~Slot() { Reset(); }

  bool valid() const { return region_ != nullptr; }
  std::byte* data() const { return region_->slot(index_); }
  void Reset();

 private:
  Region* region_ = nullptr;
  SlotIndex index_;
};

struct HostTierOptions {
  // Unit in which memory is taken and given back. Small enough that a small budget
  // holds several, large enough that mapping one costs nothing beside filling it.
  size_t region_bytes = size_t{8} << 20;
};

class HostTier {
 public:
  // `budget` must outlive the tier.
  HostTier(MemoryBudget* budget, HostTierOptions options)
      : budget_(budget), options_(options) {}
  HostTier(const HostTier&) = delete;  // slots point to it
  HostTier& operator=(const HostTier&) = delete;
  ~HostTier();

  // Appends to `slots` until it holds `count` of them. What was added before an error
  // stays: the caller makes room and calls again, or lets go of all.
  //   slot_bytes: rounded up to a multiple of 64; slots are aligned to 64
  // ResourceExhausted: the budget, or the system, has no more.
  absl::Status Take(NamespaceIndex space, size_t slot_bytes, size_t count,
                    std::vector<Slot>* slots) ABSL_LOCKS_EXCLUDED(mu_);

  uint64_t region_count() const ABSL_LOCKS_EXCLUDED(mu_);
  uint64_t region_bytes() const { return options_.region_bytes; }

 private:
  friend class Slot;

  struct RegionsOfClass {
    std::map<Region*, std::unique_ptr<Region>> all;
    std::set<Region*> with_free_slots;
  };

  void Free(Region* region, SlotIndex index) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status AddRegion(const SlotClass& slot_class, RegionsOfClass* regions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Constant after construction.
  MemoryBudget* const budget_;
  const HostTierOptions options_;

  mutable Mutex mu_;
  std::map<SlotClass, RegionsOfClass> classes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_HOST_HOST_TIER_H_
