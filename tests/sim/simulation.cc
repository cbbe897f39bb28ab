#include "tests/sim/simulation.h"

#include <algorithm>
#include <utility>

#include "kernels/host/checksum.h"
#include "tiers/page_checksum.h"

namespace kvtier::tiers::sim {
namespace {

constexpr size_t kChunks = 160;

std::shared_ptr<const DiskGeometry> MakeGeometry(const std::string& space,
                                                 uint32_t layers, uint32_t heads,
                                                 uint32_t page_bytes) {
  auto geometry = std::make_shared<DiskGeometry>();
  geometry->space = space;
  geometry->model_digest[0] = static_cast<uint8_t>(layers * 16 + heads);
  for (uint32_t i = 0; i < layers; ++i) {
    geometry->layers.push_back(
        {.kv_heads = heads, .page_bytes = page_bytes, .abstract_bytes = 100 + i});
  }
  return geometry;
}

}  // namespace

bool StepExecutor::Step(Random& random) {
  if (queue_.empty()) return false;
  std::swap(queue_[Below(random, queue_.size())], queue_.back());
  const std::function<void()> work = std::move(queue_.back());
  queue_.pop_back();
  work();
  return true;
}

Simulation::Simulation(uint64_t seed, DiskBug bug)
    : seed_(seed), bug_(bug), random_(seed) {
  geometries_ = {MakeGeometry("a", 1, 1, 4096), MakeGeometry("b", 2, 1, 1000),
                 MakeGeometry("a", 1, 3, 3000)};
  for (size_t i = 0; i < kChunks; ++i) {
    Chunk chunk;
    chunk.name.bytes[0] = static_cast<uint8_t>(i);
    chunk.name.bytes[1] = static_cast<uint8_t>(seed);
    chunk.name.bytes[31] = 1;
    // Trees: most chunks continue one of the same geometry, often one that others do too.
    chunk.geometry = i % geometries_.size();
    if (i >= 9 && Below(random_, 8) != 0) {
      chunk.parent = i - 3 * (1 + Below(random_, std::min<size_t>(4, i / 3)));
    }
    by_name_[chunk.name.bytes] = i;
    chunks_.push_back(chunk);
  }
}

Simulation::~Simulation() { Close(); }

void Simulation::Fail(const std::string& what) {
  if (!result_.failure.empty()) return;
  result_.failure = "seed " + std::to_string(seed_) + ", cycle " +
                    std::to_string(result_.cycles) + ": " + what;
}

SimulationResult Simulation::Run(uint64_t cycles) {
  while (result_.cycles < cycles && result_.failure.empty()) {
    Cycle();
    ++result_.cycles;
  }
  return result_;
}

void Simulation::Cycle() {
  if (!Open()) return;
  Check();
  if (!result_.failure.empty()) return;
  if (Below(random_, 3) == 0) files_->PowerOffAfter(Below(random_, 60));
  Work();
  if (!result_.failure.empty()) return;
  Crash();
}

bool Simulation::Open() {
  io_ = std::make_unique<VirtualBlockIo>(segments_, Completion::kByStep);
  files_ = VirtualFiles::Create(files_image_);
  if (Below(random_, 8) == 0) files_->PowerOffAfter(Below(random_, 40));
  DiskTierOptions options;
  options.directory = "/disk";
  options.capacity_bytes = kCapacity;
  options.staging_bytes = 128 << 10;
  options.catalog_cache_bytes = 64 << 10;
  options.scrub_bytes_per_second = 0;
  options.bug = bug_;
  auto tier = DiskTier::Open(options, io_.get(), files_->env(), &executor_);
  if (tier.ok()) {
    tier_ = *std::move(tier);
    files_->PowerOffAfter(UINT64_MAX);
    return true;
  }
  if (!files_->is_off()) {
    Fail("open: " + tier.status().ToString());
    return false;
  }
  ++result_.crashes_in_open;
  Drain();
  Crash();
  return false;
}

size_t Simulation::Writable(size_t index) {
  if (Below(random_, 8) == 0) return index;
  while (const std::optional<size_t> parent = chunks_[index].parent) {
    if (chunks_[*parent].writing || tier_->Contains(chunks_[*parent].name)) break;
    index = *parent;
  }
  return index;
}

void Simulation::StartWrite(size_t index) {
  Chunk& chunk = chunks_[index];
  if (chunk.writing) return;
  chunk.writing = true;
  const uint64_t attempt = ++chunk.attempts;
  auto content = std::make_shared<Content>(ContentOf(index, attempt));
  DiskWrite write;
  write.name = chunk.name;
  if (chunk.parent) write.parent = chunks_[*chunk.parent].name;
  write.geometry = geometries_[chunk.geometry];
  for (const auto& abstract : content->abstracts)
    write.abstracts.push_back(abstract.data());
  size_t page = 0;
  for (uint32_t layer = 0; layer < write.geometry->layers.size(); ++layer) {
    for (uint32_t head = 0; head < write.geometry->layers[layer].kv_heads; ++head) {
      const auto& bytes = content->pages[page++];
      write.pages.push_back(bytes.data());
      write.page_crcs.push_back(kernels::Crc32c(
          PageSeed(chunk.name, LayerIndex(layer), head), bytes.data(), bytes.size()));
    }
  }
  write.keep = content;
  ++callbacks_expected_;
  const bool was_there = tier_->Contains(chunk.name);
  tier_->Write(std::move(write),
               [this, index, attempt, was_there](absl::StatusOr<DiskChunk> done) {
                 --callbacks_expected_;
                 Chunk& written = chunks_[index];
                 written.writing = false;
                 if (!done.ok()) {
                   const bool allowed = absl::IsFailedPrecondition(done.status()) ||
                                        absl::IsResourceExhausted(done.status()) ||
                                        (faulty_ && absl::IsUnavailable(done.status())) ||
                                        files_->is_off();
                   if (!allowed) Fail("write: " + done.status().ToString());
                   return;
                 }
                 if (!was_there) {
                   written.last_acknowledged = attempt;
                   ++acknowledged_in_cycle_;
                   ++result_.acknowledged;
                 }
                 written.present = true;
                 if (Below(random_, 4) == 0) pinned_.push_back(*std::move(done));
               });
}

void Simulation::StartFill() {
  const size_t from = Below(random_, chunks_.size());
  for (size_t i = 0; i < chunks_.size(); ++i) {
    const size_t index = (from + i) % chunks_.size();
    const Chunk& chunk = chunks_[index];
    if (!chunk.damaged || tier_->Contains(chunk.name)) continue;
    return StartWrite(Writable(index));
  }
}

void Simulation::StartRead(size_t index) {
  std::optional<DiskChunk> found = tier_->Find(chunks_[index].name);
  if (!found) return;
  tier_->Touch(*found, Below(random_, 2) == 0 ? ChunkUse::kFound : ChunkUse::kStill);
  ReadAll(index, *std::move(found), [this](std::string wrong, uint64_t) {
    if (!wrong.empty() && !files_->is_off()) Fail(wrong);
  });
}

void Simulation::StartRemove(size_t index) {
  if (!tier_->Contains(chunks_[index].name)) return;
  ++callbacks_expected_;
  tier_->Remove(chunks_[index].name, [this](absl::Status status) {
    --callbacks_expected_;
    if (status.ok()) ++removed_in_cycle_;
  });
}

bool Simulation::Step() {
  const bool executor_first = Below(random_, 2) == 0;
  if (executor_first && executor_.Step(random_)) return true;
  if (io_->Step(random_)) return true;
  return !executor_first && executor_.Step(random_);
}

void Simulation::Drain() {
  while (Step() || executor_.Step(random_)) {
  }
}

// Write and sync errors, a full disk; and time, in which the tier tries again.
void Simulation::Disturb() {
  const absl::Status error = absl::UnavailableError("disturbed");
  switch (Below(random_, 5)) {
    case 0:
      io_->FailNext(IoKind::kWrite, 1, error);
      break;
    case 1:
      io_->FailNext(IoKind::kSync, 1, error);
      break;
    case 2:
      files_->SetFull(Below(random_, 2) == 0);
      break;
    case 3:
      files_->SetSyncsFail(Below(random_, 2) == 0);
      break;
    default:
      now_ += absl::Minutes(2);
      tier_->Tick(now_);
      break;
  }
}

// After this the tier is as good as new.
void Simulation::EndDisturbances() {
  if (!faulty_) return;
  io_->FailNext(IoKind::kWrite, 0, absl::OkStatus());
  io_->FailNext(IoKind::kSync, 0, absl::OkStatus());
  files_->SetFull(false);
  files_->SetSyncsFail(false);
  for (int i = 0; i < 3; ++i) {
    now_ += absl::Minutes(2);
    tier_->Tick(now_);
    Drain();
  }
}

void Simulation::Work() {
  faulty_ = Below(random_, 4) == 0;
  const uint64_t actions = Below(random_, 60);
  // Near chunks follow each other, as in a prefill; sometimes one jumps elsewhere.
  size_t at = Below(random_, chunks_.size());
  for (uint64_t i = 0; i < actions && !files_->is_off(); ++i) {
    at = Below(random_, 4) == 0 ? Below(random_, chunks_.size())
                                : (at + 1) % chunks_.size();
    const uint64_t action = Below(random_, 20);
    if (action < 11) StartWrite(Writable(at));
    if (action >= 11 && action < 14) StartRead(at);
    if (action == 14 || action == 15) StartRemove(at);
    if (action == 16 && !pinned_.empty()) pinned_.pop_back();
    if (action == 17) Damage(at);
    if (action > 17) StartFill();
    if (faulty_ && Below(random_, 6) == 0) Disturb();
    if (Below(random_, 6) == 0) {  // heat goes to the catalog
      now_ += absl::Milliseconds(200);
      tier_->Tick(now_);
    }
    for (uint64_t steps = Below(random_, 8); steps > 0; --steps) Step();
    if (pinned_.size() > 6) pinned_.erase(pinned_.begin());
  }
  if (Below(random_, 3) != 0 || files_->is_off()) return;
  Drain();
  if (files_->is_off()) return;
  pinned_.clear();
  Drain();
  EndDisturbances();
  if (!files_->is_off()) CheckCounts();
}

void Simulation::Crash() {
  if (files_->is_off()) ++result_.crashes_in_catalog;
  // What was not found any more when power went may be found again or not.
  for (Chunk& chunk : chunks_) {
    if (tier_ != nullptr && !tier_->Contains(chunk.name)) chunk.present = false;
  }
  files_image_ = files_->PowerOff(random_);
  io_->PowerOff(random_);
  segments_ = io_->Images();
  Close();
  if (callbacks_expected_ != 0) Fail("a callback didn't come at the power failure");
}

void Simulation::Close() {
  if (tier_ != nullptr) {
    result_.evicted += tier_->Stats().evicted_chunks;
    result_.filled += tier_->Stats().filled_chunks;
  }
  if (io_ != nullptr) Drain();
  pinned_.clear();
  if (io_ != nullptr) Drain();
  tier_.reset();
  io_.reset();
  files_.reset();
}

}  // namespace kvtier::tiers::sim
