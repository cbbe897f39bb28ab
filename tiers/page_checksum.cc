#include "tiers/page_checksum.h"

#include <cstring>

namespace kvtier::tiers {
namespace {

using Matrix = std::array<uint32_t, 32>;  // column by column, over GF(2)

uint32_t Apply(const Matrix& m, uint32_t v) {
  uint32_t sum = 0;
  for (int bit = 0; v != 0; ++bit, v >>= 1) {
    if (v & 1) sum ^= m[bit];
  }
  return sum;
}

Matrix Multiply(const Matrix& a, const Matrix& b) {
  Matrix product;
  for (int bit = 0; bit < 32; ++bit) product[bit] = Apply(a, b[bit]);
  return product;
}

// One zero bit through CRC32C's register (reflected Castagnoli polynomial).
Matrix ZeroBit() {
  Matrix m;
  m[0] = 0x82f63b78;
  for (int bit = 1; bit < 32; ++bit) m[bit] = uint32_t{1} << (bit - 1);
  return m;
}

uint64_t Mix(uint64_t v) {  // splitmix64's finaliser
  v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9;
  v = (v ^ (v >> 27)) * 0x94d049bb133111eb;
  return v ^ (v >> 31);
}

}  // namespace

uint32_t PageSeed(const ChunkName& name, LayerIndex layer, uint32_t kv_head) {
  uint64_t word;
  std::memcpy(&word, name.bytes.data(), sizeof(word));
  const uint64_t place = uint64_t{layer.value()} << 32 | kv_head;
  return static_cast<uint32_t>(Mix(word ^ Mix(place + 0x9e3779b97f4a7c15)));
}

SeedShift::SeedShift(size_t page_bytes) {
  for (int bit = 0; bit < 32; ++bit) columns_[bit] = uint32_t{1} << bit;
  Matrix power = ZeroBit();
  for (uint64_t bits = uint64_t{page_bytes} * 8; bits != 0; bits >>= 1) {
    if (bits & 1) columns_ = Multiply(power, columns_);
    power = Multiply(power, power);
  }
}

uint32_t SeedShift::Reseed(uint32_t crc_from_zero, uint32_t seed) const {
  return crc_from_zero ^ Apply(columns_, seed);
}

}  // namespace kvtier::tiers
