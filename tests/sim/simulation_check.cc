// The simulation's model of what must be there, and the comparison with what is.

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/host/checksum.h"
#include "tests/sim/simulation.h"
#include "tiers/disk/extent_layout.h"
#include "tiers/page_checksum.h"

namespace kvtier::tiers::sim {
namespace {

void FillBytes(std::vector<std::byte>& bytes, uint64_t seed, uint64_t attempt) {
  uint64_t state = seed * 0x9e3779b97f4a7c15 + attempt;
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    state = state * 6364136223846793005 + 1442695040888963407;
    std::memcpy(bytes.data() + i, &state, 8);
  }
  std::memcpy(bytes.data(), &attempt, sizeof(attempt));
}

}  // namespace

Simulation::Content Simulation::EmptyContent(size_t geometry) const {
  Content content;
  for (const DiskGeometry::Layer& layer : geometries_[geometry]->layers) {
    content.abstracts.emplace_back(layer.abstract_bytes);
    for (uint32_t head = 0; head < layer.kv_heads; ++head) {
      content.pages.emplace_back(layer.page_bytes);
    }
  }
  return content;
}

Simulation::Content Simulation::ContentOf(size_t index, uint64_t attempt) const {
  Content content = EmptyContent(chunks_[index].geometry);
  uint64_t part = index * 1000;
  for (auto& bytes : content.abstracts) FillBytes(bytes, ++part, attempt);
  for (auto& bytes : content.pages) FillBytes(bytes, ++part, attempt);
  return content;
}

std::string Simulation::Compare(size_t index, uint64_t oldest, const Content& read,
                                uint64_t* attempt) const {
  std::memcpy(attempt, read.pages[0].data(), sizeof(*attempt));
  const Chunk& chunk = chunks_[index];
  const std::string who = "chunk " + std::to_string(index);
  if (*attempt == 0 || *attempt > chunk.attempts) return who + " has bytes never written";
  if (*attempt < oldest) return who + " has an older write's bytes";
  const Content right = ContentOf(index, *attempt);
  if (right.pages != read.pages || right.abstracts != read.abstracts) {
    return who + " has wrong bytes";
  }
  return "";
}

void Simulation::ReadAll(size_t index, DiskChunk chunk,
                         std::function<void(std::string, uint64_t)> done) {
  struct Reading {
    Content content;
    DiskChunk chunk;
    std::function<void(std::string, uint64_t)> done;
  };
  const auto reading = std::make_shared<Reading>();
  reading->content = EmptyContent(chunks_[index].geometry);
  reading->chunk = std::move(chunk);
  reading->done = std::move(done);
  const uint64_t oldest = chunks_[index].last_acknowledged;
  std::vector<std::byte*> abstracts;
  for (auto& abstract : reading->content.abstracts) abstracts.push_back(abstract.data());
  callbacks_expected_ += 2;
  const auto finish = [this, index, reading, oldest] {
    reading->chunk.Reset();
    uint64_t attempt = 0;
    std::string wrong = Compare(index, oldest, reading->content, &attempt);
    reading->done(std::move(wrong), attempt);
  };
  const auto read_pages = [this, index, reading, finish](absl::Status status) {
    --callbacks_expected_;
    std::vector<DiskPageRead> pages;
    size_t page = 0;
    const auto& layers = geometries_[chunks_[index].geometry]->layers;
    for (uint32_t layer = 0; layer < layers.size(); ++layer) {
      for (uint32_t head = 0; head < layers[layer].kv_heads; ++head) {
        pages.push_back({.layer = LayerIndex(layer),
                         .kv_head = head,
                         .data = reading->content.pages[page++].data()});
      }
    }
    tier_->ReadPages(reading->chunk, std::move(pages), IoPriority::kDemand,
                     [this, index, reading, finish, status](absl::Status pages_status) {
                       --callbacks_expected_;
                       absl::Status both = status;
                       both.Update(pages_status);
                       if (both.ok()) return finish();
                       reading->chunk.Reset();
                       const bool rightly =
                           absl::IsDataLoss(both) && chunks_[index].damaged;
                       if (rightly) ++result_.holes;
                       reading->done(rightly ? "" : "read: " + both.ToString(), 0);
                     });
  };
  tier_->ReadAbstracts(reading->chunk, std::move(abstracts), nullptr, IoPriority::kDemand,
                       read_pages);
}

void Simulation::Damage(size_t index) {
  struct Place {
    SegmentNumber segment;
    uint64_t begin = 0;
    uint64_t end = 0;
    size_t chunk = 0;
    uint64_t generation = 0;
  };
  std::vector<Place> places;  // of all chunks that the disk has, former ones included
  std::optional<Place> newest;
  for (const auto& [number, image] : io_->Images()) {
    const absl::Span<const std::byte> bytes(image.bytes);
    for (uint64_t at = 0; at < bytes.size(); at += kIoUnit) {
      const auto header = DecodeExtentHeader(bytes.subspan(at, kIoUnit));
      if (!header.ok()) continue;
      const auto found = by_name_.find(header->name.bytes);
      if (found == by_name_.end()) continue;
      const ExtentLayout layout(*geometries_[chunks_[found->second].geometry]);
      const Place place{number, at, at + layout.extent_bytes(), found->second,
                        header->generation};
      places.push_back(place);
      const bool newer = !newest || newest->generation < place.generation;
      if (place.chunk == index && newer) newest = place;
    }
  }
  if (!newest) return;
  const uint64_t units = (newest->end - newest->begin) / kIoUnit;
  // Each unit begins with what is verified.
  const uint64_t at =
      newest->begin + Below(random_, units) * kIoUnit + Below(random_, 40);
  // What is left of a former chunk may lie where another one is now.
  for (const Place& place : places) {
    if (place.segment != newest->segment) continue;
    if (place.begin <= at && at < place.end) chunks_[place.chunk].damaged = true;
  }
  io_->FlipByte(newest->segment, at);
}

// After a restart: everything that is found is read.
void Simulation::Check() {
  found_at_open_ = 0;
  for (size_t index = 0; index < chunks_.size(); ++index) CheckChunk(index);
  Drain();
  result_.found_after_restart += found_at_open_;
  acknowledged_in_cycle_ = removed_in_cycle_ = 0;
  CheckCounts();
}

void Simulation::CheckChunk(size_t index) {
  Chunk& chunk = chunks_[index];
  const std::string who = "chunk " + std::to_string(index);
  std::optional<DiskChunk> found = tier_->Find(chunk.name);
  if (!found) {
    if (chunk.present) Fail(who + " was acknowledged and is gone after the restart");
    return;
  }
  ++found_at_open_;
  if (chunk.parent && !tier_->Contains(chunks_[*chunk.parent].name)) {
    Fail(who + " is there without its parent");
  }
  if (tier_->Parent(*found).has_value() != chunk.parent.has_value()) {
    Fail(who + " has another parent");
  }
  ReadAll(index, *std::move(found), [this, index](std::string wrong, uint64_t attempt) {
    if (!wrong.empty()) return Fail("after the restart: " + wrong);
    Chunk& read = chunks_[index];
    read.present = attempt != 0;
    if (attempt == 0) return;
    read.last_acknowledged = attempt;
    read.damaged = false;
  });
}

// Most writes continue something that is there, or is being written.
void Simulation::CheckCounts() {
  const DiskStats stats = tier_->Stats();
  const uint64_t expected = found_at_open_ + acknowledged_in_cycle_ -
                            stats.filled_chunks - stats.evicted_chunks -
                            removed_in_cycle_;
  if (stats.chunks != expected) {
    Fail("there are " + std::to_string(stats.chunks) + " chunks instead of " +
         std::to_string(expected));
  }
  uint64_t damaged = 0;
  for (const Chunk& chunk : chunks_) damaged += chunk.damaged;
  if (stats.hole_chunks > damaged) Fail("chunks were lost without a bad disk");
  if (stats.lost_chunks < stats.hole_chunks) Fail("a hole wasn't counted");
  const uint64_t of_spaces = tier_->UsedBytes("a") + tier_->UsedBytes("b");
  if (stats.used_bytes != of_spaces) {
    Fail("extents of " + std::to_string(stats.used_bytes) +
         " bytes are in use by chunks of " + std::to_string(of_spaces));
  }
  if (stats.segment_bytes != io_->total_bytes() || stats.segment_bytes > kCapacity) {
    Fail("segments of " + std::to_string(stats.segment_bytes) + " bytes");
  }
  if (callbacks_expected_ != 0) Fail("a callback didn't come");
}

}  // namespace kvtier::tiers::sim
