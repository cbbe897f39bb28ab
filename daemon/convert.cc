#include "daemon/convert.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/to_grpc_status.h"

namespace kvtier::daemon {
namespace {

absl::Span<const std::byte> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

template <typename T>
void CopyNumbers(const std::vector<T>& numbers, std::string* out) {
  out->assign(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(T));
}

retrieval::LayerSpec FromMessage(const v1::LayerSpec& message) {
  retrieval::LayerSpec layer;
  layer.query_heads = message.query_heads();
  layer.kv_heads = message.kv_heads();
  layer.key_dim = message.key_dim();
  layer.value_dim = message.value_dim();
  if (message.has_value_offset_in_key()) {
    layer.value_offset_in_key = message.value_offset_in_key();
  }
  layer.softmax_scale = message.softmax_scale();
  layer.softcap = message.softcap();
  layer.sink_logits = message.sink_logits();
  layer.window_tokens = message.window();
  return layer;
}

absl::StatusOr<DType> FromMessage(v1::DType dtype) {
  switch (dtype) {
    case v1::DTYPE_F32:
      return DType::kF32;
    case v1::DTYPE_F16:
      return DType::kF16;
    case v1::DTYPE_BF16:
      return DType::kBF16;
    case v1::DTYPE_F8E4M3:
      return NotServed("dtype f8e4m3");
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("dtype ", static_cast<int>(dtype),
                       " is not known: set DTYPE_F32, DTYPE_F16 or DTYPE_BF16"));
  }
}

absl::StatusOr<retrieval::AbstractSet> AbstractsFrom(const v1::ModelSpec& message) {
  retrieval::AbstractSet set;
  if (message.abstracts().empty()) return set;
  set = {.sketch = false, .bounds = false};
  for (const int abstract : message.abstracts()) {
    if (abstract == v1::ABSTRACT_SKETCH) {
      set.sketch = true;
    } else if (abstract == v1::ABSTRACT_BOUNDS) {
      set.bounds = true;
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("abstract ", abstract,
                       " is not known: use ABSTRACT_SKETCH, ABSTRACT_BOUNDS or none"));
    }
  }
  return set;
}

StridedRows RowsFrom(const std::string& buffer, const v1::RowLayout& layout) {
  StridedRows rows;
  rows.buffer = Bytes(buffer);
  rows.offset_bytes = layout.offset_bytes();
  rows.head_stride_bytes = layout.head_stride_bytes();
  rows.token_stride_bytes = layout.token_stride_bytes();
  rows.block_tokens = layout.block_tokens();
  rows.block_offset_bytes = {layout.block_offset_bytes().data(),
                             static_cast<size_t>(layout.block_offset_bytes().size())};
  return rows;
}

absl::StatusOr<AppendEntry> FromMessage(const v1::AppendEntry& message) {
  if (message.source_case() == v1::AppendEntry::kStaged) return NotServed("StagedRows");
  if (message.source_case() != v1::AppendEntry::kInline) {
    return absl::InvalidArgumentError("an append entry has no rows: set `inline`");
  }
  const v1::InlineRows& rows = message.inline_();
  AppendEntry entry;
  entry.sequence = SequenceId(message.sequence_id());
  entry.layer = LayerIndex(message.layer());
  entry.start = TokenIndex(message.start_token());
  entry.token_count = message.token_count();
  entry.exactness = message.approximate() ? Exactness::kApproximate : Exactness::kExact;
  entry.default_key_layout = !rows.has_key_layout();
  entry.default_value_layout = !rows.has_value_layout();
  entry.key = RowsFrom(rows.key(), rows.key_layout());
  const bool values_in_key = rows.value().empty() && rows.has_value_layout();
  entry.value = RowsFrom(values_in_key ? rows.key() : rows.value(), rows.value_layout());
  return entry;
}

absl::StatusOr<std::vector<AppendEntry>> EntriesFrom(
    const google::protobuf::RepeatedPtrField<v1::AppendEntry>& messages) {
  std::vector<AppendEntry> entries;
  for (const v1::AppendEntry& message : messages) {
    absl::StatusOr<AppendEntry> entry = FromMessage(message);
    if (!entry.ok()) return entry.status();
    entries.push_back(*entry);
  }
  return entries;
}

}  // namespace

absl::StatusOr<retrieval::ModelSpec> FromMessage(const v1::ModelSpec& message) {
  absl::StatusOr<DType> dtype = FromMessage(message.dtype());
  if (!dtype.ok()) return dtype.status();
  absl::StatusOr<retrieval::AbstractSet> abstracts = AbstractsFrom(message);
  if (!abstracts.ok()) return abstracts.status();
  if (!message.key_scale().empty() || !message.value_scale().empty()) {
    return absl::InvalidArgumentError(
        "key_scale and value_scale belong to f8e4m3: leave them empty");
  }
  if (message.key_position() == v1::KEY_POSITION_BEFORE_ROPE) {
    return NotServed("KEY_POSITION_BEFORE_ROPE");
  }
  if (message.key_position() > v1::KEY_POSITION_BEFORE_ROPE) {
    return absl::InvalidArgumentError(
        "key_position is not known: use KEY_POSITION_AFTER_ROPE");
  }
  retrieval::ModelSpec model;
  model.label = message.label();
  model.dtype = *dtype;
  model.abstracts = *abstracts;
  model.salt = message.salt();
  for (const v1::LayerSpec& layer : message.layers()) {
    model.layers.push_back(FromMessage(layer));
  }
  return model;
}

absl::StatusOr<OpenSequenceOptions> FromMessage(const v1::OpenSequenceRequest& message) {
  OpenSequenceOptions options;
  if (message.model_digest().size() != options.model.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("model_digest has ", message.model_digest().size(), " bytes, not ",
                     options.model.size(), ": pass what RegisterModel returned"));
  }
  if (!message.retrieval().composition().empty()) {
    return NotServed("RetrievalSpec.composition");
  }
  std::copy(message.model_digest().begin(), message.model_digest().end(),
            options.model.begin());
  options.token_ids = {message.token_ids().data(),
                       static_cast<size_t>(message.token_ids().size())};
  if (message.has_cached_tokens_max()) {
    options.cached_tokens_max = message.cached_tokens_max();
  }
  options.extra_key = message.extra_key();
  options.anonymous = message.anonymous();
  const v1::RetrievalSpec& spec = message.retrieval();
  if (!spec.system().empty()) options.retrieval.system = spec.system();
  options.retrieval.budget_tokens = spec.budget_tokens();
  if (spec.has_dense_layers()) options.retrieval.dense_layers = spec.dense_layers();
  options.computed_under = message.computed_under();
  return options;
}

absl::StatusOr<AppendArguments> FromMessage(const v1::AppendRequest& message) {
  AppendArguments result;
  for (const v1::TokenRun& run : message.tokens()) {
    result.tokens.push_back({.sequence = SequenceId(run.sequence_id()),
                             .start = TokenIndex(run.start_token()),
                             .token_ids = {run.token_ids().data(),
                                           static_cast<size_t>(run.token_ids().size())}});
  }
  absl::StatusOr<std::vector<AppendEntry>> entries = EntriesFrom(message.entries());
  if (!entries.ok()) return entries.status();
  result.entries = *std::move(entries);
  return result;
}

absl::StatusOr<std::vector<AppendEntry>> FromMessage(const v1::RefillRequest& message) {
  return EntriesFrom(message.entries());
}

absl::StatusOr<RetrieveItem> FromMessage(const v1::RetrieveItem& message,
                                         StepIndex step) {
  RetrieveItem item;
  switch (message.form()) {
    case v1::SELECTION_FORM_ROWS:
      item.form = SelectionForm::kRows;
      break;
    case v1::SELECTION_FORM_TOKENS:
      item.form = SelectionForm::kTokens;
      break;
    case v1::SELECTION_FORM_LOCATIONS:
      return NotServed("SELECTION_FORM_LOCATIONS");
    default:
      return absl::InvalidArgumentError(
          "the selection form is not known: use SELECTION_FORM_ROWS");
  }
  item.sequence = SequenceId(message.sequence_id());
  item.layer = LayerIndex(message.layer());
  item.step = step;
  item.query = Bytes(message.query());
  item.query_count = message.query_count() == 0 ? 1 : message.query_count();
  item.candidates_begin = TokenIndex(message.candidates_begin());
  item.candidates_end = TokenIndex(message.candidates_end());
  item.held_step = StepIndex(message.held_step());
  return item;
}

ReadRange FromMessage(const v1::ReadRequest& message) {
  return {.sequence = SequenceId(message.sequence_id()),
          .layer_begin = LayerIndex(message.layer_begin()),
          .layer_count = message.layer_count(),
          .token_begin = TokenIndex(message.token_begin()),
          .token_count = message.token_count()};
}

void ToMessage(RetrievePart part, v1::RetrieveResult* message) {
  message->set_last_part(part.last);
  message->set_unchanged(part.unchanged);
  CopyNumbers(part.kept_counts, message->mutable_kept_counts());
  CopyNumbers(part.added_counts, message->mutable_added_counts());
  CopyNumbers(part.kept, message->mutable_kept());
  CopyNumbers(part.added, message->mutable_added());
  message->set_rows(std::move(part.rows));
  if (!part.last) return;
  CopyNumbers(part.rest_output, message->mutable_rest_output());
  CopyNumbers(part.rest_lse, message->mutable_rest_lse());
  v1::RetrieveCost* cost = message->mutable_cost();
  cost->set_tokens_selected(part.cost.tokens_selected);
  cost->set_abstract_bytes(part.cost.abstract_bytes);
  cost->set_host_bytes(part.cost.host_bytes);
  cost->set_disk_bytes(part.cost.disk_bytes);
}

void ToMessage(const absl::Status& error, v1::ItemError* message) {
  message->set_code(static_cast<int>(error.code()));
  message->set_message(std::string(error.message()));
}

void ToMessage(ReadPart part, v1::ReadResponse* message) {
  message->set_layer(part.layer.value());
  message->set_token_begin(part.token_begin.value());
  message->set_token_count(part.token_count);
  message->set_rows(std::move(part.rows));
}

}  // namespace kvtier::daemon
