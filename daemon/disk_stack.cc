#include "daemon/disk_stack.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "tiers/disk/catalog.h"
#include "tiers/disk/ring_io.h"
#include "tiers/disk/segment_files.h"

namespace kvtier::daemon {
namespace {

// Of writes, one thread copies, one waits for the catalog, one makes a segment and one
// finds out whether writing works again, so that one is left for the pages that queries
// wait for.
constexpr size_t kThreads = 5;
constexpr absl::Duration kTick = absl::Milliseconds(200);
// A small tier still has a few segments to reassign.
constexpr uint64_t kSegmentsMin = 8;
// Of host memory: buffers for reading and as many for writing, and the catalog's cache;
// but no more than a fast device has use for.
constexpr uint64_t kStagingShare = 64;
constexpr uint64_t kCatalogCacheShare = 128;
constexpr uint64_t kStagingBytesMin = uint64_t{256} << 10;
constexpr uint64_t kCatalogCacheBytesMin = uint64_t{64} << 10;

}  // namespace

DiskStack::DiskStack() : threads_(kThreads) {}

absl::StatusOr<std::unique_ptr<DiskStack>> DiskStack::Open(const Options& options) {
  std::unique_ptr<DiskStack> stack(new DiskStack());
  absl::StatusOr<std::unique_ptr<tiers::BlockIo>> io =
      tiers::OpenRingIo({.directory = options.directory, .deadline = options.deadline});
  if (!io.ok()) return io.status();
  stack->io_ = *std::move(io);
  tiers::DiskTierOptions tier_options;
  tier_options.directory = options.directory;
  tier_options.capacity_bytes = options.capacity_bytes;
  tier_options.scrub_bytes_per_second = options.scrub_bytes_per_second;
  tier_options.staging_bytes = std::clamp(options.host_capacity_bytes / kStagingShare,
                                          kStagingBytesMin, tier_options.staging_bytes);
  tier_options.catalog_cache_bytes =
      std::clamp(options.host_capacity_bytes / kCatalogCacheShare, kCatalogCacheBytesMin,
                 tier_options.catalog_cache_bytes);
  const uint64_t share =
      options.capacity_bytes / kSegmentsMin / tiers::kIoUnit * tiers::kIoUnit;
  tier_options.segment_bytes = std::min(tier_options.segment_bytes, share);
  absl::StatusOr<std::unique_ptr<tiers::DiskTier>> tier =
      tiers::DiskTier::Open(tier_options, stack->io_.get(), nullptr, &stack->threads_);
  if (!tier.ok()) return tier.status();
  stack->tier_ = *std::move(tier);
  stack->ticker_ = std::thread([raw = stack.get()] { raw->Tick(); });
  return stack;
}

absl::StatusOr<uint64_t> DiskStack::Wipe(const std::string& directory) {
  // The catalog first: only it knows whether somebody uses the directory. Segments
  // without a catalog, should this end in between, are refused at the next start.
  if (absl::Status s = tiers::Catalog::Destroy(directory); !s.ok()) return s;
  return tiers::SegmentFiles(directory, /*buffered=*/true).RemoveAll();
}

DiskStack::~DiskStack() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  if (ticker_.joinable()) ticker_.join();
}

void DiskStack::Tick() {
  absl::MutexLock lock(&mu_);
  while (!mu_.AwaitWithTimeout(absl::Condition(&stopping_), kTick)) {
    mu_.Unlock();
    const absl::Time now = absl::Now();
    tier_->Tick(now);
    health_.Update(tier_->Stats().degraded, now);
    mu_.Lock();
  }
}

std::vector<std::string> DiskStack::Complaints() const {
  std::vector<std::string> complaints = io_->Downgrades();
  for (tiers::DiskDegraded& one : tier_->Stats().degraded) {
    complaints.push_back(std::move(one.message));
  }
  return complaints;
}

}  // namespace kvtier::daemon
