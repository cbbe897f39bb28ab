// Inside RingIo: requests that wait for the device, and those that are on their way.
//
// Demand goes first. So that lower priorities progress too, every kFairness-th request
// taken is the oldest of all that may start. Of write-behind and scrub ("background")
// only so many are under way at a time as the caller allows.
//
// A deadline counts from the start of a request: one that merely waited its turn behind
// others is not late, unless the device has answered nothing meanwhile.
//
// Thread safety: none; one owner, or the owner's lock.

#ifndef KVTIER_TIERS_DISK_IO_QUEUE_H_
#define KVTIER_TIERS_DISK_IO_QUEUE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "tiers/disk/block_io.h"

namespace kvtier::tiers {

// A request on its way, continued after a short transfer.
struct IoFlight {
  IoRequest request;
  size_t done_bytes = 0;
  absl::Time queued;
  absl::Time started;
  bool answered = false;

  bool background() const { return request.priority >= IoPriority::kWriteBehind; }
  // The caller gets its answer; once.
  void Answer(const absl::Status& status) {
    if (std::exchange(answered, true)) return;
    request.done(status);
  }
  void Release() {
    if (request.released) request.released();
  }
};

// How many background requests may be under way: fewer while queries wait for pages now
// and then, since what the device has already can't be overtaken.
class BackgroundLimit {
 public:
  // beside_demand: in the `pause` after a demand request came
  BackgroundLimit(uint32_t depth, uint32_t beside_demand, absl::Duration pause)
      : depth_(depth), beside_demand_(beside_demand), pause_(pause) {}

  void NoteDemand(absl::Time now) { last_demand_ = now; }
  uint32_t At(absl::Time now) const {
    return now - last_demand_ < pause_ ? beside_demand_ : depth_;
  }

 private:
  uint32_t depth_;
  uint32_t beside_demand_;
  absl::Duration pause_;
  absl::Time last_demand_ = absl::InfinitePast();
};

// What waits, by priority.
class IoQueue {
 public:
  static constexpr uint32_t kFairness = 8;

  void Add(IoRequest request, absl::Time now) {
    queues_[static_cast<size_t>(request.priority)].push_back(
        IoFlight{.request = std::move(request), .queued = now, .started = now});
  }

  // The next to start; background ones only if there is room for them.
  bool Take(bool background_room, absl::Time now, IoFlight* flight);

  // All that were queued before `limit`.
  std::vector<IoFlight> TakeOlderThan(absl::Time limit);

 private:
  std::array<std::deque<IoFlight>, 4> queues_;
  uint32_t taken_ = 0;
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_IO_QUEUE_H_
