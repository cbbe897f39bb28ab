#include "tiers/disk/catalog_records.h"

#include <cstring>

namespace kvtier::tiers {
namespace {

constexpr std::string_view kMagic = "kvtier.disk";
// A model has fewer; bounds what a bad record makes us allocate.
constexpr uint32_t kLayersMax = 1 << 16;
constexpr uint8_t kApproximate = 1;
constexpr uint8_t kHasParent = 2;

template <typename T>
void Put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::string NameKey(char kind, const ChunkName& name) {
  std::string key(1, kind);
  key.append(reinterpret_cast<const char*>(name.bytes.data()), name.bytes.size());
  return key;
}

std::optional<ChunkName> DecodeNameKey(char kind, std::string_view key) {
  ChunkName name;
  if (key.size() != 1 + name.bytes.size() || key[0] != kind) return std::nullopt;
  std::memcpy(name.bytes.data(), key.data() + 1, name.bytes.size());
  return name;
}

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  T Get() {
    T value{};
    if (const char* from = Take(sizeof(T))) std::memcpy(&value, from, sizeof(T));
    return value;
  }
  std::string_view GetBytes(size_t size) {
    const char* from = Take(size);
    return from == nullptr ? std::string_view() : std::string_view(from, size);
  }
  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && bytes_.empty(); }

 private:
  const char* Take(size_t size) {
    if (bytes_.size() < size) ok_ = false;
    if (!ok_) return nullptr;
    const char* from = bytes_.data();
    bytes_.remove_prefix(size);
    return from;
  }

  std::string_view bytes_;
  bool ok_ = true;
};

}  // namespace

std::string GeometryKey(uint32_t id) {
  std::string key(1, kGeometryKey);
  for (int shift = 24; shift >= 0; shift -= 8)
    key.push_back(static_cast<char>(id >> shift));
  return key;
}

std::string ChunkKey(const ChunkName& name) { return NameKey(kChunkKey, name); }

std::string HeatKey(const ChunkName& name) { return NameKey(kHeatKey, name); }

std::optional<uint32_t> DecodeGeometryKey(std::string_view key) {
  if (key.size() != 5 || key[0] != kGeometryKey) return std::nullopt;
  uint32_t id = 0;
  for (int i = 1; i < 5; ++i) id = id << 8 | static_cast<uint8_t>(key[i]);
  return id;
}

std::optional<ChunkName> DecodeChunkKey(std::string_view key) {
  return DecodeNameKey(kChunkKey, key);
}

std::optional<ChunkName> DecodeHeatKey(std::string_view key) {
  return DecodeNameKey(kHeatKey, key);
}

std::string EncodeSuperblock(const Superblock& superblock) {
  std::string value(kMagic);
  Put(value, superblock.version);
  Put(value, superblock.starts);
  return value;
}

std::optional<Superblock> DecodeSuperblock(std::string_view value) {
  Reader reader(value);
  if (reader.GetBytes(kMagic.size()) != kMagic) return std::nullopt;
  Superblock superblock;
  superblock.version = reader.Get<uint32_t>();
  if (!reader.ok()) return std::nullopt;
  if (superblock.version != kFormatVersion) return superblock;
  superblock.starts = reader.Get<uint32_t>();
  if (!reader.at_end()) return std::nullopt;
  return superblock;
}

std::string EncodeGeometry(const DiskGeometry& geometry) {
  std::string value;
  Put(value, static_cast<uint32_t>(geometry.space.size()));
  value += geometry.space;
  value.append(reinterpret_cast<const char*>(geometry.model_digest.data()),
               geometry.model_digest.size());
  Put(value, static_cast<uint32_t>(geometry.layers.size()));
  for (const DiskGeometry::Layer& layer : geometry.layers) {
    Put(value, layer.kv_heads);
    Put(value, layer.page_bytes);
    Put(value, layer.abstract_bytes);
  }
  return value;
}

std::optional<DiskGeometry> DecodeGeometry(std::string_view value) {
  Reader reader(value);
  DiskGeometry geometry;
  geometry.space = std::string(reader.GetBytes(reader.Get<uint32_t>()));
  const std::string_view digest = reader.GetBytes(geometry.model_digest.size());
  const auto layers = reader.Get<uint32_t>();
  if (!reader.ok() || layers > kLayersMax) return std::nullopt;
  std::memcpy(geometry.model_digest.data(), digest.data(), digest.size());
  for (uint32_t i = 0; i < layers && reader.ok(); ++i) {
    DiskGeometry::Layer& layer = geometry.layers.emplace_back();
    layer.kv_heads = reader.Get<uint32_t>();
    layer.page_bytes = reader.Get<uint32_t>();
    layer.abstract_bytes = reader.Get<uint32_t>();
  }
  if (!reader.at_end()) return std::nullopt;
  return geometry;
}

std::string EncodeChunkRecord(const ChunkRecord& record) {
  std::string value;
  Put(value, record.place.segment.value());
  Put(value, record.place.index);
  Put(value, record.geometry);
  Put(value, record.generation);
  Put(value, static_cast<uint8_t>((record.approximate ? kApproximate : 0) |
                                  (record.parent ? kHasParent : 0)));
  if (record.parent) {
    value.append(reinterpret_cast<const char*>(record.parent->bytes.data()),
                 record.parent->bytes.size());
  }
  return value;
}

std::optional<ChunkRecord> DecodeChunkRecord(std::string_view value) {
  Reader reader(value);
  ChunkRecord record;
  record.place.segment = SegmentNumber(reader.Get<uint32_t>());
  record.place.index = reader.Get<uint32_t>();
  record.geometry = reader.Get<uint32_t>();
  record.generation = reader.Get<uint64_t>();
  const auto flags = reader.Get<uint8_t>();
  record.approximate = flags & kApproximate;
  if (flags & kHasParent) {
    ChunkName& parent = record.parent.emplace();
    const std::string_view bytes = reader.GetBytes(parent.bytes.size());
    if (!bytes.empty()) std::memcpy(parent.bytes.data(), bytes.data(), bytes.size());
  }
  if (!reader.at_end() || (flags & ~(kApproximate | kHasParent)) != 0)
    return std::nullopt;
  return record;
}

std::string EncodeHeat(Heat heat) {
  std::string value;
  Put(value, heat.bits());
  return value;
}

std::optional<Heat> DecodeHeat(std::string_view value) {
  Reader reader(value);
  const Heat heat = Heat::FromBits(reader.Get<uint64_t>());
  if (!reader.at_end()) return std::nullopt;
  return heat;
}

}  // namespace kvtier::tiers
