// Goal: whatever bytes the catalog hands out as a key or value, decoding them is harmless
// and loses nothing: what decodes is encoded to the very bytes it came from, so a changed
// byte is refused or seen in the value, never ignored.
// Method: every decoder gets every input. Records have no CRC of their own (RocksDB's
// blocks have), so a changed byte may well decode. The one thing not read is a
// superblock's rest when its version is another format's.

#include <optional>
#include <string>
#include <string_view>

#include "tests/fuzz/fuzz_target.h"
#include "tiers/disk/catalog_records.h"

namespace kvtier::tiers {
namespace {

using fuzz::Require;

template <typename Decode, typename Encode>
void TryRecord(std::string_view bytes, const Decode& decode, const Encode& encode) {
  const auto value = decode(bytes);
  if (!value) return;
  std::string encoded = encode(*value);
  Require(encoded == bytes, "what decodes is encoded to the same bytes");
  const auto again = decode(encoded);
  Require(again && *again == *value, "a value comes back as it was");
  fuzz::ChangeOneByte(
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()),
      absl::MakeSpan(encoded.data(), encoded.size()));
  const auto other = decode(encoded);
  Require(!other || !(*other == *value), "a changed byte is refused or seen");
}

// Of this format, to the byte; of another one the version alone.
void TrySuperblock(std::string_view bytes) {
  const std::optional<Superblock> value = DecodeSuperblock(bytes);
  if (value && value->version != kFormatVersion) {
    const std::string encoded = EncodeSuperblock(*value);
    Require(DecodeSuperblock(encoded) == value, "another format's version comes back");
    return;
  }
  TryRecord(bytes, DecodeSuperblock, EncodeSuperblock);
}

}  // namespace
}  // namespace kvtier::tiers

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvtier::tiers;  // NOLINT: the function has to be outside
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  TrySuperblock(bytes);
  TryRecord(bytes, DecodeGeometry, EncodeGeometry);
  TryRecord(bytes, DecodeChunkRecord, EncodeChunkRecord);
  TryRecord(bytes, DecodeHeat, EncodeHeat);
  TryRecord(bytes, DecodeGeometryKey, GeometryKey);
  TryRecord(bytes, DecodeChunkKey, ChunkKey);
  TryRecord(bytes, DecodeHeatKey, HeatKey);
  return 0;
}
