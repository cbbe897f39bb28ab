// Question: a document is on disk only; how soon can a worker decode its next token?
// Method: a kvtierd of its own, 64K tokens at 32 layers of the benches' geometry (8 GiB)
//   on its disk, host memory emptied before each measurement, the C++ client:
//     ours     OpenSequence, which reads the abstracts, then one step, a Retrieve for
//     each
//              layer after the other: it reads the pages that its query chose. The first
//              two layers are dense, as the system's default is.
//     ceiling  OpenSequence and Read of every row, our full restore.
//   The row says what of the KV was read, by what for: abstracts with headers (opening),
//   dense layers, selected pages, and gaps between near pages.
// Expectation: abstracts are 8 % of the KV (the sketch alone) and read in large requests,
//   two layers of 32 are 6 %, pages as the query's tokens lie: 5 to 10 % at half the
//   speed. 25 % in all, a ratio of 3.
// Measured: README.md.

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/bench/bench.h"
#include "tests/bench/geometry.h"
#include "tests/bench/own_directory.h"
#include "tests/bench/rounds.h"
#include "tests/bench/rows.h"
#include "tests/bench/wire_stack.h"

namespace kvtier::bench {
namespace {

constexpr uint32_t kLayers = 32;
constexpr uint32_t kDenseLayers = 2;
constexpr uint64_t kTokens = 65536;
constexpr uint64_t kSinks = 4;
constexpr uint64_t kRecent = 64;
constexpr uint32_t kBudget = 256;

// Bytes read from disk until the first token, and seconds, by what for.
struct Parts {
  uint64_t opening_bytes = 0;
  uint64_t dense_bytes = 0;
  uint64_t selected_bytes = 0;
  uint64_t all_bytes = 0;
  double opening_seconds = 0.0;
  double dense_seconds = 0.0;
  double selected_seconds = 0.0;
};

class Document {
 public:
  static absl::StatusOr<std::unique_ptr<Document>> Make(const Settings& settings) {
    auto document = std::make_unique<Document>();
    document->tokens_ = settings.quick ? kTokens / 64 : kTokens;
    document->layers_ = settings.quick ? kLayers / 8 : kLayers;
    auto directory = OwnDirectory::Make(settings.disk_directory);
    if (!directory.ok()) return directory.status();
    document->directory_ = *std::move(directory);
    document->rows_ = SyntheticRows();
    if (!settings.keys_path.empty()) {
      absl::StatusOr<std::unique_ptr<ContextRows>> real = RealRows(settings.keys_path);
      if (!real.ok()) return real.status();
      document->rows_ = *std::move(real);
    }
    absl::Status status = document->Store();
    if (!status.ok()) return status;
    return document;
  }

  // Seconds from OpenSequence to the end of the first step.
  absl::StatusOr<double> Resume(Parts* parts) {
    if (absl::Status s = stack_->EvictAll(); !s.ok()) return s;
    const auto before = stack_->DiskReadBytes();
    if (!before.ok()) return before.status();
    *parts = Parts();
    const Stopwatch opening;
    auto opened = stack_->Reopen(tokens_, {.system = "kvtier", .budget_tokens = kBudget});
    if (!opened.ok()) return opened.status();
    parts->opening_seconds = opening.Seconds();
    const auto after_opening = stack_->DiskReadBytes();
    if (!after_opening.ok()) return after_opening.status();
    for (uint32_t layer = 0; layer < layers_; ++layer) {
      absl::Status asked = Ask(opened->sequence, layer, parts);
      if (!asked.ok()) return asked;
    }
    const auto after = stack_->DiskReadBytes();
    if (!after.ok()) return after.status();
    parts->opening_bytes = *after_opening - *before;
    parts->all_bytes = *after - *before;
    if (absl::Status s = stack_->client().Close(opened->sequence); !s.ok()) return s;
    return parts->opening_seconds + parts->dense_seconds + parts->selected_seconds;
  }

  // Seconds of a full restore.
  absl::StatusOr<double> Restore() {
    if (absl::Status s = stack_->EvictAll(); !s.ok()) return s;
    const Stopwatch stopwatch;
    auto opened = stack_->Reopen(tokens_, {.system = "full"});
    if (!opened.ok()) return opened.status();
    uint64_t bytes = 0;
    const client::ReadRange all{.sequence = opened->sequence,
                                .layer_begin = LayerIndex(0),
                                .token_begin = TokenIndex(0),
                                .token_count = tokens_};
    absl::Status status = stack_->client().Read(all, [&](client::ReadPart part) {
      bytes += part.rows.size();
      return absl::OkStatus();
    });
    if (!status.ok()) return status;
    const double seconds = stopwatch.Seconds();
    if (bytes != kv_bytes()) return absl::InternalError("not all rows came");
    if (absl::Status s = stack_->client().Close(opened->sequence); !s.ok()) return s;
    return seconds;
  }

  uint64_t kv_bytes() const { return tokens_ * layers_ * kTokenBytes; }
  uint64_t tokens() const { return tokens_; }
  uint32_t layers() const { return layers_; }
  std::string keys_label() const { return rows_->label(); }

 private:
  absl::Status Store() {
    // Room for a part: what is on disk need not be in memory.
    auto stack = WireStack::Start(
        {.host_capacity_bytes = kv_bytes() / 4 + (uint64_t{512} << 20),
         .layers = layers_,
         .abstracts = {.sketch = true, .bounds = false},
         .disk_directory = directory_->path(),
         .disk_capacity_bytes = kv_bytes() * 5 / 4 + (uint64_t{512} << 20)});
    if (!stack.ok()) return stack.status();
    stack_ = *std::move(stack);
    auto sequence = stack_->Open(tokens_, {.system = "full"});
    if (!sequence.ok()) return sequence.status();
    absl::Status status = stack_->Fill(*sequence, tokens_, layers_, *rows_);
    if (!status.ok()) return status;
    // Not as one: a deadline is for one call.
    if (auto sealed = stack_->client().Seal(*sequence, true); !sealed.ok()) {
      return sealed.status();
    }
    return stack_->client().Close(*sequence);
  }

  absl::Status Ask(SequenceId sequence, uint32_t layer, Parts* parts) {
    const std::vector<float> query = rows_->Query(layer, 1, tokens_ + 1);
    const client::RetrieveItem item{.sequence = sequence,
                                    .layer = LayerIndex(layer),
                                    .query = query,
                                    .candidates_begin = TokenIndex(kSinks),
                                    .candidates_end = TokenIndex(tokens_ - kRecent),
                                    .held_step = StepIndex(0)};
    const bool dense = layer < kDenseLayers;
    absl::Status error;
    const Stopwatch stopwatch;
    absl::Status status =
        stack_->client().Retrieve(StepIndex(1), {item}, [&](client::RetrievePart part) {
          error.Update(part.error);
          (dense ? parts->dense_bytes : parts->selected_bytes) += part.cost.disk_bytes;
          return absl::OkStatus();
        });
    (dense ? parts->dense_seconds : parts->selected_seconds) += stopwatch.Seconds();
    error.Update(status);
    return error;
  }

  uint64_t tokens_ = 0;
  uint32_t layers_ = 0;
  std::unique_ptr<const OwnDirectory> directory_;
  std::unique_ptr<ContextRows> rows_;
  std::unique_ptr<WireStack> stack_;
};

absl::Status ResumeBench(const Settings& settings, Row* row) {
  auto document = Document::Make(settings);
  if (!document.ok()) return document.status();
  Parts parts;
  row->unit = "s";
  row->ceiling_is = "our full restore of the same, OpenSequence and Read";
  absl::Status status = RunRounds(
      settings.rounds, Better::kLower, [&] { return (*document)->Resume(&parts); },
      [&] { return (*document)->Restore(); }, row);
  if (!status.ok()) return status;
  const auto share = [&](uint64_t part) {
    return absl::StrFormat(
        "%.3f", static_cast<double>(part) / static_cast<double>((*document)->kv_bytes()));
  };
  const auto seconds = [](double part) { return absl::StrFormat("%.2f", part); };
  row->details = {{"tokens", absl::StrCat((*document)->tokens())},
                  {"layers", absl::StrCat((*document)->layers())},
                  {"budget", absl::StrCat(kBudget)},
                  {"kv_bytes", absl::StrCat((*document)->kv_bytes())},
                  {"read_share", share(parts.all_bytes)},
                  {"abstracts", share(parts.opening_bytes)},
                  {"dense_layers", share(parts.dense_bytes)},
                  {"selected_pages", share(parts.selected_bytes)},
                  {"gaps", share(parts.all_bytes - parts.opening_bytes -
                                 parts.dense_bytes - parts.selected_bytes)},
                  {"abstracts_s", seconds(parts.opening_seconds)},
                  {"dense_layers_s", seconds(parts.dense_seconds)},
                  {"selected_pages_s", seconds(parts.selected_seconds)},
                  {"keys", (*document)->keys_label()}};
  return absl::OkStatus();
}

}  // namespace

std::vector<Bench> ResumeBenches() { return {{"disk.resume_64k", ResumeBench}}; }

}  // namespace kvtier::bench
