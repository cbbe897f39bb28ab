#include "tiers/disk/chunk_table.h"

#include <cassert>

namespace kvtier::tiers {

ChunkTable::Index ChunkTable::NewIndex() {
  if (!free_.empty()) {
    const Index index = free_.back();
    free_.pop_back();
    return index;
  }
  if (end_ / kBlock == blocks_.size()) {
    blocks_.push_back(std::make_unique<Entry[]>(kBlock));
  }
  return end_++;
}

ChunkTable::Index ChunkTable::Add(const Entry& entry) {
  const Index index = NewIndex();
  Entry& added = (*this)[index];
  added = entry;
  added.in_use = true;
  added.live = true;
  added.order_position = kNone;
  [[maybe_unused]] const bool inserted = by_name_.insert(index).second;
  assert(inserted);
  if (orders_.size() <= added.geometry) orders_.resize(added.geometry + 1);
  return index;
}

ChunkTable::Index ChunkTable::Find(const ChunkName& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? kNone : *it;
}

void ChunkTable::MakeDead(Index index) {
  Entry& entry = (*this)[index];
  assert(entry.live);
  by_name_.erase(by_name_.find(entry.name));
  entry.live = false;
  UpdateOrder(index);
}

ChunkTable::Index ChunkTable::Retire(Index index) {
  const Index retired = NewIndex();
  Entry& entry = (*this)[retired];
  entry = (*this)[index];
  entry.live = false;
  entry.parent = kNone;
  entry.children = 0;
  entry.order_position = kNone;
  return retired;
}

void ChunkTable::Free(Index index) {
  Entry& entry = (*this)[index];
  assert(entry.in_use && !entry.live && entry.order_position == kNone);
  entry = Entry{};
  free_.push_back(index);
}

void ChunkTable::UpdateOrder(Index index) {
  Entry& entry = (*this)[index];
  Order& order = orders_[entry.geometry];
  const bool evictable = entry.live && !entry.held && entry.children == 0;
  if (!evictable && entry.order_position == kNone) return;
  if (evictable && entry.order_position == kNone) {
    entry.order_position = static_cast<uint32_t>(order.size());
    order.push_back(index);
    SiftUp(order, entry.order_position);
    return;
  }
  const size_t position = entry.order_position;
  if (evictable) {
    SiftUp(order, position);
    SiftDown(order, entry.order_position);
    return;
  }
  entry.order_position = kNone;
  const Index moved = order.back();
  order.pop_back();
  if (moved == index) return;
  Place(order, position, moved);
  SiftUp(order, position);
  SiftDown(order, (*this)[moved].order_position);
}

ChunkTable::Index ChunkTable::Coldest(uint16_t geometry) const {
  if (geometry >= orders_.size() || orders_[geometry].empty()) return kNone;
  return orders_[geometry].front();
}

void ChunkTable::Place(Order& order, size_t position, Index index) {
  order[position] = index;
  (*this)[index].order_position = static_cast<uint32_t>(position);
}

void ChunkTable::SiftUp(Order& order, size_t position) {
  const Index index = order[position];
  while (position > 0) {
    const size_t above = (position - 1) / 2;
    if ((*this)[order[above]].last_use <= (*this)[index].last_use) break;
    Place(order, position, order[above]);
    position = above;
  }
  Place(order, position, index);
}

void ChunkTable::SiftDown(Order& order, size_t position) {
  const Index index = order[position];
  while (true) {
    size_t below = 2 * position + 1;
    if (below >= order.size()) break;
    if (below + 1 < order.size() &&
        (*this)[order[below + 1]].last_use < (*this)[order[below]].last_use) {
      ++below;
    }
    if ((*this)[index].last_use <= (*this)[order[below]].last_use) break;
    Place(order, position, order[below]);
    position = below;
  }
  Place(order, position, index);
}

std::vector<ChunkTable::Index> ChunkTable::ChildrenFirst(
    const std::vector<bool>& picked) const {
  const auto is_picked = [&](Index index) {
    return index < picked.size() && picked[index] && (*this)[index].live;
  };
  std::vector<uint32_t> children_left(picked.size());
  for (Index index = 0; index < picked.size(); ++index) {
    const Index parent = is_picked(index) ? (*this)[index].parent : kNone;
    if (is_picked(parent)) ++children_left[parent];
  }
  std::vector<Index> order;
  for (Index index = 0; index < picked.size(); ++index) {
    if (is_picked(index) && children_left[index] == 0) order.push_back(index);
  }
  for (size_t i = 0; i < order.size(); ++i) {
    const Index parent = (*this)[order[i]].parent;
    if (is_picked(parent) && --children_left[parent] == 0) order.push_back(parent);
  }
  return order;
}

size_t ChunkTable::memory_bytes() const {
  size_t bytes =
      blocks_.size() * kBlock * sizeof(Entry) + free_.capacity() * sizeof(Index);
  // A control byte beside each slot of the hash table.
  bytes += by_name_.capacity() * (sizeof(Index) + 1);
  for (const Order& order : orders_) bytes += order.capacity() * sizeof(Index);
  return bytes;
}

}  // namespace kvtier::tiers
