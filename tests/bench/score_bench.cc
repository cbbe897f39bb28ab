// Question: how near are the scoring kernels to what one core can do?
// Method: abstracts of a gigabyte (what the kernel reads of them), scored by the stage
// that
//   a selection uses: a kv head's 1,024 pages for the query heads of its group, into one
//   array of logits. The ceiling of a round is the slower of reading as many bytes that
//   lie together and of a dot product with as many multiply-adds out of L1:
//     bounds   two products a channel, span and query head, in f32
//     sketch   one a component, token and query head, of 8-bit numbers: what a kernel
//              would do that had its codes unpacked
//   The rows `.cached` score 64 pages again and again, 0.3 MiB, beside the dot product
//   alone: what is the kernel's own, and not the memory's.
// Expectation: one core reads 31 to 38 GB/s. A page's bounds are 2 KiB: 60 ns; its 4,096
//   products take 16 a cycle 85 ns: 24 GB/s. The kernel has the roof's products, but of
//   each two only the larger one, and widens and clamps the bounds once for four query
//   heads: 0.8. A page's sketch is 2.3 KiB: 70 ns; its 32,768 products 64 a cycle 170 ns:
//   14 GB/s. The kernel's are the roof's, and unpacking shares no unit with them: 0.8.
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
#include "retrieval/score.h"
#include "retrieval/view.h"
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

  // `bytes` of each page, where they lie.
  Regions InPlace(size_t offset, size_t bytes) const {
    return {.data = memory_.get() + offset,
            .count = pages_,
            .region_bytes = bytes,
            .stride_bytes = stride()};
  }
  // As many in one piece.
  Regions Together(size_t bytes) const {
    return {.data = memory_.get(), .count = 1, .region_bytes = pages_ * bytes};
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { operator delete[](p, std::align_val_t(64)); }
  };

  const AbstractLayout layout_;
  const size_t pages_;
  const std::unique_ptr<std::byte[], Free> memory_;
};

// What a kernel does with a page.
struct Work {
  size_t offset = 0;  // of what it reads, in the page's abstract
  size_t read_bytes = 0;
  uint64_t products = 0;  // of one query head
  double (*dot_seconds)(uint64_t) = nullptr;
  const char* dot_name = "";
  std::unique_ptr<const retrieval::ScoreStage> stage;
  size_t units_per_page = 0;
};

enum class Pages { kInMemory, kInCache };

absl::Status ScoreRow(Pages where, const Settings& settings, const Work& work, Row* row) {
  // Whole runs, of which the kernel reads the footprint; or as many visits of few pages.
  const size_t runs =
      std::max<size_t>(1, settings.footprint_bytes / work.read_bytes / kRunPages);
  const size_t visits = runs * kRunPages;
  const Abstracts abstracts(where == Pages::kInMemory ? visits : kDistinctPages);
  const double gigabytes = static_cast<double>(visits * work.read_bytes) / 1e9;
  std::vector<double> in_place, memory, dot;
  std::vector<retrieval::PageView> pages(visits);
  for (size_t v = 0; v < visits; ++v) {
    pages[v].abstract = abstracts.page(v % abstracts.pages());
  }
  const retrieval::LayerSpec layer = Layer();
  retrieval::LayerView view;
  view.spec = &layer;
  view.layout = &abstracts.layout();
  view.dtype = kDType;
  view.chunk_count = kRunPages;
  view.pages = pages;
  const std::vector<float> queries = kernels::Gaussian(kGroup * kDim, 7);
  std::vector<float> logits(kGroup * kRunPages * work.units_per_page);
  const auto ours = [&]() -> absl::StatusOr<double> {
    const Stopwatch stopwatch;
    // To the stage, a run is a kv head.
    for (uint32_t run = 0; run < runs; ++run) {
      work.stage->Score({.layer = &view, .kv_head = run, .begin = 0, .end = kRunTokens},
                        queries.data(), logits.data(), kRunPages * work.units_per_page);
    }
    return gigabytes / stopwatch.Seconds();
  };
  const auto ceiling = [&]() -> absl::StatusOr<double> {
    dot.push_back(gigabytes / work.dot_seconds(visits * work.products * kGroup));
    if (where == Pages::kInCache) return dot.back();
    in_place.push_back(gigabytes /
                       ReadSeconds(abstracts.InPlace(work.offset, work.read_bytes)));
    memory.push_back(gigabytes / ReadSeconds(abstracts.Together(work.read_bytes)));
    return std::min(memory.back(), dot.back());
  };
  row->unit = "GB/s";
  row->ceiling_is = absl::StrCat(
      where == Pages::kInMemory ? "min of reading as many bytes in one piece and of "
                                : "",
      "a dot product, ", work.dot_name, ", of as many products out of L1");
  absl::Status status = RunRounds(settings.rounds, Better::kHigher, ours, ceiling, row);
  if (!status.ok()) return status;
  row->details = {{"query_heads_per_kv_head", absl::StrCat(kGroup)},
                  {"threads", "1"},
                  {"pages", absl::StrCat(abstracts.pages())},
                  {"bytes_per_page", absl::StrCat(work.read_bytes)},
                  {"dot_gb_s", absl::StrFormat("%.1f", Median(dot))}};
  if (where == Pages::kInMemory) {
    row->details.push_back({"memory_gb_s", absl::StrFormat("%.1f", Median(memory))});
    row->details.push_back(
        {"memory_in_place_gb_s", absl::StrFormat("%.1f", Median(in_place))});
  }
  row->details.push_back({"keys", "synthetic"});
  return absl::OkStatus();
}

absl::Status BoundsBench(Pages where, const Settings& settings, Row* row) {
  const AbstractLayout layout = AbstractLayout::For(Layer(), AbstractSet());
  return ScoreRow(where, settings,
                  {.offset = layout.bounds_offset,
                   .read_bytes = kernels::kBoundsSpans * 2 * kDim * sizeof(uint16_t),
                   .products = kernels::kBoundsSpans * 2 * kDim,
                   .dot_seconds = DotF32Seconds,
                   .dot_name = "f32",
                   .stage = retrieval::BoundScore(),
                   .units_per_page = kernels::kBoundsSpans},
                  row);
}

absl::Status SketchBench(Pages where, const Settings& settings, Row* row) {
  const AbstractLayout layout = AbstractLayout::For(Layer(), AbstractSet());
  const size_t planes = 2 * kernels::SketchPlaneBytes(kDim);
  // The kernel skips the value's mean, of 256 bytes; the ceiling reads in one piece.
  return ScoreRow(where, settings,
                  {.offset = layout.key_mean_offset,
                   .read_bytes = kDim * sizeof(uint16_t) + kChunkTokens + planes,
                   .products = uint64_t{kChunkTokens} * kDim,
                   .dot_seconds = DotInt8Seconds,
                   .dot_name = DotInt8Name(),
                   .stage = retrieval::SketchScore(),
                   .units_per_page = kChunkTokens},
                  row);
}

}  // namespace

std::vector<Bench> ScoreBenches() {
  const auto bench = [](auto run, Pages where) {
    return [run, where](const Settings& settings, Row* row) {
      return run(where, settings, row);
    };
  };
  return {{"score.bounds", bench(BoundsBench, Pages::kInMemory)},
          {"score.bounds.cached", bench(BoundsBench, Pages::kInCache)},
          {"score.sketch", bench(SketchBench, Pages::kInMemory)},
          {"score.sketch.cached", bench(SketchBench, Pages::kInCache)}};
}

}  // namespace kvtier::bench
