#include "tiers/disk/io_queue.h"

namespace kvtier::tiers {

bool IoQueue::Take(bool background_room, absl::Time now, IoFlight* flight) {
  const bool oldest_first = (taken_ + 1) % kFairness == 0;
  std::deque<IoFlight>* next = nullptr;
  for (std::deque<IoFlight>& queue : queues_) {
    if (queue.empty() || (queue.front().background() && !background_room)) continue;
    if (next == nullptr || queue.front().queued < next->front().queued) next = &queue;
    if (!oldest_first) break;
  }
  if (next == nullptr) return false;
  ++taken_;
  *flight = std::move(next->front());
  flight->started = now;
  next->pop_front();
  return true;
}

std::vector<IoFlight> IoQueue::TakeOlderThan(absl::Time limit) {
  std::vector<IoFlight> older;
  for (std::deque<IoFlight>& queue : queues_) {
    while (!queue.empty() && queue.front().queued < limit) {
      older.push_back(std::move(queue.front()));
      queue.pop_front();
    }
  }
  return older;
}

}  // namespace kvtier::tiers
