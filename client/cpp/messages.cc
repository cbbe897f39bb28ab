#include "client/cpp/messages.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kvtier::client {
namespace {

template <typename T>
std::vector<T> Numbers(const std::string& bytes) {
  std::vector<T> numbers(bytes.size() / sizeof(T));
  if (!numbers.empty()) {
    std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(T));
  }
  return numbers;
}

v1::DType ToMessage(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return v1::DTYPE_F32;
    case DType::kF16:
      return v1::DTYPE_F16;
    case DType::kBF16:
      return v1::DTYPE_BF16;
  }
  return v1::DTYPE_UNSPECIFIED;
}

void ToMessage(const retrieval::LayerSpec& layer, v1::LayerSpec* message) {
  message->set_query_heads(layer.query_heads);
  message->set_kv_heads(layer.kv_heads);
  message->set_key_dim(layer.key_dim);
  message->set_value_dim(layer.value_dim);
  if (layer.value_offset_in_key.has_value()) {
    message->set_value_offset_in_key(*layer.value_offset_in_key);
  }
  message->set_softmax_scale(layer.softmax_scale);
  message->set_softcap(layer.softcap);
  message->set_sink_logits(layer.sink_logits);
  message->set_window(layer.window_tokens);
}

}  // namespace

void ToMessage(const retrieval::ModelSpec& model, v1::ModelSpec* message) {
  message->set_label(model.label);
  for (const retrieval::LayerSpec& layer : model.layers) {
    ToMessage(layer, message->add_layers());
  }
  message->set_dtype(ToMessage(model.dtype));
  message->set_key_position(model.key_position == retrieval::KeyPosition::kAfterRope
                                ? v1::KEY_POSITION_AFTER_ROPE
                                : v1::KEY_POSITION_BEFORE_ROPE);
  if (model.abstracts.sketch) message->add_abstracts(v1::ABSTRACT_SKETCH);
  if (model.abstracts.bounds) message->add_abstracts(v1::ABSTRACT_BOUNDS);
  message->set_salt(model.salt);
}

void ToMessage(const SequenceOptions& options, v1::OpenSequenceRequest* message) {
  message->set_model_digest(options.model.data(), options.model.size());
  message->mutable_token_ids()->Add(options.token_ids.begin(), options.token_ids.end());
  if (options.cached_tokens_max.has_value()) {
    message->set_cached_tokens_max(*options.cached_tokens_max);
  }
  message->set_extra_key(options.extra_key);
  message->set_anonymous(options.anonymous);
  v1::RetrievalSpec* retrieval = message->mutable_retrieval();
  retrieval->set_system(options.retrieval.system);
  retrieval->set_budget_tokens(options.retrieval.budget_tokens);
  if (options.retrieval.dense_layers.has_value()) {
    retrieval->set_dense_layers(*options.retrieval.dense_layers);
  }
  message->set_computed_under(options.computed_under);
}

void ToMessage(const RetrieveItem& item, v1::RetrieveItem* message) {
  message->set_sequence_id(item.sequence.value());
  message->set_layer(item.layer.value());
  message->set_query(item.query.data(), item.query.size() * sizeof(float));
  message->set_query_count(item.query_count);
  message->set_candidates_begin(item.candidates_begin.value());
  message->set_candidates_end(item.candidates_end.value());
  message->set_held_step(item.held_step.value());
  message->set_form(item.form == SelectionForm::kRows ? v1::SELECTION_FORM_ROWS
                                                      : v1::SELECTION_FORM_TOKENS);
}

void ToMessage(const ReadRange& range, v1::ReadRequest* message) {
  message->set_sequence_id(range.sequence.value());
  message->set_layer_begin(range.layer_begin.value());
  message->set_layer_count(range.layer_count);
  message->set_token_begin(range.token_begin.value());
  message->set_token_count(range.token_count);
}

absl::StatusOr<retrieval::ModelDigest> DigestFrom(const std::string& bytes) {
  retrieval::ModelDigest digest;
  if (bytes.size() != digest.size()) {
    return absl::InternalError("the daemon sent a model digest of the wrong length");
  }
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

Limits FromMessage(const v1::Limits& message) {
  return {.message_bytes_max = message.message_bytes_max(),
          .unsealed_bytes_max = message.unsealed_bytes_max(),
          .sequences_max = message.sequences_max(),
          .chunk_tokens = message.chunk_tokens()};
}

RetrievePart FromMessage(v1::RetrieveResult* message) {
  RetrievePart part;
  part.sequence = SequenceId(message->sequence_id());
  part.layer = LayerIndex(message->layer());
  part.last = message->last_part();
  if (message->has_error()) {
    part.error = absl::Status(static_cast<absl::StatusCode>(message->error().code()),
                              message->error().message());
    part.last = true;
    return part;
  }
  part.unchanged = message->unchanged();
  part.kept_counts = Numbers<uint32_t>(message->kept_counts());
  part.added_counts = Numbers<uint32_t>(message->added_counts());
  part.kept = Numbers<uint32_t>(message->kept());
  part.added = Numbers<uint32_t>(message->added());
  part.rows = std::move(*message->mutable_rows());
  part.rest_output = Numbers<float>(message->rest_output());
  part.rest_lse = Numbers<float>(message->rest_lse());
  part.cost = {.tokens_selected = message->cost().tokens_selected(),
               .abstract_bytes = message->cost().abstract_bytes(),
               .host_bytes = message->cost().host_bytes(),
               .disk_bytes = message->cost().disk_bytes()};
  return part;
}

ReadPart FromMessage(v1::ReadResponse* message) {
  ReadPart part;
  part.layer = LayerIndex(message->layer());
  part.token_begin = TokenIndex(message->token_begin());
  part.token_count = message->token_count();
  part.rows = std::move(*message->mutable_rows());
  return part;
}

void Merge(const v1::AppendResponse& message, std::vector<SequenceProgress>* progress) {
  for (const v1::SequenceProgress& one : message.progress()) {
    const SequenceId sequence(one.sequence_id());
    auto it = std::find_if(
        progress->begin(), progress->end(),
        [&](const SequenceProgress& other) { return other.sequence == sequence; });
    if (it == progress->end()) it = progress->insert(it, {.sequence = sequence});
    it->sealed_tokens = one.sealed_tokens();
    it->complete_tokens = one.complete_tokens();
  }
}

}  // namespace kvtier::client
