#include "retrieval/system.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace kvtier::retrieval {
namespace {

absl::Status Check(const LayerView& view, const Query& query) {
  const LayerSpec& spec = *view.spec;
  const size_t want = size_t{query.query_count} * spec.query_heads * spec.key_dim;
  if (query.query_count == 0) {
    return absl::InvalidArgumentError("query_count is 0; send at least one query");
  }
  if (query.values.size() != want) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the query has ", query.values.size(), " values; ", query.query_count,
        " queries of ", spec.query_heads, " heads of ", spec.key_dim, " are ", want));
  }
  for (size_t i = 0; i < want; ++i) {
    if (!std::isfinite(query.values[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("the query's value ", i, " is not finite"));
    }
  }
  const uint64_t begin = query.candidates_begin.value();
  const uint64_t end = query.candidates_end.value();
  const uint64_t tokens = uint64_t{kChunkTokens} * view.chunk_count;
  if (begin > end || end > tokens) {
    return absl::InvalidArgumentError(absl::StrCat("candidates [", begin, ", ", end,
                                                   ") are not within the ", tokens,
                                                   " tokens of full chunks"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Selected> System::Select(const LayerView& view, const Query& query,
                                        LayerState* state,
                                        const Parallel& parallel) const {
  if (absl::Status status = Check(view, query); !status.ok()) return status;
  return DoSelect(view, query, state, parallel);
}

}  // namespace kvtier::retrieval
