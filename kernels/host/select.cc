#include "kernels/host/select.h"

#include <array>
#include <bit>
#include <limits>

#include "kernels/host/convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/select.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvtier::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::CappedTag<float, kRowPad>;

// Those that are not below `least`, and their indices, in order. Returns how many; up to
// a vector more may be written.
size_t CollectKernel(const float* values, size_t count, float least, float* out,
                     uint32_t* indices) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const size_t lanes = hn::Lanes(d);
  const auto limit = hn::Set(d, least);
  size_t left = 0;
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto v = hn::LoadU(d, values + i);
    const auto stays = hn::Ge(v, limit);
    if (hn::AllFalse(d, stays)) continue;
    hn::CompressStore(hn::Iota(du, static_cast<uint32_t>(i)), hn::RebindMask(du, stays),
                      du, indices + left);
    left += hn::CompressStore(v, stays, d, out + left);
  }
  for (; i < count; ++i) {
    if (!(values[i] >= least)) continue;
    out[left] = values[i];
    indices[left++] = static_cast<uint32_t>(i);
  }
  return left;
}

}  // namespace kvtier::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvtier::kernels {

HWY_EXPORT(CollectKernel);

namespace {

// Orders like the float; NaN lowest; both zeros equal.
uint32_t SortKey(float value) {
  if (value != value) return 0;
  if (value == 0.0f) return 0x80000000u;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// A value of that key, which is no NaN's.
float FromSortKey(uint32_t key) {
  return std::bit_cast<float>((key & 0x80000000u) != 0 ? key & 0x7FFFFFFFu : ~key);
}

struct Digit {
  int shift;
  int bits;
};
constexpr std::array<Digit, 3> kDigits = {{{21, 11}, {10, 11}, {0, 10}}};

// The count-th largest key, by its digits from the top: a histogram of one digit at a
// time, over those that share the digits found so far. *above: how many are larger.
uint32_t FindThreshold(absl::Span<const float> values, size_t count, size_t* above) {
  uint32_t threshold = 0;
  uint32_t known_mask = 0;
  *above = 0;
  for (const Digit digit : kDigits) {
    std::array<uint32_t, 2048> histogram{};
    const uint32_t digit_mask = (1u << digit.bits) - 1;
    for (const float value : values) {
      const uint32_t key = SortKey(value);
      if ((key & known_mask) == threshold) ++histogram[key >> digit.shift & digit_mask];
    }
    uint32_t bin = digit_mask;
    while (*above + histogram[bin] < count) *above += histogram[bin--];
    threshold |= bin << digit.shift;
    known_mask |= digit_mask << digit.shift;
  }
  return threshold;
}

// Calls `append` with the indices of the `count` largest, ascending.
//   count: 1 .. values.size()
template <typename Append>
void AppendLargest(absl::Span<const float> values, size_t count, Append append) {
  size_t above = 0;
  const uint32_t threshold = FindThreshold(values, count, &above);
  size_t ties = count - above;
  for (uint32_t i = 0; i < values.size(); ++i) {
    const uint32_t key = SortKey(values[i]);
    if (key < threshold) continue;
    if (key == threshold) {
      if (ties == 0) continue;
      --ties;
    }
    append(i);
  }
}

// Values that may be among the largest, and where they were.
struct Survivors {
  std::vector<float> sample;
  size_t count = 0;
  std::vector<float> values;
  std::vector<uint32_t> indices;
};

// Leaves away most of what can't be among the `count` largest: what is below a value that
// a sample says is exceeded often enough. False: not worth it, or the sample was wrong.
bool Thin(absl::Span<const float> values, size_t count, Survivors* survivors) {
  constexpr size_t kEvery = 16;
  constexpr size_t kWorthwhile = 4;
  const size_t sampled = values.size() / kEvery;
  // So many of the sample that half as many again as `count` values are expected to be as
  // large; with few the share varies more.
  const size_t rank = (count + count / 2) / kEvery + 8;
  if (rank * kWorthwhile > sampled) return false;
  survivors->sample.resize(sampled);
  for (size_t i = 0; i < sampled; ++i) survivors->sample[i] = values[i * kEvery];
  size_t above = 0;
  const uint32_t threshold = FindThreshold(survivors->sample, rank, &above);
  if (threshold == SortKey(std::numeric_limits<float>::quiet_NaN())) return false;
  const float least = FromSortKey(threshold);
  // A vector may be written beyond the last. Never smaller again: that would fill them.
  if (survivors->values.size() < values.size() + kRowPad) {
    survivors->values.resize(values.size() + kRowPad);
    survivors->indices.resize(values.size() + kRowPad);
  }
  survivors->count = HWY_DYNAMIC_DISPATCH(CollectKernel)(values.data(), values.size(),
                                                         least, survivors->values.data(),
                                                         survivors->indices.data());
  return survivors->count >= count;
}

}  // namespace

void SelectLargest(absl::Span<const float> values, size_t count, uint32_t first,
                   std::vector<uint32_t>* chosen) {
  if (count == 0) return;
  if (count >= values.size()) {
    for (uint32_t i = 0; i < values.size(); ++i) chosen->push_back(first + i);
    return;
  }
  thread_local Survivors survivors;
  if (!Thin(values, count, &survivors)) {
    AppendLargest(values, count, [&](uint32_t i) { chosen->push_back(first + i); });
    return;
  }
  const absl::Span<const float> left(survivors.values.data(), survivors.count);
  AppendLargest(left, count,
                [&](uint32_t i) { chosen->push_back(first + survivors.indices[i]); });
}

void DiffSelection(absl::Span<const uint32_t> held, absl::Span<const uint32_t> next,
                   std::vector<uint32_t>* kept, std::vector<uint32_t>* added) {
  size_t h = 0;
  for (const uint32_t token : next) {
    while (h < held.size() && held[h] < token) ++h;
    if (h < held.size() && held[h] == token) {
      kept->push_back(static_cast<uint32_t>(h++));
    } else {
      added->push_back(token);
    }
  }
}

}  // namespace kvtier::kernels
#endif  // HWY_ONCE
