#include "daemon/store.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "daemon/disk_stack.h"
#include "daemon/helper_threads.h"
#include "daemon/namespace_impl.h"
#include "kernels/base/mutex.h"
#include "tiers/directory.h"

namespace kvtier::daemon {
namespace {

constexpr uint64_t kSystemPageBytes = 4096;
constexpr size_t kNamespaceNameBytesMax = 64;

bool ValidName(const std::string& name) {
  return !name.empty() && name.size() <= kNamespaceNameBytesMax &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") ==
             std::string::npos;
}

// The caller's thread works too. More than some don't help: a layer has few kv heads.
size_t HelperCount() {
  constexpr size_t kHelpersMax = 15;
  const size_t cores = std::thread::hardware_concurrency();
  return std::clamp<size_t>(cores, 1, kHelpersMax + 1) - 1;
}

class StoreImpl final : public Store {
 public:
  //   disk: null, if none is configured
  StoreImpl(const StoreOptions& options, std::unique_ptr<DiskStack> disk)
      : disk_(std::move(disk)),
        budget_(options.host_capacity_bytes),
        host_(&budget_,
              tiers::HostTierOptions{.region_bytes = options.host_region_bytes}),
        directory_(&budget_, &host_, disk_ == nullptr ? nullptr : disk_->tier()) {
    SetLimits(options);
  }

  // ResourceExhausted: the disk tier's own memory does not fit.
  absl::Status ChargeDisk() {
    return disk_ == nullptr ? absl::OkStatus() : directory_.ChargeDisk();
  }

  const StoreLimits& limits() const override { return limits_; }

  absl::Status Reconfigure(const StoreOptions& options) override {
    if (absl::Status s = options.Validate(); !s.ok()) return s;
    SetLimits(options);
    budget_.set_capacity_bytes(options.host_capacity_bytes);
    directory_.FitBudget();
    return absl::OkStatus();
  }

  absl::StatusOr<Namespace*> AddNamespace(std::string name) override {
    if (!ValidName(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("a namespace's name has 1 to ", kNamespaceNameBytesMax,
                       " characters of [a-z0-9_-]; this one doesn't: \"", name, "\""));
    }
    MutexLock lock(&mu_);
    for (const std::unique_ptr<NamespaceImpl>& other : namespaces_) {
      if (other->name() != name) continue;
      return absl::AlreadyExistsError(absl::StrCat("namespace ", name, " exists"));
    }
    const tiers::NamespaceIndex index(static_cast<uint32_t>(namespaces_.size()));
    namespaces_.push_back(std::make_unique<NamespaceImpl>(
        std::move(name), index,
        NamespaceImpl::Environment{.directory = &directory_,
                                   .disk = disk_ == nullptr ? nullptr : disk_->tier(),
                                   .store_counters = &counters_,
                                   .last_sequence = &last_sequence_,
                                   .limits = &limits_,
                                   .helpers = &helpers_}));
    return namespaces_.back().get();
  }

  std::vector<Namespace*> Namespaces() const override {
    MutexLock lock(&mu_);
    std::vector<Namespace*> namespaces;
    for (const auto& space : namespaces_) namespaces.push_back(space.get());
    return namespaces;
  }

  std::vector<TierStats> Tiers() const override {
    const tiers::DirectoryStats directory = directory_.Stats();
    TierStats host;
    host.tier = "host";
    host.capacity_bytes = budget_.capacity_bytes();
    host.used_bytes = budget_.used_bytes();
    host.pages = directory.pages;
    host.chunks = directory.chunks;
    host.hit_chunks = counters_.hit_chunks.value();
    host.miss_chunks = counters_.miss_chunks.value();
    host.evicted_chunks = directory.evicted_chunks;
    constexpr const char* kReasons[tiers::kEvictReasons] = {"room", "asked", "capacity"};
    for (size_t reason = 0; reason < tiers::kEvictReasons; ++reason) {
      host.evictions.push_back({kReasons[reason], directory.evicted_for[reason]});
    }
    host.written_bytes = counters_.written_bytes.value();
    host.read_bytes = counters_.read_bytes.value();
    host.dropped_pages = directory.dropped_pages;
    if (disk_ == nullptr) return {host};
    return {host, Disk(directory)};
  }

  void WatchDisk(std::function<void(const DiskEvent&)> watcher) override {
    if (disk_ != nullptr) disk_->Watch(std::move(watcher));
  }

  absl::Status Flush() override { return directory_.Flush(); }
  void StartDraining() override { limits_.draining = true; }

  uint64_t Evict(uint64_t bytes) override { return directory_.Evict(bytes); }

  absl::StatusOr<VerifyResult> Verify(const std::string& tier) override {
    VerifyResult result;
    if (tier.empty() || tier == "host") {
      const tiers::Directory::VerifyResult host = directory_.Verify();
      result.pages += host.pages;
      result.bad_pages += host.bad_pages;
    } else if (tier != "disk" || disk_ == nullptr) {
      return absl::NotFoundError(
          absl::StrCat("there is no tier '", tier, "': `kvtierctl status` lists them"));
    }
    if (disk_ != nullptr && tier != "host") {
      tiers::DiskTier::VerifyResult on_disk = disk_->tier()->Verify();
      result.pages += on_disk.pages;
      result.bad_pages += on_disk.bad_chunks;
      result.findings = std::move(on_disk.findings);
    }
    return result;
  }

 private:
  void SetLimits(const StoreOptions& options) {
    limits_.unsealed_bytes_max = options.unsealed_bytes_max;
    limits_.sequences_max = options.sequences_max;
    limits_.sessions_max = options.sessions_max;
    limits_.models_max = options.models_max;
  }

  TierStats Disk(const tiers::DirectoryStats& directory) const {
    const tiers::DiskStats stats = disk_->tier()->Stats();
    TierStats disk;
    disk.tier = "disk";
    disk.capacity_bytes = stats.capacity_bytes;
    disk.used_bytes = stats.used_bytes;
    disk.pages = stats.pages;
    disk.chunks = stats.chunks;
    disk.evicted_chunks = stats.evicted_chunks;
    disk.evictions.push_back({"room", stats.evicted_chunks});
    disk.written_bytes = stats.written_bytes;
    disk.read_bytes = stats.read_bytes;
    disk.lost_chunks = stats.lost_chunks;
    disk.hole_chunks = stats.hole_chunks;
    disk.unwritten_chunks = directory.unwritten_chunks;
    disk.writing_chunks = directory.writing_chunks;
    disk.complaints = disk_->Complaints();
    return disk;
  }

  // Constant after construction.
  // Outlives the directory.
  const std::unique_ptr<DiskStack> disk_;

  // Internally synchronized; each outlives what stands below it.
  StoreLimits limits_;
  StoreCounters counters_;
  std::atomic<uint64_t> last_sequence_{0};
  tiers::MemoryBudget budget_;
  tiers::HostTier host_;
  tiers::Directory directory_;
  HelperThreads helpers_{HelperCount()};

  mutable Mutex mu_;
  std::vector<std::unique_ptr<NamespaceImpl>> namespaces_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::Status StoreOptions::Validate() const {
  if (host_region_bytes == 0 || host_region_bytes % kSystemPageBytes != 0) {
    return absl::InvalidArgumentError(absl::StrCat("[host] region is ", host_region_bytes,
                                                   " bytes: make it a multiple of ",
                                                   kSystemPageBytes));
  }
  if (host_capacity_bytes < 2 * host_region_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "[host] capacity is ", host_capacity_bytes, " bytes: it must hold two regions ",
        "of ", host_region_bytes, ", one for rows and one for abstracts"));
  }
  if (unsealed_bytes_max == 0 || sequences_max == 0 || sessions_max == 0 ||
      models_max == 0) {
    return absl::InvalidArgumentError(
        "[host] unsealed_max and [limits] sequences_max, sessions_max and models_max "
        "must be at least 1");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Store>> Store::Create(const StoreOptions& options) {
  if (absl::Status s = options.Validate(); !s.ok()) return s;
  std::unique_ptr<DiskStack> disk;
  if (!options.disk_directory.empty()) {
    absl::StatusOr<std::unique_ptr<DiskStack>> opened =
        DiskStack::Open({.directory = options.disk_directory,
                         .capacity_bytes = options.disk_capacity_bytes,
                         .host_capacity_bytes = options.host_capacity_bytes,
                         .deadline = options.disk_deadline,
                         .scrub_bytes_per_second = options.disk_scrub_bytes});
    if (!opened.ok()) return opened.status();
    disk = *std::move(opened);
  }
  auto store = std::make_unique<StoreImpl>(options, std::move(disk));
  if (absl::Status s = store->ChargeDisk(); !s.ok()) return s;
  return store;
}

}  // namespace kvtier::daemon
