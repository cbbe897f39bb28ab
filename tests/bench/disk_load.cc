#include "tests/bench/disk_load.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/mutex.h"
#include "kernels/host/checksum.h"
#include "retrieval/abstract.h"
#include "tests/bench/geometry.h"
#include "tiers/disk/extent_layout.h"
#include "tiers/page_checksum.h"

namespace kvtier::bench {
namespace {

std::shared_ptr<const tiers::DiskGeometry> Geometry() {
  auto geometry = std::make_shared<tiers::DiskGeometry>();
  geometry->space = "bench";
  const retrieval::AbstractLayout layout =
      retrieval::AbstractLayout::For(Layer(), retrieval::AbstractSet());
  geometry->layers.assign(
      DiskLoad::kLayers,
      {.kv_heads = kKvHeads,
       .page_bytes = static_cast<uint32_t>(kChunkTokens * kTokenBytes / kKvHeads),
       .abstract_bytes = static_cast<uint32_t>(kKvHeads * layout.page_abstract_bytes)});
  return geometry;
}

std::vector<std::byte> Noise(size_t bytes) {
  std::vector<std::byte> noise(bytes);
  std::minstd_rand random(1);
  for (std::byte& b : noise) b = static_cast<std::byte>(random() >> 8);
  return noise;
}

// Calls under way, each of which starts the next one when it has ended.
class Flight {
 public:
  Flight(size_t count, const std::function<void(size_t, Ended)>& start)
      : count_(count), start_(start) {}

  absl::Status Run(size_t depth) {
    for (size_t i = 0; i < std::min(depth, count_); ++i) StartNext();
    MutexLock lock(&mu_);
    while (ended_ < count_) all_ended_.Wait(&mu_);
    return first_;
  }

 private:
  void StartNext() {
    size_t i;
    {
      MutexLock lock(&mu_);
      if (next_ == count_) return;
      i = next_++;
    }
    start_(i, [this](absl::Status status) {
      StartNext();
      MutexLock lock(&mu_);
      if (first_.ok()) first_ = std::move(status);
      if (++ended_ == count_) all_ended_.SignalAll();
    });
  }

  const size_t count_;
  const std::function<void(size_t, Ended)>& start_;
  Mutex mu_;
  CondVar all_ended_;
  size_t next_ ABSL_GUARDED_BY(mu_) = 0;
  size_t ended_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status first_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::Status InFlight(size_t count, size_t depth,
                      const std::function<void(size_t, Ended)>& start) {
  return Flight(count, start).Run(depth);
}

DiskLoad::DiskLoad(std::unique_ptr<const OwnDirectory> directory)
    : directory_(std::move(directory)), geometry_(Geometry()) {
  page_ = Noise(page_bytes());
  abstract_ = Noise(geometry_->layers[0].abstract_bytes);
  payload_bytes_ = abstracts_bytes() + uint64_t{kLayers} * heads() * page_bytes();
  extent_bytes_ = tiers::ExtentLayout(*geometry_).extent_bytes();
}

absl::StatusOr<std::unique_ptr<DiskLoad>> DiskLoad::Open(const std::string& directory,
                                                         uint64_t capacity_bytes) {
  auto own = OwnDirectory::Make(directory);
  if (!own.ok()) return own.status();
  std::unique_ptr<DiskLoad> load(new DiskLoad(*std::move(own)));
  auto stack = daemon::DiskStack::Open({.directory = load->directory(),
                                        .capacity_bytes = capacity_bytes,
                                        .deadline = absl::Seconds(30),
                                        .scrub_bytes_per_second = 0});
  if (!stack.ok()) return stack.status();
  load->stack_ = *std::move(stack);
  for (const std::string& complaint : load->stack_->Complaints()) {
    return absl::FailedPreconditionError(
        absl::StrCat("not the disk tier at its best: ", complaint));
  }
  return load;
}

tiers::DiskWrite DiskLoad::NewChunk() {
  tiers::DiskWrite write;
  ++chunks_made_;
  std::memcpy(write.name.bytes.data(), &chunks_made_, sizeof(chunks_made_));
  write.geometry = geometry_;
  write.abstracts.assign(kLayers, abstract_.data());
  write.pages.assign(size_t{kLayers} * heads(), page_.data());
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    for (uint32_t head = 0; head < heads(); ++head) {
      const uint32_t seed = tiers::PageSeed(write.name, LayerIndex(layer), head);
      write.page_crcs.push_back(kernels::Crc32c(seed, page_.data(), page_.size()));
    }
  }
  return write;
}

absl::Status DiskLoad::Write(const std::vector<tiers::DiskWrite>& chunks, size_t depth) {
  return InFlight(chunks.size(), depth, [&](size_t i, Ended ended) {
    tier().Write(chunks[i], [ended](absl::StatusOr<tiers::DiskChunk> chunk) {
      ended(chunk.status());
    });
  });
}

std::vector<tiers::DiskChunk> DiskLoad::Find(
    const std::vector<tiers::DiskWrite>& chunks) {
  std::vector<tiers::DiskChunk> found;
  for (const tiers::DiskWrite& chunk : chunks) {
    if (auto there = tier().Find(chunk.name)) found.push_back(*std::move(there));
  }
  return found;
}

}  // namespace kvtier::bench
