// Goal: the order of eviction is what its header says, of whatever a tier does to it; a
// scan, however long, leaves what was found again; what was found again yields to what
// is; a prefix never has a hole.
// Method: random operations against a plain list of chunks; then whole caches of
// prefixes. Seeds are printed.

#include "tiers/eviction_order.h"

#include <iostream>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tiers/heat.h"

namespace kvtier::tiers {
namespace {

TEST(HeatTest, WhatWasFoundAgainIsWarmerThanAllThatWasNot) {
  const Heat fresh = Heat::New(900), found = Heat::New(5).Used(6, ChunkUse::kFound);
  EXPECT_LT(fresh, found);
  EXPECT_LT(Heat(), fresh);
  EXPECT_LT(found, Heat::New(5).Used(7, ChunkUse::kFound));
  EXPECT_EQ(Heat::FromBits(found.bits()), found);
}

TEST(HeatTest, AUseIsRememberedAndTimeDoesNotGoBack) {
  const Heat still = Heat::New(5).Used(9, ChunkUse::kStill);
  EXPECT_FALSE(still.found());
  EXPECT_EQ(still.last_use(), 9u);
  const Heat found = still.Used(7, ChunkUse::kFound);
  EXPECT_TRUE(found.found());
  EXPECT_EQ(found.last_use(), 9u);
  EXPECT_TRUE(found.Used(10, ChunkUse::kStill).found());
  EXPECT_EQ(Heat::New(1).Used(Heat::kTimeMax, ChunkUse::kFound).last_use(),
            Heat::kTimeMax);
}

struct Item {
  Heat heat{};
  uint32_t position = 0;
  uint64_t weight = 1;
  bool evictable = false;
  int parent = -1;
  uint32_t children = 0;
};

struct ItemAccess {
  Heat& heat(int i) const { return (*items)[i].heat; }
  uint32_t& position(int i) const { return (*items)[i].position; }
  uint64_t weight(int i) const { return (*items)[i].weight; }
  std::vector<Item>* items;
};

using Order = EvictionOrder<int, ItemAccess>;

// As the header says it.
std::optional<int> ExpectedColdest(const std::vector<Item>& items,
                                   const std::vector<int>& in_order) {
  uint64_t weight = 0, new_weight = 0;
  std::optional<int> coldest_new, coldest;
  for (const int i : in_order) {
    const Item& item = items[i];
    weight += item.weight;
    if (!item.heat.found()) new_weight += item.weight;
    if (!item.evictable) continue;
    const auto colder = [&](std::optional<int> than) {
      return !than || item.heat.last_use() < items[*than].heat.last_use();
    };
    if (colder(coldest)) coldest = i;
    if (!item.heat.found() && colder(coldest_new)) coldest_new = i;
  }
  return new_weight > weight / 3 && coldest_new ? coldest_new : coldest;
}

TEST(EvictionOrderTest, IsAsSaidUnderRandomChanges) {
  constexpr uint64_t kSeed = 11;
  std::cout << "seed " << kSeed << "\n";
  std::mt19937_64 random(kSeed);
  std::vector<Item> items;
  std::vector<int> in_order;
  Order order(ItemAccess{&items});
  uint64_t clock = 0;
  for (int step = 0; step < 20000; ++step) {
    const uint64_t action = random() % 8;
    if (action < 2 || in_order.empty()) {
      in_order.push_back(static_cast<int>(items.size()));
      items.push_back({.weight = 1 + random() % 9});
      order.Add(in_order.back(), Heat::New(++clock));
    } else {
      const size_t at = random() % in_order.size();
      Item& item = items[in_order[at]];
      if (action < 5) {
        item.evictable = random() % 3 != 0;
        order.SetEvictable(in_order[at], item.evictable);
      } else if (action < 7) {
        const auto use = random() % 4 == 0 ? ChunkUse::kFound : ChunkUse::kStill;
        order.SetHeat(in_order[at], item.heat.Used(++clock, use));
      } else {
        order.Remove(in_order[at]);
        in_order[at] = in_order.back();
        in_order.pop_back();
      }
    }
    ASSERT_EQ(order.Coldest(), ExpectedColdest(items, in_order)) << step;
  }
}

// A cache of `capacity` chunks of prefixes.
class PrefixCache {
 public:
  explicit PrefixCache(size_t capacity) : capacity_(capacity) {}

  // A chunk that was never there, behind `parent` (-1: none). Returns it; -1: no room.
  int Insert(int parent) {
    while (count_ >= capacity_) {
      if (!EvictOne(parent)) return -1;
    }
    const int chunk = static_cast<int>(items_.size());
    items_.push_back({.parent = parent});
    cached_.push_back(true);
    ++count_;
    order_.Add(chunk, Heat::New(++clock_));
    if (parent >= 0) {
      ++items_[parent].children;
      order_.SetEvictable(parent, false);
    }
    order_.SetEvictable(chunk, true);
    return chunk;
  }
  // Finds a chunk, and all before it.
  void Find(int chunk) {
    for (; chunk >= 0; chunk = items_[chunk].parent) {
      order_.SetHeat(chunk, items_[chunk].heat.Used(++clock_, ChunkUse::kFound));
    }
  }
  bool cached(int chunk) const { return cached_[chunk]; }
  int parent(int chunk) const { return items_[chunk].parent; }
  int size() const { return static_cast<int>(items_.size()); }

 private:
  bool EvictOne(int keep) {
    if (keep >= 0) order_.SetEvictable(keep, false);
    const std::optional<int> coldest = order_.Coldest();
    if (!coldest) return false;
    order_.Remove(*coldest);
    cached_[*coldest] = false;
    --count_;
    const int parent = items_[*coldest].parent;
    if (parent < 0) return true;
    order_.SetHeat(parent, std::max(items_[parent].heat, items_[*coldest].heat));
    if (--items_[parent].children == 0 && parent != keep)
      order_.SetEvictable(parent, true);
    return true;
  }

  const size_t capacity_;
  size_t count_ = 0;
  uint64_t clock_ = 0;
  std::vector<Item> items_;
  std::vector<bool> cached_;
  Order order_{ItemAccess{&items_}};
};

TEST(EvictionOrderTest, APrefixNeverHasAHole) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    std::cout << "seed " << seed << "\n";
    std::mt19937_64 random(seed);
    PrefixCache cache(100);
    int last = -1;
    for (int step = 0; step < 3000; ++step) {
      if (random() % 12 == 0) last = -1;
      if (random() % 12 == 0 && cache.size() > 0) {
        const int other = static_cast<int>(random() % cache.size());
        if (cache.cached(other)) cache.Find(last = other);
      }
      if (last >= 0 && !cache.cached(last)) last = -1;
      last = cache.Insert(last);
      for (int chunk = 0; chunk < cache.size(); ++chunk) {
        if (!cache.cached(chunk) || cache.parent(chunk) < 0) continue;
        ASSERT_TRUE(cache.cached(cache.parent(chunk))) << "seed " << seed;
      }
    }
  }
}

TEST(EvictionOrderTest, AScanLeavesWhatWasFoundAgain) {
  PrefixCache cache(100);
  std::vector<int> warm;
  for (int i = 0; i < 60; ++i) warm.push_back(cache.Insert(i == 0 ? -1 : warm.back()));
  cache.Find(warm.back());
  for (int document = 0; document < 200; ++document) {
    int last = -1;
    for (int i = 0; i < 20; ++i) last = cache.Insert(last);
  }
  for (const int chunk : warm) EXPECT_TRUE(cache.cached(chunk)) << chunk;
}

TEST(EvictionOrderTest, WhatIsFoundTakesThePlaceOfWhatWasOnce) {
  PrefixCache cache(100);
  std::vector<int> old;
  for (int i = 0; i < 100; ++i) old.push_back(cache.Insert(-1));
  for (const int chunk : old) cache.Find(chunk);
  // New ones are found soon after they came.
  for (int i = 0; i < 1000; ++i) {
    const int chunk = cache.Insert(-1);
    cache.Find(chunk);
  }
  for (const int chunk : old) EXPECT_FALSE(cache.cached(chunk)) << chunk;
}

}  // namespace
}  // namespace kvtier::tiers
