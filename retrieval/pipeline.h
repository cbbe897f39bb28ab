// A system as a declaration: its name, defaults and one choice for each stage. The
// pipeline runs the stages; a system has no code of its own.
//
// Adding a system: one file that fills a Declaration, one line in systems.cc.
//
// Thread safety: immutable once built.

#ifndef KVTIER_RETRIEVAL_PIPELINE_H_
#define KVTIER_RETRIEVAL_PIPELINE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "retrieval/budget.h"
#include "retrieval/query_stage.h"
#include "retrieval/rest.h"
#include "retrieval/score.h"
#include "retrieval/system.h"
#include "retrieval/trigger.h"
#include "retrieval/units.h"

namespace kvtier::retrieval {

// Whether a system chooses among the candidates at all.
enum class Reach : uint8_t {
  kChosen,      // a budget's worth of tokens
  kEverything,  // no stages are run
  kNothing,
};

struct Declaration {
  std::string name;
  Reach reach = Reach::kChosen;
  // First layers that read everything unless the caller says otherwise.
  uint32_t default_dense_layers = 0;
  std::unique_ptr<const Trigger> trigger = nullptr;
  std::unique_ptr<const QueryStage> query = nullptr;
  // Null unless reach is kChosen.
  std::unique_ptr<const Units> units = nullptr;
  std::unique_ptr<const ScoreStage> score = nullptr;
  std::unique_ptr<const BudgetStage> budget = nullptr;
  std::unique_ptr<const RestStage> rest = nullptr;

  // InvalidArgument: a combination of stages that makes no sense, with the reason.
  absl::Status Validate() const;
};

// InvalidArgument: Declaration::Validate, or a budget that makes no sense.
absl::StatusOr<std::unique_ptr<const System>> MakePipeline(Declaration declaration,
                                                           const SystemOptions& options);

// The systems there are, each a file of its own.
Declaration FullSystem();
Declaration WindowSystem();
Declaration QuestSystem();
Declaration OracleSystem();
Declaration KvtierSystem();

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_PIPELINE_H_
