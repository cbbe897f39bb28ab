// One disk tier on the virtual disk, a random workload, power failures, and a model that
// knows what was promised.
//
// Everything happens in one thread: the executor and the disk are queues of which the
// simulation runs a random element (RocksDB's flush threads excepted). A cycle opens the
// tier, checks every chunk, works a random number of steps, and loses power: between two
// steps, or in the middle of one of the catalog's file operations.
//
// Content is a function of (chunk, attempt at writing it), so bytes of one chunk in
// another's place, or of an older attempt, show.
//
// Checked:
//   - a chunk that was acknowledged, and that the tier still found when power went, is
//     found after the restart; and its parent with it
//   - whatever is found reads, unless its bytes were damaged, and what is read is one
//     attempt that was submitted, not older than the last one acknowledged before the
//     read
//   - a damaged chunk takes none with it: those that continue it are found and read
//   - chunks vanish by eviction and removal only: the counts add up
//   - the bytes in use are the sum of the chunks' extents, once nothing is under way
//   - every callback comes once
//
// Now and then a byte of a chunk is changed on the disk: reading finds out, and a later
// write fills the hole.
//
// In a quarter of the cycles writes, syncs and the catalog's files also fail at random,
// without a power failure; afterwards the tier must be whole again.
//
// A failed check throws nothing: it is recorded in `failure`, with the seed.

#ifndef KVTIER_TESTS_SIM_SIMULATION_H_
#define KVTIER_TESTS_SIM_SIMULATION_H_

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim/virtual_disk.h"
#include "tests/sim/virtual_files.h"
#include "tiers/disk/disk_tier.h"

namespace kvtier::tiers::sim {

// With 32 segments in it, of 32 KiB each, beside the catalog's allowance.
inline constexpr uint64_t kCapacity = 1200 << 10;

class StepExecutor final : public Executor {
 public:
  void Post(std::function<void()> work) override { queue_.push_back(std::move(work)); }
  // False: nothing to do.
  bool Step(Random& random);

 private:
  std::vector<std::function<void()>> queue_;
};

struct SimulationResult {
  std::string failure;  // empty: all checks held
  uint64_t cycles = 0;
  uint64_t acknowledged = 0;
  uint64_t evicted = 0;
  uint64_t found_after_restart = 0;
  uint64_t holes = 0;
  uint64_t filled = 0;
  uint64_t crashes_in_open = 0;
  uint64_t crashes_in_catalog = 0;
};

class Simulation {
 public:
  Simulation(uint64_t seed, DiskBug bug);
  Simulation(const Simulation&) = delete;  // callbacks point to it
  Simulation& operator=(const Simulation&) = delete;
  ~Simulation();

  // Runs until a check fails or `cycles` are done.
  SimulationResult Run(uint64_t cycles);

 private:
  // What the model knows of a chunk.
  struct Chunk {
    ChunkName name;
    std::optional<size_t> parent;
    size_t geometry = 0;
    uint64_t attempts = 0;           // submitted
    uint64_t last_acknowledged = 0;  // attempt; 0: none
    bool present = false;            // acknowledged, and not known to have gone
    bool writing = false;
    bool damaged = false;  // since it last read well after a restart
  };
  struct Content {
    std::vector<std::vector<std::byte>> abstracts;
    std::vector<std::vector<std::byte>> pages;
  };

  void Cycle();
  bool Open();
  void Check();
  void CheckChunk(size_t index);
  void Work();
  size_t Writable(size_t index);
  void StartWrite(size_t index);
  // Writes a damaged chunk, if there is one that is no longer found.
  void StartFill();
  void StartRead(size_t index);
  void StartRemove(size_t index);
  // Changes a byte of what the disk has of a chunk, if it has any.
  void Damage(size_t index);
  void Disturb();
  void EndDisturbances();
  void Crash();
  void Close();
  void CheckCounts();
  // One step of the disk or the executor. False: idle.
  bool Step();
  void Drain();
  void Fail(const std::string& what);

  Content ContentOf(size_t index, uint64_t attempt) const;
  // Adopts the attempt that it shows, which must not be before `oldest`. Empty: right.
  std::string Compare(size_t index, uint64_t oldest, const Content& read,
                      uint64_t* attempt) const;
  Content EmptyContent(size_t geometry) const;
  // Reads all of a chunk; `done` gets what is wrong, empty if nothing. Attempt 0, and
  // nothing wrong: it was damaged, and the tier says so.
  void ReadAll(size_t index, DiskChunk chunk,
               std::function<void(std::string, uint64_t attempt)> done);

  const uint64_t seed_;
  const DiskBug bug_;
  Random random_;
  std::vector<std::shared_ptr<const DiskGeometry>> geometries_;
  std::vector<Chunk> chunks_;
  std::map<std::array<uint8_t, 32>, size_t> by_name_;

  SegmentImages segments_;
  FileImages files_image_;
  std::unique_ptr<VirtualBlockIo> io_;
  std::unique_ptr<VirtualFiles> files_;
  StepExecutor executor_;
  std::unique_ptr<DiskTier> tier_;
  std::vector<DiskChunk> pinned_;
  bool faulty_ = false;  // errors are injected in this cycle
  absl::Time now_ = absl::FromUnixSeconds(1000);
  uint64_t callbacks_expected_ = 0;
  uint64_t acknowledged_in_cycle_ = 0;
  uint64_t removed_in_cycle_ = 0;
  uint64_t found_at_open_ = 0;
  SimulationResult result_;
};

}  // namespace kvtier::tiers::sim

#endif  // KVTIER_TESTS_SIM_SIMULATION_H_
