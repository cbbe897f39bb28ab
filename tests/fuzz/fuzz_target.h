// What the fuzz targets share. A target is a function LLVMFuzzerTestOneInput: clang links
// it with libFuzzer, other compilers with replay_main.cc, which runs a corpus once.

#ifndef KVTIER_TESTS_FUZZ_FUZZ_TARGET_H_
#define KVTIER_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "absl/types/span.h"
#include "kernels/host/checksum.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace kvtier::fuzz {

// Ends the process as libFuzzer wants it, in every build type.
inline void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

// Changes one of `bytes`, which are not none. Which one and how follows from `input`, so
// that an input repeats.
template <typename Byte>
void ChangeOneByte(absl::Span<const std::byte> input, absl::Span<Byte> bytes) {
  const uint32_t random = kernels::Crc32c(0, input.data(), input.size());
  Byte& byte = bytes[(random >> 8) % bytes.size()];
  byte = static_cast<Byte>(static_cast<uint8_t>(byte) ^ (1 + (random & 0xff) % 255));
}

}  // namespace kvtier::fuzz

#endif  // KVTIER_TESTS_FUZZ_FUZZ_TARGET_H_
