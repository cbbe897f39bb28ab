// A system: a named combination of the six stages
//   trigger -> query -> units -> score -> budget -> rest
// that answers, for one layer of one sequence: which tokens does each kv head read?
//
// A System is immutable and shared by all sequences that asked for it; what belongs to
// a sequence is in its LayerStates, one a layer, which only that sequence's owner calls
// with. The daemon and the local client run the same code over a view of their own.
//
// Invariants: a selection holds each token at most once, ascending, inside
// [candidates_begin, candidates_end); its size is min(budget, candidates) per kv head,
// or all of them where the layer is dense; the same call with the same state gives the
// same answer.
//
// Thread safety: System is const. Select writes only to `state` and the result.

#ifndef KVTIER_RETRIEVAL_SYSTEM_H_
#define KVTIER_RETRIEVAL_SYSTEM_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/base/types.h"
#include "retrieval/model_spec.h"
#include "retrieval/parallel.h"
#include "retrieval/view.h"

namespace kvtier::retrieval {

struct SystemOptions {
  std::string system = "kvtier";
  // Per layer and kv head, sinks and recent window not counted. 0 for full and window.
  uint32_t budget_tokens = 0;
  // First layers that read everything; unset: the system's own default.
  std::optional<uint32_t> dense_layers = std::nullopt;
};

struct Query {
  absl::Span<const float> values;  // [query_count][query_heads][key_dim], after RoPE
  uint32_t query_count = 1;
  TokenIndex candidates_begin;
  TokenIndex candidates_end;  // <= 64 * view.chunk_count
};

struct Selected {
  // The trigger fired not: the last selection stands and `tokens` is empty.
  bool unchanged = false;
  // Every candidate is selected, for every kv head; `tokens` is empty.
  bool everything = false;
  // Per kv head, ascending.
  std::vector<std::vector<uint32_t>> tokens;
  // [query_count][query_heads][value_dim] and [query_count][query_heads]; empty when
  // the rest is dropped, everything is selected or there are no candidates. lse is
  // natural; -inf (and output 0) where nothing is left.
  std::vector<float> rest_output;
  std::vector<float> rest_lse;
  // Read in order to choose, all kv heads together.
  uint64_t abstract_bytes = 0;
  uint64_t row_bytes = 0;
};

// What one layer of one sequence remembers between steps (statistics, the query of the
// last retrieval, ...). Fork copies it.
class LayerState {
 public:
  virtual ~LayerState() = default;
  virtual std::unique_ptr<LayerState> Clone() const = 0;
};

class System {
 public:
  // InvalidArgument: an unknown name (the message lists the known ones), or a budget
  // that makes no sense for the system.
  static absl::StatusOr<std::unique_ptr<const System>> Create(
      const SystemOptions& options);
  static std::vector<std::string> Names();

  virtual ~System() = default;

  const SystemOptions& options() const { return options_; }

  // Whether what is computed with this system's selections is the exact result.
  virtual bool exact() const = 0;

  // Whether choosing reads rows, not only abstracts.
  virtual bool reads_rows() const { return false; }

  // FailedPrecondition when the model lacks an abstract that the system needs.
  virtual absl::Status CheckModel(const ModelSpec& model) const = 0;

  // A fresh state; null if the system keeps none.
  virtual std::unique_ptr<LayerState> NewState() const { return nullptr; }

  // Validates, then selects.
  //   state:    from NewState() or Clone(), of this sequence and layer
  //   parallel: shares the work; what is selected does not depend on it
  // InvalidArgument: the query's size, NaN or infinity in it, an empty or overlong
  // candidate range (begin == end is fine and selects nothing).
  absl::StatusOr<Selected> Select(const LayerView& view, const Query& query,
                                  LayerState* state,
                                  const Parallel& parallel = Serial()) const;

 protected:
  explicit System(SystemOptions options) : options_(std::move(options)) {}

  virtual Selected DoSelect(const LayerView& view, const Query& query, LayerState* state,
                            const Parallel& parallel) const = 0;

 private:
  const SystemOptions options_;
};

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_SYSTEM_H_
