#include "kernels/host/checksum.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace kvtier::kernels {

uint32_t Crc32c(uint32_t seed, const std::byte* data, size_t bytes) {
  constexpr size_t kPieceBytes = size_t{1} << 30;  // the library counts in an int
  uint32_t state = ~seed;
  while (bytes > 0) {
    const size_t piece = std::min(bytes, kPieceBytes);
    // The library takes a non-const pointer and only reads.
    auto* start = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(data));
    state = crc32_iscsi(start, static_cast<int>(piece), state);
    data += piece;
    bytes -= piece;
  }
  return ~state;
}

}  // namespace kvtier::kernels
