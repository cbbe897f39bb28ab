// What goes on by itself: trying again after errors, scrubbing; and Verify.

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tiers/disk/disk_engine.h"

namespace kvtier::tiers {
namespace {

constexpr absl::Duration kPauseMin = absl::Milliseconds(500);
constexpr absl::Duration kPauseMax = absl::Seconds(4);
// Chunks under Verify's eyes at a time.
constexpr uint32_t kVerifyDepth = 4;
// Bad chunks that Verify describes; all are counted.
constexpr size_t kFindingsMax = 32;
// Of a name: enough to tell chunks apart.
constexpr size_t kShownNameBytes = 6;
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
  FailWaiting(status, later);
}

void DiskEngine::FailWaiting(const absl::Status& status, Later* later) {
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
      // The next try tells; until it went well the message stays. It isn't left to who
      // may never come to write.
      fault->active = false;
      if (fault == &read_fault_) RetryUnreadable(&later);
      if (fault == &create_fault_ && CanCreateSegment()) StartCreate(&later);
      if (fault == &write_fault_ && !std::exchange(probing_, true)) {
        later.work.push_back([this] { RetryWriting(); });
      }
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
    QueueHeats(&later);
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

void DiskEngine::RetryWriting() {
  const absl::Status status = io_->Probe();
  MutexLock lock(&mu_);
  probing_ = false;
  // A chunk's own write that failed meanwhile knows better.
  if (write_fault_.active) return;
  if (status.ok()) {
    Recover(write_fault_);
  } else {
    Degrade(write_fault_, status);
  }
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
    const ChunkTable::Entry& entry = table_[index];
    if (!entry.live || entry.unreadable || entry.hole) continue;
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

// Shared with the callbacks.
struct DiskEngine::VerifyProgress {
  std::mutex mu;
  std::condition_variable changed;
  uint32_t under_way = 0;
  VerifyResult result;

  void Begin(uint32_t pages) {
    std::lock_guard<std::mutex> lock(mu);
    ++under_way;
    ++result.chunks;
    result.pages += pages;
  }
  void End(const std::string& who, const absl::Status& status) {
    std::lock_guard<std::mutex> lock(mu);
    --under_way;
    changed.notify_all();
    if (status.ok()) return;
    ++result.bad_chunks;
    if (result.findings.size() >= kFindingsMax) return;
    result.findings.push_back(absl::StrCat(who, ": ", status.message()));
  }
  void AwaitBelow(uint32_t limit) {
    std::unique_lock<std::mutex> lock(mu);
    changed.wait(lock, [&] { return under_way < limit; });
  }
};

DiskTier::VerifyResult DiskEngine::Verify(std::optional<std::string> space) {
  const auto progress = std::make_shared<VerifyProgress>();
  for (Index index = 0;; ++index) {
    progress->AwaitBelow(kVerifyDepth);
    Later later;
    {
      MutexLock lock(&mu_);
      if (index >= table_.index_end() || stopping_) break;
      if (!table_[index].live) continue;
      const GeometryState& geometry = GeometryOf(index);
      if (space && geometry.geometry.space != *space) continue;
      progress->Begin(geometry.layout.page_count());
      const ChunkName& name = table_[index].name;
      const std::string who = absl::StrCat(
          "chunk ",
          absl::BytesToHexString(
              {reinterpret_cast<const char*>(name.bytes.data()), kShownNameBytes}),
          " of namespace ", geometry.geometry.space);
      if (table_[index].hole) {
        progress->End(who, absl::DataLossError("a hole: it did not verify before, and "
                                               "nobody has computed it again"));
        continue;
      }
      StartRead(WholeChunk(index, IoPriority::kScrub,
                           [progress, who](const absl::Status& status) {
                             progress->End(who, status);
                           }),
                &later);
    }
    Run(std::move(later));
  }
  progress->AwaitBelow(1);
  return progress->result;
}

}  // namespace kvtier::tiers
