#include "tests/daemon/test_model.h"

#include <cstring>

namespace kvtier::testing {
namespace {

float Element(Side side, uint32_t layer, uint32_t head, uint32_t token, uint32_t i) {
  uint32_t x = token * 2654435761u + i * 40503u + layer * 97u + head * 31u +
               (side == Side::kKey ? 1u : 7u);
  x ^= x >> 15;
  x *= 2246822519u;
  x ^= x >> 13;
  return static_cast<float>(x % 2000) / 1000.0f - 1.0f;
}

}  // namespace

retrieval::ModelSpec TestModel() {
  retrieval::ModelSpec model;
  model.label = "test-model";
  model.dtype = DType::kF32;
  model.salt = "test";
  retrieval::LayerSpec layer;
  layer.query_heads = kQueryHeads;
  layer.kv_heads = kKvHeads;
  layer.key_dim = kDim;
  layer.value_dim = kDim;
  model.layers.assign(kLayers, layer);
  return model;
}

std::vector<uint32_t> TestTokens(uint32_t count, uint32_t salt) {
  std::vector<uint32_t> tokens(count);
  for (uint32_t i = 0; i < count; ++i) tokens[i] = i + 100000 * salt;
  return tokens;
}

std::vector<float> TestRows(Side side, uint32_t layer, uint32_t begin, uint32_t count) {
  std::vector<float> rows;
  rows.reserve(size_t{kKvHeads} * count * kDim);
  for (uint32_t head = 0; head < kKvHeads; ++head) {
    for (uint32_t token = begin; token < begin + count; ++token) {
      for (uint32_t i = 0; i < kDim; ++i) {
        rows.push_back(Element(side, layer, head, token, i));
      }
    }
  }
  return rows;
}

std::string StoredRows(uint32_t layer, uint32_t begin, uint32_t count) {
  std::string rows;
  for (uint32_t head = 0; head < kKvHeads; ++head) {
    for (uint32_t token = begin; token < begin + count; ++token) {
      for (const Side side : {Side::kKey, Side::kValue}) {
        for (uint32_t i = 0; i < kDim; ++i) {
          const float element = Element(side, layer, head, token, i);
          rows.append(reinterpret_cast<const char*>(&element), sizeof(element));
        }
      }
    }
  }
  return rows;
}

std::vector<float> TestQuery(uint32_t seed) {
  std::vector<float> query(kQueryHeads * kDim);
  for (uint32_t i = 0; i < query.size(); ++i) {
    query[i] = Element(Side::kKey, 1000 + seed, 0, seed, i);
  }
  return query;
}

absl::Span<const std::byte> AsBytes(const std::vector<float>& values) {
  return {reinterpret_cast<const std::byte*>(values.data()),
          values.size() * sizeof(float)};
}

absl::Status AppendLayer(client::Client& client, SequenceId sequence, uint32_t layer,
                         uint32_t begin, uint32_t count) {
  const std::vector<float> keys = TestRows(Side::kKey, layer, begin, count);
  const std::vector<float> values = TestRows(Side::kValue, layer, begin, count);
  client::AppendRows rows;
  rows.sequence = sequence;
  rows.layer = LayerIndex(layer);
  rows.start = TokenIndex(begin);
  rows.token_count = count;
  rows.key.buffer = AsBytes(keys);
  rows.value.buffer = AsBytes(values);
  return client.Append({}, {rows}).status();
}

absl::Status AppendAll(client::Client& client, SequenceId sequence, uint32_t begin,
                       uint32_t count) {
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    absl::Status status = AppendLayer(client, sequence, layer, begin, count);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<client::OpenedSequence> OpenTestSequence(
    client::Client& client, const std::vector<uint32_t>& tokens,
    const std::string& system, uint32_t budget_tokens) {
  absl::StatusOr<retrieval::ModelDigest> model = client.RegisterModel(TestModel());
  if (!model.ok()) return model.status();
  client::SequenceOptions options;
  options.model = *model;
  options.token_ids = tokens;
  options.retrieval.system = system;
  options.retrieval.budget_tokens = budget_tokens;
  if (budget_tokens > 0) options.retrieval.dense_layers = 0;
  return client.OpenSequence(options);
}

absl::StatusOr<std::string> ReadLayer(client::Client& client, SequenceId sequence,
                                      uint32_t layer, uint32_t begin, uint32_t count) {
  std::string rows(size_t{kKvHeads} * count * kRowBytes, '\0');
  client::ReadRange range;
  range.sequence = sequence;
  range.layer_begin = LayerIndex(layer);
  range.layer_count = 1;
  range.token_begin = TokenIndex(begin);
  range.token_count = count;
  uint64_t next = begin;
  absl::Status status = client.Read(range, [&](client::ReadPart part) -> absl::Status {
    if (part.layer.value() != layer || part.token_begin.value() != next ||
        part.rows.size() != size_t{kKvHeads} * part.token_count * kRowBytes) {
      return absl::InternalError("a part is out of order or of the wrong size");
    }
    for (uint32_t head = 0; head < kKvHeads; ++head) {
      const size_t bytes = part.token_count * kRowBytes;
      std::memcpy(&rows[(head * count + (next - begin)) * kRowBytes],
                  &part.rows[head * bytes], bytes);
    }
    next += part.token_count;
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  if (next != begin + count) return absl::InternalError("Read ended early");
  return rows;
}

}  // namespace kvtier::testing
