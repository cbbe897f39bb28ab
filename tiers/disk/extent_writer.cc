#include "tiers/disk/extent_writer.h"

#include <algorithm>
#include <cstring>

#include "kernels/host/checksum.h"

namespace kvtier::tiers {
namespace {

// Writes an extent's bytes from first to last into its pieces.
class PieceWriter {
 public:
  explicit PieceWriter(std::vector<BlockIo::Buffer>& pieces) : pieces_(pieces) {}

  void Copy(const std::byte* from, uint64_t bytes) {
    ForEach(bytes, [&](std::byte* to, uint64_t part) {
      std::memcpy(to, from, part);
      from += part;
    });
  }
  void PadToUnit() {
    ForEach(RoundUpToUnit(at_) - at_,
            [](std::byte* to, uint64_t part) { std::memset(to, 0, part); });
  }

 private:
  template <typename F>
  void ForEach(uint64_t bytes, F f) {
    while (bytes > 0) {
      const uint64_t in_piece = at_ % kExtentPieceBytes;
      const uint64_t part = std::min(bytes, kExtentPieceBytes - in_piece);
      f(pieces_[at_ / kExtentPieceBytes].data() + in_piece, part);
      at_ += part;
      bytes -= part;
    }
  }

  std::vector<BlockIo::Buffer>& pieces_;
  uint64_t at_ = 0;
};

}  // namespace

std::vector<uint64_t> ExtentPieceSizes(uint64_t bytes) {
  std::vector<uint64_t> sizes;
  for (uint64_t at = 0; at < bytes; at += kExtentPieceBytes) {
    sizes.push_back(std::min(kExtentPieceBytes, bytes - at));
  }
  return sizes;
}

void FillExtent(const DiskWrite& write, uint32_t geometry, uint64_t generation,
                const ExtentLayout& layout, std::vector<BlockIo::Buffer>& pieces) {
  const std::vector<DiskGeometry::Layer>& layers = write.geometry->layers;
  ExtentHeader header{.name = write.name,
                      .parent = write.parent,
                      .approximate = write.approximate,
                      .geometry = geometry,
                      .generation = generation,
                      .abstracts_crc = AbstractsSeed(write.name, generation),
                      .page_crcs = write.page_crcs};
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    header.abstracts_crc = kernels::Crc32c(header.abstracts_crc, write.abstracts[layer],
                                           layers[layer].abstract_bytes);
  }
  std::vector<std::byte> head(layout.header_bytes());
  EncodeExtentHeader(header, layout, absl::MakeSpan(head));
  PieceWriter writer(pieces);
  writer.Copy(head.data(), head.size());
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    writer.Copy(write.abstracts[layer], layers[layer].abstract_bytes);
  }
  writer.PadToUnit();
  const std::byte* const* page = write.pages.data();
  for (const DiskGeometry::Layer& layer : layers) {
    for (uint32_t head_index = 0; head_index < layer.kv_heads; ++head_index) {
      writer.Copy(*page++, layer.page_bytes);
      writer.PadToUnit();
    }
  }
}

}  // namespace kvtier::tiers
