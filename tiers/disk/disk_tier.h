// The disk tier: sealed chunks on NVMe, found again after a restart.
//
// A chunk is one extent of a segment file, all of it or nothing:
//
//   header            name, parent, geometry, generation, CRCs   kIoUnit * n
//   abstracts         all layers', contiguous                    padded to kIoUnit
//   pages             [layer][kv_head], each padded to kIoUnit
//
// so that abstracts are read alone, with one request, and any page by itself. A segment
// belongs to one geometry and is the unit in which space goes from one to another.
// RocksDB is the catalog: name -> extent, generation, parent. At start it is read into a
// table of at most 96 bytes a chunk.
//
// Order of a write: extent, Sync (grouped), then the catalog's record with a synced log;
// only then is the chunk found. Order of a removal: out of the table, catalog's delete
// synced, last reader gone, then the extent is free. So at any kill a name resolves to
// bytes that verify, or to nothing.
//
// Every read is verified: a page's CRC32C is seeded with (name, layer, kv head), the
// header's and abstracts' with name and generation. What does not verify is DataLoss and
// counted; wrong bytes are never handed out. The chunk is then a hole: it is not found,
// so that no prefix reaches beyond it, while what continues it stays, is read by who has
// it pinned and evicted as ever. A write of the hole's name fills it, and with that all
// that continues it is found again. Who had the hole pinned still has the old bytes: Find
// gives the new ones. After a restart the next read finds out again.
//
// Space: a hard cap on physical bytes (segments whole, catalog by an allowance). A chunk
// that does not fit evicts the coldest chunks (tiers/eviction_order.h) that nobody has
// pinned and no chunk on the disk continues (a prefix never loses its middle). Evicting
// needs no space. Heat is written to the catalog now and then, and when the tier is
// closed: after a kill it is as known some seconds or minutes before.
//
// Degraded: after a write error or a full device the tier goes on reading and stops
// writing; after a read error the chunk concerned is left out until it reads again. It
// says so in Stats(), and tries again by itself every few seconds.
//
// Thread safety: internally synchronized. Callbacks run on the tier's executor, those of
// small reads on the I/O's thread, which reads stand still for meanwhile: they do little,
// never block, and may call the tier. All come, each once, also at shutdown (Cancelled).

#ifndef KVTIER_TIERS_DISK_DISK_TIER_H_
#define KVTIER_TIERS_DISK_DISK_TIER_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/base/types.h"
#include "tiers/chunk_name.h"
#include "tiers/disk/block_io.h"
#include "tiers/heat.h"

namespace rocksdb {
class Env;
}  // namespace rocksdb

namespace kvtier::tiers {

// What all chunks of one model in one namespace look like on disk. Kept in the catalog
// under `id`, so that a chunk is readable before its model is registered again.
struct DiskGeometry {
  struct Layer {
    uint32_t kv_heads = 0;
    uint32_t page_bytes = 0;
    uint32_t abstract_bytes = 0;  // of all kv heads

    bool operator==(const Layer&) const = default;
  };
  std::string space;  // the namespace's name: its account
  std::array<uint8_t, 32> model_digest{};
  std::vector<Layer> layers;

  bool operator==(const DiskGeometry&) const = default;
};

// A chunk to be written. The pointers stay valid until the callback, by `keep`.
struct DiskWrite {
  ChunkName name;
  std::optional<ChunkName> parent;  // none: a sequence's first
  bool approximate = false;
  std::shared_ptr<const DiskGeometry> geometry;
  std::vector<const std::byte*> abstracts;  // [layer]
  std::vector<const std::byte*> pages;      // [layer][kv_head]
  std::vector<uint32_t> page_crcs;          // [layer][kv_head], seeded as PageSeed says
  std::shared_ptr<const void> keep;
};

struct DiskPageRead {
  LayerIndex layer;
  uint32_t kv_head = 0;
  std::byte* data = nullptr;  // page_bytes of the layer
};

class DiskTier;

// What a tier knows of a chunk that is pinned.
struct DiskPin {
  std::atomic<bool> lost{false};
};

// A chunk on disk that is not evicted, and whose extent is not reused, while this lives.
class DiskChunk {
 public:
  DiskChunk() = default;
  DiskChunk(DiskChunk&& other) noexcept
      : tier_(std::exchange(other.tier_, nullptr)), entry_(other.entry_) {}
  DiskChunk& operator=(DiskChunk&& other) noexcept;
  DiskChunk(const DiskChunk&) = delete;  // Share() takes a lock: let it be seen
  DiskChunk& operator=(const DiskChunk&) = delete;
  ~DiskChunk() { Reset(); }

  explicit operator bool() const { return tier_ != nullptr; }
  // It did not verify: it is no longer found as it is. Doesn't block.
  bool lost() const { return entry_->lost.load(std::memory_order_acquire); }
  DiskChunk Share() const;
  void Reset();

 private:
  friend class DiskTier;
  DiskChunk(DiskTier* tier, DiskPin* entry) : tier_(tier), entry_(entry) {}

  DiskTier* tier_ = nullptr;
  DiskPin* entry_ = nullptr;
};

// Runs functions, in any order and on any threads. The simulation's runs one at a time.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual void Post(std::function<void()> work) = 0;
};

// Bugs for the simulation to find: each breaks one rule of the order of writing.
enum class DiskBug : uint8_t {
  kNone,
  kNoSync,        // extents are never synced
  kCatalogFirst,  // the catalog's record before the extent
  kReuseEarly,    // an extent is reused before its chunk's delete is durable
};

struct DiskTierOptions {
  std::string directory;                        // the catalog's; segments are BlockIo's
  uint64_t capacity_bytes = 0;                  // physical
  uint64_t segment_bytes = uint64_t{1} << 30;   // at most; smaller for a small capacity
  uint64_t staging_bytes = uint64_t{32} << 20;  // buffers of writes under way
  uint64_t catalog_cache_bytes = uint64_t{8} << 20;
  uint64_t scrub_bytes_per_second = uint64_t{16} << 20;  // 0: no scrub
  DiskBug bug = DiskBug::kNone;                          // tests only
};

// What a tier can't do, and can after all once that was tried with success.
enum class DiskFault : uint8_t { kWriting, kCatalog, kGrowing, kReading };
// "writing", "cataloging", "growing", "reading".
const char* NameOf(DiskFault fault);

struct DiskDegraded {
  DiskFault fault;
  std::string message;  // for people: why, and what to do
};

struct DiskStats {
  uint64_t chunks = 0;       // holes included
  uint64_t hole_chunks = 0;  // did not verify, and were not written anew yet
  uint64_t pages = 0;
  uint64_t used_bytes = 0;     // of extents in use, physical
  uint64_t segment_bytes = 0;  // of all segments
  uint64_t capacity_bytes = 0;
  uint64_t memory_bytes = 0;  // table, staging, catalog's cache
  uint64_t read_bytes = 0;
  uint64_t written_bytes = 0;
  uint64_t evicted_chunks = 0;
  uint64_t lost_chunks = 0;    // did not verify, or were dropped at the start
  uint64_t filled_chunks = 0;  // holes that were written anew
  uint64_t scrubbed_bytes = 0;
  uint64_t dropped_writes = 0;         // not admitted or failed
  std::vector<DiskDegraded> degraded;  // empty: all is well
};

class DiskTier {
 public:
  // Of memory, for each chunk on disk, at most.
  static constexpr uint64_t kChunkMemoryBytes = 96;

  using WriteDone = std::function<void(absl::StatusOr<DiskChunk>)>;
  using ReadDone = std::function<void(absl::Status)>;

  // Opens or makes the tier. `io`, `env` and `executor` must outlive it; env null means
  // RocksDB's own.
  // FailedPrecondition: the directory has another format version or is in use.
  // DataLoss: the catalog does not open (the message says what to do).
  // ResourceExhausted, Unavailable: the device.
  static absl::StatusOr<std::unique_ptr<DiskTier>> Open(const DiskTierOptions& options,
                                                        BlockIo* io, rocksdb::Env* env,
                                                        Executor* executor);
  // Waits for requests under way. All DiskChunks must be gone.
  virtual ~DiskTier() = default;

  // Pins a chunk, if it is there.
  virtual std::optional<DiskChunk> Find(const ChunkName& name) = 0;
  virtual bool Contains(const ChunkName& name) const = 0;
  virtual std::optional<ChunkName> Parent(const DiskChunk& chunk) const = 0;
  virtual const DiskGeometry& Geometry(const DiskChunk& chunk) const = 0;
  virtual bool approximate(const DiskChunk& chunk) const = 0;

  // Writes a chunk whose parent is on disk or was passed to Write before. OK means
  // durable (or it was there already: the first one stays, unless it is a hole). The
  // chunk is handed over pinned. ResourceExhausted: capacity is full of what is pinned;
  // Unavailable: degraded; FailedPrecondition: its parent was not written;
  // InvalidArgument: its shape.
  virtual void Write(DiskWrite write, WriteDone done) = 0;

  // Reads all layers' abstracts, each to its place: [layer]. And the pages' CRCs,
  // [layer][kv_head], if asked for.
  // DataLoss, Unavailable, DeadlineExceeded.
  virtual void ReadAbstracts(const DiskChunk& chunk, std::vector<std::byte*> abstracts,
                             std::vector<uint32_t>* page_crcs, IoPriority priority,
                             ReadDone done) = 0;
  // Reads pages, those near each other with one request. All verified before `done`.
  virtual void ReadPages(const DiskChunk& chunk, std::vector<DiskPageRead> pages,
                         IoPriority priority, ReadDone done) = 0;

  // Notes a use that this tier doesn't see, for eviction. Find, and a Write of what is
  // there, are kFound, reads are kStill by themselves.
  virtual void Touch(const DiskChunk& chunk, ChunkUse use) = 0;
  // Removes an unpinned chunk without children on disk, durably.
  // NotFound; FailedPrecondition: pinned, or a chunk on disk continues it.
  virtual void Remove(const ChunkName& name, ReadDone done) = 0;

  // Retries what failed and scrubs, as far as `now` allows. To be called several times a
  // second: without it a tier that degraded stays so.
  virtual void Tick(absl::Time now) = 0;

  // Reads and verifies everything, or one namespace's. Blocking. Holes are bad.
  struct VerifyResult {
    uint64_t chunks = 0;
    uint64_t pages = 0;
    uint64_t bad_chunks = 0;
    std::vector<std::string> findings;  // for people, of the first bad ones
  };
  virtual VerifyResult Verify(std::optional<std::string> space = std::nullopt) = 0;

  virtual DiskStats Stats() const = 0;
  // The memory that it takes at most with so many chunks more: table, buffers, the
  // catalog's cache. To be charged by who writes, before that.
  virtual uint64_t MemoryBytesMax(uint64_t more_chunks) const = 0;
  // Bytes of extents of one namespace.
  virtual uint64_t UsedBytes(const std::string& space) const = 0;

 protected:
  friend class DiskChunk;
  virtual DiskChunk ShareEntry(DiskPin* entry) = 0;
  virtual void ReleaseEntry(DiskPin* entry) = 0;
  static DiskChunk MakeChunk(DiskTier* tier, DiskPin* entry) { return {tier, entry}; }
  static DiskPin* EntryOf(const DiskChunk& chunk) { return chunk.entry_; }
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_DISK_TIER_H_
