#include "retrieval/pipeline.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/host/softmax.h"

namespace kvtier::retrieval {
namespace {

// A logit takes some nanoseconds, waking a thread some ten thousand.
constexpr size_t kLogitsWorthSharing = size_t{1} << 15;

// One thread's working memory: grows to the longest context seen.
struct Scratch {
  std::vector<float> logits;         // [group][units]; then weights (softmax.h)
  std::vector<float> shift;          // [group], of the weights
  std::vector<float> probabilities;  // [units]
};

class Pipeline final : public System {
 public:
  Pipeline(Declaration declaration, SystemOptions options)
      : System(std::move(options)), stages_(std::move(declaration)) {}

  bool exact() const override { return stages_.reach == Reach::kEverything; }

  bool reads_rows() const override {
    return stages_.reach == Reach::kChosen && stages_.score->reads_rows();
  }

  absl::Status CheckModel(const ModelSpec& model) const override {
    if (stages_.reach != Reach::kChosen) return absl::OkStatus();
    const AbstractSet score = stages_.score->needs();
    const AbstractSet rest = stages_.rest->needs();
    const char* missing = nullptr;
    if ((score.sketch || rest.sketch) && !model.abstracts.sketch) missing = "sketch";
    if ((score.bounds || rest.bounds) && !model.abstracts.bounds) missing = "bounds";
    if (missing == nullptr) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("system '", stages_.name, "' needs the ", missing,
                     " abstract, which this model was registered without; register it ",
                     "with that abstract or choose another system"));
  }

  std::unique_ptr<LayerState> NewState() const override {
    return stages_.trigger->NewState();
  }

 private:
  Selected DoSelect(const LayerView& view, const Query& query, LayerState* state,
                    const Parallel& parallel) const override;
  // Scores one query of the window, softcap applied. Its weights over the candidates go
  // to scratch->logits and shift; `share` of its attention is added to the probabilities.
  void Weigh(const HeadView& head, const Query& query, uint32_t query_index, float share,
             Scratch* scratch) const;
  std::vector<uint32_t> Choose(const HeadView& head, const Query& query,
                               Scratch* scratch) const;
  void EstimateRest(const HeadView& head, const Query& query,
                    absl::Span<const uint32_t> chosen, Scratch* scratch,
                    Selected* selected) const;
  uint32_t DenseLayers() const {
    return options().dense_layers.value_or(stages_.default_dense_layers);
  }
  size_t UnitCount(const HeadView& head) const {
    return size_t{head.pages()} * kChunkTokens / stages_.units->tokens();
  }

  const Declaration stages_;
};

void Pipeline::Weigh(const HeadView& head, const Query& query, uint32_t query_index,
                     float share, Scratch* scratch) const {
  const LayerSpec& spec = *head.layer->spec;
  const size_t unit_count = UnitCount(head);
  const size_t first_head =
      size_t{query_index} * spec.query_heads + size_t{head.kv_head} * head.group_size();
  scratch->logits.resize(head.group_size() * unit_count);
  scratch->shift.resize(head.group_size());
  stages_.score->Score(head, query.values.data() + first_head * spec.key_dim,
                       scratch->logits.data(), unit_count);
  kernels::Softcap(spec.softcap, scratch->logits.data(), scratch->logits.size());
  // Units that hold a candidate.
  const uint32_t unit_tokens = stages_.units->tokens();
  const size_t first = (head.begin - head.first_token()) / unit_tokens;
  const size_t last = (head.end - head.first_token() + unit_tokens - 1) / unit_tokens;
  for (uint32_t h = 0; h < head.group_size(); ++h) {
    scratch->shift[h] =
        kernels::AddSoftmax(scratch->logits.data() + h * unit_count + first, last - first,
                            share / static_cast<float>(head.group_size()),
                            scratch->probabilities.data() + first);
  }
}

std::vector<uint32_t> Pipeline::Choose(const HeadView& head, const Query& query,
                                       Scratch* scratch) const {
  scratch->probabilities.assign(UnitCount(head), 0.0f);
  const uint32_t first_query = stages_.query->FirstAsking(query);
  const float share = 1.0f / static_cast<float>(query.query_count - first_query);
  for (uint32_t i = first_query; i < query.query_count; ++i) {
    Weigh(head, query, i, share, scratch);
  }
  return stages_.budget->Choose(head, stages_.units->tokens(), scratch->probabilities,
                                options().budget_tokens);
}

void Pipeline::EstimateRest(const HeadView& head, const Query& query,
                            absl::Span<const uint32_t> chosen, Scratch* scratch,
                            Selected* selected) const {
  const LayerSpec& spec = *head.layer->spec;
  for (uint32_t i = 0; i < query.query_count; ++i) {
    // A single query's weights are still there from choosing.
    if (query.query_count > 1) Weigh(head, query, i, 0.0f, scratch);
    const size_t first_head =
        size_t{i} * spec.query_heads + size_t{head.kv_head} * head.group_size();
    stages_.rest->Estimate(head, chosen, scratch->logits.data(), UnitCount(head),
                           scratch->shift.data(),
                           selected->rest_output.data() + first_head * spec.value_dim,
                           selected->rest_lse.data() + first_head);
  }
}

Selected Pipeline::DoSelect(const LayerView& view, const Query& query, LayerState* state,
                            const Parallel& parallel) const {
  const LayerSpec& spec = *view.spec;
  const uint32_t begin = static_cast<uint32_t>(query.candidates_begin.value());
  const uint32_t end = static_cast<uint32_t>(query.candidates_end.value());
  Selected selected;
  if (!stages_.trigger->Fires(view, query, state)) {
    selected.unchanged = true;
    return selected;
  }
  if (begin == end) {
    selected.tokens.resize(spec.kv_heads);
    return selected;
  }
  const bool dense = view.layer.value() < DenseLayers();
  const bool fits =
      stages_.reach == Reach::kChosen && options().budget_tokens >= end - begin;
  if (stages_.reach == Reach::kEverything || dense || fits) {
    selected.everything = true;
    return selected;
  }
  selected.tokens.resize(spec.kv_heads);
  if (stages_.reach == Reach::kNothing) return selected;

  if (stages_.rest->estimates()) {
    const size_t query_heads = size_t{query.query_count} * spec.query_heads;
    selected.rest_output.resize(query_heads * spec.value_dim);
    selected.rest_lse.resize(query_heads);
  }
  const auto head_view = [&](uint32_t h) {
    return HeadView{.layer = &view, .kv_head = h, .begin = begin, .end = end};
  };
  const auto choose = [&](size_t h) {
    thread_local Scratch scratch;
    const HeadView head = head_view(static_cast<uint32_t>(h));
    selected.tokens[h] = Choose(head, query, &scratch);
    if (stages_.rest->estimates()) {
      EstimateRest(head, query, selected.tokens[h], &scratch, &selected);
    }
  };
  const HeadView first = head_view(0);
  const size_t logits = size_t{query.query_count} * spec.query_heads * UnitCount(first);
  if (logits < kLogitsWorthSharing) {
    Serial().For(spec.kv_heads, choose);
  } else {
    parallel.For(spec.kv_heads, choose);
  }
  const uint64_t pages = uint64_t{spec.kv_heads} * first.pages();
  selected.abstract_bytes = pages * (stages_.score->AbstractBytesPerPage(view) +
                                     stages_.rest->AbstractBytesPerPage(view));
  selected.row_bytes = pages * stages_.score->RowBytesPerPage(view);
  return selected;
}

}  // namespace

absl::Status Declaration::Validate() const {
  if (trigger == nullptr || query == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("system '", name, "' lacks a trigger or a query stage"));
  }
  if (reach != Reach::kChosen) return absl::OkStatus();
  if (units == nullptr || score == nullptr || budget == nullptr || rest == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "system '", name, "' chooses, but lacks units, score, budget or rest"));
  }
  if (units->tokens() != score->unit_tokens()) {
    return absl::InvalidArgumentError(
        absl::StrCat("system '", name, "': its score is for units of ",
                     score->unit_tokens(), " tokens, its units have ", units->tokens()));
  }
  if (rest->estimates() && units->tokens() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("system '", name, "': the rest can only be estimated from scores ",
                     "per token, its units have ", units->tokens()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<const System>> MakePipeline(Declaration declaration,
                                                           const SystemOptions& options) {
  if (absl::Status status = declaration.Validate(); !status.ok()) return status;
  const bool chooses = declaration.reach == Reach::kChosen;
  if (chooses && options.budget_tokens == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("system '", declaration.name, "' needs a budget: set budget_tokens ",
                     "to the tokens each kv head may read, such as 256"));
  }
  if (!chooses && options.budget_tokens != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "system '", declaration.name, "' takes no budget: set budget_tokens ",
        "to 0, not ", options.budget_tokens));
  }
  return std::make_unique<const Pipeline>(std::move(declaration), options);
}

}  // namespace kvtier::retrieval
