// Question: how near are the scoring kernels to what one core can do?
// Method: abstracts of a gigabyte (what the kernel reads of them), scored page by page as
//   a selection does: a kv head's 1,024 pages for the query heads of its group, into one
//   array of logits. The ceiling of a round is the slower of reading the same bytes and
//   of a dot product with as many multiply-adds out of L1:
//     bounds   two products a channel, span and query head, in f32
//     sketch   one a component, token and query head, of 8-bit numbers: what a kernel
//              would do that had its codes unpacked
// Expectation: one core reads 31 to 38 GB/s. A page's bounds are 2 KiB: 60 ns; its 4,096
//   products take 16 a cycle 85 ns: 24 GB/s. The kernel clamps, multiplies twice, takes
//   the maximum and adds where the roof has two instructions: 0.3. A page's sketch is 2.3
//   KiB: 70 ns; its 32,768 products 64 a cycle 170 ns: 14 GB/s. Table look-ups need about
//   as many instructions as the dot product: 0.5 to 0.8.
// Measured: README.md.

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/host/bounds.h"
#include "kernels/host/convert.h"
#include "kernels/host/sketch.h"
#include "retrieval/abstract.h"
#include "tests/bench/bench.h"
#include "tests/bench/geometry.h"
#include "tests/bench/roof.h"
#include "tests/bench/rounds.h"
#include "tests/kernels/random.h"

namespace kvtier::bench {
namespace {

using retrieval::AbstractLayout;
using retrieval::AbstractSet;

constexpr size_t kRunPages = 1024;     // of one kv head: 64K tokens
constexpr size_t kDistinctPages = 64;  // the others are copies of these
constexpr size_t kRunTokens = kRunPages * kChunkTokens;

// Pages' abstracts one after another, as a chunk has them, with sketch and bounds.
class Abstracts {
 public:
  explicit Abstracts(size_t pages)
      : layout_(AbstractLayout::For(Layer(), AbstractSet())),
        pages_(pages),
        memory_(new(std::align_val_t(64)) std::byte[pages * stride()]) {
    const retrieval::LayerSpec layer = Layer();
    const size_t elements = kChunkTokens * layer.row_elements();
    for (size_t p = 0; p < std::min(pages, kDistinctPages); ++p) {
      const std::vector<std::byte> rows =
          kernels::Encoded(kDType, kernels::Gaussian(elements, static_cast<uint32_t>(p)));
      BuildAbstract(layer, kDType, layout_, rows.data(), 0, memory_.get() + p * stride());
    }
    for (size_t p = kDistinctPages; p < pages; ++p) {
      std::memcpy(memory_.get() + p * stride(),
                  memory_.get() + p % kDistinctPages * stride(), stride());
    }
  }

  const AbstractLayout& layout() const { return layout_; }
  size_t stride() const { return layout_.page_abstract_bytes; }
  size_t pages() const { return pages_; }
  const std::byte* page(size_t index) const { return memory_.get() + index * stride(); }

  Regions RegionsOf(size_t offset, size_t bytes) const {
    return {.data = memory_.get() + offset,
            .count = pages_,
            .region_bytes = bytes,
            .stride_bytes = stride()};
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { operator delete[](p, std::align_val_t(64)); }
  };

  const AbstractLayout layout_;
  const size_t pages_;
  const std::unique_ptr<std::byte[], Free> memory_;
};

// Counts pages so that the kernel reads the footprint, in whole runs.
size_t PagesFor(const Settings& settings, size_t read_bytes) {
  const size_t pages = settings.footprint_bytes / read_bytes;
  return std::max<size_t>(1, pages / kRunPages) * kRunPages;
}

// What a page of the kernel takes: bytes read, and products of one query head.
struct Work {
  size_t read_bytes = 0;
  uint64_t products = 0;
  double (*dot_seconds)(uint64_t) = nullptr;
  const char* dot_name = "";
};

// ours: seconds to score all pages
absl::Status ScoreRow(const Settings& settings, const Work& work, const Regions& regions,
                      absl::FunctionRef<double()> ours, Row* row) {
  const double gigabytes = static_cast<double>(regions.bytes()) / 1e9;
  std::vector<double> memory, dot;
  row->unit = "GB/s";
  row->ceiling_is = absl::StrCat("min of reading the same bytes and of a dot product, ",
                                 work.dot_name, ", of as many products out of L1");
  absl::Status status = RunRounds(
      settings.rounds, Better::kHigher,
      [&]() -> absl::StatusOr<double> { return gigabytes / ours(); },
      [&]() -> absl::StatusOr<double> {
        memory.push_back(gigabytes / ReadSeconds(regions));
        dot.push_back(gigabytes /
                      work.dot_seconds(regions.count * work.products * kGroup));
        return std::min(memory.back(), dot.back());
      },
      row);
  if (!status.ok()) return status;
  row->details = {{"query_heads_per_kv_head", absl::StrCat(kGroup)},
                  {"threads", "1"},
                  {"pages", absl::StrCat(regions.count)},
                  {"bytes_per_page", absl::StrCat(work.read_bytes)},
                  {"memory_gb_s", absl::StrFormat("%.1f", Median(memory))},
                  {"dot_gb_s", absl::StrFormat("%.1f", Median(dot))},
                  {"keys", "synthetic"}};
  return absl::OkStatus();
}

absl::Status BoundsBench(const Settings& settings, Row* row) {
  constexpr size_t kBytes = kernels::kBoundsSpans * 2 * kDim * sizeof(uint16_t);
  const Abstracts abstracts(PagesFor(settings, kBytes));
  const size_t offset = abstracts.layout().bounds_offset;
  const std::vector<float> queries = kernels::Gaussian(kGroup * kDim, 7);
  constexpr size_t kStride = kRunPages * kernels::kBoundsSpans;
  std::vector<float> logits(kGroup * kStride);
  const float scale = Layer().Scale();
  const auto ours = [&] {
    const Stopwatch stopwatch;
    for (size_t p = 0; p < abstracts.pages(); ++p) {
      const auto* bounds = reinterpret_cast<const uint16_t*>(abstracts.page(p) + offset);
      kernels::ScoreBounds(queries.data(), kGroup, kDim, bounds, scale,
                           logits.data() + p % kRunPages * kernels::kBoundsSpans,
                           kStride);
    }
    return stopwatch.Seconds();
  };
  const Work work{.read_bytes = kBytes,
                  .products = kernels::kBoundsSpans * 2 * kDim,
                  .dot_seconds = DotF32Seconds,
                  .dot_name = "f32"};
  return ScoreRow(settings, work, abstracts.RegionsOf(offset, kBytes), ours, row);
}

absl::Status SketchBench(const Settings& settings, Row* row) {
  const AbstractLayout layout = AbstractLayout::For(Layer(), AbstractSet());
  const size_t planes = 2 * layout.padded_key_dim / 4 * (kChunkTokens / 2);
  const size_t bytes = kDim * sizeof(uint16_t) + kChunkTokens + planes;
  const Abstracts abstracts(PagesFor(settings, bytes));
  const std::vector<float> queries = kernels::Gaussian(kGroup * kDim, 7);
  std::vector<float> logits(kGroup * kRunTokens);
  kernels::SketchQuery query;
  const auto ours = [&] {
    const Stopwatch stopwatch;
    for (size_t p = 0; p < abstracts.pages(); ++p) {
      if (p % kRunPages == 0) {
        kernels::PrepareSketchQuery(queries.data(), kGroup, kDim, &query);
      }
      const auto* page = reinterpret_cast<const uint8_t*>(abstracts.page(p));
      kernels::ScoreSketch(
          query,
          {.mean_f16 = reinterpret_cast<const uint16_t*>(page + layout.key_mean_offset),
           .scales = page + layout.scales_offset,
           .high = page + layout.high_plane_offset,
           .low = page + layout.low_plane_offset},
          Layer().Scale(), logits.data() + p % kRunPages * kChunkTokens, kRunTokens);
    }
    return stopwatch.Seconds();
  };
  const Work work{.read_bytes = bytes,
                  .products = uint64_t{kChunkTokens} * kDim,
                  .dot_seconds = DotInt8Seconds,
                  .dot_name = DotInt8Name()};
  // The kernel skips the value's mean; the ceiling reads as many bytes in one piece.
  return ScoreRow(settings, work, abstracts.RegionsOf(0, bytes), ours, row);
}

}  // namespace

std::vector<Bench> ScoreBenches() {
  return {{"score.bounds", BoundsBench}, {"score.sketch", SketchBench}};
}

}  // namespace kvtier::bench
