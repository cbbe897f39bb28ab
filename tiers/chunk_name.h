// The name of a chunk: what it was computed from, so that equal prefixes of tokens have
// equal names and are stored once.
//
//   root  = SHA-256("kvtier.root.1",  namespace, model digest, extra key)
//   child = SHA-256("kvtier.chunk.1", parent's name, 64 token ids, computed under)
// each field preceded by its length as u64, all numbers little-endian, so that no two
// different inputs are hashed from the same bytes. `computed under` is empty for a chunk
// computed by full attention; else it says which system chose what was read, and since
// children hash their parent's name, neither such a chunk nor anything after it is ever
// found as an exact one.
//
// Thread safety: values and pure functions.

#ifndef KVTIER_TIERS_CHUNK_NAME_H_
#define KVTIER_TIERS_CHUNK_NAME_H_

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "absl/types/span.h"

namespace kvtier::tiers {

struct ChunkName {
  std::array<uint8_t, 32> bytes{};

  bool operator==(const ChunkName&) const = default;

  // The bytes are a hash already.
  template <typename H>
  friend H AbslHashValue(H h, const ChunkName& name) {
    uint64_t word;
    std::memcpy(&word, name.bytes.data(), sizeof(word));
    return H::combine(std::move(h), word);
  }
};

// What stands before a sequence's first chunk. Not a chunk itself.
ChunkName RootName(std::string_view space, absl::Span<const uint8_t> model_digest,
                   std::string_view extra_key);

//   token_ids: kChunkTokens of them
ChunkName ChildName(const ChunkName& parent, absl::Span<const uint32_t> token_ids,
                    std::string_view computed_under);

// A name that nobody can guess or compute: of a chunk that is never shared.
ChunkName RandomName();

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_CHUNK_NAME_H_
