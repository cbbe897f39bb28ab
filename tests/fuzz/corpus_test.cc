// Goal: the committed corpora are of the format that the encoders write today.
// Method: makes the inputs from the encoders, says which decode, and compares with the
// files. With KVTIER_WRITE_CORPUS set it writes the files first.

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tiers/disk/catalog_records.h"
#include "tiers/disk/extent_layout.h"

namespace kvtier::tiers {
namespace {

using Corpus = std::map<std::string, std::string>;  // file name -> bytes

ChunkName Name(uint8_t n) {
  ChunkName name;
  for (uint8_t& byte : name.bytes) byte = n++;
  return name;
}

DiskGeometry Geometry() {
  DiskGeometry geometry;
  geometry.space = "tenant";
  geometry.model_digest = Name(1).bytes;
  for (uint32_t i = 0; i < 3; ++i) {
    geometry.layers.push_back(
        {.kv_heads = 2 + i, .page_bytes = 5000 + i, .abstract_bytes = 77});
  }
  return geometry;
}

std::string Header(const ExtentHeader& header, const DiskGeometry& geometry) {
  const ExtentLayout layout(geometry);
  std::string bytes(layout.header_bytes(), 0);
  ExtentHeader filled = header;
  for (uint32_t i = 0; i < layout.page_count(); ++i) filled.page_crcs.push_back(i * 77);
  EncodeExtentHeader(
      filled, layout,
      absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), bytes.size()));
  return bytes;
}

std::string Flipped(std::string bytes, size_t at) {
  bytes.at(at) ^= 0x10;
  return bytes;
}

Corpus ExtentHeaders() {
  ExtentHeader first;
  first.name = Name(7);
  first.geometry = 3;
  first.generation = 5;
  ExtentHeader next = first;
  next.parent = Name(6);
  next.approximate = true;
  const std::string valid = Header(next, Geometry());
  return {{"valid_first", Header(first, Geometry())},
          {"valid_next", valid},
          {"valid_no_pages", Header(first, DiskGeometry())},
          {"broken_empty", ""},
          {"broken_short", valid.substr(0, 100)},
          {"broken_cut", valid.substr(0, 2000)},
          {"broken_magic", Flipped(valid, 0)},
          {"broken_crc", Flipped(valid, 8)},
          {"broken_header_bytes", Flipped(valid, 15)},
          {"broken_page_count", Flipped(valid, 19)},
          {"broken_unknown_flag", Flipped(valid, 36)},
          {"broken_padding", Flipped(valid, 4095)}};
}

Corpus CatalogRecords() {
  ChunkRecord chunk;
  chunk.place = {SegmentNumber(3), 17};
  chunk.geometry = 2;
  chunk.generation = uint64_t{9} << 40;
  const std::string first = EncodeChunkRecord(chunk);
  chunk.parent = Name(5);
  chunk.approximate = true;
  const std::string next = EncodeChunkRecord(chunk);
  const std::string geometry = EncodeGeometry(Geometry());
  return {{"valid_superblock", EncodeSuperblock({.starts = 4})},
          {"valid_superblock_of_version_9", EncodeSuperblock({.version = 9}) + "more"},
          {"valid_geometry", geometry},
          {"valid_geometry_without_layers", EncodeGeometry(DiskGeometry())},
          {"valid_chunk_first", first},
          {"valid_chunk_next", next},
          {"valid_geometry_key", GeometryKey(70000)},
          {"valid_chunk_key", ChunkKey(Name(8))},
          {"valid_heat", EncodeHeat(Heat::New(77).Used(78, ChunkUse::kFound))},
          {"valid_heat_key", HeatKey(Name(8))},
          {"broken_empty", ""},
          {"broken_superblock_magic", Flipped(EncodeSuperblock({}), 3)},
          {"broken_superblock_longer", EncodeSuperblock({}) + "x"},
          {"broken_geometry_space", Flipped(geometry, 3)},
          {"broken_geometry_layers", Flipped(geometry, 42)},
          {"broken_geometry_cut", geometry.substr(0, geometry.size() - 1)},
          {"broken_heat_key_cut", HeatKey(Name(8)).substr(0, 32)},
          {"broken_chunk_unknown_flag", Flipped(next, 20)},
          {"broken_chunk_cut", next.substr(0, next.size() - 1)},
          {"broken_chunk_longer", first + "x"}};
}

bool IsExtentHeader(const std::string& bytes) {
  return DecodeExtentHeader(
             absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bytes.data()),
                                 bytes.size()))
      .ok();
}

bool IsCatalogRecord(const std::string& bytes) {
  return DecodeSuperblock(bytes) || DecodeGeometry(bytes) || DecodeChunkRecord(bytes) ||
         DecodeHeat(bytes) || DecodeGeometryKey(bytes) || DecodeChunkKey(bytes) ||
         DecodeHeatKey(bytes);
}

void ExpectCommitted(const std::string& target, const Corpus& corpus) {
  const std::filesystem::path directory =
      std::filesystem::path(KVTIER_CORPUS_DIRECTORY) / target;
  for (const auto& [name, bytes] : corpus) {
    if (std::getenv("KVTIER_WRITE_CORPUS") != nullptr) {
      std::filesystem::create_directories(directory);
      std::ofstream(directory / name, std::ios::binary) << bytes;
    }
    std::ifstream file(directory / name, std::ios::binary);
    ASSERT_TRUE(file.is_open()) << directory / name;
    const std::string committed{std::istreambuf_iterator<char>(file), {}};
    EXPECT_TRUE(committed == bytes)
        << name << " isn't what is encoded today: run this with KVTIER_WRITE_CORPUS=1";
  }
}

TEST(CorpusTest, ExtentHeadersAreWhatIsEncodedToday) {
  for (const auto& [name, bytes] : ExtentHeaders())
    EXPECT_EQ(IsExtentHeader(bytes), name.starts_with("valid")) << name;
  ExpectCommitted("extent_header", ExtentHeaders());
}

TEST(CorpusTest, CatalogRecordsAreWhatIsEncodedToday) {
  for (const auto& [name, bytes] : CatalogRecords())
    EXPECT_EQ(IsCatalogRecord(bytes), name.starts_with("valid")) << name;
  ExpectCommitted("catalog_records", CatalogRecords());
}

}  // namespace
}  // namespace kvtier::tiers
