#include "tiers/disk/extent_layout.h"

#include <bit>
#include <cassert>
#include <cstring>

#include "kernels/host/checksum.h"

namespace kvtier::tiers {
namespace {

static_assert(std::endian::native == std::endian::little,
              "headers are written as they lie in memory");

constexpr char kMagic[8] = {'k', 'v', 't', 'i', 'e', 'r', 'E', '1'};
constexpr uint8_t kApproximate = 1;
constexpr uint8_t kHasParent = 2;

// The header's first bytes; the pages' CRCs follow.
struct Fixed {
  char magic[8];
  uint32_t crc;
  uint32_t header_bytes;
  uint32_t page_count;
  uint32_t geometry;
  uint64_t generation;
  uint32_t abstracts_crc;
  uint8_t flags;
  uint8_t zeros[3];
  uint8_t name[32];
  uint8_t parent[32];
};
static_assert(sizeof(Fixed) == 104);

uint64_t Mix(uint64_t v) {  // splitmix64's finaliser
  v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9;
  v = (v ^ (v >> 27)) * 0x94d049bb133111eb;
  return v ^ (v >> 31);
}

uint32_t Seed(const ChunkName& name, uint64_t generation, uint64_t part) {
  uint64_t word;
  std::memcpy(&word, name.bytes.data(), sizeof(word));
  return static_cast<uint32_t>(Mix(word ^ Mix(generation + part)));
}

uint32_t HeaderCrc(const Fixed& fixed, absl::Span<const std::byte> bytes) {
  ChunkName name;
  std::memcpy(name.bytes.data(), fixed.name, sizeof(fixed.name));
  Fixed without_crc = fixed;
  without_crc.crc = 0;
  const uint32_t crc =
      kernels::Crc32c(HeaderSeed(name, fixed.generation),
                      reinterpret_cast<const std::byte*>(&without_crc), sizeof(Fixed));
  return kernels::Crc32c(crc, bytes.data() + sizeof(Fixed), bytes.size() - sizeof(Fixed));
}

}  // namespace

ExtentLayout::ExtentLayout(const DiskGeometry& geometry) {
  for (const DiskGeometry::Layer& layer : geometry.layers) {
    layers_.push_back({.first_page = page_count_,
                       .kv_heads = layer.kv_heads,
                       .page_bytes = layer.page_bytes});
    page_count_ += layer.kv_heads;
    abstract_bytes_ += layer.abstract_bytes;
  }
  header_bytes_ = RoundUpToUnit(sizeof(Fixed) + uint64_t{page_count_} * sizeof(uint32_t));
  uint64_t offset = pages_offset();
  for (Layer& layer : layers_) {
    layer.offset = offset;
    offset += layer.kv_heads * RoundUpToUnit(layer.page_bytes);
  }
  extent_bytes_ = offset;
}

uint32_t HeaderSeed(const ChunkName& name, uint64_t generation) {
  return Seed(name, generation, 0x9e3779b97f4a7c15);
}

uint32_t AbstractsSeed(const ChunkName& name, uint64_t generation) {
  return Seed(name, generation, 0xd1b54a32d192ed03);
}

void EncodeExtentHeader(const ExtentHeader& header, const ExtentLayout& layout,
                        absl::Span<std::byte> out) {
  assert(out.size() == layout.header_bytes());
  assert(header.page_crcs.size() == layout.page_count());
  Fixed fixed{};
  std::memcpy(fixed.magic, kMagic, sizeof(kMagic));
  fixed.header_bytes = static_cast<uint32_t>(out.size());
  fixed.page_count = layout.page_count();
  fixed.geometry = header.geometry;
  fixed.generation = header.generation;
  fixed.abstracts_crc = header.abstracts_crc;
  fixed.flags =
      (header.approximate ? kApproximate : 0) | (header.parent ? kHasParent : 0);
  std::memcpy(fixed.name, header.name.bytes.data(), sizeof(fixed.name));
  if (header.parent) {
    std::memcpy(fixed.parent, header.parent->bytes.data(), sizeof(fixed.parent));
  }
  // memcpy wants no null, which an empty vector's data may be.
  if (!header.page_crcs.empty()) {
    std::memcpy(out.data() + sizeof(Fixed), header.page_crcs.data(),
                header.page_crcs.size() * sizeof(uint32_t));
  }
  fixed.crc = HeaderCrc(fixed, out);
  std::memcpy(out.data(), &fixed, sizeof(Fixed));
}

absl::StatusOr<ExtentHeader> DecodeExtentHeader(absl::Span<const std::byte> bytes) {
  Fixed fixed;
  if (bytes.size() < sizeof(fixed)) return absl::DataLossError("extent header is short");
  std::memcpy(&fixed, bytes.data(), sizeof(fixed));
  if (std::memcmp(fixed.magic, kMagic, sizeof(kMagic)) != 0) {
    return absl::DataLossError("no extent header where one was written");
  }
  if (fixed.header_bytes > bytes.size() || fixed.header_bytes < sizeof(fixed) ||
      fixed.page_count > (fixed.header_bytes - sizeof(fixed)) / sizeof(uint32_t)) {
    return absl::DataLossError("extent header's sizes don't fit");
  }
  if (HeaderCrc(fixed, bytes.first(fixed.header_bytes)) != fixed.crc) {
    return absl::DataLossError("extent header doesn't verify");
  }
  ExtentHeader header;
  std::memcpy(header.name.bytes.data(), fixed.name, sizeof(fixed.name));
  if (fixed.flags & kHasParent) {
    std::memcpy(header.parent.emplace().bytes.data(), fixed.parent, sizeof(fixed.parent));
  }
  header.approximate = fixed.flags & kApproximate;
  header.geometry = fixed.geometry;
  header.generation = fixed.generation;
  header.abstracts_crc = fixed.abstracts_crc;
  header.page_crcs.resize(fixed.page_count);
  if (fixed.page_count > 0) {
    std::memcpy(header.page_crcs.data(), bytes.data() + sizeof(fixed),
                fixed.page_count * sizeof(uint32_t));
  }
  return header;
}

}  // namespace kvtier::tiers
