// The plain values of the client library. What they mean is said, field by field, in
// proto/kvtier/v1/worker.proto and admin.proto; units are in the names.
//
// Spans refer to the caller's memory, which must stay as it is during the call.

#ifndef KVTIER_CLIENT_CPP_TYPES_H_
#define KVTIER_CLIENT_CPP_TYPES_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/base/types.h"
#include "retrieval/model_spec.h"
#include "retrieval/system.h"

namespace kvtier::client {

struct SequenceOptions {
  retrieval::ModelDigest model{};
  absl::Span<const uint32_t> token_ids;
  std::optional<uint64_t> cached_tokens_max;
  std::string extra_key;
  bool anonymous = false;
  retrieval::SystemOptions retrieval;
  std::string computed_under;
};

struct OpenedSequence {
  SequenceId sequence;
  uint64_t cached_tokens = 0;
  uint64_t exact_tokens = 0;
};

struct TokenRun {
  SequenceId sequence;
  TokenIndex start;
  absl::Span<const uint32_t> token_ids;
};

// Where a tensor's rows lie in the caller's buffer. Without strides they are dense,
// [kv_head][token][dim]. Row (head, token) starts at
//   offset + head * head_stride + token * token_stride,
// with a block table at
//   block_offset[token / block_tokens] + head * head_stride
//     + (token % block_tokens) * token_stride.
struct RowSource {
  absl::Span<const std::byte> buffer;
  uint64_t offset_bytes = 0;
  uint64_t head_stride_bytes = 0;
  uint64_t token_stride_bytes = 0;
  uint32_t block_tokens = 0;
  absl::Span<const uint64_t> block_offset_bytes;

  bool dense() const { return token_stride_bytes == 0 && block_tokens == 0; }
};

// Rows of one layer of one sequence.
struct AppendRows {
  SequenceId sequence;
  LayerIndex layer;
  TokenIndex start;
  uint32_t token_count = 0;
  RowSource key;
  RowSource value;
  bool approximate = false;
};

struct SequenceProgress {
  SequenceId sequence;
  uint64_t sealed_tokens = 0;
  uint64_t complete_tokens = 0;
};

struct SealedTokens {
  uint64_t sealed_tokens = 0;
  uint64_t tail_tokens = 0;
};

enum class SelectionForm : uint8_t { kRows, kTokens };

struct RetrieveItem {
  SequenceId sequence;
  LayerIndex layer;
  absl::Span<const float> query;  // [query_count][query_heads][key_dim], after RoPE
  uint32_t query_count = 1;
  TokenIndex candidates_begin;
  TokenIndex candidates_end;
  StepIndex held_step;
  SelectionForm form = SelectionForm::kRows;
};

struct RetrieveCost {
  uint64_t tokens_selected = 0;
  uint64_t abstract_bytes = 0;
  uint64_t host_bytes = 0;
  uint64_t disk_bytes = 0;
};

struct RetrievePart {
  SequenceId sequence;
  LayerIndex layer;
  // Not OK: the item failed, and nothing else is set but `last`.
  absl::Status error;
  bool first = false;  // of its item's parts
  bool last = false;
  bool unchanged = false;
  std::vector<uint32_t> kept_counts;   // [kv_heads]
  std::vector<uint32_t> added_counts;  // [kv_heads]
  std::vector<uint32_t> kept;
  std::vector<uint32_t> added;
  std::string rows;  // added rows, heads in order, [K, V] each
  std::vector<float> rest_output;
  std::vector<float> rest_lse;
  RetrieveCost cost;
};

struct ReadRange {
  SequenceId sequence;
  LayerIndex layer_begin;
  uint32_t layer_count = 0;  // 0: all from layer_begin
  TokenIndex token_begin;
  uint64_t token_count = 0;
};

struct ReadPart {
  LayerIndex layer;
  TokenIndex token_begin;
  uint32_t token_count = 0;
  std::string rows;  // [kv_head][token][K, V]
};

// Whether the daemon answered the call that ended with `status`, if only with an error.
// False: nobody is at the socket, the connection was lost, or it answered too late.
bool WasReached(const absl::Status& status);

// What the daemon accepts.
struct Limits {
  uint64_t message_bytes_max = 0;
  uint64_t unsealed_bytes_max = 0;
  uint32_t sequences_max = 0;
  uint32_t chunk_tokens = 0;
};

}  // namespace kvtier::client

#endif  // KVTIER_CLIENT_CPP_TYPES_H_
