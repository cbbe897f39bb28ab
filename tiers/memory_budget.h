// One hard limit on memory, and charges against it.
//
// What is charged is charged before it is allocated, so `used` never exceeds the
// capacity, whatever the threads do, unless the capacity was lowered. A Charge gives back
// what it holds when it ends.
//
// Thread safety: MemoryBudget is internally synchronized; a Charge belongs to one owner.

#ifndef KVTIER_TIERS_MEMORY_BUDGET_H_
#define KVTIER_TIERS_MEMORY_BUDGET_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <utility>

namespace kvtier::tiers {

class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t capacity_bytes) : capacity_bytes_(capacity_bytes) {}
  MemoryBudget(const MemoryBudget&) = delete;  // charges point to it
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  // False, and nothing is reserved, if it would not fit.
  [[nodiscard]] bool TryReserve(uint64_t bytes) {
    uint64_t used = used_bytes_.load(std::memory_order_relaxed);
    do {
      const uint64_t capacity = capacity_bytes();
      if (bytes > capacity || used > capacity - bytes) return false;
    } while (!used_bytes_.compare_exchange_weak(used, used + bytes,
                                                std::memory_order_relaxed));
    return true;
  }
  void Release(uint64_t bytes) {
    used_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  }

  uint64_t used_bytes() const { return used_bytes_.load(std::memory_order_relaxed); }
  uint64_t capacity_bytes() const {
    return capacity_bytes_.load(std::memory_order_relaxed);
  }
  // What is used beyond a smaller one stays; nothing more is reserved until it is below.
  void set_capacity_bytes(uint64_t bytes) {
    capacity_bytes_.store(bytes, std::memory_order_relaxed);
  }

 private:
  std::atomic<uint64_t> capacity_bytes_;
  std::atomic<uint64_t> used_bytes_{0};
};

// Bytes reserved in a budget, which must outlive it.
class Charge {
 public:
  Charge() = default;
  // Nothing if it would not fit.
  static std::optional<Charge> Take(MemoryBudget* budget, uint64_t bytes) {
    if (!budget->TryReserve(bytes)) return std::nullopt;
    return Charge(budget, bytes);
  }
  Charge(Charge&& other) noexcept
      : budget_(other.budget_), bytes_(std::exchange(other.bytes_, 0)) {}
  Charge& operator=(Charge&& other) noexcept {
    if (this != &other) {
      ShrinkTo(0);
      budget_ = other.budget_;
      bytes_ = std::exchange(other.bytes_, 0);
    }
    return *this;
  }
  Charge(const Charge&) = delete;  // would give the same bytes back twice
  Charge& operator=(const Charge&) = delete;
  ~Charge() { ShrinkTo(0); }

  uint64_t bytes() const { return bytes_; }

  // Takes over what `other`, of the same budget, holds.
  void Add(Charge other) {
    if (budget_ == nullptr) budget_ = other.budget_;
    bytes_ += std::exchange(other.bytes_, 0);
  }
  void ShrinkTo(uint64_t bytes) {
    if (bytes >= bytes_) return;
    budget_->Release(bytes_ - bytes);
    bytes_ = bytes;
  }

 private:
  Charge(MemoryBudget* budget, uint64_t bytes) : budget_(budget), bytes_(bytes) {}

  MemoryBudget* budget_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_MEMORY_BUDGET_H_
