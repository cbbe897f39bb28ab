#include "tiers/disk/segment_space.h"

#include <cassert>

namespace kvtier::tiers {
namespace {

bool IsUsed(const SegmentSpace::Segment& segment, uint32_t index) {
  return segment.bitmap[index / 64] >> (index % 64) & 1;
}

}  // namespace

void SegmentSpace::AddSegment(SegmentNumber number, uint64_t bytes) {
  segments_[number].bytes = bytes;
  segment_bytes_ += bytes;
  empty_bytes_ += bytes;
  empty_.insert(number);
}

void SegmentSpace::RemoveSegment(SegmentNumber number) {
  assert(empty_.contains(number));
  empty_.erase(number);
  segment_bytes_ -= segments_.at(number).bytes;
  empty_bytes_ -= segments_.at(number).bytes;
  segments_.erase(number);
}

bool SegmentSpace::Claim(ExtentPlace place, uint32_t geometry, uint64_t extent_bytes) {
  const auto it = segments_.find(place.segment);
  if (it == segments_.end()) return false;
  Segment& segment = it->second;
  if (segment.geometry == kNoGeometry) {
    if (segment.bytes / extent_bytes <= place.index) return false;
    Assign(place.segment, segment, geometry, extent_bytes);
  }
  if (segment.geometry != geometry || place.index >= segment.extents ||
      IsUsed(segment, place.index)) {
    return false;
  }
  MarkUsed(place.segment, segment, place.index);
  return true;
}

std::optional<ExtentPlace> SegmentSpace::Allocate(uint32_t geometry,
                                                  uint64_t extent_bytes) {
  Owner& owner = owners_[geometry];
  if (owner.open.empty()) {
    for (const SegmentNumber number : empty_) {
      Segment& segment = segments_.at(number);
      if (segment.bytes < extent_bytes) continue;
      Assign(number, segment, geometry, extent_bytes);
      break;
    }
    if (owner.open.empty()) return std::nullopt;
  }
  const SegmentNumber number = *owner.open.begin();
  Segment& segment = segments_.at(number);
  uint32_t index = segment.search_from;
  while (IsUsed(segment, index)) ++index;
  segment.search_from = index + 1;
  MarkUsed(number, segment, index);
  return ExtentPlace{number, index};
}

void SegmentSpace::MarkUsed(SegmentNumber number, Segment& segment, uint32_t index) {
  segment.bitmap[index / 64] |= uint64_t{1} << (index % 64);
  ++segment.used;
  used_bytes_ += segment.extent_bytes;
  Owner& owner = owners_[segment.geometry];
  --owner.free_extents;
  if (segment.used == segment.extents) owner.open.erase(number);
}

void SegmentSpace::Free(ExtentPlace place, bool was_leaving) {
  Segment& segment = segments_.at(place.segment);
  assert(IsUsed(segment, place.index));
  segment.bitmap[place.index / 64] &= ~(uint64_t{1} << (place.index % 64));
  --segment.used;
  if (was_leaving) --segment.leaving;
  used_bytes_ -= segment.extent_bytes;
  if (place.index < segment.search_from) segment.search_from = place.index;
  if (segment.promised_to == kNoGeometry) {
    Owner& owner = owners_[segment.geometry];
    ++owner.free_extents;
    owner.open.insert(place.segment);
  }
  if (segment.used == 0) BecomeEmpty(place.segment, segment);
}

void SegmentSpace::BecomeEmpty(SegmentNumber number, Segment& segment) {
  Owner& owner = owners_[segment.geometry];
  if (segment.promised_to == kNoGeometry) {
    owner.open.erase(number);
    owner.free_extents -= segment.extents;
    --owner.segments;
  }
  const uint32_t next = segment.promised_to;
  const uint64_t bytes = segment.bytes;
  const uint64_t next_extent_bytes = segment.promised_extent_bytes;
  segment = Segment();
  segment.bytes = bytes;
  empty_bytes_ += bytes;
  empty_.insert(number);
  if (next == kNoGeometry) return;
  --owners_[next].promised;
  Assign(number, segment, next, next_extent_bytes);
}

void SegmentSpace::Promise(SegmentNumber number, uint32_t geometry,
                           uint64_t extent_bytes) {
  Segment& segment = segments_.at(number);
  assert(segment.geometry != kNoGeometry && segment.promised_to == kNoGeometry);
  Owner& owner = owners_[segment.geometry];
  owner.open.erase(number);
  owner.free_extents -= segment.extents - segment.used;
  --owner.segments;
  segment.promised_to = geometry;
  segment.promised_extent_bytes = extent_bytes;
  ++owners_[geometry].promised;
  if (segment.used == 0) BecomeEmpty(number, segment);
}

void SegmentSpace::Assign(SegmentNumber number, Segment& segment, uint32_t geometry,
                          uint64_t extent_bytes) {
  empty_.erase(number);
  empty_bytes_ -= segment.bytes;
  segment.geometry = geometry;
  segment.extent_bytes = extent_bytes;
  segment.extents = static_cast<uint32_t>(segment.bytes / extent_bytes);
  segment.bitmap.assign((segment.extents + 63) / 64, 0);
  Owner& owner = owners_[geometry];
  ++owner.segments;
  owner.free_extents += segment.extents;
  owner.open.insert(number);
}

uint32_t SegmentSpace::SegmentsOf(uint32_t geometry) const {
  const auto it = owners_.find(geometry);
  return it == owners_.end() ? 0 : it->second.segments + it->second.promised;
}

uint64_t SegmentSpace::FreeExtents(uint32_t geometry) const {
  const auto it = owners_.find(geometry);
  return it == owners_.end() ? 0 : it->second.free_extents;
}

uint64_t SegmentSpace::PromisedExtents(uint32_t geometry, uint64_t extent_bytes) const {
  uint64_t extents = 0;
  for (const auto& [number, segment] : segments_) {
    if (segment.promised_to == geometry) extents += segment.bytes / extent_bytes;
  }
  return extents;
}

SegmentNumber SegmentSpace::NextNumber() const {
  return SegmentNumber(segments_.empty() ? 0 : segments_.rbegin()->first.value() + 1);
}

}  // namespace kvtier::tiers
