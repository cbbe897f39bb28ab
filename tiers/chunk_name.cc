#include "tiers/chunk_name.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <bit>
#include <cassert>
#include <cstdlib>
#include <string>

#include "kernels/base/types.h"

namespace kvtier::tiers {
namespace {

static_assert(std::endian::native == std::endian::little,
              "names hash numbers as they lie in memory");

class Serializer {
 public:
  explicit Serializer(std::string_view domain) { Field(domain.data(), domain.size()); }

  void Field(const void* data, size_t size) {
    const uint64_t length = size;
    bytes_.append(reinterpret_cast<const char*>(&length), sizeof(length));
    bytes_.append(static_cast<const char*>(data), size);
  }

  ChunkName Hash() const {
    ChunkName name;
    // Fails only without memory or without SHA-256: nothing could be named then.
    if (EVP_Digest(bytes_.data(), bytes_.size(), name.bytes.data(), nullptr, EVP_sha256(),
                   nullptr) != 1) {
      std::abort();
    }
    return name;
  }

 private:
  std::string bytes_;
};

}  // namespace

ChunkName RootName(std::string_view space, absl::Span<const uint8_t> model_digest,
                   std::string_view extra_key) {
  Serializer serializer("kvtier.root.1");
  serializer.Field(space.data(), space.size());
  serializer.Field(model_digest.data(), model_digest.size());
  serializer.Field(extra_key.data(), extra_key.size());
  return serializer.Hash();
}

ChunkName ChildName(const ChunkName& parent, absl::Span<const uint32_t> token_ids,
                    std::string_view computed_under) {
  assert(token_ids.size() == kChunkTokens);
  Serializer serializer("kvtier.chunk.1");
  serializer.Field(parent.bytes.data(), parent.bytes.size());
  serializer.Field(token_ids.data(), token_ids.size() * sizeof(uint32_t));
  serializer.Field(computed_under.data(), computed_under.size());
  return serializer.Hash();
}

ChunkName RandomName() {
  ChunkName name;
  // A predictable name could be found by somebody else: no name is better.
  if (RAND_bytes(name.bytes.data(), static_cast<int>(name.bytes.size())) != 1) {
    std::abort();
  }
  return name;
}

}  // namespace kvtier::tiers
