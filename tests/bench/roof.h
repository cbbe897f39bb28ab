// What one core of this machine can do at most, measured: read memory, and multiply and
// add. A kernel can't be faster than the slower of the two at what it must do.
//
// Thread safety: pure functions.

#ifndef KVTIER_TESTS_BENCH_ROOF_H_
#define KVTIER_TESTS_BENCH_ROOF_H_

#include <cstddef>
#include <cstdint>

namespace kvtier::bench {

// Equal regions at equal distances: region i starts at data + i * stride_bytes.
struct Regions {
  const std::byte* data = nullptr;
  size_t count = 0;
  size_t region_bytes = 0;  // a multiple of 8
  size_t stride_bytes = 0;

  uint64_t bytes() const { return uint64_t{count} * region_bytes; }
};

// Seconds in which one thread reads all of it and does nothing else but combine it.
double ReadSeconds(const Regions& regions);

// Seconds in which one thread does so many multiply-adds of a dot product, four queries
// in registers against vectors out of L1, with the widest instructions there are.
double DotF32Seconds(uint64_t multiply_adds);
// The same of 8-bit numbers.
double DotInt8Seconds(uint64_t multiply_adds);
// Of DotInt8Seconds: "avx512-vnni", "avx2" or "portable".
const char* DotInt8Name();

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_ROOF_H_
