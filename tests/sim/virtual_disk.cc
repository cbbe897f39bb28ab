#include "tests/sim/virtual_disk.h"

#include <cstdlib>
#include <cstring>
#include <utility>

namespace kvtier::tiers::sim {
namespace {

absl::Status PowerIsOff() { return absl::UnavailableError("the power is off"); }

void CopyUnit(std::vector<std::byte>& to, const std::byte* from, uint64_t unit) {
  std::memcpy(to.data() + unit * kIoUnit, from, kIoUnit);
}

bool Survives(Survival survival, Random& random) {
  return survival == Survival::kAll || (survival == Survival::kAny && random() % 2 == 0);
}

}  // namespace

VirtualBlockIo::VirtualBlockIo(SegmentImages images, Completion completion)
    : completion_(completion) {
  for (auto& [number, image] : images) {
    files_[number] = {.current = image.bytes, .durable = image.bytes, .dirty = {}};
  }
}

absl::Status VirtualBlockIo::CreateSegment(SegmentNumber segment, uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mu_);
  if (off_) return PowerIsOff();
  if (!create_error_.ok()) return create_error_;
  if (files_.contains(segment)) return absl::AlreadyExistsError("segment");
  const std::vector<std::byte> zeros(bytes);
  files_[segment] = {.current = zeros, .durable = zeros, .dirty = {}};
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BlockIo::Segment>> VirtualBlockIo::OpenSegments() {
  std::lock_guard<std::mutex> lock(mu_);
  if (off_) return PowerIsOff();
  std::vector<Segment> segments;
  for (const auto& [number, file] : files_)
    segments.push_back({number, file.current.size()});
  return segments;
}

absl::Status VirtualBlockIo::RemoveSegment(SegmentNumber segment) {
  std::lock_guard<std::mutex> lock(mu_);
  if (off_) return PowerIsOff();
  return files_.erase(segment) == 1 ? absl::OkStatus() : absl::NotFoundError("segment");
}

absl::Status VirtualBlockIo::Probe() {
  std::lock_guard<std::mutex> lock(mu_);
  if (off_) return PowerIsOff();
  ++probes_;
  for (const IoKind kind : {IoKind::kWrite, IoKind::kSync}) {
    auto& [failing, status] = failures_[kind];
    if (failing == 0) continue;
    --failing;
    return status;
  }
  return absl::OkStatus();
}

VirtualBlockIo::Waiting VirtualBlockIo::Accept(IoRequest request) {
  Waiting waiting;
  ++counts_[request.kind];
  if (request.kind == IoKind::kRead) read_sizes_.push_back(request.bytes);
  if (request.kind == IoKind::kSync) {
    // What it covers: the writes that completed before now.
    const File& file = files_[request.segment];
    for (const auto& [unit, version] : file.dirty) {
      const std::byte* from = file.current.data() + unit * kIoUnit;
      waiting.covered[unit] = {.version = version, .bytes = {from, from + kIoUnit}};
    }
  }
  waiting.request = std::move(request);
  return waiting;
}

void VirtualBlockIo::Submit(std::vector<IoRequest> requests) {
  std::vector<Waiting> now;
  {
    std::lock_guard<std::mutex> lock(mu_);
    for (IoRequest& request : requests) {
      auto& queue = completion_ == Completion::kAutomatic ? now : waiting_;
      queue.push_back(Accept(std::move(request)));
    }
  }
  for (Waiting& waiting : now) Complete(std::move(waiting));
}

absl::Status VirtualBlockIo::Perform(Waiting& waiting) {
  std::lock_guard<std::mutex> lock(mu_);
  if (off_) return PowerIsOff();
  const IoRequest& request = waiting.request;
  auto& [failing, status] = failures_[request.kind];
  if (failing > 0) {
    --failing;
    return status;
  }
  const auto it = files_.find(request.segment);
  if (it == files_.end()) return absl::InternalError("a request on no segment");
  File& file = it->second;
  if (request.kind == IoKind::kSync) {
    for (const auto& [unit, covered] : waiting.covered) {
      CopyUnit(file.durable, covered.bytes.data(), unit);
      const auto dirty = file.dirty.find(unit);
      if (dirty != file.dirty.end() && dirty->second == covered.version) {
        file.dirty.erase(dirty);
      }
    }
    return absl::OkStatus();
  }
  if (request.offset % kIoUnit != 0 || request.bytes % kIoUnit != 0 ||
      reinterpret_cast<uintptr_t>(request.data) % kIoUnit != 0 ||
      request.offset + request.bytes > file.current.size()) {
    return absl::InternalError("a request that is misaligned or out of its segment");
  }
  if (request.kind == IoKind::kRead) {
    std::memcpy(request.data, file.current.data() + request.offset, request.bytes);
    return absl::OkStatus();
  }
  std::memcpy(file.current.data() + request.offset, request.data, request.bytes);
  for (uint64_t at = 0; at < request.bytes; at += kIoUnit) {
    file.dirty[(request.offset + at) / kIoUnit] = ++version_;
  }
  return absl::OkStatus();
}

void VirtualBlockIo::Complete(Waiting waiting) {
  const absl::Status status = Perform(waiting);
  waiting.request.done(status);
  if (!waiting.request.released) return;
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (hold_) {
      held_.push_back(std::move(waiting.request.released));
      return;
    }
  }
  waiting.request.released();
}

absl::StatusOr<BlockIo::Buffer> VirtualBlockIo::NewBuffer(size_t bytes) {
  auto* data = static_cast<std::byte*>(std::aligned_alloc(kIoUnit, bytes));
  return Buffer(data, bytes, [data] { std::free(data); });
}

bool VirtualBlockIo::Step(Random& random) {
  Waiting chosen;
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (waiting_.empty()) return false;
    std::swap(waiting_[Below(random, waiting_.size())], waiting_.back());
    chosen = std::move(waiting_.back());
    waiting_.pop_back();
  }
  Complete(std::move(chosen));
  return true;
}

size_t VirtualBlockIo::under_way() const {
  std::lock_guard<std::mutex> lock(mu_);
  return waiting_.size();
}

void VirtualBlockIo::PowerOff(Random& random) {
  std::lock_guard<std::mutex> lock(mu_);
  off_ = true;
  const auto survival = static_cast<Survival>(Below(random, 3));
  for (const auto& [number, file] : files_) {
    SegmentImage& image = survived_[number];
    image.bytes = file.durable;
    for (const auto& [unit, version] : file.dirty) {
      if (!Survives(survival, random)) continue;
      CopyUnit(image.bytes, file.current.data() + unit * kIoUnit, unit);
    }
  }
  for (const Waiting& waiting : waiting_) {
    const IoRequest& request = waiting.request;
    if (request.kind != IoKind::kWrite || !survived_.contains(request.segment)) continue;
    for (uint64_t at = 0; at < request.bytes; at += kIoUnit) {
      if (!Survives(survival, random)) continue;
      CopyUnit(survived_[request.segment].bytes, request.data + at,
               (request.offset + at) / kIoUnit);
    }
  }
}

SegmentImages VirtualBlockIo::Images() const {
  std::lock_guard<std::mutex> lock(mu_);
  if (off_) return survived_;
  SegmentImages images;
  for (const auto& [number, file] : files_) images[number].bytes = file.current;
  return images;
}

void VirtualBlockIo::FailNext(IoKind kind, int count, absl::Status status) {
  std::lock_guard<std::mutex> lock(mu_);
  failures_[kind] = {count, std::move(status)};
}

void VirtualBlockIo::HoldBuffers(bool hold) {
  std::lock_guard<std::mutex> lock(mu_);
  hold_ = hold;
}

size_t VirtualBlockIo::held() const {
  std::lock_guard<std::mutex> lock(mu_);
  return held_.size();
}

void VirtualBlockIo::ReleaseHeld() {
  std::vector<std::function<void()>> held;
  {
    std::lock_guard<std::mutex> lock(mu_);
    held.swap(held_);
  }
  for (const std::function<void()>& release : held) release();
}

void VirtualBlockIo::SetCreateError(absl::Status status) {
  std::lock_guard<std::mutex> lock(mu_);
  create_error_ = std::move(status);
}

void VirtualBlockIo::FlipByte(SegmentNumber segment, uint64_t offset) {
  std::lock_guard<std::mutex> lock(mu_);
  File& file = files_.at(segment);
  file.current[offset] ^= std::byte{1};
  file.durable[offset] ^= std::byte{1};
}

uint64_t VirtualBlockIo::probes() const {
  std::lock_guard<std::mutex> lock(mu_);
  return probes_;
}

uint64_t VirtualBlockIo::count(IoKind kind) const {
  std::lock_guard<std::mutex> lock(mu_);
  const auto it = counts_.find(kind);
  return it == counts_.end() ? 0 : it->second;
}

std::vector<uint64_t> VirtualBlockIo::read_sizes() const {
  std::lock_guard<std::mutex> lock(mu_);
  return read_sizes_;
}

uint64_t VirtualBlockIo::total_bytes() const {
  std::lock_guard<std::mutex> lock(mu_);
  uint64_t bytes = 0;
  for (const auto& [number, file] : files_) bytes += file.current.size();
  return bytes;
}

}  // namespace kvtier::tiers::sim
