// Intrinsics, because Highway 1.0.3 has no dot-product instructions.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tests/bench/roof.h"
#include "tests/bench/rounds.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace kvtier::bench {
namespace {

constexpr size_t kKeys = 16384;  // bytes: half of the smallest L1
constexpr size_t kQueries = 4;
constexpr size_t kVectorMax = 64;

volatile int32_t sink;

// [kQueries] queries of kVectorMax bytes against kKeys bytes, `repeats` times; every
// kernel does repeats * kKeys * kQueries multiply-adds.
using Kernel = int32_t (*)(const uint8_t* keys, const int8_t* queries, uint64_t repeats);

int32_t DotPortable(const uint8_t* keys, const int8_t* queries, uint64_t repeats) {
  int32_t sums[kQueries] = {};
  for (uint64_t r = 0; r < repeats; ++r) {
    for (size_t i = 0; i < kKeys; i += kVectorMax) {
      for (size_t q = 0; q < kQueries; ++q) {
        int32_t sum = 0;
        for (size_t j = 0; j < kVectorMax; ++j) {
          sum += keys[i + j] * queries[q * kVectorMax + j];
        }
        sums[q] = static_cast<int32_t>(static_cast<uint32_t>(sums[q]) +
                                       static_cast<uint32_t>(sum));
      }
    }
  }
  return sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512vnni"))) int32_t DotVnni(const uint8_t* keys,
                                                              const int8_t* queries,
                                                              uint64_t repeats) {
  const __m512i q0 = _mm512_loadu_si512(queries), q1 = _mm512_loadu_si512(queries + 64);
  const __m512i q2 = _mm512_loadu_si512(queries + 128);
  const __m512i q3 = _mm512_loadu_si512(queries + 192);
  __m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, a3 = a0;
  __m512i b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  for (uint64_t r = 0; r < repeats; ++r) {
    for (size_t i = 0; i < kKeys; i += 128) {
      const __m512i k = _mm512_loadu_si512(keys + i);
      const __m512i l = _mm512_loadu_si512(keys + i + 64);
      a0 = _mm512_dpbusd_epi32(a0, k, q0), a1 = _mm512_dpbusd_epi32(a1, k, q1);
      a2 = _mm512_dpbusd_epi32(a2, k, q2), a3 = _mm512_dpbusd_epi32(a3, k, q3);
      b0 = _mm512_dpbusd_epi32(b0, l, q0), b1 = _mm512_dpbusd_epi32(b1, l, q1);
      b2 = _mm512_dpbusd_epi32(b2, l, q2), b3 = _mm512_dpbusd_epi32(b3, l, q3);
    }
  }
  const __m512i a = _mm512_xor_si512(_mm512_xor_si512(a0, a1), _mm512_xor_si512(a2, a3));
  const __m512i b = _mm512_xor_si512(_mm512_xor_si512(b0, b1), _mm512_xor_si512(b2, b3));
  alignas(64) int32_t out[16];
  _mm512_store_si512(out, _mm512_xor_si512(a, b));
  return out[0];
}

__attribute__((target("avx2"))) __m256i Load256(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

__attribute__((target("avx2"))) __m256i MulAddPairs(__m256i keys, __m256i query,
                                                    __m256i sum) {
  const __m256i pairs = _mm256_maddubs_epi16(keys, query);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

__attribute__((target("avx2"))) int32_t DotAvx2(const uint8_t* keys,
                                                const int8_t* queries, uint64_t repeats) {
  const __m256i q0 = Load256(queries), q1 = Load256(queries + 64);
  const __m256i q2 = Load256(queries + 128), q3 = Load256(queries + 192);
  __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0;
  for (uint64_t r = 0; r < repeats; ++r) {
    for (size_t i = 0; i < kKeys; i += 32) {
      const __m256i k = Load256(keys + i);
      a0 = MulAddPairs(k, q0, a0), a1 = MulAddPairs(k, q1, a1);
      a2 = MulAddPairs(k, q2, a2), a3 = MulAddPairs(k, q3, a3);
    }
  }
  alignas(32) int32_t out[8];
  _mm256_store_si256(
      reinterpret_cast<__m256i*>(out),
      _mm256_xor_si256(_mm256_xor_si256(a0, a1), _mm256_xor_si256(a2, a3)));
  return out[0];
}
#endif

struct Choice {
  Kernel kernel;
  const char* name;
};

Choice Best() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512vnni")) return {DotVnni, "avx512-vnni"};
  if (__builtin_cpu_supports("avx2")) return {DotAvx2, "avx2"};
#endif
  return {DotPortable, "portable"};
}

}  // namespace

double DotInt8Seconds(uint64_t multiply_adds) {
  const std::vector<uint8_t> keys(kKeys, 3);
  const std::vector<int8_t> queries(kQueries * kVectorMax, 1);
  const Kernel kernel = Best().kernel;
  const uint64_t repeats = std::max<uint64_t>(1, multiply_adds / (kKeys * kQueries));
  const Stopwatch stopwatch;
  sink = kernel(keys.data(), queries.data(), repeats);
  return stopwatch.Seconds() * static_cast<double>(multiply_adds) /
         static_cast<double>(repeats * kKeys * kQueries);
}

const char* DotInt8Name() { return Best().name; }

}  // namespace kvtier::bench
