// What goes on by itself: trying again after errors, scrubbing; and Verify.

#include <algorithm>
#include <utility>

#include "tiers/disk/disk_engine.h"

namespace kvtier::tiers {
namespace {

constexpr absl::Duration kPauseMin = absl::Milliseconds(500);
constexpr absl::Duration kPauseMax = absl::Minutes(1);
// Chunks under Verify's eyes at a time.
constexpr uint32_t kVerifyDepth = 4;
// A scrub that could not keep up does not catch up in a burst.
constexpr absl::Duration kScrubCreditMax = absl::Seconds(1);

}  // namespace

void DiskEngine::Degrade(Fault& fault, const absl::Status& status) {
  fault.message = std::string(status.message());
  if (fault.active) return;
  fault.active = true;
  fault.pause = std::clamp(fault.pause * 2, kPauseMin, kPauseMax);
  fault.retry_at = now_ + fault.pause;
}

void DiskEngine::Recover(Fault& fault) {
  if (!fault.message.empty()) fault = Fault();
}

void DiskEngine::StopWrites(const absl::Status& status, Later* later) {
  if (absl::IsCancelled(status)) return;
  Degrade(write_fault_, status);
  const absl::Status unavailable = absl::UnavailableError(status.message());
  for (const auto& geometry : geometries_) {
    for (const WriteRef& op : std::exchange(geometry->waiting, {})) {
      FailWrite(op, unavailable, later);
    }
  }
}

void DiskEngine::Tick(absl::Time now) {
  Later later;
  {
    MutexLock lock(&mu_);
    const absl::Duration passed =
        now_ == absl::UnixEpoch() ? absl::ZeroDuration() : now - now_;
    now_ = now;
    if (stopping_) return;
    for (Fault* fault : {&write_fault_, &create_fault_, &read_fault_}) {
      if (!fault->active || now < fault->retry_at) continue;
      // The next try tells; until it went well the message stays.
      fault->active = false;
      if (fault == &read_fault_) RetryUnreadable(&later);
    }
    if (catalog_fault_.active && now >= catalog_fault_.retry_at && !catalog_busy_) {
      catalog_busy_ = true;
      later.work.push_back([this] { RetryCatalog(); });
    }
    const double rate = static_cast<double>(options_.scrub_bytes_per_second);
    scrub_credit_bytes_ =
        std::min(scrub_credit_bytes_ +
                     rate * absl::ToDoubleSeconds(std::max(passed, absl::ZeroDuration())),
                 rate * absl::ToDoubleSeconds(kScrubCreditMax));
    Scrub(&later);
  }
  Run(std::move(later));
}

void DiskEngine::RetryCatalog() {
  absl::Status status = catalog_->Recover();
  if (status.ok()) {
    {
      MutexLock lock(&mu_);
      catalog_fault_.active = false;
    }
    RunCatalog();
    return;
  }
  Later later;
  {
    MutexLock lock(&mu_);
    catalog_busy_ = false;
    catalog_fault_.active = false;
    Degrade(catalog_fault_, status);
  }
  Run(std::move(later));
}

void DiskEngine::RetryUnreadable(Later* later) {
  std::vector<std::pair<ChunkName, uint64_t>> still;
  for (const auto& [name, generation] : unreadable_) {
    const Index index = table_.Find(name);
    if (index != ChunkTable::kNone && table_[index].generation == generation) {
      still.emplace_back(name, generation);
    }
  }
  unreadable_ = std::move(still);
  if (unreadable_.empty()) Recover(read_fault_);
  for (const auto& [name, generation] : unreadable_) {
    StartRead(
        WholeChunk(table_.Find(name), IoPriority::kScrub, [](const absl::Status&) {}),
        later);
  }
}

void DiskEngine::ReadsAgain(Index index) {
  table_[index].unreadable = false;
  const ChunkName& name = table_[index].name;
  std::erase_if(unreadable_, [&name](const auto& chunk) { return chunk.first == name; });
  if (unreadable_.empty()) Recover(read_fault_);
}

void DiskEngine::Scrub(Later* later) {
  if (scrubbing_ || scrub_credit_bytes_ <= 0 || table_.live_count() == 0) return;
  for (Index looked = 0; looked < table_.index_end(); ++looked) {
    if (scrub_cursor_ >= table_.index_end()) scrub_cursor_ = 0;
    const Index index = scrub_cursor_++;
    if (!table_[index].live || table_[index].unreadable) continue;
    const uint64_t bytes = GeometryOf(index).layout.extent_bytes();
    scrub_credit_bytes_ -= static_cast<double>(bytes);
    scrubbing_ = true;
    StartRead(WholeChunk(index, IoPriority::kScrub,
                         [this, bytes](const absl::Status&) {
                           Later more;
                           {
                             MutexLock lock(&mu_);
                             scrubbing_ = false;
                             counts_.scrubbed_bytes += bytes;
                             if (!stopping_) Scrub(&more);
                           }
                           Run(std::move(more));
                         }),
              later);
    return;
  }
}

DiskTier::VerifyResult DiskEngine::Verify(std::optional<std::string> space) {
  struct Progress {
    std::mutex mu;
    std::condition_variable changed;
    uint32_t under_way = 0;
    VerifyResult result;
  };
  const auto progress = std::make_shared<Progress>();
  const auto wait_below = [&](uint32_t limit) {
    std::unique_lock<std::mutex> lock(progress->mu);
    progress->changed.wait(lock, [&] { return progress->under_way < limit; });
  };
  for (Index index = 0;; ++index) {
    wait_below(kVerifyDepth);
    Later later;
    {
      MutexLock lock(&mu_);
      if (index >= table_.index_end() || stopping_) break;
      if (!table_[index].live) continue;
      const GeometryState& geometry = GeometryOf(index);
      if (space && geometry.geometry.space != *space) continue;
      {
        std::lock_guard<std::mutex> progress_lock(progress->mu);
        ++progress->under_way;
        ++progress->result.chunks;
        progress->result.pages += geometry.layout.page_count();
      }
      StartRead(WholeChunk(index, IoPriority::kScrub,
                           [progress](const absl::Status& status) {
                             std::lock_guard<std::mutex> done_lock(progress->mu);
                             if (!status.ok()) ++progress->result.bad_chunks;
                             --progress->under_way;
                             progress->changed.notify_all();
                           }),
                &later);
    }
    Run(std::move(later));
  }
  wait_below(1);
  return progress->result;
}

}  // namespace kvtier::tiers
