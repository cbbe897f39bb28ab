// A small model for tests, and rows that can be told apart: every element is a function
// of where it belongs, so a row in the wrong place is seen.

#ifndef KVTIER_TESTS_DAEMON_TEST_MODEL_H_
#define KVTIER_TESTS_DAEMON_TEST_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/cpp/client.h"

namespace kvtier::testing {

inline constexpr uint32_t kLayers = 2;
inline constexpr uint32_t kQueryHeads = 4;
inline constexpr uint32_t kKvHeads = 2;
inline constexpr uint32_t kDim = 64;  // of a key and of a value
inline constexpr size_t kRowBytes = 2 * kDim * sizeof(float);

retrieval::ModelSpec TestModel();

// Ids 0, 1, 2, ... shifted by `salt`: another salt shares no prefix.
std::vector<uint32_t> TestTokens(uint32_t count, uint32_t salt = 0);

// Keys or values of tokens [begin, begin + count) at one layer: [kv_head][token][kDim].
enum class Side { kKey, kValue };
std::vector<float> TestRows(Side side, uint32_t layer, uint32_t begin, uint32_t count);

// What Read answers for them: [kv_head][token][K, V].
std::string StoredRows(uint32_t layer, uint32_t begin, uint32_t count);

std::vector<float> TestQuery(uint32_t seed = 1);

absl::Span<const std::byte> AsBytes(const std::vector<float>& values);

// Appends rows of tokens [begin, begin + count) at one layer.
absl::Status AppendLayer(client::Client& client, SequenceId sequence, uint32_t layer,
                         uint32_t begin, uint32_t count);
// At all layers.
absl::Status AppendAll(client::Client& client, SequenceId sequence, uint32_t begin,
                       uint32_t count);

// Registers TestModel and opens a sequence on `tokens` with `system`.
absl::StatusOr<client::OpenedSequence> OpenTestSequence(
    client::Client& client, const std::vector<uint32_t>& tokens,
    const std::string& system = "full", uint32_t budget_tokens = 0);

// All layers of tokens [begin, begin + count) as one string, parts joined by position.
absl::StatusOr<std::string> ReadLayer(client::Client& client, SequenceId sequence,
                                      uint32_t layer, uint32_t begin, uint32_t count);

}  // namespace kvtier::testing

#endif  // KVTIER_TESTS_DAEMON_TEST_MODEL_H_
