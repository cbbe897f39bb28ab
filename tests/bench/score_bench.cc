// Question: what does a selection cost beside reading its abstracts once?
// Hardware: any; one thread. Shape: 6,144 candidates, 9 query heads, 3 kv heads, d 64,
// f16, budget 256.
// Expectation: the sketch of 96 pages x 3 heads is 0.8 MiB, 25 us at 30 GB/s; 16 groups
// x 20 instructions x 288 pages x 3 heads are about 30 us; 55 thousand exponentials,
// twice, 100 us; choosing from 3 x 6,144 30 us. So 0.2 ms.
// Measured, 2026-11-23, CPU time, one run on a busy 2-core AMD EPYC virtual machine: the
// whole selection with kvtier 298 us; parts: sketch scores 45 us, softmax 30 us,
// choosing 113 us, four times what was expected. A page's abstract and checksum (16 KiB)
// take 7.6 us, its checksum alone 0.3 us.

#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/host/checksum.h"
#include "kernels/host/select.h"
#include "kernels/host/sketch.h"
#include "kernels/host/softmax.h"
#include "retrieval/system.h"
#include "tests/retrieval/fake_layer.h"

namespace kvtier::retrieval {
namespace {

constexpr size_t kChunks = 96;

const FakeLayer& Layer() {
  static const FakeLayer layer(SmallSpec(3, 3, 64, 64), DType::kF16, kChunks, 1);
  return layer;
}

void SelectWith(benchmark::State& state, const char* name) {
  const auto system = *System::Create({.system = name, .budget_tokens = 256});
  const std::vector<float> values = kernels::Gaussian(9 * 64, 2);
  const Query query = MakeQuery(values, 1, 0, kChunks * kChunkTokens);
  uint64_t bytes = 0;
  for (auto _ : state) {
    auto selected = system->Select(Layer().view(), query, nullptr);
    bytes = selected->abstract_bytes + selected->row_bytes;
    benchmark::DoNotOptimize(selected);
  }
  state.SetBytesProcessed(static_cast<int64_t>(bytes * state.iterations()));
}
BENCHMARK_CAPTURE(SelectWith, kvtier, "kvtier")->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(SelectWith, quest, "quest")->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(SelectWith, oracle, "oracle")->Unit(benchmark::kMicrosecond);

// The ceiling: one core reads the same pages' sketches, and does nothing else.
void ReadSketches(benchmark::State& state) {
  const LayerView& view = Layer().view();
  const size_t words = view.layout->bounds_offset / 8;
  for (auto _ : state) {
    uint64_t sum = 0;
    for (const PageView& page : view.pages) {
      const auto* p = reinterpret_cast<const uint64_t*>(page.abstract);
      uint64_t a = 0, b = 0, c = 0, d = 0;
      for (size_t i = 0; i + 4 <= words; i += 4) {
        a += p[i], b += p[i + 1], c += p[i + 2], d += p[i + 3];
      }
      sum += a + b + c + d;
    }
    benchmark::DoNotOptimize(sum);
  }
  state.SetBytesProcessed(
      static_cast<int64_t>(words * 8 * view.pages.size() * state.iterations()));
}
BENCHMARK(ReadSketches)->Unit(benchmark::kMicrosecond);

void ScoreSketches(benchmark::State& state) {
  const LayerView& view = Layer().view();
  const std::vector<float> values = kernels::Gaussian(3 * 64, 2);
  kernels::SketchQuery query;
  kernels::PrepareSketchQuery(values.data(), 3, 64, &query);
  std::vector<float> logits(3 * kChunkTokens);
  for (auto _ : state) {
    for (const PageView& page : view.pages) {
      const auto* bytes = reinterpret_cast<const uint8_t*>(page.abstract);
      kernels::ScoreSketch(query,
                           {.mean_f16 = reinterpret_cast<const uint16_t*>(bytes),
                            .scales = bytes + view.layout->scales_offset,
                            .high = bytes + view.layout->high_plane_offset,
                            .low = bytes + view.layout->low_plane_offset},
                           0.125f, logits.data(), kChunkTokens);
    }
    benchmark::DoNotOptimize(logits.data());
  }
}
BENCHMARK(ScoreSketches)->Unit(benchmark::kMicrosecond);

void Softmax(benchmark::State& state) {
  const std::vector<float> logits = kernels::Gaussian(6144, 3);
  std::vector<float> p(6144), scratch(6144);
  for (auto _ : state) {
    for (int h = 0; h < 9; ++h) {
      kernels::AddSoftmax(logits.data(), 6144, 1.0f, scratch.data(), p.data());
    }
    benchmark::DoNotOptimize(p.data());
  }
}
BENCHMARK(Softmax)->Unit(benchmark::kMicrosecond);

void SelectTop(benchmark::State& state) {
  std::vector<float> p = kernels::Gaussian(6144, 3);
  for (float& x : p) x = std::exp(x);
  std::vector<uint32_t> chosen;
  for (auto _ : state) {
    for (int h = 0; h < 3; ++h) {
      chosen.clear();
      kernels::SelectLargest(p, 256, 0, &chosen);
    }
    benchmark::DoNotOptimize(chosen.data());
  }
}
BENCHMARK(SelectTop)->Unit(benchmark::kMicrosecond);

// What a page costs on commit, and what its checksum alone does.
void BuildPage(benchmark::State& state) {
  const LayerView& view = Layer().view();
  std::vector<std::byte> abstract(view.layout->page_abstract_bytes);
  for (auto _ : state) {
    benchmark::DoNotOptimize(BuildAbstract(*view.spec, view.dtype, *view.layout,
                                           view.pages[0].rows, 0, abstract.data()));
  }
  state.SetBytesProcessed(
      static_cast<int64_t>(view.spec->PageBytes(view.dtype) * state.iterations()));
}
BENCHMARK(BuildPage)->Unit(benchmark::kMicrosecond);

void ChecksumPage(benchmark::State& state) {
  const LayerView& view = Layer().view();
  const size_t bytes = view.spec->PageBytes(view.dtype);
  for (auto _ : state) {
    benchmark::DoNotOptimize(kernels::Crc32c(0, view.pages[0].rows, bytes));
  }
  state.SetBytesProcessed(static_cast<int64_t>(bytes * state.iterations()));
}
BENCHMARK(ChecksumPage)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace kvtier::retrieval

BENCHMARK_MAIN();
