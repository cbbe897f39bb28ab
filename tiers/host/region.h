// A region: host memory of one namespace, cut into slots of one size.
//
// It is a memfd that the daemon maps and then seals against growing, shrinking and
// further writable mappings, so that its descriptor can be handed to a process that may
// read the namespace and nothing else. The kernel takes memory only as it is touched.
// A region is taken and given back as a whole.
//
// Thread safety: the memory is its slots' owners'; the table of free slots is guarded
// by the HostTier that owns the region.

#ifndef KVTIER_TIERS_HOST_REGION_H_
#define KVTIER_TIERS_HOST_REGION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/base/types.h"
#include "kernels/base/unique_fd.h"
#include "tiers/memory_budget.h"

namespace kvtier::tiers {

class HostTier;

using NamespaceIndex = StrongInt<struct NamespaceIndexTag, uint32_t>;
using SlotIndex = StrongInt<struct SlotIndexTag, uint32_t>;

// What a region's slots are for.
struct SlotClass {
  NamespaceIndex space;
  size_t slot_bytes = 0;

  auto operator<=>(const SlotClass&) const = default;
};

class Region {
 public:
  // Maps and seals. `charge` covers region_bytes and is released with the region.
  // ResourceExhausted, ...: as ErrnoToStatus says of memfd_create, ftruncate, mmap.
  static absl::StatusOr<std::unique_ptr<Region>> Create(HostTier* tier,
                                                        SlotClass slot_class,
                                                        size_t region_bytes,
                                                        Charge charge);
  Region(const Region&) = delete;  // owns a mapping
  Region& operator=(const Region&) = delete;
  ~Region();

  HostTier* tier() const { return tier_; }
  const SlotClass& slot_class() const { return slot_class_; }
  int fd() const { return fd_.get(); }
  std::byte* slot(SlotIndex index) const {
    return base_ + index.value() * slot_class_.slot_bytes;
  }

  uint32_t slot_count() const { return slot_count_; }
  uint32_t free_count() const { return free_count_; }

  // The lowest run of `count` free slots is taken; nothing if there is none.
  std::optional<SlotIndex> TakeRun(uint32_t count);
  void Free(SlotIndex index);

 private:
  Region(HostTier* tier, SlotClass slot_class, UniqueFd fd, std::byte* base,
         size_t region_bytes, Charge charge);

  // Constant after construction.
  HostTier* const tier_;
  const SlotClass slot_class_;
  const UniqueFd fd_;
  std::byte* const base_;
  const size_t region_bytes_;
  const uint32_t slot_count_;
  const Charge charge_;

  // Guarded by the tier's mutex.
  std::vector<bool> taken_;
  uint32_t free_count_;
  uint32_t first_free_hint_ = 0;  // no slot below it is free
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_HOST_REGION_H_
