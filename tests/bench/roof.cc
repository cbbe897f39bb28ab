#include "tests/bench/roof.h"

#include <algorithm>
#include <vector>

#include "tests/bench/rounds.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/roof.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvtier::bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

uint64_t ReadKernel(const std::byte* data, size_t bytes) {
  const hn::ScalableTag<uint64_t> d;
  const size_t lanes = hn::Lanes(d);
  const auto* words = reinterpret_cast<const uint64_t*>(data);
  const size_t count = bytes / sizeof(uint64_t);
  auto a = hn::Zero(d), b = hn::Zero(d), c = hn::Zero(d), e = hn::Zero(d);
  size_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    a = hn::Xor(a, hn::LoadU(d, words + i));
    b = hn::Xor(b, hn::LoadU(d, words + i + lanes));
    c = hn::Xor(c, hn::LoadU(d, words + i + 2 * lanes));
    e = hn::Xor(e, hn::LoadU(d, words + i + 3 * lanes));
  }
  // Widest vectors have 8 lanes on x86, 32 on anything that Highway knows.
  uint64_t left[32] = {};
  hn::StoreU(hn::Xor(hn::Xor(a, b), hn::Xor(c, e)), d, left);
  for (; i < count; ++i) left[0] ^= words[i];
  for (size_t lane = 1; lane < lanes; ++lane) left[0] ^= left[lane];
  return left[0];
}

// [4] queries of one vector each against `count` floats, `repeats` times.
float DotKernel(const float* keys, size_t count, const float* queries, uint64_t repeats,
                uint64_t* multiply_adds) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto q0 = hn::LoadU(d, queries), q1 = hn::LoadU(d, queries + lanes);
  const auto q2 = hn::LoadU(d, queries + 2 * lanes);
  const auto q3 = hn::LoadU(d, queries + 3 * lanes);
  auto a0 = hn::Zero(d), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  for (uint64_t r = 0; r < repeats; ++r) {
    for (size_t i = 0; i + 2 * lanes <= count; i += 2 * lanes) {
      const auto k = hn::LoadU(d, keys + i), l = hn::LoadU(d, keys + i + lanes);
      a0 = hn::MulAdd(k, q0, a0), a1 = hn::MulAdd(k, q1, a1);
      a2 = hn::MulAdd(k, q2, a2), a3 = hn::MulAdd(k, q3, a3);
      b0 = hn::MulAdd(l, q0, b0), b1 = hn::MulAdd(l, q1, b1);
      b2 = hn::MulAdd(l, q2, b2), b3 = hn::MulAdd(l, q3, b3);
    }
  }
  *multiply_adds = repeats * (count / (2 * lanes)) * 8 * lanes;
  const auto a = hn::Add(hn::Add(a0, a1), hn::Add(a2, a3));
  const auto b = hn::Add(hn::Add(b0, b1), hn::Add(b2, b3));
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(a, b)));
}

}  // namespace kvtier::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvtier::bench {

HWY_EXPORT(ReadKernel);
HWY_EXPORT(DotKernel);

namespace {

constexpr size_t kFloats = 4096;  // 16 KiB: half of the smallest L1

// Where results go, so that no compiler leaves their making out.
volatile uint64_t sink;

}  // namespace

double ReadSeconds(const Regions& regions) {
  const Stopwatch stopwatch;
  uint64_t sum = 0;
  for (size_t i = 0; i < regions.count; ++i) {
    sum ^= HWY_DYNAMIC_DISPATCH(ReadKernel)(regions.data + i * regions.stride_bytes,
                                            regions.region_bytes);
  }
  sink = sum;
  return stopwatch.Seconds();
}

double DotF32Seconds(uint64_t multiply_adds) {
  const std::vector<float> keys(kFloats, 0.25f);
  const std::vector<float> queries(4 * 64, 0.5f);
  const uint64_t repeats = std::max<uint64_t>(1, multiply_adds / (4 * kFloats));
  uint64_t done = 0;
  const Stopwatch stopwatch;
  sink = static_cast<uint64_t>(HWY_DYNAMIC_DISPATCH(DotKernel)(
      keys.data(), keys.size(), queries.data(), repeats, &done));
  return stopwatch.Seconds() * static_cast<double>(multiply_adds) /
         static_cast<double>(done);
}

}  // namespace kvtier::bench
#endif  // HWY_ONCE
