#include "retrieval/model_spec.h"

#include <openssl/sha.h>

#include <bit>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace kvtier::retrieval {
namespace {

constexpr size_t kLabelBytesMax = 256;
constexpr size_t kSaltBytesMax = 4096;
constexpr size_t kLayersMax = 1024;
constexpr uint32_t kHeadsMax = 1024;
constexpr uint32_t kDimMax = 1024;

absl::Status OutOfRange(size_t layer, const char* field, uint32_t value, uint32_t max) {
  return absl::InvalidArgumentError(
      absl::StrCat("layer ", layer, ": ", field, " is ", value, ", must be 1 to ", max));
}

absl::Status ValidateLayer(size_t index, const LayerSpec& layer) {
  struct Limit {
    const char* field;
    uint32_t value;
    uint32_t max;
  };
  const Limit limits[] = {{"query_heads", layer.query_heads, kHeadsMax},
                          {"kv_heads", layer.kv_heads, kHeadsMax},
                          {"key_dim", layer.key_dim, kDimMax},
                          {"value_dim", layer.value_dim, kDimMax}};
  for (const Limit& limit : limits) {
    if (limit.value < 1 || limit.value > limit.max) {
      return OutOfRange(index, limit.field, limit.value, limit.max);
    }
  }
  if (layer.query_heads % layer.kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", index, ": query_heads ", layer.query_heads,
                     " is not a multiple of kv_heads ", layer.kv_heads));
  }
  if (layer.value_offset_in_key.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", index, ": value_offset_in_key (latent attention) is not ",
                     "served; append keys and values apart"));
  }
  if (layer.window_tokens != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", index, ": a sliding window is not served; its KV is ",
                     "bounded, keep it in the worker and leave the layer out"));
  }
  if (!std::isfinite(layer.softmax_scale) || layer.softmax_scale < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", index, ": softmax_scale must be finite and positive, or ",
                     "0 for 1 / sqrt(key_dim)"));
  }
  if (!std::isfinite(layer.softcap) || layer.softcap < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", index, ": softcap must be finite and positive, or 0 for none"));
  }
  return absl::OkStatus();
}

// Little-endian numbers and counted strings, one after another.
class Serialiser {
 public:
  void Number(uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8) {
      bytes_.push_back(static_cast<char>(value >> shift & 0xFFu));
    }
  }
  void Real(float value) { Number(std::bit_cast<uint32_t>(value)); }
  void String(const std::string& value) {
    Number(static_cast<uint32_t>(value.size()));
    bytes_ += value;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace

float LayerSpec::Scale() const {
  return softmax_scale != 0 ? softmax_scale
                            : 1.0f / std::sqrt(static_cast<float>(key_dim));
}

absl::Status ModelSpec::Validate() const {
  if (label.size() > kLabelBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "label has ", label.size(), " bytes, at most ", kLabelBytesMax, " are kept"));
  }
  if (salt.size() > kSaltBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("salt has ", salt.size(),
                                                   " bytes, at most ", kSaltBytesMax,
                                                   " are taken: send a digest"));
  }
  if (layers.empty() || layers.size() > kLayersMax) {
    return absl::InvalidArgumentError(absl::StrCat("the model has ", layers.size(),
                                                   " layers, must be 1 to ", kLayersMax));
  }
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
    return absl::InvalidArgumentError("dtype must be f32, f16 or bf16");
  }
  if (key_position != KeyPosition::kAfterRope) {
    return absl::InvalidArgumentError(
        "keys before RoPE are not served; append them after RoPE");
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    if (absl::Status status = ValidateLayer(i, layers[i]); !status.ok()) return status;
  }
  return absl::OkStatus();
}

ModelDigest ModelSpec::Digest() const {
  Serialiser out;
  out.String("kvtier model spec 1");
  out.Number(static_cast<uint32_t>(dtype));
  out.Number(static_cast<uint32_t>(key_position));
  out.Number((abstracts.sketch ? 1u : 0u) | (abstracts.bounds ? 2u : 0u));
  out.String(salt);
  out.Number(static_cast<uint32_t>(layers.size()));
  for (const LayerSpec& layer : layers) {
    out.Number(layer.query_heads);
    out.Number(layer.kv_heads);
    out.Number(layer.key_dim);
    out.Number(layer.value_dim);
    out.Number(layer.value_offset_in_key.has_value() ? 1 : 0);
    out.Number(layer.value_offset_in_key.value_or(0));
    // Resolved: a spelled-out default is the same model.
    out.Real(layer.Scale());
    out.Real(layer.softcap + 0.0f);
    out.Number(layer.sink_logits ? 1 : 0);
    out.Number(layer.window_tokens);
  }
  ModelDigest digest;
  SHA256(reinterpret_cast<const uint8_t*>(out.bytes().data()), out.bytes().size(),
         digest.data());
  return digest;
}

}  // namespace kvtier::retrieval
