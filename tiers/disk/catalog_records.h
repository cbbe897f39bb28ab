// The catalog's keys and values as bytes.
//
//   "S"               superblock: format version, starts
//   "G" + id (be32)   a geometry
//   "C" + name        a chunk: where it is, its generation, its parent
//   "H" + name        its heat, if it was found since it was written; advice only
//
// Numbers in values are little-endian. Decoding takes any bytes and answers nothing where
// they are not what was encoded.
//
// Thread safety: values and pure functions.

#ifndef KVTIER_TIERS_DISK_CATALOG_RECORDS_H_
#define KVTIER_TIERS_DISK_CATALOG_RECORDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tiers/chunk_name.h"
#include "tiers/disk/disk_tier.h"
#include "tiers/disk/extent_layout.h"
#include "tiers/heat.h"

namespace kvtier::tiers {

// Of everything under the directory: extents, records, files. Another one is refused.
inline constexpr uint32_t kFormatVersion = 3;

struct Superblock {
  uint32_t version = kFormatVersion;
  uint32_t starts = 0;  // how often the directory was opened

  bool operator==(const Superblock&) const = default;
};

struct ChunkRecord {
  ExtentPlace place;
  uint32_t geometry = 0;
  uint64_t generation = 0;
  bool approximate = false;
  std::optional<ChunkName> parent;

  bool operator==(const ChunkRecord&) const = default;
};

inline constexpr char kSuperblockKey = 'S';
inline constexpr char kGeometryKey = 'G';
inline constexpr char kChunkKey = 'C';
inline constexpr char kHeatKey = 'H';

std::string GeometryKey(uint32_t id);
std::string ChunkKey(const ChunkName& name);
std::string HeatKey(const ChunkName& name);
std::optional<uint32_t> DecodeGeometryKey(std::string_view key);
std::optional<ChunkName> DecodeChunkKey(std::string_view key);
std::optional<ChunkName> DecodeHeatKey(std::string_view key);

std::string EncodeSuperblock(const Superblock& superblock);
std::string EncodeGeometry(const DiskGeometry& geometry);
std::string EncodeChunkRecord(const ChunkRecord& record);
std::string EncodeHeat(Heat heat);
// Reads the version of any format, and the rest of a known one.
std::optional<Superblock> DecodeSuperblock(std::string_view value);
std::optional<DiskGeometry> DecodeGeometry(std::string_view value);
std::optional<ChunkRecord> DecodeChunkRecord(std::string_view value);
std::optional<Heat> DecodeHeat(std::string_view value);

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_CATALOG_RECORDS_H_
