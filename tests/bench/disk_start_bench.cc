// Question: how long does a disk tier take to start over a catalog of a million chunks?
// Method: a small geometry (one layer, one kv head: extents of 12 KiB), in chains of 512,
//   on a real directory, all found again since they were written, so that the heat of
//   each is stored; the segments are claimed to be there, not read: a start reads only
//   the catalog. No ceiling can be measured: the ceiling is a goal.
// Expectation: RocksDB iterates one to two million records of 90 bytes a second, and each
//   is hashed three times into a table larger than the caches: 1 to 1.5 s. Heats are half
//   as large and read beside them.
// Measured: README.md.

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/bench/bench.h"
#include "tests/bench/own_directory.h"
#include "tests/bench/rounds.h"
#include "tiers/chunk_name.h"
#include "tiers/disk/catalog.h"
#include "tiers/disk/disk_tier.h"
#include "tiers/disk/extent_layout.h"
#include "tiers/heat.h"

namespace kvtier::bench {
namespace {

using tiers::BlockIo;
using tiers::Catalog;
using tiers::CatalogChange;
using tiers::ChunkName;
using tiers::DiskTier;
using tiers::IoRequest;
using tiers::SegmentNumber;

constexpr double kGoalSeconds = 2.0;
constexpr uint64_t kSegmentBytes = uint64_t{1} << 30;
constexpr uint64_t kCacheBytes = uint64_t{8} << 20;
constexpr uint32_t kChain = 512;
constexpr uint32_t kBatch = 10000;

class NoIo final : public BlockIo {
 public:
  explicit NoIo(uint32_t segments) : segments_(segments) {}
  absl::Status CreateSegment(SegmentNumber, uint64_t) override {
    return absl::UnavailableError("no I/O");
  }
  absl::StatusOr<std::vector<Segment>> OpenSegments() override {
    std::vector<Segment> segments;
    for (uint32_t i = 0; i < segments_; ++i)
      segments.push_back({SegmentNumber(i), kSegmentBytes});
    return segments;
  }
  absl::Status RemoveSegment(SegmentNumber) override { return absl::OkStatus(); }
  absl::Status Probe() override { return absl::UnavailableError("no I/O"); }
  void Submit(std::vector<IoRequest>) override { std::abort(); }
  absl::StatusOr<Buffer> NewBuffer(size_t) override {
    return absl::ResourceExhaustedError("no I/O");
  }
  std::vector<std::string> Downgrades() const override { return {}; }

 private:
  const uint32_t segments_;
};

class NoExecutor final : public tiers::Executor {
 public:
  void Post(std::function<void()>) override { std::abort(); }
};

// Returns the segments.
absl::StatusOr<uint32_t> Fill(const std::string& directory, uint32_t chunks) {
  tiers::DiskGeometry geometry;
  geometry.space = "bench";
  geometry.layers.push_back({.kv_heads = 1, .page_bytes = 4096, .abstract_bytes = 256});
  const uint64_t per_segment =
      kSegmentBytes / tiers::ExtentLayout(geometry).extent_bytes();
  bool is_new = false;
  auto catalog = Catalog::Open(directory, nullptr, kCacheBytes, &is_new);
  if (!catalog.ok()) return catalog.status();
  std::vector<CatalogChange> batch;
  batch.push_back({.kind = CatalogChange::Kind::kPutGeometry,
                   .name = {},
                   .record = {},
                   .geometry = &geometry});
  ChunkName previous;
  for (uint32_t n = 0; n < chunks; ++n) {
    const std::vector<uint32_t> tokens(kChunkTokens, n);
    CatalogChange change;
    change.name = tiers::ChildName(previous, tokens, "");
    change.record.place = {SegmentNumber(static_cast<uint32_t>(n / per_segment)),
                           static_cast<uint32_t>(n % per_segment)};
    change.record.generation = n + 1;
    if (n % kChain != 0) change.record.parent = previous;
    previous = change.name;
    batch.push_back(change);
    batch.push_back({.kind = CatalogChange::Kind::kPutHeat,
                     .name = change.name,
                     .record = {},
                     .heat = tiers::Heat::New(n).Used(n, tiers::ChunkUse::kFound)});
    if (batch.size() < kBatch && n + 1 < chunks) continue;
    if (absl::Status s = (*catalog)->Write(batch); !s.ok()) return s;
    batch.clear();
  }
  return static_cast<uint32_t>(chunks / per_segment + 1);
}

absl::Status StartBench(const Settings& settings, Row* row) {
  const uint32_t chunks = settings.quick ? 20'000 : 1'000'000;
  const auto directory = OwnDirectory::Make(settings.disk_directory);
  if (!directory.ok()) return directory.status();
  const absl::StatusOr<uint32_t> segments = Fill((*directory)->path(), chunks);
  if (!segments.ok()) return segments.status();
  NoIo io(*segments);
  NoExecutor executor;
  tiers::DiskTierOptions options;
  options.directory = (*directory)->path();
  // No room for a segment more: the catalog is allowed a 64th.
  options.capacity_bytes = *segments * kSegmentBytes / 63 * 64 + 4096;
  options.catalog_cache_bytes = kCacheBytes;
  double chunk_bytes = 0;
  const auto start = [&]() -> absl::StatusOr<double> {
    const Stopwatch stopwatch;
    auto tier = DiskTier::Open(options, &io, nullptr, &executor);
    const double seconds = stopwatch.Seconds();
    if (!tier.ok()) return tier.status();
    const tiers::DiskStats stats = (*tier)->Stats();
    if (stats.chunks != chunks) {
      return absl::InternalError(absl::StrCat(stats.chunks, " chunks were found"));
    }
    chunk_bytes = static_cast<double>(stats.memory_bytes - kCacheBytes) / chunks;
    return seconds;
  };
  row->unit = "s";
  row->ceiling_is = "goal";
  absl::Status status = RunRounds(
      settings.rounds, Better::kLower, start, [] { return kGoalSeconds; }, row);
  row->details = {{"chunks", absl::StrCat(chunks)},
                  {"memory_bytes_per_chunk", absl::StrFormat("%.1f", chunk_bytes)}};
  return status;
}

}  // namespace

std::vector<Bench> DiskStartBenches() { return {{"disk.start_1m", StartBench}}; }

}  // namespace kvtier::bench
