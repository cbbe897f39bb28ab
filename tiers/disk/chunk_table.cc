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
  [[maybe_unused]] const bool inserted = by_name_.insert(index).second;
  assert(inserted);
  while (orders_.size() <= added.geometry) orders_.emplace_back(Access{this});
  orders_[added.geometry].Add(index, entry.heat);
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
  orders_[entry.geometry].Remove(index);
}

ChunkTable::Index ChunkTable::Retire(Index index) {
  const Index retired = NewIndex();
  Entry& entry = (*this)[retired];
  entry = (*this)[index];
  entry.live = false;
  entry.parent = kNone;
  entry.children = 0;
  entry.order_position = kNotEvictable;
  return retired;
}

void ChunkTable::Free(Index index) {
  Entry& entry = (*this)[index];
  assert(entry.in_use && !entry.live && entry.order_position == kNotEvictable);
  entry = Entry{};
  free_.push_back(index);
}

void ChunkTable::UpdateOrder(Index index) {
  const Entry& entry = (*this)[index];
  orders_[entry.geometry].SetEvictable(index,
                                       entry.live && !entry.held && entry.children == 0);
}

void ChunkTable::SetHeat(Index index, Heat heat) {
  const Entry& entry = (*this)[index];
  assert(entry.live);
  orders_[entry.geometry].SetHeat(index, heat);
}

ChunkTable::Index ChunkTable::Coldest(uint16_t geometry) const {
  if (geometry >= orders_.size()) return kNone;
  return orders_[geometry].Coldest().value_or(kNone);
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
  for (const Order& order : orders_) bytes += order.memory_bytes();
  return bytes;
}

}  // namespace kvtier::tiers
