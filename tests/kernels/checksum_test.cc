// Goal: the checksum is CRC32C and chains. Method: published vectors (RFC 3720, B.4).

#include "kernels/host/checksum.h"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace kvtier::kernels {
namespace {

TEST(Crc32c, KnownVectors) {
  const char digits[] = "123456789";
  EXPECT_EQ(Crc32c(0, reinterpret_cast<const std::byte*>(digits), 9), 0xE3069283u);
  const std::vector<std::byte> zeros(32);
  EXPECT_EQ(Crc32c(0, zeros.data(), 32), 0x8A9136AAu);
  const std::vector<std::byte> ones(32, std::byte{0xFF});
  EXPECT_EQ(Crc32c(0, ones.data(), 32), 0x62A8AB43u);
}

TEST(Crc32c, Chains) {
  const auto* data = reinterpret_cast<const std::byte*>("123456789");
  for (size_t cut = 0; cut <= 9; ++cut) {
    EXPECT_EQ(Crc32c(Crc32c(0, data, cut), data + cut, 9 - cut), 0xE3069283u);
  }
}

TEST(Crc32c, SeedAndEveryBitMatter) {
  std::vector<std::byte> data(4096, std::byte{0x5A});
  const uint32_t crc = Crc32c(1, data.data(), data.size());
  EXPECT_NE(crc, Crc32c(2, data.data(), data.size()));
  data[4095] ^= std::byte{0x80};
  EXPECT_NE(crc, Crc32c(1, data.data(), data.size()));
}

}  // namespace
}  // namespace kvtier::kernels
