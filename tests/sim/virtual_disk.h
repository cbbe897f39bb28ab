// A disk in memory that can lose power, under both the tier's segments and its catalog.
//
// The power-failure model. When power goes:
//   - of every 4 KiB unit of a segment, what was there at the submission of the last Sync
//     that completed is certain. Of what was written after that, and of writes still
//     under way, either all units, or none, or any of them are on the disk (torn writes);
//   - of a file, what its last completed sync covered is certain; of what was appended
//     after that a prefix of any length is there, and of that any 4 KiB unit may be
//     zeros;
//   - of the creates, renames and deletes in directories since their last fsync, the
//   first
//     few are there, in order (as a journaling file system does it), or none;
//   - creating or removing a segment is durable when it returns.
// Nothing that was certain is ever lost, and nothing appears that was never written.
//
// BlockIo's requests wait until the simulation completes one, in any order; in automatic
// mode they complete in Submit.
//
// Thread safety: VirtualDisk's block side belongs to the simulation's thread, or with
// automatic completion to any; both sides are locked.

#ifndef KVTIER_TESTS_SIM_VIRTUAL_DISK_H_
#define KVTIER_TESTS_SIM_VIRTUAL_DISK_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "tiers/disk/block_io.h"

namespace kvtier::tiers::sim {

using Random = std::mt19937_64;

inline uint64_t Below(Random& random, uint64_t limit) { return random() % limit; }

// How much of what was not synced survives.
enum class Survival : uint8_t { kAll, kNone, kAny };

// The segments' bytes that survive a restart of the tier.
struct SegmentImage {
  std::vector<std::byte> bytes;
};
using SegmentImages = std::map<SegmentNumber, SegmentImage>;

enum class Completion : uint8_t { kAutomatic, kByStep };

class VirtualBlockIo final : public BlockIo {
 public:
  VirtualBlockIo(SegmentImages images, Completion completion);

  absl::Status CreateSegment(SegmentNumber segment, uint64_t bytes) override;
  absl::StatusOr<std::vector<Segment>> OpenSegments() override;
  absl::Status RemoveSegment(SegmentNumber segment) override;
  absl::Status Probe() override;
  void Submit(std::vector<IoRequest> requests) override;
  absl::StatusOr<Buffer> NewBuffer(size_t bytes) override;
  std::vector<std::string> Downgrades() const override { return {}; }

  // Completes one request under way, if there is one. False: there is none.
  bool Step(Random& random);
  size_t under_way() const;

  // From now on requests and calls fail; what would survive is kept for Images().
  void PowerOff(Random& random);
  // What survived. After PowerOff.
  SegmentImages Images() const;

  // The next `count` requests of a kind fail. Not for the simulation with power failures.
  void FailNext(IoKind kind, int count, absl::Status status);
  // As FailNext: they complete, but give their buffers back only with ReleaseHeld.
  void HoldBuffers(bool hold);
  void ReleaseHeld();
  size_t held() const;
  // CreateSegment fails with this; OK means it works again.
  void SetCreateError(absl::Status status);
  // Changes a byte, also in what is certain.
  void FlipByte(SegmentNumber segment, uint64_t offset);
  // Requests that were submitted.
  uint64_t count(IoKind kind) const;
  uint64_t probes() const;
  std::vector<uint64_t> read_sizes() const;
  // Bytes of all segments.
  uint64_t total_bytes() const;

 private:
  struct File {
    std::vector<std::byte> current;
    std::vector<std::byte> durable;
    std::map<uint64_t, uint64_t> dirty;  // unit -> version of `current`
  };
  struct Unit {
    uint64_t version = 0;
    std::vector<std::byte> bytes;
  };
  struct Waiting {
    IoRequest request;
    std::map<uint64_t, Unit> covered;  // of a sync
  };

  Waiting Accept(IoRequest request);
  absl::Status Perform(Waiting& waiting);
  void Complete(Waiting waiting);

  const Completion completion_;

  mutable std::mutex mu_;
  std::map<SegmentNumber, File> files_;
  std::vector<Waiting> waiting_;
  uint64_t version_ = 0;
  bool off_ = false;
  SegmentImages survived_;
  std::map<IoKind, std::pair<int, absl::Status>> failures_;
  absl::Status create_error_;
  bool hold_ = false;
  std::vector<std::function<void()>> held_;
  std::map<IoKind, uint64_t> counts_;
  uint64_t probes_ = 0;
  std::vector<uint64_t> read_sizes_;
};

}  // namespace kvtier::tiers::sim

#endif  // KVTIER_TESTS_SIM_VIRTUAL_DISK_H_
