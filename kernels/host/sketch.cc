#include "kernels/host/sketch.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/host/convert.h"
#include "kernels/host/rotate.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/sketch.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef KVTIER_KERNELS_HOST_SKETCH_CC_ONCE
#define KVTIER_KERNELS_HOST_SKETCH_CC_ONCE
namespace kvtier::kernels {
// Of a Gaussian's rms: the step of the best uniform four-level quantiser.
inline constexpr float kLevelStep = 0.996f;
}  // namespace kvtier::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace kvtier::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::CappedTag<float, kRowPad>;
using DU32 = hn::RebindToUnsigned<DF>;
using DU16 = hn::Rebind<uint16_t, DF>;
using DBytes = hn::CappedTag<uint8_t, 32>;

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
  const hn::Rebind<uint8_t, DF> d8;
  const size_t lanes = hn::Lanes(d);
  alignas(64) float step[kSketchTokens];
  alignas(64) float yz[kSketchTokens] = {};
  alignas(64) float zz[kSketchTokens] = {};
  for (size_t t = 0; t < kSketchTokens; t += lanes) {
    auto sum = hn::Zero(d);
    for (size_t i = 0; i < rotated_dim; ++i) {
      const auto v = hn::LoadU(d, y + i * kSketchTokens + t);
      sum = hn::MulAdd(v, v, sum);
    }
    const auto mean = hn::Mul(sum, hn::Set(d, 1.0f / static_cast<float>(rotated_dim)));
    hn::Store(hn::Mul(hn::Set(d, kLevelStep), hn::Sqrt(mean)), d, step + t);
  }
  for (size_t g = 0; g < rotated_dim / 4; ++g) {
    alignas(64) uint8_t high_nibbles[kSketchTokens];
    alignas(64) uint8_t low_nibbles[kSketchTokens];
    for (size_t t = 0; t < kSketchTokens; t += lanes) {
      const auto one_step = hn::Load(d, step + t);
      auto sum_yz = hn::Load(d, yz + t);
      auto sum_zz = hn::Load(d, zz + t);
      auto high_bits = hn::Zero(du);
      auto low_bits = hn::Zero(du);
      for (size_t i = 0; i < 4; ++i) {
        const auto v = hn::LoadU(d, y + (4 * g + i) * kSketchTokens + t);
        const auto positive = hn::Ge(v, hn::Zero(d));
        const auto outer = hn::Ge(hn::Abs(v), one_step);
        // Codes in order -1.5 -0.5 0.5 1.5: the low bit is "outer" above zero and
        // "inner" below.
        const auto low_set =
            hn::Xor(hn::VecFromMask(d, outer), hn::VecFromMask(d, hn::Not(positive)));
        const auto bit = hn::Set(du, 1u << i);
        high_bits =
            hn::Or(high_bits, hn::IfThenElseZero(hn::RebindMask(du, positive), bit));
        low_bits = hn::Or(low_bits, hn::And(hn::BitCast(du, low_set), bit));
        const auto magnitude = hn::IfThenElse(outer, hn::Set(d, 1.5f), hn::Set(d, 0.5f));
        sum_yz = hn::MulAdd(hn::Abs(v), magnitude, sum_yz);
        sum_zz = hn::MulAdd(magnitude, magnitude, sum_zz);
      }
      hn::Store(sum_yz, d, yz + t);
      hn::Store(sum_zz, d, zz + t);
      hn::StoreU(hn::U8FromU32(high_bits), d8, high_nibbles + t);
      hn::StoreU(hn::U8FromU32(low_bits), d8, low_nibbles + t);
    }
    for (size_t j = 0; j < 32; ++j) {
      high[g * 32 + j] =
          high_nibbles[j] | static_cast<uint8_t>(high_nibbles[j + 32] << 4);
      low[g * 32 + j] = low_nibbles[j] | static_cast<uint8_t>(low_nibbles[j + 32] << 4);
    }
  }
  for (size_t t = 0; t < kSketchTokens; ++t) scales[t] = yz[t] / zz[t];
}

// The sums over groups of the two planes' table entries, of two query heads: what a
// byte's nibbles are is found once for both.
//   tables: [2][groups][high 16, low 16];  sums: out, [2][64]
void SumTables2(const SketchParts& page, const SketchParts& next, size_t groups,
                const uint8_t* tables, uint16_t* sums) {
  const DBytes d;
  const hn::Repartition<uint16_t, DBytes> d16;
  const size_t lanes = hn::Lanes(d);
  const auto nibble = hn::Set(d, 0x0F);
  const uint8_t* other = tables + groups * 32;
  for (size_t j = 0; j < 32; j += lanes) {
    // Bytes are summed in pairs as 16-bit lanes: `all` gathers even + 256 odd modulo
    // 2^16, `odd` the odd bytes alone. Even follows by subtraction. a, b: the heads;
    // 0, 1: tokens j and j + 32.
    auto a0_all = hn::Zero(d16), a0_odd = hn::Zero(d16);
    auto a1_all = hn::Zero(d16), a1_odd = hn::Zero(d16);
    auto b0_all = hn::Zero(d16), b0_odd = hn::Zero(d16);
    auto b1_all = hn::Zero(d16), b1_odd = hn::Zero(d16);
    for (size_t g = 0; g < groups; ++g) {
      // Few at a time: the memory takes no more, and what waits for it holds up the rest.
      __builtin_prefetch(next.high + g * 32 + j);
      __builtin_prefetch(next.low + g * 32 + j);
      const auto h = hn::LoadU(d, page.high + g * 32 + j);
      const auto l = hn::LoadU(d, page.low + g * 32 + j);
      const auto h0 = hn::And(h, nibble);
      const auto l0 = hn::And(l, nibble);
      const auto h1 =
          hn::And(hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(d16, h))), nibble);
      const auto l1 =
          hn::And(hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(d16, l))), nibble);
      const auto look_up = [&](auto h_table, auto l_table, auto h_index, auto l_index) {
        return hn::BitCast(d16, hn::Add(hn::TableLookupBytes(h_table, h_index),
                                        hn::TableLookupBytes(l_table, l_index)));
      };
      const auto add = [&](auto sum, auto& all, auto& odd) {
        all = hn::Add(all, sum);
        odd = hn::Add(odd, hn::ShiftRight<8>(sum));
      };
      const auto a_high = hn::LoadDup128(d, tables + g * 32);
      const auto a_low = hn::LoadDup128(d, tables + g * 32 + 16);
      add(look_up(a_high, a_low, h0, l0), a0_all, a0_odd);
      add(look_up(a_high, a_low, h1, l1), a1_all, a1_odd);
      const auto b_high = hn::LoadDup128(d, other + g * 32);
      const auto b_low = hn::LoadDup128(d, other + g * 32 + 16);
      add(look_up(b_high, b_low, h0, l0), b0_all, b0_odd);
      add(look_up(b_high, b_low, h1, l1), b1_all, b1_odd);
    }
    const auto store = [&](auto all, auto odd, uint16_t* out) {
      hn::StoreInterleaved2(hn::Sub(all, hn::ShiftLeft<8>(odd)), odd, d16, out);
    };
    store(a0_all, a0_odd, sums + j);
    store(a1_all, a1_odd, sums + 32 + j);
    store(b0_all, b0_odd, sums + kSketchTokens + j);
    store(b1_all, b1_odd, sums + kSketchTokens + 32 + j);
  }
}

void ScoreSketchKernel(const SketchQuery& query, const SketchParts& page,
                       const SketchParts& next, const float* scales, const float* mean,
                       float scale, float* logits, size_t head_stride) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  const DU16 d16;
  const size_t lanes = hn::Lanes(d);
  const size_t padded = PaddedRow(query.dim);
  for (size_t pair = 0; pair < query.heads; pair += 2) {
    alignas(64) uint16_t sums[2 * kSketchTokens];
    // What follows is asked for once.
    SumTables2(page, pair == 0 ? next : page, query.groups,
               query.tables.data() + pair * query.groups * 32, sums);
    const float* q = query.queries.data() + pair * padded;
    auto first = hn::Zero(d);
    auto second = hn::Zero(d);
    for (size_t i = 0; i < padded; i += lanes) {
      const auto m = hn::LoadU(d, mean + i);
      first = hn::MulAdd(hn::LoadU(d, q + i), m, first);
      second = hn::MulAdd(hn::LoadU(d, q + padded + i), m, second);
    }
    const auto store = [&](size_t h, auto dot, const uint16_t* head_sums) {
      const auto base = hn::Mul(hn::Set(d, scale), hn::SumOfLanes(d, dot));
      const auto step = hn::Set(d, scale * query.step[h]);
      const auto offset = hn::Set(d, scale * query.offset[h]);
      float* out = logits + h * head_stride;
      for (size_t t = 0; t < kSketchTokens; t += lanes) {
        const auto sum =
            hn::ConvertTo(d, hn::PromoteTo(di, hn::Load(d16, head_sums + t)));
        const auto rz = hn::MulAdd(sum, step, offset);
        hn::StoreU(hn::MulAdd(hn::LoadU(d, scales + t), rz, base), d, out + t);
      }
    };
    store(pair, first, sums);
    if (pair + 1 < query.heads) store(pair + 1, second, sums + kSketchTokens);
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

const std::array<float, 256>& ScaleTable() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> t{};
    for (int i = 1; i < 256; ++i) {
      t[i] = std::exp2(static_cast<float>(i - kScaleBias) / 8.0f);
    }
    return t;
  }();
  return table;
}

float ClampToF16(float v) { return std::clamp(v, -65504.0f, 65504.0f); }

}  // namespace

float SketchScale(uint8_t byte) { return ScaleTable()[byte]; }

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
  alignas(64) float token_scales[kSketchTokens];
  HWY_DYNAMIC_DISPATCH(CodeColumnsKernel)(y, rotated_dim, token_scales, high, low);
  for (size_t t = 0; t < kSketchTokens; ++t) scales[t] = SketchScaleByte(token_scales[t]);
}

void PrepareSketchQuery(const float* queries, size_t heads, size_t dim,
                        SketchQuery* out) {
  const size_t padded = PaddedRow(dim);
  const size_t rotated_dim = RotatedDim(dim);
  out->heads = heads;
  out->dim = dim;
  out->groups = rotated_dim / 4;
  // Heads are scored in pairs.
  const size_t heads_in_pairs = (heads + 1) / 2 * 2;
  out->queries.assign(heads_in_pairs * padded, 0.0f);
  out->tables.resize(heads_in_pairs * out->groups * 32);
  out->step.resize(heads);
  out->offset.resize(heads);
  out->scratch.resize(rotated_dim);
  float* rotated = out->scratch.data();
  for (size_t h = 0; h < heads; ++h) {
    const float* q = queries + h * dim;
    std::copy_n(q, dim, out->queries.data() + h * padded);
    Rotate(q, dim, rotated);
    float range_max = 0.0f;
    float offset = 0.0f;
    for (size_t g = 0; g < out->groups; ++g) {
      float range = 0.0f;
      for (size_t i = 0; i < 4; ++i) {
        range += std::abs(rotated[4 * g + i]);
        offset += 3.0f * std::min(rotated[4 * g + i], 0.0f) - 1.5f * rotated[4 * g + i];
      }
      range_max = std::max(range_max, range);
    }
    // Twice the range is at most 170 steps and once at most 85.
    const float step = range_max / 85.0f;
    const float inverse = step > 0.0f ? 1.0f / step : 0.0f;
    uint8_t* table = out->tables.data() + h * out->groups * 32;
    for (size_t g = 0; g < out->groups; ++g, table += 32) {
      // Each half of the sums is the half before it with one component more.
      float sums[16] = {};
      for (size_t i = 0; i < 4; ++i) {
        // Less the least of the 16 sums: every entry is >= 0.
        sums[0] -= std::min(rotated[4 * g + i], 0.0f);
      }
      for (size_t i = 0; i < 4; ++i) {
        const float r = rotated[4 * g + i];
        const size_t half = size_t{1} << i;
        for (size_t n = 0; n < half; ++n) sums[half + n] = sums[n] + r;
      }
      for (size_t n = 0; n < 16; ++n) {
        const float steps = std::max(sums[n] * inverse, 0.0f);
        table[n] = static_cast<uint8_t>(std::min(2.0f * steps + 0.5f, 170.0f));
        table[16 + n] = static_cast<uint8_t>(std::min(steps + 0.5f, 85.0f));
      }
    }
    out->step[h] = step;
    out->offset[h] = offset;
  }
}

void ScoreSketch(const SketchQuery& query, const SketchParts& page,
                 const SketchParts& next, float scale, float* logits,
                 size_t head_stride) {
  for (size_t i = 0; i < query.dim; i += 32) __builtin_prefetch(next.mean_f16 + i);
  __builtin_prefetch(next.scales);
  const std::array<float, 256>& table = ScaleTable();
  alignas(64) float scales[kSketchTokens];
  for (size_t t = 0; t < kSketchTokens; ++t) scales[t] = table[page.scales[t]];
  alignas(64) float mean[PaddedRow(kSketchDimMax)];
  RowsToF32(DType::kF16, reinterpret_cast<const std::byte*>(page.mean_f16), 0, 1,
            query.dim, mean);
  HWY_DYNAMIC_DISPATCH(ScoreSketchKernel)
  (query, page, next, scales, mean, scale, logits, head_stride);
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
        const size_t byte = i / 4 * 32 + t % 32;
        const size_t bit = i % 4 + (t < 32 ? 0 : 4);
        const int code = 2 * (page.high[byte] >> bit & 1) + (page.low[byte] >> bit & 1);
        rz += rotated[i] * (code - 1.5);
      }
      logits[h * head_stride + t] =
          static_cast<float>(scale * (q_mean + SketchScale(page.scales[t]) * rz));
    }
  }
}

}  // namespace kvtier::kernels
#endif  // HWY_ONCE
