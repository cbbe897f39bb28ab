// Goal: whatever bytes lie where an extent's header should, decoding them is harmless;
// what decodes is encoded and decoded to the same; no changed byte of a header passes.
// Method: an input is decoded as it is, and again with the CRC that it would need, since
// no fuzzer finds a CRC and behind it nothing else would be tried.

#include <cstring>
#include <vector>

#include "kernels/host/checksum.h"
#include "tests/fuzz/fuzz_target.h"
#include "tiers/disk/extent_layout.h"

namespace kvtier::tiers {
namespace {

using fuzz::Require;

// Where the fields that the CRC needs lie.
constexpr size_t kCrc = 8;
constexpr size_t kHeaderBytes = 12;
constexpr size_t kGeneration = 24;
constexpr size_t kName = 40;
constexpr size_t kFixedBytes = 104;

// Gives `bytes` the CRC that their name, generation and size ask for, if they can have
// one.
void Seal(absl::Span<std::byte> bytes) {
  if (bytes.size() < kFixedBytes) return;
  uint32_t header_bytes;
  std::memcpy(&header_bytes, &bytes[kHeaderBytes], sizeof(header_bytes));
  if (header_bytes < kFixedBytes || header_bytes > bytes.size()) return;
  ChunkName name;
  std::memcpy(name.bytes.data(), &bytes[kName], name.bytes.size());
  uint64_t generation;
  std::memcpy(&generation, &bytes[kGeneration], sizeof(generation));
  uint32_t crc = 0;
  std::memcpy(&bytes[kCrc], &crc, sizeof(crc));
  crc = kernels::Crc32c(HeaderSeed(name, generation), bytes.data(), header_bytes);
  std::memcpy(&bytes[kCrc], &crc, sizeof(crc));
}

// True if `bytes` are a header.
bool TryHeader(absl::Span<const std::byte> bytes) {
  const absl::StatusOr<ExtentHeader> header = DecodeExtentHeader(bytes);
  if (!header.ok()) {
    Require(absl::IsDataLoss(header.status()), "what is no header is DataLoss");
    return false;
  }
  DiskGeometry geometry;
  geometry.layers.push_back(
      {.kv_heads = static_cast<uint32_t>(header->page_crcs.size())});
  const ExtentLayout layout(geometry);
  std::vector<std::byte> encoded(layout.header_bytes());
  EncodeExtentHeader(*header, layout, absl::MakeSpan(encoded));
  const absl::StatusOr<ExtentHeader> again = DecodeExtentHeader(encoded);
  Require(again.ok(), "an encoded header decodes");
  Require(*again == *header, "a header comes back as it was");
  // Certain by the CRC, but for what is in its seed or says how far it reaches (the
  // name's first 8 bytes, generation, header_bytes): there one change in 2^32 passes.
  fuzz::ChangeOneByte(bytes, absl::MakeSpan(encoded));
  Require(absl::IsDataLoss(DecodeExtentHeader(encoded).status()),
          "a header with a changed byte is DataLoss");
  return true;
}

}  // namespace
}  // namespace kvtier::tiers

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* begin = reinterpret_cast<const std::byte*>(data);
  std::vector<std::byte> bytes(begin, begin + size);
  if (kvtier::tiers::TryHeader(bytes)) return 0;
  kvtier::tiers::Seal(absl::MakeSpan(bytes));
  kvtier::tiers::TryHeader(bytes);
  return 0;
}
