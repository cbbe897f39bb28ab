// The disk tier's state machine. disk_tier.h is the contract.
//
//   disk_open.cc    the catalog into the table; capacity that shrank
//   disk_write.cc   waiting -> extent and staging -> filled -> written -> synced
//                   -> catalog's record synced -> in the table
//   disk_space.cc   room: new segments, evicting, segments from other geometries
//   disk_catalog.cc the catalog's queue: changes in order, each batch synced
//   disk_read.cc    runs of near pages -> staging -> verified -> copied
//   disk_care.cc    Tick: retries after errors, scrub; Verify
//   disk_heat.cc    heat that has changed goes to the catalog, a little at a time
//   disk_tier.cc    the public calls
//
// Every step is a function that runs with the mutex held and leaves what must run without
// it - I/O, work for the executor, callbacks - in a Later, which its caller runs after
// unlocking.
//
// A chunk that did not verify is a hole: its entry, record and extent stay, and so does
// what continues it; it is not found. A write of its name fills it: once the record is
// replaced, durably, the entry has the new extent, and a dead entry the former one, with
// those who have it pinned, until the last of them is gone.
//
// Invariants: an extent has one owner: a live or dead entry, or a write under way.
// A write's parent is in the table or a write before it, and can't be evicted till the
// write's end; nor can the hole that a write fills. A dead entry has no children. The
// catalog's queue is in the order of the decisions.

#ifndef KVTIER_TIERS_DISK_DISK_ENGINE_H_
#define KVTIER_TIERS_DISK_DISK_ENGINE_H_

#include <array>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "kernels/base/mutex.h"
#include "tiers/disk/catalog.h"
#include "tiers/disk/chunk_table.h"
#include "tiers/disk/disk_tier.h"
#include "tiers/disk/extent_layout.h"
#include "tiers/disk/segment_space.h"
#include "tiers/disk/staging.h"

namespace kvtier::tiers {

// Counts what refers to the engine from elsewhere; its destructor waits for that.
class Outstanding {
 public:
  void Add() {
    std::lock_guard<std::mutex> lock(mu_);
    ++count_;
  }
  void Done() {
    std::lock_guard<std::mutex> lock(mu_);
    if (--count_ == 0) idle_.notify_all();
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mu_);
    idle_.wait(lock, [this] { return count_ == 0; });
  }

 private:
  std::mutex mu_;
  std::condition_variable idle_;
  uint64_t count_ = 0;
};

class DiskEngine final : public DiskTier {
 public:
  using Index = ChunkTable::Index;

  DiskEngine(const DiskTierOptions& options, BlockIo* io, Executor* executor,
             std::unique_ptr<Catalog> catalog);
  ~DiskEngine() override;

  // Reads the catalog and the segments. Once, before anything else.
  absl::Status Load(bool catalog_is_new) ABSL_LOCKS_EXCLUDED(mu_);

  std::optional<DiskChunk> Find(const ChunkName& name) override ABSL_LOCKS_EXCLUDED(mu_);
  bool Contains(const ChunkName& name) const override ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<ChunkName> Parent(const DiskChunk& chunk) const override
      ABSL_LOCKS_EXCLUDED(mu_);
  const DiskGeometry& Geometry(const DiskChunk& chunk) const override
      ABSL_LOCKS_EXCLUDED(mu_);
  bool approximate(const DiskChunk& chunk) const override ABSL_LOCKS_EXCLUDED(mu_);
  void Write(DiskWrite write, WriteDone done) override ABSL_LOCKS_EXCLUDED(mu_);
  void ReadAbstracts(const DiskChunk& chunk, std::vector<std::byte*> abstracts,
                     std::vector<uint32_t>* page_crcs, IoPriority priority,
                     ReadDone done) override ABSL_LOCKS_EXCLUDED(mu_);
  void ReadPages(const DiskChunk& chunk, std::vector<DiskPageRead> pages,
                 IoPriority priority, ReadDone done) override ABSL_LOCKS_EXCLUDED(mu_);
  void Touch(const DiskChunk& chunk, ChunkUse use) override ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(const ChunkName& name, ReadDone done) override ABSL_LOCKS_EXCLUDED(mu_);
  void Tick(absl::Time now) override ABSL_LOCKS_EXCLUDED(mu_);
  VerifyResult Verify(std::optional<std::string> space) override ABSL_LOCKS_EXCLUDED(mu_);
  DiskStats Stats() const override ABSL_LOCKS_EXCLUDED(mu_);
  uint64_t MemoryBytesMax(uint64_t more_chunks) const override ABSL_LOCKS_EXCLUDED(mu_);
  uint64_t UsedBytes(const std::string& space) const override ABSL_LOCKS_EXCLUDED(mu_);

 protected:
  DiskChunk ShareEntry(DiskPin* entry) override ABSL_LOCKS_EXCLUDED(mu_);
  void ReleaseEntry(DiskPin* entry) override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // A pinned entry. DiskChunk points here.
  struct Pin : DiskPin {
    Index index = ChunkTable::kNone;
    uint32_t references = 0;
    // From the header, once it was read.
    std::shared_ptr<const std::vector<uint32_t>> page_crcs;
  };
  struct GeometryState;
  struct WriteOp;
  struct ReadOp;
  struct ReadRun;
  struct VerifyProgress;
  using WriteRef = std::shared_ptr<WriteOp>;
  using ReadRef = std::shared_ptr<ReadOp>;

  // What a step leaves to do without the mutex.
  struct Later {
    std::vector<IoRequest> io;
    std::vector<std::function<void()>> work;  // for the executor
  };
  void Run(Later later) ABSL_LOCKS_EXCLUDED(mu_);

  // A change of the catalog that waits for its turn.
  struct Change {
    CatalogChange change;
    WriteRef write;                     // of a put
    Index removed = ChunkTable::kNone;  // of an entry's delete
    std::vector<ReadDone> done;         // of a delete that was asked for
    std::optional<ExtentPlace> extent;  // of the delete of a put that failed

    bool is_heat() const { return change.kind == CatalogChange::Kind::kPutHeat; }
  };

  // Writes or the catalog have failed, and when to try again.
  struct Fault {
    bool active = false;
    std::string message;
    absl::Duration pause;
    absl::Time retry_at;
  };

  // disk_open.cc
  absl::Status LoadAll(bool catalog_is_new) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status LoadSegments(bool catalog_is_new) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status LoadChunks() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Counts children. Returns who has lost an ancestor.
  std::vector<bool> LinkParents(const std::vector<std::optional<ChunkName>>& parents)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status ShrinkToCapacity() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<uint16_t> GeometryId(const DiskGeometry& geometry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddGeometry(uint32_t id, const DiskGeometry& geometry, bool persisted)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // disk_write.cc
  absl::Status Admit(const WriteRef& op) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Finds what the write continues, or the hole that it fills, and has it stay.
  absl::Status Anchor(const WriteRef& op) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PumpWrites(Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PumpGeometry(GeometryState& geometry, Later* later)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Copies one chunk into its buffers and starts their writes: one at a time, since a
  // query that waits for a page needs the executor too.
  void FillNext() ABSL_LOCKS_EXCLUDED(mu_);
  void Fill(const WriteRef& op) ABSL_LOCKS_EXCLUDED(mu_);
  void OnWritten(const WriteRef& op, absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);
  void OnReleased(const WriteRef& op) ABSL_LOCKS_EXCLUDED(mu_);
  void StartSync(SegmentNumber segment, Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnSynced(SegmentNumber segment, absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);
  void CommitWrite(const WriteRef& op, Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Publish(const WriteRef& op, Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddEntry(const WriteRef& op) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Ends a write that has not been published; frees its extent unless a change of the
  // catalog has it.
  void FailWrite(const WriteRef& op, const absl::Status& status, Later* later)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static CatalogChange PutOf(const WriteOp& op, CatalogChange::Kind kind);
  // The hole that the write fills, else its parent: it counts the write among its
  // children. kNone: a sequence's first, or the parent has not been published.
  Index AnchorOf(const WriteOp& op) const;
  // What the catalog has of a live entry.
  ChunkRecord RecordOf(Index index) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MaybeFreeExtent(const WriteRef& op) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // disk_space.cc
  // Starts what gives the geometry room for its waiting writes. False: nothing can.
  bool MakeRoom(GeometryState& geometry, Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool CanCreateSegment() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Makes segments ahead of use: writes then find them zeroed.
  void KeepReady(Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StartCreate(Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Create(SegmentNumber number) ABSL_LOCKS_EXCLUDED(mu_);
  bool EvictColdest(GeometryState& geometry, Later* later)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  enum class Reason : uint8_t { kShare, kColder, kMust };
  bool TakeSegment(GeometryState& geometry, Reason reason, Later* later)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  struct SegmentHeat {
    Heat hottest;
    uint32_t live = 0;
    bool blocked = false;
  };
  std::map<SegmentNumber, SegmentHeat> SegmentHeats() const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // All chunks of the segment and what continues them, children first.
  std::vector<Index> ContentsOf(SegmentNumber segment) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes a live entry, which nobody has pinned, out of what is found and queues its
  // delete.
  void RemoveEntry(Index index, std::vector<ReadDone> done, Later* later)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Frees what a dead entry no longer needs.
  void MaybeFree(Index index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // A chunk, which its reader has pinned, did not verify.
  void MarkHole(Index index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The record of the write is durable in place of the hole's.
  void FillHole(const WriteOp& op) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Unchild(Index parent, Heat heat) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // disk_catalog.cc
  void StartCatalog(Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RunCatalog() ABSL_LOCKS_EXCLUDED(mu_);
  void OnCatalogDone(std::vector<Change> changes, const std::vector<uint32_t>& geometries,
                     const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  void OnCatalogFailed(std::vector<Change> changes, const absl::Status& status,
                       Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // disk_read.cc
  // Starts a caller's read of a chunk that the caller has pinned.
  void ReadPinned(const ReadRef& op, const DiskChunk& chunk, IoPriority priority,
                  ReadDone done) ABSL_LOCKS_EXCLUDED(mu_);
  void StartRead(const ReadRef& op, Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PumpReads(Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PlanRuns(ReadOp& op) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnRead(const ReadRef& op, absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);
  // Finishes what was read for queries until nothing is left: a job that is under way
  // costs less than one that is started for each.
  void FinishReads() ABSL_LOCKS_EXCLUDED(mu_);
  void OnReadReleased(const ReadRef& op) ABSL_LOCKS_EXCLUDED(mu_);
  // Gives the staging of a finished read back.
  void ReturnRuns(ReadOp& op, Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FinishRead(const ReadRef& op) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status VerifyAndCopy(ReadOp& op);
  absl::Status CheckHeader(ReadOp& op, const ReadRun& run);
  // Reads and verifies all of a chunk.
  ReadRef WholeChunk(Index index, IoPriority priority, ReadDone done)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // disk_care.cc
  void Degrade(Fault& fault, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Recover(Fault& fault) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StopWrites(const absl::Status& status, Later* later)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Ends the writes that wait for room.
  void FailWaiting(const absl::Status& status, Later* later)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Scrub(Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RetryUnreadable(Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReadsAgain(Index index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RetryCatalog() ABSL_LOCKS_EXCLUDED(mu_);
  void RetryWriting() ABSL_LOCKS_EXCLUDED(mu_);

  // disk_heat.cc
  // Some heats that have changed, from where it stopped the last time.
  std::vector<CatalogChange> ChangedHeats(uint32_t changes_max, uint32_t entries_max)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void QueueHeats(Later* later) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StoreHeatsAtClose() ABSL_LOCKS_EXCLUDED(mu_);

  // disk_tier.cc
  // kNone: there is none, or it can't be read, or did not verify.
  Index FindGood(const ChunkName& name) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  Pin* AddPin(Index index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropPin(Pin* pin) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TouchEntry(Index index, ChunkUse use) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static Pin* PinOf(const DiskChunk& chunk) { return static_cast<Pin*>(EntryOf(chunk)); }
  GeometryState& GeometryOf(Index index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return *geometries_[table_[index].geometry];
  }

  // Constant after Load.
  const DiskTierOptions options_;
  BlockIo* const io_;
  Executor* const executor_;
  uint64_t segment_bytes_ = 0;      // of a new one
  uint64_t segment_bytes_max_ = 0;  // of all together
  uint64_t ready_bytes_ = 0;        // of empty ones, while there is capacity for more

  // Internally synchronized.
  const std::shared_ptr<Outstanding> outstanding_ = std::make_shared<Outstanding>();

  // Used by one job at a time: catalog_busy_.
  const std::unique_ptr<Catalog> catalog_;

  mutable Mutex mu_;
  ChunkTable table_ ABSL_GUARDED_BY(mu_);
  SegmentSpace space_ ABSL_GUARDED_BY(mu_);
  std::vector<std::unique_ptr<GeometryState>> geometries_ ABSL_GUARDED_BY(mu_);  // [id]
  absl::flat_hash_map<std::string, uint16_t> geometry_ids_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Index, std::unique_ptr<Pin>> pins_ ABSL_GUARDED_BY(mu_);
  // By name, from Write to its end.
  absl::flat_hash_map<ChunkName, WriteRef> writes_ ABSL_GUARDED_BY(mu_);
  Staging write_staging_ ABSL_GUARDED_BY(mu_);
  Staging read_staging_ ABSL_GUARDED_BY(mu_);
  std::array<std::deque<ReadRef>, 4> waiting_reads_ ABSL_GUARDED_BY(mu_);  // [priority]
  size_t reads_under_way_ ABSL_GUARDED_BY(mu_) = 0;
  // Read for queries, to be verified; and the jobs that do.
  std::deque<ReadRef> to_finish_ ABSL_GUARDED_BY(mu_);
  size_t finishers_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<WriteRef> to_fill_ ABSL_GUARDED_BY(mu_);
  bool filling_ ABSL_GUARDED_BY(mu_) = false;
  struct SegmentSync {
    bool under_way = false;
    std::vector<WriteRef> covered;
    std::vector<WriteRef> next;
  };
  std::map<SegmentNumber, SegmentSync> syncs_ ABSL_GUARDED_BY(mu_);
  std::vector<Change> changes_ ABSL_GUARDED_BY(mu_);
  bool catalog_busy_ ABSL_GUARDED_BY(mu_) = false;
  bool creating_ ABSL_GUARDED_BY(mu_) = false;
  bool probing_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  // Counts writes, whose generation it is, and uses.
  uint64_t clock_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Time now_ ABSL_GUARDED_BY(mu_);
  Fault write_fault_ ABSL_GUARDED_BY(mu_);
  Fault catalog_fault_ ABSL_GUARDED_BY(mu_);
  Fault create_fault_ ABSL_GUARDED_BY(mu_);
  Fault read_fault_ ABSL_GUARDED_BY(mu_);
  // Name and generation.
  std::vector<std::pair<ChunkName, uint64_t>> unreadable_ ABSL_GUARDED_BY(mu_);
  uint64_t holes_ ABSL_GUARDED_BY(mu_) = 0;
  bool scrubbing_ ABSL_GUARDED_BY(mu_) = false;
  Index scrub_cursor_ ABSL_GUARDED_BY(mu_) = 0;
  double scrub_credit_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool heat_queued_ ABSL_GUARDED_BY(mu_) = false;  // in the catalog's queue
  Index heat_cursor_ ABSL_GUARDED_BY(mu_) = 0;
  DiskStats counts_ ABSL_GUARDED_BY(mu_);  // what only grows
};

// All of one geometry. Guarded by the engine's mutex but for the first three.
struct DiskEngine::GeometryState {
  GeometryState(uint16_t id_in, const DiskGeometry& geometry_in)
      : id(id_in), geometry(geometry_in), layout(geometry_in) {}

  const uint16_t id;
  const DiskGeometry geometry;
  const ExtentLayout layout;
  bool persisted = false;
  std::deque<WriteRef> waiting;  // for an extent or staging
  uint64_t leaving_extents = 0;  // their removal is under way
  uint64_t evictions = 0;        // since other geometries' segments were looked at
  uint64_t chunks = 0;           // live
};

// A chunk on its way to the disk. Guarded by the engine's mutex, but for Fill's job.
struct DiskEngine::WriteOp {
  DiskWrite write;
  std::vector<WriteDone> done;
  GeometryState* geometry = nullptr;
  uint64_t generation = 0;
  Index hole = ChunkTable::kNone;  // that it fills; its parent is the entry's then
  // The parent: an entry, or a write before this one.
  Index parent = ChunkTable::kNone;
  WriteRef parent_write;
  uint32_t children = 0;                  // writes that continue this one
  std::vector<WriteRef> children_synced;  // they wait for this one's commit
  std::optional<ExtentPlace> extent;
  std::vector<BlockIo::Buffer> buffers;
  size_t unfinished = 0;  // requests without `done`
  size_t unreleased = 0;
  absl::Status status{};
  bool queued = false;  // in the catalog's queue
  bool published = false;
  bool ended = false;  // published or failed
  Index index = ChunkTable::kNone;
};

// One request's bytes and the pages in it.
struct DiskEngine::ReadRun {
  uint64_t offset = 0;  // in the extent
  uint64_t bytes = 0;
  size_t first_page = 0;  // of ReadOp::pages
  size_t page_count = 0;
  BlockIo::Buffer buffer{};
};

struct DiskEngine::ReadOp {
  Pin* pin = nullptr;  // holds a reference
  GeometryState* geometry = nullptr;
  ChunkName name;
  uint64_t generation = 0;
  uint64_t extent_offset = 0;  // in the segment
  SegmentNumber segment;
  IoPriority priority = IoPriority::kDemand;
  bool wants_abstracts = false;
  std::vector<std::byte*> abstracts;  // [layer]; empty: only verify
  std::vector<uint32_t>* page_crcs_out = nullptr;
  std::vector<DiskPageRead> pages;  // data may be null: only verify
  std::vector<ReadRun> runs;
  std::shared_ptr<const std::vector<uint32_t>> page_crcs;
  uint64_t bytes = 0;  // of all runs
  size_t unfinished = 0;
  size_t unreleased = 0;
  bool finished = false;
  absl::Status status{};
  ReadDone done;
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_DISK_ENGINE_H_
