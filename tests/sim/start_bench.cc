// Question: how long does a disk tier take to start over a catalog of a million chunks?
// Of a small geometry (one layer, one kv head: extents of 12 KiB), in chains of 512, on a
// real directory; the segments are claimed to be there, not read: a start reads only the
// catalog. Expectation: RocksDB iterates one to two million records of 90 bytes a second,
// and each is hashed three times into a table larger than the caches: 1 to 1.5 s.
//
//   start_bench DIRECTORY [CHUNKS]
//
// Prints the median, least and greatest of seven starts, and the memory of a chunk.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "tiers/chunk_name.h"
#include "tiers/disk/catalog.h"
#include "tiers/disk/disk_tier.h"
#include "tiers/disk/extent_layout.h"

namespace kvtier::tiers {
namespace {

constexpr uint64_t kSegmentBytes = uint64_t{1} << 30;
constexpr uint64_t kCacheBytes = uint64_t{8} << 20;
constexpr uint32_t kChain = 512;
constexpr uint32_t kBatch = 10000;
constexpr int kRounds = 7;

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
  void Submit(std::vector<IoRequest>) override { std::abort(); }
  absl::StatusOr<Buffer> NewBuffer(size_t) override {
    return absl::ResourceExhaustedError("no I/O");
  }
  std::vector<std::string> Downgrades() const override { return {}; }

 private:
  const uint32_t segments_;
};

class NoExecutor final : public Executor {
 public:
  void Post(std::function<void()>) override { std::abort(); }
};

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

// Returns the segments.
uint32_t Fill(const std::string& directory, uint32_t chunks) {
  DiskGeometry geometry;
  geometry.space = "bench";
  geometry.layers.push_back({.kv_heads = 1, .page_bytes = 4096, .abstract_bytes = 256});
  const uint64_t per_segment = kSegmentBytes / ExtentLayout(geometry).extent_bytes();
  bool is_new = false;
  auto catalog = Catalog::Open(directory, nullptr, kCacheBytes, &is_new);
  Check(catalog.status());
  std::vector<CatalogChange> batch;
  batch.push_back({.kind = CatalogChange::Kind::kPutGeometry,
                   .name = {},
                   .record = {},
                   .geometry = &geometry});
  ChunkName previous;
  for (uint32_t n = 0; n < chunks && is_new; ++n) {
    const std::vector<uint32_t> tokens(kChunkTokens, n);
    CatalogChange change;
    change.name = ChildName(previous, tokens, "");
    change.record.place = {SegmentNumber(static_cast<uint32_t>(n / per_segment)),
                           static_cast<uint32_t>(n % per_segment)};
    change.record.generation = n + 1;
    if (n % kChain != 0) change.record.parent = previous;
    previous = change.name;
    batch.push_back(change);
    if (batch.size() < kBatch && n + 1 < chunks) continue;
    Check((*catalog)->Write(batch));
    batch.clear();
  }
  return static_cast<uint32_t>(chunks / per_segment + 1);
}

int Main(const std::string& directory, uint32_t chunks) {
  const uint32_t segments = Fill(directory, chunks);
  NoIo io(segments);
  NoExecutor executor;
  DiskTierOptions options;
  options.directory = directory;
  options.capacity_bytes = 64 * kSegmentBytes;
  options.catalog_cache_bytes = kCacheBytes;
  std::vector<double> seconds;
  double bytes = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    auto tier = DiskTier::Open(options, &io, nullptr, &executor);
    Check(tier.status());
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    const DiskStats stats = (*tier)->Stats();
    if (stats.chunks != chunks) {
      std::fprintf(stderr, "%lu chunks\n", static_cast<unsigned long>(stats.chunks));
      return 1;
    }
    bytes = static_cast<double>(stats.memory_bytes - kCacheBytes) / chunks;
  }
  std::sort(seconds.begin(), seconds.end());
  std::printf("%u chunks: start %.3f s (%.3f - %.3f), %.1f bytes a chunk\n", chunks,
              seconds[kRounds / 2], seconds.front(), seconds.back(), bytes);
  return 0;
}

}  // namespace
}  // namespace kvtier::tiers

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "start_bench DIRECTORY [CHUNKS]\n");
    return 2;
  }
  return kvtier::tiers::Main(argv[1], argc > 2 ? std::stoul(argv[2]) : 1000000);
}
