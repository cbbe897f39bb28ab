#include "tiers/host/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <utility>

#include "kernels/base/errno_status.h"

namespace kvtier::tiers {

absl::StatusOr<std::unique_ptr<Region>> Region::Create(HostTier* tier,
                                                       SlotClass slot_class,
                                                       size_t region_bytes,
                                                       Charge charge) {
  UniqueFd fd(::memfd_create("kvtier-region", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ErrnoToStatus(errno, "memfd_create");
  if (::ftruncate(fd.get(), static_cast<off_t>(region_bytes)) != 0) {
    return ErrnoToStatus(errno, "ftruncate", "memfd");
  }
  void* base = ::mmap(nullptr, region_bytes, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
  if (base == MAP_FAILED) return ErrnoToStatus(errno, "mmap", "memfd");
  std::unique_ptr<Region> region(new Region(tier, slot_class, std::move(fd),
                                            static_cast<std::byte*>(base), region_bytes,
                                            std::move(charge)));
  // Only after the mapping: the seal forbids later writable ones, ours included.
  if (::fcntl(region->fd_.get(), F_ADD_SEALS,
              F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return ErrnoToStatus(errno, "F_ADD_SEALS", "memfd");
  }
  // A crash must not write prompts into a core file.
  ::madvise(base, region_bytes, MADV_DONTDUMP);
  return region;
}

Region::Region(HostTier* tier, SlotClass slot_class, UniqueFd fd, std::byte* base,
               size_t region_bytes, Charge charge)
    : tier_(tier),
      slot_class_(slot_class),
      fd_(std::move(fd)),
      base_(base),
      region_bytes_(region_bytes),
      slot_count_(static_cast<uint32_t>(region_bytes / slot_class.slot_bytes)),
      charge_(std::move(charge)),
      taken_(slot_count_, false),
      free_count_(slot_count_) {}

Region::~Region() { ::munmap(base_, region_bytes_); }

std::optional<SlotIndex> Region::TakeRun(uint32_t count) {
  if (free_count_ < count) return std::nullopt;
  uint32_t run = 0;
  bool seen_free = false;
  for (uint32_t i = first_free_hint_; i < slot_count_; ++i) {
    if (taken_[i]) {
      run = 0;
      continue;
    }
    if (!seen_free) first_free_hint_ = i;
    seen_free = true;
    if (++run < count) continue;
    const uint32_t begin = i + 1 - count;
    for (uint32_t slot = begin; slot <= i; ++slot) taken_[slot] = true;
    free_count_ -= count;
    if (begin == first_free_hint_) first_free_hint_ = i + 1;
    return SlotIndex(begin);
  }
  return std::nullopt;
}

void Region::Free(SlotIndex index) {
  assert(taken_[index.value()]);
  taken_[index.value()] = false;
  ++free_count_;
  if (index.value() < first_free_hint_) first_free_hint_ = index.value();
}

}  // namespace kvtier::tiers
