// What a worker asks of a session and what it gets back, as plain values: the gRPC
// handlers translate between these and the messages of proto/kvtier/v1/worker.proto,
// whose comments are the specification.

#ifndef KVTIER_DAEMON_REQUESTS_H_
#define KVTIER_DAEMON_REQUESTS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "kernels/base/types.h"
#include "retrieval/model_spec.h"
#include "retrieval/system.h"

namespace kvtier::daemon {

struct OpenSequenceOptions {
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

// Rows somewhere in a buffer; see RowLayout in worker.proto.
struct StridedRows {
  absl::Span<const std::byte> buffer;
  uint64_t offset_bytes = 0;
  uint64_t head_stride_bytes = 0;
  uint64_t token_stride_bytes = 0;
  uint32_t block_tokens = 0;  // 0: no block table
  absl::Span<const uint64_t> block_offset_bytes;
};

enum class Exactness : uint8_t { kExact, kApproximate };

struct AppendEntry {
  SequenceId sequence;
  LayerIndex layer;
  TokenIndex start;
  uint32_t token_count = 0;
  // Unset: [kv_head][token][key_dim] and [kv_head][token][value_dim] of the buffer,
  // which must then have exactly that size.
  bool default_key_layout = true;
  bool default_value_layout = true;
  StridedRows key;
  StridedRows value;
  Exactness exactness = Exactness::kExact;
};

struct TokenRun {
  SequenceId sequence;
  TokenIndex start;
  absl::Span<const uint32_t> token_ids;
};

struct SequenceProgress {
  SequenceId sequence;
  uint64_t sealed_tokens = 0;
  uint64_t complete_tokens = 0;
};

enum class Durability : uint8_t { kNone, kDurable };

struct SealedTokens {
  uint64_t sealed_tokens = 0;
  uint64_t tail_tokens = 0;
};

enum class SelectionForm : uint8_t { kRows, kTokens };

struct RetrieveItem {
  SequenceId sequence;
  LayerIndex layer;
  StepIndex step;
  absl::Span<const std::byte> query;  // f32, unaligned
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

// One part of a result. All vectors are moved into the message as they are.
struct RetrievePart {
  bool last = false;
  bool unchanged = false;
  std::vector<uint32_t> kept_counts;   // [kv_heads]
  std::vector<uint32_t> added_counts;  // [kv_heads]
  std::vector<uint32_t> kept;
  std::vector<uint32_t> added;
  std::string rows;  // added rows, heads in order
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

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_REQUESTS_H_
