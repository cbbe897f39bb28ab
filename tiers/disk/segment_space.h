// Which extents of which segments are free.
//
// A segment belongs to one geometry, or to none while it is empty. Space goes from one
// geometry to another by whole segments: one is promised to its next geometry, takes no
// more extents, and changes hands when its last one is freed.
//
// Thread safety: none; the engine's mutex.

#ifndef KVTIER_TIERS_DISK_SEGMENT_SPACE_H_
#define KVTIER_TIERS_DISK_SEGMENT_SPACE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "tiers/disk/extent_layout.h"

namespace kvtier::tiers {

class SegmentSpace {
 public:
  static constexpr uint32_t kNoGeometry = UINT32_MAX;

  struct Segment {
    uint64_t bytes = 0;
    uint32_t geometry = kNoGeometry;
    uint32_t promised_to = kNoGeometry;
    uint64_t promised_extent_bytes = 0;
    uint64_t extent_bytes = 0;
    uint32_t extents = 0;  // that fit
    uint32_t used = 0;
    uint32_t leaving = 0;  // of the used: their removal is under way
    uint32_t search_from = 0;
    std::vector<uint64_t> bitmap;  // 1: used
  };

  // Adds an empty segment.
  void AddSegment(SegmentNumber number, uint64_t bytes);
  // The segment must be empty.
  void RemoveSegment(SegmentNumber number);

  // Marks an extent that the catalog knows. False: it can't be, because there is no such
  // extent, it is used already, or its segment is another geometry's.
  bool Claim(ExtentPlace place, uint32_t geometry, uint64_t extent_bytes);

  // A free extent, from the geometry's segments or an empty one.
  std::optional<ExtentPlace> Allocate(uint32_t geometry, uint64_t extent_bytes);
  // Says that a used extent will be freed.
  void BeginFree(ExtentPlace place) { ++segments_.at(place.segment).leaving; }
  //   was_leaving: BeginFree was called for it
  void Free(ExtentPlace place, bool was_leaving);

  // Takes a segment out of use until it is empty, then gives it to `geometry`.
  void Promise(SegmentNumber number, uint32_t geometry, uint64_t extent_bytes);

  uint64_t OffsetOf(ExtentPlace place) const {
    return place.index * segments_.at(place.segment).extent_bytes;
  }
  const std::map<SegmentNumber, Segment>& segments() const { return segments_; }
  uint64_t segment_bytes() const { return segment_bytes_; }
  uint64_t used_bytes() const { return used_bytes_; }
  // Segments that are the geometry's or promised to it.
  uint32_t SegmentsOf(uint32_t geometry) const;
  // Extents that Allocate could give now, empty segments left aside.
  uint64_t FreeExtents(uint32_t geometry) const;
  // Extents that come when promised segments are empty.
  uint64_t PromisedExtents(uint32_t geometry, uint64_t extent_bytes) const;
  // Of segments that no geometry has.
  uint64_t empty_bytes() const { return empty_bytes_; }
  SegmentNumber NextNumber() const;

 private:
  struct Owner {
    std::set<SegmentNumber> open;  // with free extents
    uint32_t segments = 0;         // its own
    uint32_t promised = 0;
    uint64_t free_extents = 0;
  };

  void Assign(SegmentNumber number, Segment& segment, uint32_t geometry,
              uint64_t extent_bytes);
  void MarkUsed(SegmentNumber number, Segment& segment, uint32_t index);
  void BecomeEmpty(SegmentNumber number, Segment& segment);

  std::map<SegmentNumber, Segment> segments_;
  std::set<SegmentNumber> empty_;
  std::map<uint32_t, Owner> owners_;  // by geometry
  uint64_t segment_bytes_ = 0;
  uint64_t empty_bytes_ = 0;
  uint64_t used_bytes_ = 0;
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_SEGMENT_SPACE_H_
