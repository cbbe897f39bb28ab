#include "kernels/host/sketch.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/host/convert.h"
#include "kernels/host/rotate.h"

// For the dot product of bytes.
#define HWY_WANT_AVX3_DL
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/sketch.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef KVTIER_KERNELS_HOST_SKETCH_CC_ONCE
#define KVTIER_KERNELS_HOST_SKETCH_CC_ONCE
namespace kvtier::kernels {
// Of a Gaussian's rms: the step of the best uniform four-level quantiser.
inline constexpr float kLevelStep = 0.996f;
// 2^(i / 8), twice over: a vector of the largest there is.
alignas(64) inline constexpr float kEighths[kRowPad] = {
    1.0f,        1.0905077f, 1.1892071f, 1.2968396f, 1.41421356f, 1.5422108f,
    1.6817928f,  1.8340081f, 1.0f,       1.0905077f, 1.1892071f,  1.2968396f,
    1.41421356f, 1.5422108f, 1.6817928f, 1.8340081f};
inline constexpr size_t kBlockQuads = kSketchBlock / 4;
// Heads that are scored at once.
inline constexpr size_t kHeadsMax = 4;
// Where a block's component stands in its word: slices of four, a bit of each byte.
constexpr size_t SketchBit(size_t component) { return component % 4 * 8 + component / 4; }
}  // namespace kvtier::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace kvtier::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::CappedTag<float, kRowPad>;
using DU32 = hn::RebindToUnsigned<DF>;
using DI32 = hn::RebindToSigned<DF>;
using DI16 = hn::Repartition<int16_t, DF>;

// y[i][t] = sign of i * (keys[t][i] - mean[i]) for i < dim; transposed in blocks of 4
// x 4.
void CentreColumnsKernel(const float* keys, size_t dim, size_t padded, const float* mean,
                         float* y) {
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d;
  for (; i + 4 <= dim; i += 4) {
    const float signs[4] = {RotationSign(i), RotationSign(i + 1), RotationSign(i + 2),
                            RotationSign(i + 3)};
    const auto sign = hn::LoadU(d, signs);
    const auto centre = hn::LoadU(d, mean + i);
    float* out = y + i * kSketchTokens;
    for (size_t t = 0; t < kSketchTokens; t += 4) {
      const float* in = keys + t * padded + i;
      const auto a = hn::Mul(sign, hn::Sub(hn::LoadU(d, in), centre));
      const auto b = hn::Mul(sign, hn::Sub(hn::LoadU(d, in + padded), centre));
      const auto c = hn::Mul(sign, hn::Sub(hn::LoadU(d, in + 2 * padded), centre));
      const auto e = hn::Mul(sign, hn::Sub(hn::LoadU(d, in + 3 * padded), centre));
      const auto ab_lower = hn::InterleaveLower(d, a, b);
      const auto ab_upper = hn::InterleaveUpper(d, a, b);
      const auto ce_lower = hn::InterleaveLower(d, c, e);
      const auto ce_upper = hn::InterleaveUpper(d, c, e);
      hn::StoreU(hn::ConcatLowerLower(d, ce_lower, ab_lower), d, out + t);
      hn::StoreU(hn::ConcatUpperUpper(d, ce_lower, ab_lower), d, out + kSketchTokens + t);
      hn::StoreU(hn::ConcatLowerLower(d, ce_upper, ab_upper), d,
                 out + 2 * kSketchTokens + t);
      hn::StoreU(hn::ConcatUpperUpper(d, ce_upper, ab_upper), d,
                 out + 3 * kSketchTokens + t);
    }
  }
#endif
  for (; i < dim; ++i) {
    const float sign = RotationSign(i);
    for (size_t t = 0; t < kSketchTokens; ++t) {
      y[i * kSketchTokens + t] = sign * (keys[t * padded + i] - mean[i]);
    }
  }
}

// Codes rotated keys, y: [D][64], a column each: planes, and c of each token.
void CodeColumnsKernel(const float* y, size_t rotated_dim, float* scales, uint8_t* high,
                       uint8_t* low) {
  const DF d;
  const DU32 du;
  const size_t lanes = hn::Lanes(d);
  for (size_t t = 0; t < kSketchTokens; t += lanes) {
    auto sum = hn::Zero(d);
    for (size_t i = 0; i < rotated_dim; ++i) {
      const auto v = hn::LoadU(d, y + i * kSketchTokens + t);
      sum = hn::MulAdd(v, v, sum);
    }
    const auto mean = hn::Mul(sum, hn::Set(d, 1.0f / static_cast<float>(rotated_dim)));
    const auto step = hn::Mul(hn::Set(d, kLevelStep), hn::Sqrt(mean));
    auto yz = hn::Zero(d);
    auto zz = hn::Zero(d);
    for (size_t block = 0; block * kSketchBlock < rotated_dim; ++block) {
      auto high_bits = hn::Zero(du);
      auto low_bits = hn::Zero(du);
      const size_t end = std::min(kSketchBlock, rotated_dim - block * kSketchBlock);
      for (size_t i = 0; i < end; ++i) {
        const auto v = hn::LoadU(d, y + (block * kSketchBlock + i) * kSketchTokens + t);
        const auto positive = hn::Ge(v, hn::Zero(d));
        const auto outer = hn::Ge(hn::Abs(v), step);
        // Codes in order -1.5 -0.5 0.5 1.5: the low bit is "outer" above zero and
        // "inner" below.
        const auto low_set =
            hn::Xor(hn::VecFromMask(d, outer), hn::VecFromMask(d, hn::Not(positive)));
        const auto bit = hn::Set(du, uint32_t{1} << SketchBit(i));
        high_bits =
            hn::Or(high_bits, hn::IfThenElseZero(hn::RebindMask(du, positive), bit));
        low_bits = hn::Or(low_bits, hn::And(hn::BitCast(du, low_set), bit));
        const auto magnitude = hn::IfThenElse(outer, hn::Set(d, 1.5f), hn::Set(d, 0.5f));
        yz = hn::MulAdd(hn::Abs(v), magnitude, yz);
        zz = hn::MulAdd(magnitude, magnitude, zz);
      }
      const size_t word = block * kSketchTokens + t;
      hn::StoreU(high_bits, du, reinterpret_cast<uint32_t*>(high) + word);
      hn::StoreU(low_bits, du, reinterpret_cast<uint32_t*>(low) + word);
    }
    hn::StoreU(hn::Div(yz, zz), d, scales + t);
  }
}

// Sums of products of 8-bit numbers, a 32-bit lane each: codes (0 to 3) by a query's
// quads. Flush() is due after four blocks and at the end.
#if HWY_TARGET == HWY_AVX3_DL
class QuadSums {
 public:
  QuadSums() : sum_(hn::Zero(DI32())) {}
  void Add(hn::Vec<DI32> codes, hn::Vec<DI32> quad) {
    // The intrinsic needs a compiler flag that Highway 1.0.3 doesn't set for this target,
    // though it asks the processor for it.
    asm("vpdpbusd %2, %1, %0" : "+v"(sum_.raw) : "v"(codes.raw), "v"(quad.raw));
  }
  void Flush() {}
  hn::Vec<DI32> sum() const { return sum_; }

 private:
  hn::Vec<DI32> sum_;
};
#elif HWY_ARCH_X86
// Pairs of products fit 16 bits, and so do sums of 32: 32 * 2 * 3 * 127.
class QuadSums {
 public:
  QuadSums() : pairs_(hn::Zero(DI16())), sum_(hn::Zero(DI32())) {}
  void Add(hn::Vec<DI32> codes, hn::Vec<DI32> quad) {
    hn::Vec<DI16> pairs;
#if HWY_TARGET == HWY_AVX3
    pairs.raw = _mm512_maddubs_epi16(codes.raw, quad.raw);
#elif HWY_TARGET == HWY_AVX2
    pairs.raw = _mm256_maddubs_epi16(codes.raw, quad.raw);
#else
    pairs.raw = _mm_maddubs_epi16(codes.raw, quad.raw);
#endif
    pairs_ = hn::Add(pairs_, pairs);
  }
  void Flush() {
    const DI16 d;
    const auto quads = hn::ShiftRight<16>(hn::BitCast(DI32(), pairs_));
    const auto even = hn::ShiftRight<16>(hn::ShiftLeft<16>(hn::BitCast(DI32(), pairs_)));
    sum_ = hn::Add(sum_, hn::Add(quads, even));
    pairs_ = hn::Zero(d);
  }
  hn::Vec<DI32> sum() const { return sum_; }

 private:
  hn::Vec<DI16> pairs_;
  hn::Vec<DI32> sum_;
};
#else
class QuadSums {
 public:
  QuadSums() : sum_(hn::Zero(DI32())) {}
  void Add(hn::Vec<DI32> codes, hn::Vec<DI32> quad) {
    const auto product = [](auto code, auto query) {
      return hn::Mul(hn::And(code, hn::Set(DI32(), 3)), hn::ShiftRight<24>(query));
    };
    sum_ = hn::Add(sum_, product(codes, hn::ShiftLeft<24>(quad)));
    sum_ = hn::Add(sum_, product(hn::ShiftRight<8>(codes), hn::ShiftLeft<16>(quad)));
    sum_ = hn::Add(sum_, product(hn::ShiftRight<16>(codes), hn::ShiftLeft<8>(quad)));
    sum_ = hn::Add(sum_, product(hn::ShiftRight<24>(codes), quad));
  }
  void Flush() {}
  hn::Vec<DI32> sum() const { return sum_; }

 private:
  hn::Vec<DI32> sum_;
};
#endif

// 2^(i / 8), i from 0 to 7.
hn::Vec<DF> Eighths(hn::Vec<DI32> i) {
  const DF d;
#if HWY_MAX_BYTES >= 32
  return hn::TableLookupLanes(hn::Load(d, kEighths), hn::IndicesFromVec(d, i));
#else
  alignas(64) int32_t indices[kRowPad];
  hn::Store(i, DI32(), indices);
  alignas(64) float eighths[kRowPad];
  for (size_t lane = 0; lane < hn::Lanes(d); ++lane) {
    eighths[lane] = kEighths[indices[lane]];
  }
  return hn::Load(d, eighths);
#endif
}

// 2^((byte - 128) / 8) of the page's tokens, and 0 of byte 0.
void ScalesKernel(const uint8_t* bytes, float* scales) {
  const DF d;
  const DI32 di;
  const hn::Rebind<uint8_t, DF> d8;
  const size_t lanes = hn::Lanes(d);
  for (size_t t = 0; t < kSketchTokens; t += lanes) {
    const auto byte = hn::PromoteTo(di, hn::LoadU(d8, bytes + t));
    const auto eighths = Eighths(hn::And(byte, hn::Set(di, 7)));
    const auto octave =
        hn::ShiftLeft<23>(hn::Sub(hn::ShiftRight<3>(byte), hn::Set(di, 16)));
    const auto scale = hn::BitCast(d, hn::Add(hn::BitCast(di, eighths), octave));
    hn::StoreU(hn::IfThenZeroElse(hn::RebindMask(d, hn::Eq(byte, hn::Zero(di))), scale),
               d, scales + t);
  }
}

// q.m of heads [first, first + kHeads), each in all lanes. What there is one of per head
// is in registers only if its loops are written out, here and below.
//   mean: [PaddedRow(dim)]
template <size_t kHeads>
HWY_INLINE void MeanDots(const SketchQuery& query, size_t first,
                         const hwy::float16_t* mean, hn::Vec<DF>* dots) {
  const DF d;
  const hn::Rebind<hwy::float16_t, DF> d_f16;
  const size_t padded = PaddedRow(query.dim);
  const float* q = query.queries.data() + first * padded;
  hn::Vec<DF> sums[kHeads];
  HWY_UNROLL(4)
  for (size_t h = 0; h < kHeads; ++h) sums[h] = hn::Zero(d);
  for (size_t i = 0; i < padded; i += hn::Lanes(d)) {
    const auto m = hn::PromoteTo(d, hn::LoadU(d_f16, mean + i));
    HWY_UNROLL(4)
    for (size_t h = 0; h < kHeads; ++h) {
      sums[h] = hn::MulAdd(hn::LoadU(d, q + h * padded + i), m, sums[h]);
    }
  }
  HWY_UNROLL(4)
  for (size_t h = 0; h < kHeads; ++h) dots[h] = hn::SumOfLanes(d, sums[h]);
}

// Scores heads [first, first + kHeads): codes are unpacked once for all.
template <size_t kHeads>
void ScoreHeads(const SketchQuery& query, size_t first, const SketchParts& page,
                const SketchParts& next, const float* scales, const hwy::float16_t* mean,
                float* logits, size_t head_stride) {
  const DF d;
  const DI32 di;
  const size_t lanes = hn::Lanes(d);
  hn::Vec<DF> base[kHeads], step[kHeads], offset[kHeads];
  MeanDots<kHeads>(query, first, mean, base);
  HWY_UNROLL(4)
  for (size_t h = 0; h < kHeads; ++h) {
    step[h] = hn::Set(d, query.step[first + h]);
    offset[h] = hn::Set(d, query.offset[first + h]);
  }
  const auto high_bits = hn::Set(di, static_cast<int32_t>(0xAAAAAAAA));
  const auto low_bits = hn::Set(di, 0x55555555);
  const auto code_bits = hn::Set(di, 0x03030303);
  const size_t blocks = query.blocks;
  const int32_t* quads = query.quads.data() + first * blocks * kBlockQuads;
  // Two vectors of tokens, where registers are many: one has to wait for its own sums.
  constexpr size_t kVectors = HWY_MAX_BYTES >= 64 ? 2 : 1;
  for (size_t t = 0; t < kSketchTokens; t += kVectors * lanes) {
    QuadSums sums[kVectors][kHeads];
    for (size_t block = 0; block < blocks; ++block) {
      const int32_t* quad = quads + block * kBlockQuads * kHeads;
      hn::Vec<DI32> even[kVectors], odd[kVectors];
      HWY_UNROLL(4)
      for (size_t v = 0; v < kVectors; ++v) {
        const size_t at = (block * kSketchTokens + t + v * lanes) * 4;
        // Few at a time: the memory takes no more, and what waits for it holds up the
        // rest. Into the second cache: a core waits for more of those lines at once.
        __builtin_prefetch(next.high + at, 0, 2);
        __builtin_prefetch(next.low + at, 0, 2);
        const auto h = hn::LoadU(di, reinterpret_cast<const int32_t*>(page.high + at));
        const auto l = hn::LoadU(di, reinterpret_cast<const int32_t*>(page.low + at));
        // Codes of slices 0, 2, 4 and 6, and of 1, 3, 5 and 7: two bits each.
        even[v] = hn::OrAnd(hn::And(hn::Add(h, h), high_bits), l, low_bits);
        odd[v] = hn::OrAnd(hn::And(hn::ShiftRight<1>(l), low_bits), h, high_bits);
      }
      HWY_UNROLL(4)
      for (size_t slice = 0; slice < kBlockQuads; slice += 2) {
        hn::Vec<DI32> codes[kVectors], next_codes[kVectors];
        HWY_UNROLL(4)
        for (size_t v = 0; v < kVectors; ++v) {
          codes[v] = hn::And(even[v], code_bits);
          next_codes[v] = hn::And(odd[v], code_bits);
          even[v] = hn::ShiftRight<2>(even[v]);
          odd[v] = hn::ShiftRight<2>(odd[v]);
        }
        HWY_UNROLL(4)
        for (size_t head = 0; head < kHeads; ++head) {
          const auto four = hn::Set(di, quad[slice * kHeads + head]);
          HWY_UNROLL(4)
          for (size_t v = 0; v < kVectors; ++v) sums[v][head].Add(codes[v], four);
        }
        HWY_UNROLL(4)
        for (size_t head = 0; head < kHeads; ++head) {
          const auto four = hn::Set(di, quad[(slice + 1) * kHeads + head]);
          HWY_UNROLL(4)
          for (size_t v = 0; v < kVectors; ++v) sums[v][head].Add(next_codes[v], four);
        }
      }
      if (block % 4 != 3 && block + 1 != blocks) continue;
      HWY_UNROLL(4)
      for (size_t v = 0; v < kVectors; ++v) {
        HWY_UNROLL(4)
        for (size_t head = 0; head < kHeads; ++head) sums[v][head].Flush();
      }
    }
    HWY_UNROLL(4)
    for (size_t v = 0; v < kVectors; ++v) {
      const size_t token = t + v * lanes;
      const auto token_scales = hn::LoadU(d, scales + token);
      HWY_UNROLL(4)
      for (size_t h = 0; h < kHeads; ++h) {
        const auto sum = hn::ConvertTo(d, sums[v][h].sum());
        const auto rz = hn::MulAdd(sum, step[h], offset[h]);
        hn::StoreU(hn::MulAdd(token_scales, rz, base[h]), d,
                   logits + (first + h) * head_stride + token);
      }
    }
  }
}

void ScoreSketchKernel(const SketchQuery& query, const SketchParts& page,
                       const SketchParts& next, float* logits, size_t head_stride) {
  alignas(64) float scales[kSketchTokens];
  ScalesKernel(page.scales, scales);
  alignas(64) hwy::float16_t mean[PaddedRow(kSketchDimMax + 1)];
  std::memset(mean + query.dim / kRowPad * kRowPad, 0, kRowPad * sizeof(*mean));
  std::memcpy(mean, page.mean_f16, query.dim * sizeof(*mean));
  for (size_t h = 0; h < query.heads; h += kHeadsMax) {
    const auto score = [&](auto kernel) {
      // What follows is asked for once.
      kernel(query, h, page, h == 0 ? next : page, scales, mean, logits, head_stride);
    };
    const size_t together = std::min(kHeadsMax, query.heads - h);
    if (together == 4) score(ScoreHeads<4>);
    if (together == 3) score(ScoreHeads<3>);
    if (together == 2) score(ScoreHeads<2>);
    if (together == 1) score(ScoreHeads<1>);
  }
}

}  // namespace kvtier::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvtier::kernels {

HWY_EXPORT(CentreColumnsKernel);
HWY_EXPORT(CodeColumnsKernel);
HWY_EXPORT(ScoreSketchKernel);

namespace {

constexpr int kScaleBias = 128;

// So that sums of 1,024 products with the largest f16 are finite.
constexpr float kQueryMax = 1e30f;

float ClampToF16(float v) { return std::clamp(v, -65504.0f, 65504.0f); }

}  // namespace

size_t SketchPlaneBytes(size_t dim) {
  return (RotatedDim(dim) + kSketchBlock - 1) / kSketchBlock * kSketchTokens * 4;
}

float SketchScale(uint8_t byte) {
  if (byte == 0) return 0.0f;
  return std::ldexp(kEighths[byte % 8], (byte - kScaleBias - byte % 8) / 8);
}

uint8_t SketchScaleByte(float scale) {
  if (!(scale > 0.0f)) return 0;
  const float byte = std::round(8.0f * std::log2(scale)) + kScaleBias;
  return static_cast<uint8_t>(std::clamp(byte, 0.0f, 255.0f));
}

void EncodeSketch(const float* keys, size_t dim, uint16_t* mean_f16, uint8_t* scales,
                  uint8_t* high, uint8_t* low, std::vector<float>* scratch) {
  const size_t padded = PaddedRow(dim);
  const size_t rotated_dim = RotatedDim(dim);
  scratch->resize(rotated_dim * kSketchTokens + padded);
  float* y = scratch->data();
  float* mean = y + rotated_dim * kSketchTokens;
  std::fill_n(mean, padded, 0.0f);
  for (size_t t = 0; t < kSketchTokens; ++t) {
    // Divided before adding: a sum of the largest keys would overflow.
    const float* key = keys + t * padded;
    for (size_t i = 0; i < padded; ++i) mean[i] += key[i] * (1.0f / kSketchTokens);
  }
  for (size_t i = 0; i < dim; ++i) mean[i] = ClampToF16(mean[i]);
  FromF32(DType::kF16, mean, dim, reinterpret_cast<std::byte*>(mean_f16));
  // What is left is measured from the mean as it is stored.
  ToF32(DType::kF16, reinterpret_cast<const std::byte*>(mean_f16), dim, mean);
  HWY_DYNAMIC_DISPATCH(CentreColumnsKernel)(keys, dim, padded, mean, y);
  std::fill_n(y + dim * kSketchTokens, (rotated_dim - dim) * kSketchTokens, 0.0f);
  HadamardColumns(y, rotated_dim, kSketchTokens);
  float token_scales[kSketchTokens];
  HWY_DYNAMIC_DISPATCH(CodeColumnsKernel)(y, rotated_dim, token_scales, high, low);
  for (size_t t = 0; t < kSketchTokens; ++t) scales[t] = SketchScaleByte(token_scales[t]);
}

void PrepareSketchQuery(const float* queries, size_t heads, size_t dim, float scale,
                        SketchQuery* out) {
  const size_t padded = PaddedRow(dim);
  const size_t rotated_dim = RotatedDim(dim);
  out->heads = heads;
  out->dim = dim;
  out->blocks = SketchPlaneBytes(dim) / (kSketchTokens * 4);
  out->queries.assign(heads * padded, 0.0f);
  out->quads.assign(heads * out->blocks * kBlockQuads, 0);
  out->step.resize(heads);
  out->offset.resize(heads);
  out->scratch.resize(rotated_dim);
  float* rotated = out->scratch.data();
  for (size_t h = 0; h < heads; ++h) {
    float* q = out->queries.data() + h * padded;
    for (size_t i = 0; i < dim; ++i) {
      q[i] = std::clamp(scale * queries[h * dim + i], -kQueryMax, kQueryMax);
    }
    Rotate(q, dim, rotated);
    float largest = 0.0f;
    for (size_t i = 0; i < rotated_dim; ++i) {
      largest = std::max(largest, std::abs(rotated[i]));
    }
    const float divisor = largest > 0.0f ? largest : 1.0f;
    // Heads that are scored together lie together.
    const size_t first = h / kHeadsMax * kHeadsMax;
    const size_t together = std::min(kHeadsMax, heads - first);
    int32_t* quads = out->quads.data() + first * out->blocks * kBlockQuads + (h - first);
    int sum = 0;
    for (size_t i = 0; i < rotated_dim; i += 4) {
      int8_t quad[4] = {};
      for (size_t c = 0; c < std::min<size_t>(4, rotated_dim); ++c) {
        quad[c] = static_cast<int8_t>(std::lround(127.0f * (rotated[i + c] / divisor)));
        sum += quad[c];
      }
      std::memcpy(quads + i / 4 * together, quad, sizeof(quad));
    }
    out->step[h] = largest / 127.0f;
    out->offset[h] = -1.5f * out->step[h] * static_cast<float>(sum);
  }
}

void ScoreSketch(const SketchQuery& query, const SketchParts& page,
                 const SketchParts& next, float* logits, size_t head_stride) {
  for (size_t i = 0; i < query.dim; i += 32) __builtin_prefetch(next.mean_f16 + i, 0, 2);
  __builtin_prefetch(next.scales, 0, 2);
  HWY_DYNAMIC_DISPATCH(ScoreSketchKernel)
  (query, page, next, logits, head_stride);
}

void ScoreSketchReference(const float* queries, size_t heads, size_t dim,
                          const SketchParts& page, float scale, float* logits,
                          size_t head_stride) {
  std::vector<float> rotated(RotatedDim(dim));
  for (size_t h = 0; h < heads; ++h) {
    const float* q = queries + h * dim;
    Rotate(q, dim, rotated.data());
    double q_mean = 0.0;
    for (size_t i = 0; i < dim; ++i) q_mean += q[i] * F32FromF16(page.mean_f16[i]);
    for (size_t t = 0; t < kSketchTokens; ++t) {
      double rz = 0.0;
      for (size_t i = 0; i < rotated.size(); ++i) {
        const size_t bit = SketchBit(i % kSketchBlock);
        const size_t byte = (i / kSketchBlock * kSketchTokens + t) * 4 + bit / 8;
        const int code =
            2 * (page.high[byte] >> bit % 8 & 1) + (page.low[byte] >> bit % 8 & 1);
        rz += rotated[i] * (code - 1.5);
      }
      logits[h * head_stride + t] =
          static_cast<float>(scale * (q_mean + SketchScale(page.scales[t]) * rz));
    }
  }
}

}  // namespace kvtier::kernels
#endif  // HWY_ONCE
