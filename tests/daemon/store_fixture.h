// A store in this process, small models and rows that can be told apart: every element
// is a function of (salt, layer, side, head, token), so a row in the wrong place shows.

#ifndef KVTIER_TESTS_DAEMON_STORE_FIXTURE_H_
#define KVTIER_TESTS_DAEMON_STORE_FIXTURE_H_

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "daemon/store.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kvtier::testing {

using namespace kvtier::daemon;  // NOLINT: of tests only

inline retrieval::ModelSpec SmallModel(uint32_t layers = 2, uint32_t kv_heads = 2,
                                       uint32_t dim = 32, std::string salt = "") {
  retrieval::LayerSpec layer;
  layer.query_heads = 2 * kv_heads;
  layer.kv_heads = kv_heads;
  layer.key_dim = dim;
  layer.value_dim = dim;
  retrieval::ModelSpec model;
  model.label = "small";
  model.layers.assign(layers, layer);
  model.salt = std::move(salt);
  return model;
}

inline std::vector<uint32_t> Ids(uint32_t count, uint32_t salt = 0) {
  std::vector<uint32_t> ids(count);
  for (uint32_t i = 0; i < count; ++i) ids[i] = salt * 100000 + i;
  return ids;
}

inline float Element(uint32_t salt, uint32_t layer, uint32_t side, uint32_t head,
                     uint64_t token, uint32_t i) {
  uint64_t h = salt;
  for (uint64_t v :
       {uint64_t{layer}, uint64_t{side}, uint64_t{head}, token, uint64_t{i}}) {
    h = (h ^ v) * 0x9e3779b97f4a7c15;
    h ^= h >> 29;
  }
  return static_cast<float>(static_cast<int64_t>(h % 2001) - 1000) / 500.0f;
}

// Keys (side 0) or values (side 1): [kv_head][token][dim].
inline std::vector<float> SideRows(const retrieval::ModelSpec& model, uint32_t salt,
                                   uint32_t layer, uint32_t side, uint64_t begin,
                                   uint32_t count) {
  const retrieval::LayerSpec& spec = model.layers[layer];
  std::vector<float> rows;
  for (uint32_t head = 0; head < spec.kv_heads; ++head) {
    for (uint64_t token = begin; token < begin + count; ++token) {
      for (uint32_t i = 0; i < spec.key_dim; ++i) {
        rows.push_back(Element(salt, layer, side, head, token, i));
      }
    }
  }
  return rows;
}

// One row as it is stored: K, then V.
inline std::string StoredRow(const retrieval::ModelSpec& model, uint32_t salt,
                             uint32_t layer, uint32_t head, uint64_t token) {
  std::vector<float> row;
  for (uint32_t side : {0, 1}) {
    for (uint32_t i = 0; i < model.layers[layer].key_dim; ++i) {
      row.push_back(Element(salt, layer, side, head, token, i));
    }
  }
  return std::string(reinterpret_cast<const char*>(row.data()), row.size() * 4);
}

// What Read answers: [kv_head][token][K, V].
inline std::string StoredRows(const retrieval::ModelSpec& model, uint32_t salt,
                              uint32_t layer, uint64_t begin, uint64_t count) {
  std::string rows;
  for (uint32_t head = 0; head < model.layers[layer].kv_heads; ++head) {
    for (uint64_t token = begin; token < begin + count; ++token) {
      rows += StoredRow(model, salt, layer, head, token);
    }
  }
  return rows;
}

inline absl::Span<const std::byte> Bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const std::byte*>(values.data()), values.size() * 4};
}

struct OwnedEntry {
  std::vector<float> key;
  std::vector<float> value;
  AppendEntry entry;
};

// Keeps the rows alive; the entry refers to them.
inline std::unique_ptr<OwnedEntry> MakeEntry(const retrieval::ModelSpec& model,
                                             uint32_t salt, SequenceId sequence,
                                             uint32_t layer, uint64_t begin,
                                             uint32_t count) {
  auto owned = std::make_unique<OwnedEntry>();
  owned->key = SideRows(model, salt, layer, 0, begin, count);
  owned->value = SideRows(model, salt, layer, 1, begin, count);
  owned->entry.sequence = sequence;
  owned->entry.layer = LayerIndex(layer);
  owned->entry.start = TokenIndex(begin);
  owned->entry.token_count = count;
  owned->entry.key.buffer = Bytes(owned->key);
  owned->entry.value.buffer = Bytes(owned->value);
  return owned;
}

// Rows of tokens [begin, begin + count) at all layers, in one call.
inline absl::StatusOr<SequenceProgress> AppendAll(
    Session& session, const retrieval::ModelSpec& model, uint32_t salt,
    SequenceId sequence, uint64_t begin, uint32_t count,
    Exactness exactness = Exactness::kExact) {
  std::vector<std::unique_ptr<OwnedEntry>> owned;
  std::vector<AppendEntry> entries;
  for (uint32_t l = 0; l < model.layers.size(); ++l) {
    owned.push_back(MakeEntry(model, salt, sequence, l, begin, count));
    owned.back()->entry.exactness = exactness;
    entries.push_back(owned.back()->entry);
  }
  auto progress = session.Append({}, entries);
  if (!progress.ok()) return progress.status();
  return progress->front();
}

inline absl::StatusOr<std::string> ReadLayer(Session& session, SequenceId sequence,
                                             uint32_t layer, uint64_t begin,
                                             uint64_t count) {
  std::string rows;
  ReadRange range;
  range.sequence = sequence;
  range.layer_begin = LayerIndex(layer);
  range.layer_count = 1;
  range.token_begin = TokenIndex(begin);
  range.token_count = count;
  absl::Status status = session.Read(range, uint64_t{1} << 30, [&](ReadPart part) {
    rows += part.rows;
    return true;
  });
  if (!status.ok()) return status;
  return rows;
}

inline std::vector<float> QueryOf(const retrieval::ModelSpec& model, uint32_t seed) {
  const retrieval::LayerSpec& spec = model.layers[0];
  std::vector<float> query;
  for (uint32_t i = 0; i < spec.query_heads * spec.key_dim; ++i) {
    query.push_back(Element(seed, 7, 7, 7, 7, i));
  }
  return query;
}

// Points to `query`.
inline RetrieveItem ItemFor(SequenceId sequence, uint32_t layer, uint64_t step,
                            const std::vector<float>& query, uint64_t end) {
  RetrieveItem item;
  item.sequence = sequence;
  item.layer = LayerIndex(layer);
  item.step = StepIndex(step);
  item.query = Bytes(query);
  item.candidates_end = TokenIndex(end);
  return item;
}

// All parts of a result.
inline absl::StatusOr<std::vector<RetrievePart>> Collect(
    Session& session, const RetrieveItem& item, uint64_t part_bytes_max = 1 << 20) {
  std::vector<RetrievePart> parts;
  absl::Status status = session.Retrieve(item, part_bytes_max, [&](RetrievePart part) {
    parts.push_back(std::move(part));
    return true;
  });
  if (!status.ok()) return status;
  return parts;
}

using HeadTokens = std::vector<std::vector<uint32_t>>;

// The worker's side: applies parts to what it held.
inline HeadTokens ApplyParts(const std::vector<RetrievePart>& parts,
                             const HeadTokens& held) {
  if (parts.front().unchanged) return held;
  const size_t heads = parts.front().added_counts.size();
  HeadTokens now(heads);
  for (const RetrievePart& part : parts) {
    size_t kept = 0;
    size_t added = 0;
    for (size_t h = 0; h < heads; ++h) {
      for (uint32_t i = 0; i < part.kept_counts[h]; ++i) {
        now[h].push_back(held.at(h).at(part.kept[kept++]));
      }
    }
    for (size_t h = 0; h < heads; ++h) {
      for (uint32_t i = 0; i < part.added_counts[h]; ++i) {
        now[h].push_back(part.added[added++]);
      }
    }
  }
  return now;
}

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override { Start(StoreOptions{}); }

  void Start(const StoreOptions& options) {
    session_.reset();
    store_.reset();
    auto store = Store::Create(options);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    space_ = *store_->AddNamespace("test");
    model_ = SmallModel();
    digest_ = *space_->RegisterModel(model_);
    session_ = *space_->OpenSession("worker", 1);
  }

  static StoreOptions Small(uint64_t capacity_bytes, uint64_t region_bytes = 64 << 10) {
    StoreOptions options;
    options.host_capacity_bytes = capacity_bytes;
    options.host_region_bytes = region_bytes;
    return options;
  }

  absl::StatusOr<OpenedSequence> Open(const std::vector<uint32_t>& ids,
                                      const std::string& system = "full",
                                      uint32_t budget = 0) {
    OpenSequenceOptions options;
    options.model = digest_;
    options.token_ids = ids;
    options.retrieval.system = system;
    options.retrieval.budget_tokens = budget;
    options.retrieval.dense_layers = 0;
    return session_->OpenSequence(options);
  }

  // A sequence of `count` tokens, complete at all layers.
  SequenceId Filled(uint32_t count, uint32_t salt = 0, const std::string& system = "full",
                    uint32_t budget = 0) {
    auto opened = Open(Ids(count, salt), system, budget);
    EXPECT_TRUE(opened.ok()) << opened.status();
    const auto from = static_cast<uint32_t>(opened->cached_tokens);
    if (from < count) {
      auto progress =
          AppendAll(*session_, model_, salt, opened->sequence, from, count - from);
      EXPECT_TRUE(progress.ok()) << progress.status();
    }
    return opened->sequence;
  }

  TierStats Host() const { return store_->Tiers().front(); }
  uint64_t used() const { return Host().used_bytes; }

  void ExpectRows(SequenceId sequence, uint32_t salt, uint64_t begin, uint64_t count) {
    for (uint32_t l = 0; l < model_.layers.size(); ++l) {
      auto rows = ReadLayer(*session_, sequence, l, begin, count);
      ASSERT_TRUE(rows.ok()) << rows.status();
      EXPECT_TRUE(*rows == StoredRows(model_, salt, l, begin, count)) << "layer " << l;
    }
  }

  std::unique_ptr<Store> store_;
  Namespace* space_ = nullptr;
  retrieval::ModelSpec model_;
  retrieval::ModelDigest digest_{};
  std::shared_ptr<Session> session_;
};

inline ::testing::Matcher<const absl::Status&> Fails(absl::StatusCode code,
                                                     const std::string& text) {
  return ::testing::AllOf(
      ::testing::ResultOf([](const absl::Status& s) { return s.code(); }, code),
      ::testing::ResultOf([](const absl::Status& s) { return std::string(s.message()); },
                          ::testing::HasSubstr(text)));
}

}  // namespace kvtier::testing

#endif  // KVTIER_TESTS_DAEMON_STORE_FIXTURE_H_
