// Goal: what can't be served is refused by name, and the digest names all that matters.
// Method: one field changed at a time.

#include "retrieval/model_spec.h"

#include <functional>
#include <limits>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kvtier::retrieval {
namespace {

ModelSpec Good() {
  LayerSpec layer;
  layer.query_heads = 9;
  layer.kv_heads = 3;
  layer.key_dim = layer.value_dim = 64;
  ModelSpec model;
  model.layers = {layer, layer};
  return model;
}

struct Change {
  const char* named;  // in the refusal
  std::function<void(ModelSpec&)> apply;
};

TEST(ModelSpec, AGoodOneIsTaken) { EXPECT_TRUE(Good().Validate().ok()); }

TEST(ModelSpec, RefusalsNameTheField) {
  const Change changes[] = {
      {"label", [](ModelSpec& m) { m.label.assign(257, 'x'); }},
      {"salt", [](ModelSpec& m) { m.salt.assign(4097, 'x'); }},
      {"layers", [](ModelSpec& m) { m.layers.clear(); }},
      {"layers", [](ModelSpec& m) { m.layers.resize(1025, m.layers[0]); }},
      {"dtype", [](ModelSpec& m) { m.dtype = static_cast<DType>(4); }},
      {"RoPE", [](ModelSpec& m) { m.key_position = KeyPosition::kBeforeRope; }},
      {"layer 1: query_heads", [](ModelSpec& m) { m.layers[1].query_heads = 1025; }},
      {"kv_heads", [](ModelSpec& m) { m.layers[1].kv_heads = 0; }},
      {"multiple", [](ModelSpec& m) { m.layers[1].kv_heads = 2; }},
      {"key_dim", [](ModelSpec& m) { m.layers[0].key_dim = 1025; }},
      {"value_dim", [](ModelSpec& m) { m.layers[0].value_dim = 0; }},
      {"value_offset_in_key", [](ModelSpec& m) { m.layers[0].value_offset_in_key = 0; }},
      {"window", [](ModelSpec& m) { m.layers[0].window_tokens = 4096; }},
      {"softmax_scale", [](ModelSpec& m) { m.layers[0].softmax_scale = -1.0f; }},
      {"softcap", [](ModelSpec& m) {
         m.layers[0].softcap = std::numeric_limits<float>::quiet_NaN();
       }}};
  for (const Change& change : changes) {
    ModelSpec model = Good();
    change.apply(model);
    const absl::Status status = model.Validate();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << change.named;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(change.named));
  }
}

TEST(ModelSpec, DigestDependsOnEverythingButTheLabel) {
  const std::function<void(ModelSpec&)> changes[] = {
      [](ModelSpec&) {},
      [](ModelSpec& m) { m.salt = "other weights"; },
      [](ModelSpec& m) { m.dtype = DType::kF16; },
      [](ModelSpec& m) { m.abstracts.bounds = false; },
      [](ModelSpec& m) { m.abstracts.sketch = false; },
      [](ModelSpec& m) { m.layers.pop_back(); },
      [](ModelSpec& m) { m.layers[1].query_heads = 3; },
      [](ModelSpec& m) { m.layers[1].kv_heads = 9; },
      [](ModelSpec& m) { m.layers[1].key_dim = 128; },
      [](ModelSpec& m) { m.layers[1].value_dim = 128; },
      [](ModelSpec& m) { m.layers[1].softmax_scale = 1.0f; },
      [](ModelSpec& m) { m.layers[1].softcap = 30.0f; },
      [](ModelSpec& m) { m.layers[1].sink_logits = true; }};
  std::set<ModelDigest> digests;
  for (const auto& change : changes) {
    ModelSpec model = Good();
    change(model);
    EXPECT_TRUE(digests.insert(model.Digest()).second);
  }
  ModelSpec labelled = Good();
  labelled.label = "another name";
  labelled.layers[0].softmax_scale = 0.125f;  // the default, spelled out
  EXPECT_EQ(labelled.Digest(), Good().Digest());
}

}  // namespace
}  // namespace kvtier::retrieval
