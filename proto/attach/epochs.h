// When may the daemon use a slot again that workers may still be reading?
//
// A *reader* is one thread of a worker in one step, or one view that it keeps. It has a
// word of its own in memory that it shares with the daemon: 0 while it reads nothing. The
// daemon has an epoch, a number that only grows, which all workers of a namespace can
// read.
//
//   reader                              daemon
//   Enter: word = epoch                 clear every location that leads to the slot
//          fence                        Retire: stamp = ++epoch
//   read locations, then slots                  fence
//   Leave: word = 0                     Passed(word, stamp) of every reader?
//                                       then use the slot again
//
// Invariant: a slot is used again only when no reader can reach it: every reader's word
// is 0 or at least the slot's stamp.
//
// Why that holds. Both sides store, fence, load; so either the daemon's look at the word
// sees what Enter stored, or the reader's look at the location sees that it is cleared.
// In the first case the daemon waits, unless the word is at least the stamp; such an
// epoch was read after the increment, hence after the clearing. An epoch read long before
// it is stored is an older one, which only makes the daemon wait.
//
// Memory orders: Enter's fence and Retire's are sequentially consistent: both sides'
// loads must come after their stores are visible, which on x86 nothing else does. Enter
// loads the epoch with acquire, against Retire's increment, which releases the clearing.
// Leave releases: what was read before it, was read before the daemon writes the slot;
// Passed acquires.
//
// Both sides of Enter and Leave are wait-free, and make no system call. A reader that
// stands still between them keeps what was retired since from being used again, and
// nothing else. tests/proto/epochs_test.cc runs this code in every interleaving, with
// stores delayed as x86 delays them.
//
//   Memory: how words are accessed; SharedMemoryOrders, but in that test
//     Word; Load(word, order), Store(word, value, order), Add(word, value, order),
//     Fence()

#ifndef KVTIER_PROTO_ATTACH_EPOCHS_H_
#define KVTIER_PROTO_ATTACH_EPOCHS_H_

#include <atomic>
#include <cstdint>

namespace kvtier::attach {

struct SharedMemoryOrders {
  using Word = std::atomic<uint64_t>;
  static_assert(Word::is_always_lock_free, "words are shared between processes");

  static uint64_t Load(const Word& word, std::memory_order order) {
    return word.load(order);
  }
  static void Store(Word& word, uint64_t value, std::memory_order order) {
    word.store(value, order);
  }
  // Returns the value before.
  static uint64_t Add(Word& word, uint64_t value, std::memory_order order) {
    return word.fetch_add(value, order);
  }
  static void Fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
};

template <typename Memory = SharedMemoryOrders>
struct Epochs {
  using Word = typename Memory::Word;

  // The epoch before anything was retired; a reader's word is never between.
  static constexpr uint64_t kFirst = 1;
  static constexpr uint64_t kNotReading = 0;

  // By the reader alone.
  static void Enter(Word& reader, const Word& epoch) {
    Memory::Store(reader, Memory::Load(epoch, std::memory_order_acquire),
                  std::memory_order_relaxed);
    Memory::Fence();
  }
  static void Leave(Word& reader) {
    Memory::Store(reader, kNotReading, std::memory_order_release);
  }

  // After the locations were cleared. Returns the stamp.
  static uint64_t Retire(Word& epoch) {
    const uint64_t stamp = Memory::Add(epoch, 1, std::memory_order_acq_rel) + 1;
    Memory::Fence();
    return stamp;
  }

  // Whether this reader can't reach what was retired with the stamp.
  static bool Passed(const Word& reader, uint64_t stamp) {
    const uint64_t epoch = Memory::Load(reader, std::memory_order_acquire);
    return epoch == kNotReading || epoch >= stamp;
  }
};

}  // namespace kvtier::attach

#endif  // KVTIER_PROTO_ATTACH_EPOCHS_H_
