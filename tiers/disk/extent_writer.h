// Puts a chunk's bytes into staging as they will lie on the disk.
//
// Staging of an extent is pieces of at most kExtentPieceBytes, each one request: large
// enough for the device's full speed, and all of one size, so that they are used again.
//
// Thread safety: pure functions.

#ifndef KVTIER_TIERS_DISK_EXTENT_WRITER_H_
#define KVTIER_TIERS_DISK_EXTENT_WRITER_H_

#include <cstdint>
#include <vector>

#include "tiers/disk/block_io.h"
#include "tiers/disk/disk_tier.h"
#include "tiers/disk/extent_layout.h"

namespace kvtier::tiers {

inline constexpr uint64_t kExtentPieceBytes = uint64_t{1} << 20;

std::vector<uint64_t> ExtentPieceSizes(uint64_t extent_bytes);

// Writes header, abstracts, pages and the zeros between. Checksums the abstracts; the
// pages' CRCs are taken as given.
//   pieces: of ExtentPieceSizes(layout.extent_bytes())
void FillExtent(const DiskWrite& write, uint32_t geometry, uint64_t generation,
                const ExtentLayout& layout, std::vector<BlockIo::Buffer>& pieces);

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_EXTENT_WRITER_H_
