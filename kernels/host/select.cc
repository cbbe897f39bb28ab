#include "kernels/host/select.h"

#include <array>
#include <bit>

namespace kvtier::kernels {
namespace {

// Orders like the float; NaN lowest; both zeros equal.
uint32_t SortKey(float value) {
  if (value != value) return 0;
  if (value == 0.0f) return 0x80000000u;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
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

}  // namespace

void SelectLargest(absl::Span<const float> values, size_t count, uint32_t first,
                   std::vector<uint32_t>* chosen) {
  if (count == 0) return;
  if (count >= values.size()) {
    for (uint32_t i = 0; i < values.size(); ++i) chosen->push_back(first + i);
    return;
  }
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
    chosen->push_back(first + i);
  }
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
